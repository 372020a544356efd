"""Sources of objects, read on threads of their own into one bounded queue.

A source reads one page at a time. The consumer of the queue sets the pace, so memory stays flat.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from queue import Queue

from webhook.reconcile.objects import InterpretedObject
from webhook.stripe_api.errors import StripeUnavailableError

_QUEUED_PAGES = 6


@dataclass(frozen=True)
class FailedObject:
    """An object that could not be read. It does not affect the other objects of its page."""

    id: str
    """The id if it is printable, else ``?``."""
    kind: str
    reason: str


@dataclass(frozen=True)
class Page:
    """One page of a source."""

    source: str
    """The source's title."""
    objects: list[InterpretedObject]
    size: int
    """The number of Stripe's objects on the page."""
    reached: int | None = None
    """How far back in time the source has been read, in seconds since 1970."""
    failed: list[FailedObject] = field(default_factory=list)


@dataclass(frozen=True)
class SourceEnd:
    """A source was read to its end, or failed with ``error``."""

    source: str
    error: Exception | None = None


@dataclass(frozen=True)
class Source:
    """A list of objects to read, from ``since`` to before ``until``, both in seconds since 1970."""

    title: str
    permission: str
    """What a restricted key needs."""
    pages: Callable[[], Iterator[Page]]
    since: int
    until: int


def read_all(sources: Sequence[Source], stopped: threading.Event) -> Iterator[Page | SourceEnd]:
    """Yield the pages of all sources as they arrive, and an end for each; stops early once ``stopped`` is set."""
    queue: Queue[Page | SourceEnd] = Queue(_QUEUED_PAGES)
    for source in sources:
        threading.Thread(target=_read, args=(source, queue, stopped), daemon=True).start()
    left = len(sources)
    while left:
        item = queue.get()
        left -= isinstance(item, SourceEnd)
        yield item


def _read(source: Source, queue: Queue[Page | SourceEnd], stopped: threading.Event) -> None:
    failure: Exception | None = None
    try:
        for page in source.pages():
            if stopped.is_set():
                return
            queue.put(page)
    except StripeUnavailableError as error:
        failure = error.with_permission_hint(source.permission)
    except Exception as error:  # noqa: BLE001 - reported by the consumer of the queue
        failure = error
    queue.put(SourceEnd(source.title, failure))
