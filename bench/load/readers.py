"""Readers of the console. Each opens one page after the other."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from itertools import cycle, islice
from threading import Event
from urllib.parse import urlsplit

from bench.load import LoadError

_OK, _BUSY = 200, 503
_MILLISECONDS = 1000
_TIMEOUT = 10


@dataclass(frozen=True)
class Reader:
    """A person with a token who looks at pages of the console below ``url``."""

    url: str
    token: str

    def open(self, path: str) -> bool:
        """Return whether the page was opened, ``False`` if the console was busy; raise :class:`LoadError` otherwise."""
        with closing(HTTPConnection(urlsplit(self.url).netloc, timeout=_TIMEOUT)) as connection:
            connection.request("GET", path, headers={"Authorization": f"Bearer {self.token}"})
            answer = connection.getresponse()
            answer.read()
        if answer.status not in (_OK, _BUSY):
            raise LoadError(f"{path} was answered {answer.status}")
        return answer.status == _OK

    def timed(self, path: str) -> float:
        """Open the page and return the time in milliseconds."""
        started = time.perf_counter()
        if not self.open(path):
            raise LoadError(f"{path} was answered {_BUSY} to a single reader")
        return (time.perf_counter() - started) * _MILLISECONDS


@dataclass
class Count:
    """How often the readers opened a page, and how often the console was busy."""

    opened: list[str] = field(default_factory=list)
    busy: list[str] = field(default_factory=list)


@contextmanager
def reading(reader: Reader, paths: Sequence[str], readers: int, pause: float) -> Iterator[Count]:
    """Let ``readers`` open pages until the end of the block, each with a pause in seconds after each page."""
    count, ended = Count(), Event()

    def read(first: int) -> None:
        for path in islice(cycle(paths), first, None):
            (count.opened if reader.open(path) else count.busy).append(path)
            if ended.wait(pause):
                return

    with ThreadPoolExecutor(readers) as pool:
        started = [pool.submit(read, first) for first in range(readers)]
        try:
            yield count
        finally:
            ended.set()
    for each in started:
        each.result()
