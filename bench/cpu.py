"""Processor time of processes, from Linux's schedstat. It depends less on other load than a rate does."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

_NANOSECOND = 1e-9


def cpu_seconds(pids: Iterable[int]) -> float:
    """Return the processor time that the running threads of these processes have used, in seconds."""
    return (
        sum(_nanoseconds(file) for pid in pids for file in Path(f"/proc/{pid}/task").glob("*/schedstat")) * _NANOSECOND
    )


def children(pid: int) -> list[int]:
    """Return the ids of the child processes of ``pid``."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]


def _nanoseconds(file: Path) -> int:
    try:
        return int(file.read_text(encoding="ascii").split()[0])
    except (FileNotFoundError, ProcessLookupError):  # the thread ended
        return 0
