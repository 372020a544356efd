"""Where the processes of one gunicorn write their metrics: a folder of its own, and a file for each number.

Processes are numbered from 1, and who takes a dead one's place takes its number, so that files and labels stay as few
as there are processes, however many die. What the dead one had counted stays counted.
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

from prometheus_client import values

from webhook.settings import SettingsError, set_metrics_folder

_PREFIX = "webhook-metrics-"
_LIVE = "gauge_liveall"
"""The file of what only a living process has, in the words of the library."""
_FILES = ("counter", "histogram", "gauge_max", _LIVE)
_FILE_SIZE = 1 << 18
"""Bytes; three times what all series take."""
_SECONDS_TO_LOCK = 60
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW

_number = 0
"""This process's; 0 is gunicorn's master."""


def create_directory(parent: str | None, processes: int) -> str:
    """Make the folder for the metrics that are made later, in ``parent`` or where temporary files go; return it.

    There is room in it for so many ``processes``. It is removed at the end, and locked as long as any process of this
    gunicorn lives: that is how it is known, after a kill -9, that nobody needs it, and systemd-tmpfiles, which clears
    old files away, leaves it alone.
    """
    place = Path(parent or tempfile.gettempdir())
    try:
        for left in place.glob(f"{_PREFIX}*"):
            _remove_if_left(left)
        folder = tempfile.mkdtemp(prefix=_PREFIX, dir=place)
        atexit.register(_remove, folder, os.getpid())
        fcntl.flock(os.open(folder, _FOLDER_FLAGS), fcntl.LOCK_EX)
        for number in range(processes + 1):
            _reserve(folder, number)
    except OSError as error:
        raise SettingsError(f"PROMETHEUS_MULTIPROC_DIR: no folder can be made in {place}: {error.strerror}") from None
    set_metrics_folder(folder)
    values.ValueClass = values.MultiProcessValue(lambda: _number)  # type: ignore[no-untyped-call]
    return folder


def free_slot(taken: Collection[int]) -> int:
    """Return the smallest number that no process has."""
    return next(number for number in count(1) if number not in taken)


def use_slot(number: int, folder: str) -> None:
    """Write to that number's files from now on."""
    global _number  # noqa: PLW0603 - a process has one number
    with suppress(OSError):  # metrics are no reason not to start
        _reserve(folder, number)
    _number = number


def clear_slot(number: int, folder: str) -> None:
    """Forget what only a living process has: its connections. The file stays, with its room on the disk."""
    with suppress(OSError), Path(folder, f"{_LIVE}_{number}.db").open("r+b") as file:
        file.write(bytes(_FILE_SIZE))


def _reserve(folder: str, number: int) -> None:
    """Take the room of the number's files at once.

    They are mapped into memory: to write where the disk has no room left would be a process's end, by SIGBUS.
    """
    Path(folder).mkdir(mode=0o700, exist_ok=True)  # whoever clears old files away may have taken it
    for name in _FILES:
        with Path(folder, f"{name}_{number}.db").open("ab") as file:
            os.posix_fallocate(file.fileno(), 0, _FILE_SIZE)


def _remove(folder: str, owner: int) -> None:
    """Remove the folder at the end of the process that made it; those that it forked end in the same way."""
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_if_left(folder: Path) -> None:
    """Remove another gunicorn's folder if none of its processes lives."""
    try:
        found = folder.lstat()
        if found.st_uid != os.getuid() or time.time() - found.st_mtime < _SECONDS_TO_LOCK:
            return
        descriptor = os.open(folder, _FOLDER_FLAGS)
    except OSError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    except BlockingIOError:
        pass
    finally:
        os.close(descriptor)
