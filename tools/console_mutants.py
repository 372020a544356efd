"""The safeguards of the console that `make mutants` removes, each with the tests that have to fail then."""

from __future__ import annotations

from tools.mutant import Mutant

ACCESS = "webhook/console/access.py"
CONSOLE = "webhook/console/console.py"
COOKIES = "webhook/console/cookies.py"
ENTRY = "webhook/console/entry.py"
HEADERS = "webhook/console/headers.py"
LOGIN = "webhook/console/login.py"
LOGGER = "webhook/server/gunicorn_conf.py"
READING = "webhook/console/reading.py"
RENDERING = "webhook/console/rendering.py"
REQUESTS = "webhook/console/requests.py"
SETTINGS = "webhook/settings.py"
DEV = "webhook/dev/app.py"
BEGIN = "sql/queries/begin_page.sql"

LOGINS = ("tests/worker/test_console_login.py",)
ORIGINS = ("tests/worker/test_console_origin.py",)
LOOPBACK = ("tests/worker/test_console_loopback.py",)
LIMITS = ("tests/worker/test_console_limits.py",)
TIMES = ("tests/processes/test_console_time.py",)
ROLES = ("tests/worker/test_console_roles.py",)
PAGES = ("tests/worker/test_console_headers.py",)
COMMANDS = ("tests/commands/test_console.py",)
TOKENS = ("tests/unit/test_console_settings.py",)

MUTANTS = (
    Mutant("console login needs its name", ACCESS, "& (name in (None, each.name))", "", LOGINS),
    Mutant(
        "console cookie names its login",
        ACCESS,
        "max_age=LOGIN_SECONDS) == login.name",
        "max_age=LOGIN_SECONDS)",
        LOGINS,
    ),
    Mutant(
        "console cookie ends after 12 hours", ACCESS, "LOGIN_SECONDS = 12 * 3600", "LOGIN_SECONDS = 24 * 3600", LOGINS
    ),
    Mutant(
        "console cookie keyed by the token",
        ACCESS,
        "return Login(token.name, token.role, token.digest)",
        'return Login(token.name, token.role, "key")',
        LOGINS,
    ),
    Mutant(
        "console signature for one purpose",
        LOGIN,
        'salt=f"webhook.console.{purpose}"',
        'salt="webhook.console"',
        LOGINS,
    ),
    Mutant(
        "wrong bearer token beside a cookie",
        ACCESS,
        "if token is not None:\n            return self.with_token(token)",
        "if token is not None and self.with_token(token):\n            return self.with_token(token)",
        LOGINS,
    ),
    Mutant(
        "console login needs a token",
        CONSOLE,
        "        if login is None:\n            return self._without_login()\n",
        '        login = login or Login("x", OPERATOR, "x")\n',
        LOGINS,
    ),
    Mutant(
        "login leads to no other site",
        ENTRY,
        'local_path(form.get("next", "")) or _START',
        'form.get("next", "") or _START',
        LOGINS,
    ),
    Mutant(
        "login cookie unreadable for scripts",
        COOKIES,
        '        httponly=True,\n        samesite="Lax",\n    )\n\n\ndef delete',
        '        samesite="Lax",\n    )\n\n\ndef delete',
        LOGINS,
    ),
    Mutant(
        "login cookie stays on HTTPS",
        COOKIES,
        "        max_age=max_age,\n        path=_path(environ),\n        secure=is_https(environ),\n",
        "        max_age=max_age,\n        path=_path(environ),\n",
        LOGINS,
    ),
    Mutant(
        "login cookie not sent by other sites",
        COOKIES,
        'httponly=True,\n        samesite="Lax",\n    )\n\n\ndef delete',
        "httponly=True,\n    )\n\n\ndef delete",
        LOGINS,
    ),
    Mutant("console needs HTTPS", ACCESS, "if not is_https(environ) and not is_local(environ):", "if False:", ORIGINS),
    Mutant("forwarded request is not local", REQUESTS, " and not _is_forwarded(environ)", "", ORIGINS),
    Mutant(
        "forms of other sites refused",
        CONSOLE,
        "elif not is_change_from_here(request.environ):",
        "elif False:",
        ORIGINS,
    ),
    Mutant(
        "Sec-Fetch-Site has to be same-origin",
        REQUESTS,
        'return bool(site == "same-origin")',
        'return bool(site != "cross-site")',
        ORIGINS,
    ),
    Mutant(
        "form without an origin refused",
        REQUESTS,
        "return bearer_token(environ) is not None\n",
        "return True\n",
        ORIGINS,
    ),
    Mutant("Origin has to be Host", REQUESTS, "is not None and place == _own_place(environ)", "is not None", ORIGINS),
    Mutant(
        "Origin has the port of Host",
        REQUESTS,
        "return (parts.hostname, port) if",
        "return (parts.hostname, 0) if",
        ORIGINS,
    ),
    Mutant(
        "pages of other sites embed nothing",
        CONSOLE,
        "        if not is_page_view(request.environ):",
        "        if False:",
        ORIGINS,
    ),
    Mutant(
        "frames of other sites refused", REQUESTS, ' and environ.get("HTTP_SEC_FETCH_DEST") == "document"', "", ORIGINS
    ),
    Mutant(
        "local console for this machine only", REQUESTS, "return _is_loopback_peer(environ) and", "return", LOOPBACK
    ),
    Mutant(
        "local console for local hosts only",
        REQUESTS,
        "if name not in _LOCAL_HOSTS:\n        return False",
        "if not name:\n        return False",
        LOOPBACK,
    ),
    Mutant(
        "local console for its own port only",
        REQUESTS,
        'return port is None or (sent if separator else str(_DEFAULT_PORTS["http"])) == str(port)',
        "return True",
        LOOPBACK,
    ),
    Mutant("local console hides from CF-*", REQUESTS, ', "HTTP_CF_"', "", LOOPBACK),
    Mutant("local console hides from Via", REQUESTS, ', "HTTP_VIA"', "", LOOPBACK),
    Mutant("local console hides from Forwarded", REQUESTS, '"HTTP_FORWARDED", ', "", LOOPBACK),
    Mutant("local console hides from X-Forwarded-*", REQUESTS, '"HTTP_X_FORWARDED_", ', "", LOOPBACK),
    Mutant("dev opens its own database only", DEV, "    _require_own_database(settings.database_url)\n", "", LOOPBACK),
    Mutant("dev with tokens needs a token", DEV, 'if is_set("CONSOLE_TOKENS"):', "if False:", LOOPBACK),
    Mutant(
        "dev acts on its own database only",
        DEV,
        '{**os.environ, "OPERATOR_DATABASE_URL": settings.database_url}',
        "os.environ",
        LOOPBACK,
    ),
    Mutant(
        "two console requests at a time", CONSOLE, "        with self._slots.one():\n", "        if True:\n", LIMITS
    ),
    Mutant(
        "strangers take no slot",
        CONSOLE,
        "        login = self.current_login()\n        if login is None:",
        "        with self._slots.one():\n            login = self.current_login()\n        if login is None:",
        LIMITS,
    ),
    Mutant("console forms of 64 KiB", CONSOLE, "    request.max_content_length = LARGEST_FORM\n", "", LIMITS),
    Mutant(
        "console statement ends with its page", BEGIN, "%(page_timeout)s", "coalesce('8s', %(page_timeout)s)", LIMITS
    ),
    Mutant(
        "no query after a page's time",
        READING,
        "    raise _too_slow()",
        "    return 1",
        LIMITS,
    ),
    Mutant("page ends with its time", READING, 'if is_module_patched("socket")', "if False", TIMES),
    Mutant(
        "console uses two connections",
        READING,
        'begin="begin_page", connections=CONNECTIONS',
        'begin="begin_page"',
        LIMITS,
    ),
    Mutant(
        "viewer changes nothing", CONSOLE, "if needs.role == OPERATOR and login.role != OPERATOR:", "if False:", ROLES
    ),
    Mutant(
        "console acts as billing_operator only",
        CONSOLE,
        "if needs.may_act and not self.me.may_act:",
        "if False:",
        ROLES,
    ),
    Mutant("console pages read only", BEGIN, "read committed, read only", "read committed, read write", ROLES),
    Mutant("console policy on frames", HEADERS, "    \"frame-ancestors 'none'\",\n", "", PAGES),
    Mutant("console policy on scripts", HEADERS, "    \"script-src 'none'\",\n", "", PAGES),
    Mutant("console pages not stored", HEADERS, '    "Cache-Control": "no-store",\n', "", PAGES),
    Mutant("console pages keep their addresses", HEADERS, '    "Referrer-Policy": "same-origin",\n', "", PAGES),
    Mutant("text from outside escaped", RENDERING, "autoescape=True", "autoescape=False", PAGES),
    Mutant("marks from outside visible", RENDERING, "is_mark=not shown", "is_mark=False", PAGES),
    Mutant(
        "Dashboard linked for ids only",
        RENDERING,
        'found = _STRIPE_ID.fullmatch(object_id or "")',
        'found = _STRIPE_ID.match(object_id or "")',
        PAGES,
    ),
    Mutant(
        "notice has to be signed",
        CONSOLE,
        "notice = login.read(cookies.NOTICE, signed, max_age=_NOTICE_SECONDS)",
        "notice = signed",
        PAGES,
    ),
    Mutant(
        "one line a minute on failed logins",
        "webhook/observability/instrumentation.py",
        "if now >= self._next_login_line:",
        "if True:",
        PAGES,
    ),
    Mutant("console address works once", ACCESS, "        self.secret = None\n", "", COMMANDS),
    Mutant(
        "console address works for a minute",
        ACCESS,
        "if secret is None or is_late or not",
        "if secret is None or not",
        COMMANDS,
    ),
    Mutant("console address needs its key", ACCESS, "is_late or not _is_equal(sent, secret)", "is_late", COMMANDS),
    Mutant(
        "own console needs its cookie",
        ACCESS,
        "return login if _is_signed(login, cookie) else None",
        "return login",
        COMMANDS,
    ),
    Mutant(
        "root has to name a person",
        "webhook/cli/console.py",
        "if by is None and console.is_root():",
        "if False:",
        COMMANDS,
    ),
    Mutant(
        "console token twice refused",
        SETTINGS,
        "if len({token.digest for token in tokens}) < len(tokens):",
        "if False:",
        TOKENS,
    ),
    Mutant(
        "hash of an empty token refused",
        SETTINGS,
        'if any(entry["digest"] == _NO_TOKEN for entry in entries if entry):',
        "if False:",
        TOKENS,
    ),
    Mutant(
        "query strings stay out of gunicorn's log",
        LOGGER,
        '(str(each).partition("?")[0] for each in args)',
        "args",
        ("tests/processes/test_query_strings.py",),
    ),
)
