"""Group commit: items that arrive at the same time are written in one call and one commit.

If no write is in progress, a thread writes the whole queue, its own item included. Otherwise it waits in the queue, and
the first thread in the queue writes next. There are no threads besides the callers'.
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
"""Items that are written together at most."""

WAIT_TIMEOUT = 0.25
"""Seconds that an item waits behind a slow batch. Then its thread writes at the same time as that batch."""


class _Ticket(Generic[Item, Result]):
    """An item in the queue, and its result. Only ``wait`` and ``wake`` may run in several threads at once."""

    def __init__(self, item: Item) -> None:
        self.item = item
        self.is_taken = False
        self.is_late = False
        self.result: Callable[[], Result] | None = None
        self._calls: SimpleQueue[None] = SimpleQueue()

    def wake(self) -> None:
        self._calls.put(None)

    def wait(self) -> None:
        """Return when another thread calls ``wake``, or after the timeout."""
        try:
            self._calls.get(timeout=WAIT_TIMEOUT)
        except Empty:
            self.is_late = True


class GroupCommit(Generic[Item, Result]):
    """Calls ``write`` with the items of several threads, and returns to each thread its own result.

    ``write`` returns a result for each item, or raises. After :class:`BatchRejectedError` each item is written alone.
    """

    def __init__(self, write: Callable[[Sequence[Item]], Sequence[Result]]) -> None:
        self._write = write
        self._lock = Lock()
        self._waiting: list[_Ticket[Item, Result]] = []
        self._batches_in_progress = 0

    def __call__(self, item: Item) -> Result:
        """Return the item's result once it is written. Raise the error of ``write`` for it."""
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
        """Return the tickets that this thread writes now: none while another thread's batch is in progress."""
        with self._lock:
            if ticket.is_taken or (self._batches_in_progress and not ticket.is_late):
                return []
            batch = self._waiting[:LARGEST_BATCH]
            del self._waiting[:LARGEST_BATCH]
            for each in batch:
                each.is_taken = True
            self._batches_in_progress += 1
            return batch

    def _write_batch(self, batch: list[_Ticket[Item, Result]]) -> None:
        results = [self._writing_alone(ticket.item) for ticket in batch]
        try:
            written = self._write([ticket.item for ticket in batch])
            results = [_returning(result) for _, result in zip(batch, written, strict=True)]
        except BatchRejectedError as error:
            if len(batch) == 1:
                results = [_raising(error)]
        except Exception as error:  # noqa: BLE001 - each thread raises it again
            results = [_raising(error)] * len(batch)
        finally:
            # If another exception ends the writing thread, as a timeout does, the other threads write alone.
            self._hand_out(batch, results)

    def _hand_out(self, batch: list[_Ticket[Item, Result]], results: list[Callable[[], Result]]) -> None:
        with self._lock:
            self._batches_in_progress -= 1
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
    traceback = error.__traceback__  # without the frames that each raise below adds

    def result() -> NoReturn:
        raise error.with_traceback(traceback)

    return result
