"""TCP ports of 127.0.0.1."""

from __future__ import annotations

import errno
import socket
from contextlib import suppress

from webhook.dev.errors import DevError, PostgresError


def free_port(preferred: int = 0) -> int:
    """Return ``preferred`` if nothing listens on it, else any free port; raises :class:`PostgresError`."""
    for port in (preferred, 0):
        with suppress(OSError):
            return _bind(port)
    raise PostgresError("there is no free TCP port")


def check_port(port: int, option: str) -> None:
    """Raise :class:`DevError` if the worker cannot listen on ``port``. The ``option`` chooses another one."""
    try:
        _bind(port)
    except OSError as error:
        is_taken = error.errno == errno.EADDRINUSE
        cause = f"another program uses it; choose another with {option}" if is_taken else error.strerror
        raise DevError(f"cannot listen on port {port}: {cause}") from None


def _bind(port: int) -> int:
    """Bind to ``port``, or to any for 0, close again, and return the port; raises :class:`OSError`."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
        return int(probe.getsockname()[1])
