# Needs Python 3.11 or newer with its venv module, and make. Everything else goes into .venv.

PYTHON ?= python3
UV_VERSION := 0.13.9
PIP_AUDIT_VERSION := 2.10.1

# uv works on this .venv with the Python that made it, whatever else the environment says.
export UV_PROJECT_ENVIRONMENT := .venv
export UV_PYTHON_DOWNLOADS := never
# The machine's certificates, if it has any, as pip does: a network that inspects TLS adds its own there.
ifneq ($(wildcard /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/cert.pem),)
export UV_SYSTEM_CERTS ?= true
export NODE_USE_SYSTEM_CA ?= 1
endif
unexport VIRTUAL_ENV UV_PYTHON PYTHONHOME PYTHONPATH

# Holds the folder it was made in: a .venv that was copied or moved is made again.
STAMP := .venv/.synced
TOOLS := src/node_modules/.synced
POSTGRES := tools/postgres/node_modules/.synced

# The machine's uv, else one of our own.
UV = { command -v uv >/dev/null || test -x .venv/bin/uv || \
	.venv/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION); } && \
	PATH="$$PATH:$(CURDIR)/.venv/bin" uv

.PHONY: setup dev test lint advisories settlement mutants tools types bench soak postgres-versions
.DEFAULT_GOAL := setup

setup: $(STAMP)

dev: $(STAMP)
	@.venv/bin/webhook dev

test: lint
	.venv/bin/pytest --cov --cov-report=term-missing:skip-covered

# The property test of the settlement, for long.
settlement: $(STAMP)
	SETTLEMENT_EXAMPLES=20000 .venv/bin/pytest tests/sql/test_settlement.py

# 200,000 deliveries, a part of them malformed: does any process grow?
soak: $(STAMP)
	SOAK_DELIVERIES=200000 .venv/bin/pytest tests/processes/test_soak.py

# Takes each safeguard of settlement and spending out in turn, RUNS times (default 10), and sees the tests go red.
mutants: $(STAMP)
	.venv/bin/python -m tools.mutants

# Node, Supabase's CLI and the other pinned tools of src/. Once they are there, make test runs the tests that need them.
tools: $(TOOLS)

# src/types/supabase.ts, made again from the schema.
types: $(TOOLS)
	.venv/bin/python -m tools.supabase_cli

# The tests that are about SQL on Postgres 15 to 18, a line for each. Some of them: make postgres-versions VERSIONS='15 16'.
postgres-versions: $(POSTGRES)
	@.venv/bin/python -m tools.postgres_versions $(VERSIONS)

# How fast the worker is, beside others. Options: make bench BENCH='--only a,b --seconds 5', or BENCH=--help.
bench: $(STAMP)
	@PATH="$$PATH:$(CURDIR)/.venv/bin" uv run --frozen --group bench python -m bench $(BENCH)

# A lock file that is in step is checked without the network; a mirror of the package index makes it no other.
lint: $(STAMP)
	@unset UV_DEFAULT_INDEX UV_INDEX_URL; $(UV) lock --check --quiet || \
		{ echo "uv.lock is not in step with pyproject.toml: run uv lock" >&2; exit 1; }
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy

# Whether something is known against a version in the lock file; one that cannot be looked up fails, too.
advisories: $(STAMP)
	@$(UV) export --frozen --no-emit-project --quiet --output-file .venv/requirements.txt
	@$(UV) tool run pip-audit==$(PIP_AUDIT_VERSION) --strict --disable-pip --require-hashes -r .venv/requirements.txt

ifneq ($(shell cat $(STAMP) 2>/dev/null),$(CURDIR))
.PHONY: $(STAMP)
endif

$(STAMP): pyproject.toml uv.lock Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "Python 3.11 or newer is needed, and $(PYTHON) is not: say which with PYTHON=…" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
		{ echo "$(PYTHON) has no venv module: install it (on Debian and Ubuntu: apt install python3-venv)" >&2; exit 1; }
	@test "$$(cat $@ 2>/dev/null)" = '$(CURDIR)' && .venv/bin/python -c '' 2>/dev/null || \
		{ echo "Making .venv …"; $(PYTHON) -m venv --clear .venv; }
	@$(UV) sync --frozen --python .venv/bin/python
	@printf %s '$(CURDIR)' > $@

$(TOOLS): $(STAMP) uv.lock src/package-lock.json src/.npmrc
	@export UV_PROJECT_ENVIRONMENT=src/.venv; $(UV) sync --frozen --only-group node --python .venv/bin/python
	@# Not npm ci, which wants the lock file to name the programs of every platform.
	@cd src && PATH="$(CURDIR)/src/.venv/bin:$$PATH" npm install --no-save
	@touch $@

$(POSTGRES): $(TOOLS) tools/postgres/package-lock.json
	@cd tools/postgres && PATH="$(CURDIR)/src/.venv/bin:$$PATH" npm install --no-save
	@touch $@
