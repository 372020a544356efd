"""How gunicorn is started with our settings, wherever that is."""

from __future__ import annotations

import sys

# Its own script would look for this package in the current folder first, where a webhook.py is nothing unusual.
_RUN = "import webhook; from gunicorn.app.wsgiapp import run; run('gunicorn')"


def gunicorn(*options: str) -> list[str]:
    """Return the command."""
    return [sys.executable, "-P", "-c", _RUN, "--config", "python:webhook.server.gunicorn_conf", *options]
