# Needs Python 3.11 or newer with its venv module, and make. Everything else is installed into .venv.
# `make help` prints the targets: the text after ## is its line, and ##@ starts a group.

PYTHON ?= python3
UV_VERSION := 0.13.9
PIP_AUDIT_VERSION := 2.10.1

# uv uses this .venv and the Python that made it, whatever the environment says.
export UV_PROJECT_ENVIRONMENT := .venv
export UV_PYTHON_DOWNLOADS := never
# Use the system's certificates, if there are any, as pip does: a network that inspects TLS adds its own there.
ifneq ($(wildcard /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/cert.pem),)
export UV_SYSTEM_CERTS ?= true
export NODE_USE_SYSTEM_CA ?= 1
endif
unexport VIRTUAL_ENV UV_PYTHON PYTHONHOME PYTHONPATH

# The file holds the folder of the .venv: a .venv that was copied or moved is made again.
STAMP := .venv/.synced
TOOLS := src/node_modules/.synced
POSTGRES := tools/postgres/node_modules/.synced
BROWSER := tools/browser/node_modules/.synced

# The installed uv, or else one inside .venv.
UV = { command -v uv >/dev/null || test -x .venv/bin/uv || \
	.venv/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION); } && \
	PATH="$$PATH:$(CURDIR)/.venv/bin" uv

.PHONY: help setup dev test unit lint docs types screenshots tools coverage settlement soak mutants postgres-versions bench advisories
.DEFAULT_GOAL := help

help: ## Print this list
	@awk 'BEGIN { FS = ":[^#]*## " } \
		/^##@ / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

##@ Every day

setup: $(STAMP) ## Install everything into .venv

tools: $(TOOLS) $(BROWSER) ## Install Node.js and the tools that some tests need

dev: $(STAMP) ## Serve here, with its own Postgres; PORT=4242 LISTEN=1
	@.venv/bin/webhook dev $(if $(PORT),--port "$(PORT)") $(if $(LISTEN),--listen)

unit: $(STAMP) ## Run the tests without a database: 20 seconds
	.venv/bin/pytest -n auto tests/unit

test: lint ## Lint, and run all tests on all cores
	.venv/bin/pytest -n auto

# The lock file is checked without the network. It is the same with a mirror of the package index.
lint: $(STAMP) ## Check lock file, style, types and imports
	@unset UV_DEFAULT_INDEX UV_INDEX_URL; $(UV) lock --check --quiet || \
		{ echo "uv.lock does not match pyproject.toml: run uv lock" >&2; exit 1; }
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/lint-imports --no-logo

##@ Generated files

# The tests that check the generated pages write them if UPDATE_DOCS is set. One process: some write the same page.
docs: $(STAMP) ## Write the generated pages and tables of docs/
	UPDATE_DOCS=1 .venv/bin/pytest -q -n 0 tests/docs

types: $(TOOLS) ## Generate src/types/supabase.ts from the schema
	.venv/bin/python -m tools.supabase_cli

screenshots: $(BROWSER) ## Take the pictures of the console in docs/images
	.venv/bin/python -m tools.screenshots

##@ Longer checks

# Apart from make test: it takes a third more of the processor.
coverage: $(STAMP) ## Run all tests and report their coverage
	.venv/bin/pytest -n auto --cov --cov-report=term-missing:skip-covered

settlement: $(STAMP) ## Test the settlement with 20,000 examples
	SETTLEMENT_EXAMPLES=20000 .venv/bin/pytest tests/sql/test_settlement.py tests/unit/test_billing_stories.py

soak: $(STAMP) ## Send 200,000 deliveries; memory must not grow
	SOAK_DELIVERIES=200000 .venv/bin/pytest tests/processes/test_soak.py

mutants: $(STAMP) ## Remove each safeguard; a test must fail. RUNS=10
	.venv/bin/python -m tools.mutants

postgres-versions: $(POSTGRES) ## Test the SQL on Postgres 15 to 18; VERSIONS='15 16'
	@.venv/bin/python -m tools.postgres_versions $(VERSIONS)

bench: $(STAMP) ## Benchmark against others; options: BENCH=--help
	@PATH="$$PATH:$(CURDIR)/.venv/bin" uv run --frozen --group bench python -m bench $(BENCH)

# A version that cannot be looked up fails, too.
advisories: $(STAMP) ## Look up known vulnerabilities of the locked versions
	@$(UV) export --frozen --no-emit-project --quiet --output-file .venv/requirements.txt
	@$(UV) tool run pip-audit==$(PIP_AUDIT_VERSION) --strict --disable-pip --require-hashes -r .venv/requirements.txt

ifneq ($(shell cat $(STAMP) 2>/dev/null),$(CURDIR))
.PHONY: $(STAMP)
endif

$(STAMP): pyproject.toml uv.lock Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "$(PYTHON) is not Python 3.11 or newer: choose one with PYTHON=…" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
		{ echo "$(PYTHON) has no venv module: install it (on Debian and Ubuntu: apt install python3-venv)" >&2; exit 1; }
	@test "$$(cat $@ 2>/dev/null)" = '$(CURDIR)' && .venv/bin/python -c '' 2>/dev/null || \
		{ echo "Making .venv …"; $(PYTHON) -m venv --clear .venv; }
	@$(UV) sync --frozen --python .venv/bin/python
	@printf %s '$(CURDIR)' > $@

$(TOOLS): $(STAMP) uv.lock src/package-lock.json src/.npmrc
	@export UV_PROJECT_ENVIRONMENT=src/.venv; $(UV) sync --frozen --only-group node --python .venv/bin/python
	@# npm ci fails here: it requires that the lock file lists the binaries of every platform.
	@cd src && PATH="$(CURDIR)/src/.venv/bin:$$PATH" npm install --no-save
	@touch $@

$(POSTGRES): $(TOOLS) tools/postgres/package-lock.json
	@cd tools/postgres && PATH="$(CURDIR)/src/.venv/bin:$$PATH" npm install --no-save
	@touch $@

# make setup removes Playwright again.
ifeq ($(wildcard .venv/lib/python*/site-packages/playwright),)
.PHONY: $(BROWSER)
endif

$(BROWSER): $(TOOLS) tools/browser/package-lock.json
	@$(UV) sync --frozen --inexact --group browser --python .venv/bin/python
	@cd tools/browser && PATH="$(CURDIR)/src/.venv/bin:$$PATH" npm install --no-save
	@touch $@
