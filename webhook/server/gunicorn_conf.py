"""gunicorn's settings: https://gunicorn.org/reference/settings/.

gunicorn imports this module and takes its names. A missing or bad variable ends it here, before any process
starts, with one line and exit code 2.
"""

# ruff: noqa: E402 - everything that waits has to be imported after the patch
from __future__ import annotations

from gevent import monkey

# Waiting gives way to other deliveries. The processes themselves are gunicorn's business: it forks, and reaps.
monkey.patch_all(os=False, signal=False, subprocess=False)

import os
import resource
import signal
import sys
from typing import Any

import click
from gunicorn.glogging import Logger

from webhook.observability import logs, multiprocess
from webhook.server.parent import exit_when_parent_dies
from webhook.settings import SettingsError, read_server_settings, read_settings

_CLIENTS = 2000
"""So many a process takes in; from half of that on, one is let go for each that comes (clients.py)."""
_SPARE_FILES = 100
"""What a process has open besides: its log, metrics, connections to the database and to Stripe."""

try:
    _server = read_server_settings()
    read_settings()
    _metrics = multiprocess.create_directory(_server.metrics_parent, _server.workers)
except SettingsError as error:
    click.echo(f"webhook: {error}", err=True)
    sys.exit(2)


def _allowed_files() -> int:
    """Return how many files a process may have open, after asking for as many as are wanted."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _CLIENTS + _SPARE_FILES if hard == resource.RLIM_INFINITY else min(hard, _CLIENTS + _SPARE_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most


class _Logger(Logger):  # type: ignore[misc]
    """gunicorn's logger without its access log, and without what is in requests that are none."""

    def access(self, *_: object) -> None:
        """Write nothing: the application logs each delivery itself, and gunicorn would put its line together first."""

    def warning(self, msg: str, *args: object, **kwargs: object) -> None:
        """Write a warning; of one about a request no more than that, for it quotes what was sent, and from where."""
        super().warning(msg.partition(" from ip=")[0], *args, **kwargs)


logger_class = _Logger
wsgi_app = "webhook.app:from_environment()"
proc_name = "webhook"
# The application is built once, before the processes part: they share its memory.
preload_app = True

bind = f"0.0.0.0:{_server.port}"
workers = _server.workers
# A delivery waits for the database most of its time; a connection that only waits costs a few kilobytes.
worker_class = "webhook.server.worker.Worker"
worker_connections = _allowed_files() - _SPARE_FILES

# Seconds. A process that shows no sign of life for so long is replaced.
timeout = 30
# Seconds that deliveries in flight have after SIGTERM; Heroku kills after 30.
graceful_timeout = 25
# Seconds. Longer than load balancers keep an idle connection (60 to 90), so that they never send a delivery
# into one that closes at this moment.
keepalive = 95

# gunicorn's remote control would make a socket in HOME; nothing here uses it.
control_socket_disable = True

# It logs no requests: the worker has a line for each delivery.
logconfig_dict = logs.set_up(as_json=_server.logs_json)


def _hold_sigterm() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])


def _hear_sigterm() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])


def _end_on_sigterm() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _hear_sigterm()


# Until a new process is ready, it would take a SIGTERM for its parent's and forget it: it has nothing to finish yet.
os.register_at_fork(before=_hold_sigterm, after_in_parent=_hear_sigterm, after_in_child=_end_on_sigterm)


def pre_fork(server: Any, worker: Any) -> None:
    """Give the process a number."""
    worker.number = multiprocess.free_slot([each.number for each in server.WORKERS.values()])


def post_fork(_: Any, worker: Any) -> None:
    """Begin what each process does by itself, and let none outlive the first one.

    It would keep the port, and gunicorn started anew would not get it.
    """
    exit_when_parent_dies(worker.ppid)
    multiprocess.use_slot(worker.number, _metrics)
    worker.app.wsgi().extensions["spans"].start()


def child_exit(_: Any, worker: Any) -> None:
    """Forget what only a living process has."""
    multiprocess.clear_slot(worker.number, _metrics)
