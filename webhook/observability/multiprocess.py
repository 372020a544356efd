"""The directory where the processes of one gunicorn write their metrics.

Each process has a slot, numbered from 1, and the files of its slot. A new process takes the slot of a dead one and goes
on with its counts. So there are only as many files and labels as processes at one time.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Collection
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

from prometheus_client import values

from webhook.settings import SettingsError

_PREFIX = "webhook-metrics-"
_LIVE = "gauge_liveall"
"""prometheus_client's name for the file of values that only a live process has."""
_FILES = ("counter", "histogram", "gauge_max", _LIVE)
_FILE_SIZE = 1 << 18
"""Bytes; three times what all series need."""
_SECONDS_TO_LOCK = 60
_OPEN_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW

_slot = 0
"""The slot of this process; 0 is gunicorn's master."""


def create_directory(parent: str | None, processes: int) -> str:
    """Create the directory in ``parent``, by default among the temporary files, and return its path.

    Reserves disk space for ``processes``, and configures the metrics that are created later. Raises
    :class:`SettingsError`.

    The directory is removed when this process exits. After a ``kill -9`` the next gunicorn removes it. All processes of
    this gunicorn share a lock on it, so an unlocked directory is unused. systemd-tmpfiles respects the lock, too.
    """
    place = Path(parent or tempfile.gettempdir())
    try:
        for other in place.glob(f"{_PREFIX}*"):
            _remove_if_unused(other)
        directory = tempfile.mkdtemp(prefix=_PREFIX, dir=place)
        atexit.register(_remove, directory, os.getpid())
        fcntl.flock(os.open(directory, _OPEN_FLAGS), fcntl.LOCK_EX)
        for slot in range(processes + 1):
            _reserve(directory, slot)
    except OSError as error:
        raise SettingsError(f"PROMETHEUS_MULTIPROC_DIR: no directory created in {place}: {error.strerror}") from None
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = directory  # prometheus_client reads it
    values.ValueClass = _value_class()
    return directory


def free_slot(taken: Collection[int]) -> int:
    """Return the smallest slot that is not taken."""
    return next(slot for slot in count(1) if slot not in taken)


def use_slot(slot: int, directory: str) -> None:
    """Write to the files of this slot from now on."""
    global _slot  # noqa: PLW0603 - a process has one slot
    with suppress(OSError):  # a process serves without metrics, too
        _reserve(directory, slot)
    _slot = slot
    values.ValueClass.move_all()


def _value_class() -> Any:
    """Return prometheus_client's class for values of several processes, with shorter ways to write one.

    Its own methods take a lock and compare the slot each time, which takes longer than the write. The threads of a
    process are greenlets, so none can interrupt a write, and a process tells when its slot changes.
    """
    base: Any = values.MultiProcessValue(lambda: _slot)  # type: ignore[no-untyped-call]

    class Value(base):  # type: ignore[misc]
        latest: Value | None = None

        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            Value.latest = self

        @staticmethod
        def move_all() -> None:
            """Go on with the files of the process's slot. A read of one value moves all of them."""
            if Value.latest:
                Value.latest.get()

        def inc(self, amount: float) -> None:
            self._value += amount
            self._file.write_value(self._key, self._value, 0.0)

        def set(self, value: float, timestamp: float | None = None) -> None:
            self._value = value
            self._file.write_value(self._key, value, timestamp or 0.0)

    return Value


def clear_slot(slot: int, directory: str) -> None:
    """Reset the values that end with their process: its connections.

    prometheus_client's ``mark_process_dead`` would delete the file. A full disk would have no space for a new one, and
    the next process would die: see :func:`_reserve`.
    """
    with suppress(OSError), Path(directory, f"{_LIVE}_{slot}.db").open("r+b") as file:
        file.write(bytes(_FILE_SIZE))


def _reserve(directory: str, slot: int) -> None:
    """Allocate the files of the slot on the disk.

    They are mapped into memory. A write to a page that a full disk cannot store would kill the process by SIGBUS.
    """
    Path(directory).mkdir(mode=0o700, exist_ok=True)  # a clean-up of old files may have removed it
    for name in _FILES:
        with Path(directory, f"{name}_{slot}.db").open("ab") as file:
            os.posix_fallocate(file.fileno(), 0, _FILE_SIZE)


def _remove(directory: str, owner: int) -> None:
    """Remove the directory when its owner exits. Forked processes run this at their exit, too."""
    if os.getpid() == owner:
        shutil.rmtree(directory, ignore_errors=True)


def _remove_if_unused(directory: Path) -> None:
    """Remove another gunicorn's directory, unless it is locked or so new that it may not be locked yet.

    Other users may create directories of this name, in /tmp for example. These stay, and cannot stop the start.
    """
    with suppress(OSError):  # locked, or gone by now
        found = directory.lstat()
        if found.st_uid != os.getuid() or time.time() - found.st_mtime < _SECONDS_TO_LOCK:
            return
        descriptor = os.open(directory, _OPEN_FLAGS)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(directory, ignore_errors=True)
        finally:
            os.close(descriptor)
