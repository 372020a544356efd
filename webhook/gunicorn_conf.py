"""gunicorn's settings: https://gunicorn.org/reference/settings/.

gunicorn imports this module and takes its names. A missing or bad variable ends it here, before any process
starts, with one line and exit code 2.
"""

from __future__ import annotations

import signal
import sys
from typing import Any

import click

from webhook import leash
from webhook.settings import SettingsError, read_server_settings, read_settings

try:
    _server = read_server_settings()
    read_settings()
except SettingsError as error:
    click.echo(f"webhook: {error}", err=True)
    sys.exit(2)

wsgi_app = "webhook.app:from_environment()"
proc_name = "webhook"
# The application is built once, before the processes part: they share its memory.
preload_app = True

bind = f"0.0.0.0:{_server.port}"
workers = _server.workers
# A delivery waits for the database nearly all of its time.
worker_class = "gthread"
threads = 8

# Seconds. A process that shows no sign of life for so long is replaced.
timeout = 30
# Seconds that deliveries in flight have after SIGTERM; Heroku kills after 30.
graceful_timeout = 25
# Seconds. Longer than load balancers keep an idle connection (60 to 90), so that they never send a delivery
# into one that closes at this moment.
keepalive = 95

# gunicorn's remote control would make a socket in HOME; nothing here uses it.
control_socket_disable = True

logconfig_dict = {
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"level": "WARNING", "handlers": ["stderr"]},
    "loggers": {
        "webhook": {"level": "INFO"},
        "gunicorn.error": {"propagate": True},
    },
}


def post_fork(_: Any, worker: Any) -> None:
    """Let no process outlive the first one: it would keep the port, and gunicorn started anew would not get it.

    Until the process is ready it would take a SIGTERM for its parent's and forget it: it has nothing to finish yet.
    """
    leash.die_with(worker.ppid)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
