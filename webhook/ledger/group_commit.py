"""Group commit: what is to be written at the same moment goes together, in one call and one commit.

Whoever comes while nothing is being written writes all that waits; whoever comes meanwhile waits, and the first of them
writes next. There are no threads but those that ask.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from threading import Lock
from typing import Any, Generic, NoReturn, TypeVar

from webhook.ledger.errors import BatchRejectedError

Item = TypeVar("Item")
Result = TypeVar("Result")

LARGEST_BATCH = 100

PATIENCE = 0.25
"""Seconds after which an item that waits goes beside a batch which is slow, as one that waits for a lock is."""


class _Ticket(Generic[Item, Result]):
    """An item, and what has become of it; only ``wait`` and ``wake`` are for several threads at once."""

    def __init__(self, item: Item) -> None:
        self.item = item
        self.is_taken = False
        self.is_late = False
        self.result: Callable[[], Result] | None = None
        self._calls: SimpleQueue[None] = SimpleQueue()

    def wake(self) -> None:
        self._calls.put(None)

    def wait(self) -> None:
        """Return when called, or late."""
        try:
            self._calls.get(timeout=PATIENCE)
        except Empty:
            self.is_late = True


class GroupCommit(Generic[Item, Result]):
    """Calls ``write`` with the items of several threads, and gives each thread its own result."""

    def __init__(self, write: Callable[[Sequence[Item]], Sequence[Result]]) -> None:
        """``write`` returns a result for each item, or raises; after :class:`BatchRejectedError` each item is tried alone."""
        self._write = write
        self._lock = Lock()
        self._waiting: list[_Ticket[Item, Result]] = []
        self._batches_under_way = 0

    def __call__(self, item: Item) -> Result:
        """Return the item's result once it is written; raise what ``write`` raises for it."""
        ticket: _Ticket[Item, Result] = _Ticket(item)
        with self._lock:
            self._waiting.append(ticket)
        while ticket.result is None:
            if batch := self._take_batch(ticket):
                self._write_batch(batch)
            else:
                ticket.wait()
        return ticket.result()

    def _take_batch(self, ticket: _Ticket[Item, Result]) -> list[_Ticket[Item, Result]]:
        """Return what the ticket's thread has to write now: nothing while another's batch is under way."""
        with self._lock:
            if ticket.is_taken or (self._batches_under_way and not ticket.is_late):
                return []
            batch = self._waiting[:LARGEST_BATCH]
            del self._waiting[:LARGEST_BATCH]
            for each in batch:
                each.is_taken = True
            self._batches_under_way += 1
            return batch

    def _write_batch(self, batch: list[_Ticket[Item, Result]]) -> None:
        results = [self._writing_alone(ticket.item) for ticket in batch]
        try:
            written = self._write([ticket.item for ticket in batch])
            results = [_returning(result) for _, result in zip(batch, written, strict=True)]
        except BatchRejectedError as error:
            if len(batch) == 1:
                results = [_raising(error)]
        except Exception as error:  # noqa: BLE001 - it is raised again, by each
            results = [_raising(error)] * len(batch)
        finally:
            # Where it is the one who writes that is to end, by another exception, the others write alone.
            self._hand_out(batch, results)

    def _hand_out(self, batch: list[_Ticket[Item, Result]], results: list[Callable[[], Result]]) -> None:
        with self._lock:
            self._batches_under_way -= 1
            next_in_line = self._waiting[:1]
        for ticket in next_in_line:
            ticket.wake()
        for ticket, result in zip(batch, results, strict=True):
            ticket.result = result
            ticket.wake()

    def _writing_alone(self, item: Item) -> Callable[[], Result]:
        return lambda: self._write([item])[0]


def _returning(result: Result) -> Callable[[], Result]:
    return lambda: result


def _raising(error: Exception) -> Callable[[], Any]:
    places = error.__traceback__  # of where it happened, not of all who raise it

    def result() -> NoReturn:
        raise error.with_traceback(places)

    return result
