"""The command that starts gunicorn with our settings."""

from __future__ import annotations

import sys

# gunicorn's own script would import a webhook.py from the current directory instead of this package.
_RUN = "import webhook; from gunicorn.app.wsgiapp import run; run('gunicorn')"


def gunicorn(*options: str) -> list[str]:
    """Return the command and its arguments, with these options of gunicorn."""
    return [sys.executable, "-P", "-c", _RUN, "--config", "python:webhook.server.gunicorn_conf", *options]
