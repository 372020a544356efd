"""gunicorn's settings: https://gunicorn.org/reference/settings/.

gunicorn imports this module and reads its names. A missing or bad variable ends gunicorn here with exit code 2, before
it starts a process.
"""

# ruff: noqa: E402 - modules that do I/O have to be imported after the patch
from __future__ import annotations

from gevent import monkey

# A delivery that waits lets others run. Fork, signals and subprocesses stay unpatched: gunicorn manages its processes.
monkey.patch_all(os=False, signal=False, subprocess=False)

import gc
import os
import resource
import signal
import sys
from typing import Any

import click
from gunicorn.glogging import Logger

from webhook.observability import logs, multiprocess, tracing
from webhook.server.parent import exit_when_parent_dies
from webhook.settings import SettingsError, read_server_settings, read_settings

_CONNECTIONS = 2000
"""Maximum connections of a process. From half of them on, each new one closes an old one (connection_limits.py)."""
_OTHER_FILES = 100
"""Open files of a process that are not clients: its log, metrics, connections to the database and to Stripe."""

try:
    _server = read_server_settings()
    _is_traced = read_settings().is_traced
    _metrics = multiprocess.create_directory(_server.metrics_parent, _server.workers)
except SettingsError as error:
    click.echo(f"webhook: {error}", err=True)
    sys.exit(2)


def _raise_file_limit() -> int:
    """Raise the soft limit on open files if it is too low, and return how many a process may open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _CONNECTIONS + _OTHER_FILES
    allowed = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return allowed


class _Logger(Logger):  # type: ignore[misc]
    """gunicorn's logger without its access log, and without the content and query strings of requests."""

    def access(self, *_: object) -> None:
        """Write nothing. The application logs each delivery, and gunicorn would format its line first."""

    def warning(self, msg: str, *args: object, **kwargs: object) -> None:
        """Write a warning. One about a malformed request is cut off before the sender's address and what it sent."""
        super().warning(msg.partition(" from ip=")[0], *args, **kwargs)

    def exception(self, msg: str, *args: object, **kwargs: object) -> None:
        """Write an error with its traceback. The address of a request is cut off before its query string."""
        super().exception(msg, *(str(each).partition("?")[0] for each in args), **kwargs)


logger_class = _Logger
wsgi_app = "webhook.app:from_environment()"
proc_name = "webhook"
# The application is built once before the fork, so the processes share its memory.
preload_app = True

bind = f"0.0.0.0:{_server.port}"
workers = _server.workers
# A delivery mostly waits for the database. A connection that waits costs a few kilobytes.
worker_class = "webhook.server.worker.Worker"
worker_connections = _raise_file_limit() - _OTHER_FILES

# Seconds. A process that does not respond for this long is replaced.
timeout = 30
# Seconds for deliveries in flight after SIGTERM. Heroku sends SIGKILL after 30.
graceful_timeout = 25
# Seconds. Longer than load balancers keep an idle connection (60 to 90), so that they close it first. Otherwise a
# delivery could arrive while we close it.
keepalive = 95

# The worker sends each answer in one piece (worker.py), which a file sent by the kernel would overtake.
sendfile = False

# gunicorn's remote control would create a socket in HOME. The worker does not use it.
control_socket_disable = True

logconfig_dict = logs.set_up(as_json=_server.logs_json, is_final=True)
_start_exporter = tracing.load_exporter() if _is_traced else None


def _block_sigterm() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])


def _unblock_sigterm() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])


def _exit_on_sigterm() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _unblock_sigterm()


# A new process inherits its parent's handler, which would ignore a SIGTERM until the worker is ready. It has nothing to
# finish yet, so SIGTERM ends it at once.
os.register_at_fork(before=_block_sigterm, after_in_parent=_unblock_sigterm, after_in_child=_exit_on_sigterm)


def pre_fork(server: Any, worker: Any) -> None:
    """Give the process a slot for its metrics. Leave what is loaded now out of its garbage collections."""
    gc.freeze()
    worker.metrics_slot = multiprocess.free_slot([each.metrics_slot for each in server.WORKERS.values()])


def post_fork(_: Any, worker: Any) -> None:
    """Set up a new process.

    It must not outlive gunicorn's master: it would keep the port, and a new gunicorn could not bind it.
    """
    exit_when_parent_dies(worker.ppid)
    multiprocess.use_slot(worker.metrics_slot, _metrics)
    if _start_exporter:
        _start_exporter()


def child_exit(_: Any, worker: Any) -> None:
    """Reset the metrics that end with the process."""
    multiprocess.clear_slot(worker.metrics_slot, _metrics)
