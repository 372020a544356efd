"""Group commit: items that arrive at the same time are written in one call and one commit.

If no write is in progress, a thread writes the whole queue, its own item included. Otherwise it waits in the queue, and
the first thread in the queue writes next. Before a writer takes the queue, it lets the other threads run for a moment:
a large batch costs hardly more than a small one. There are no threads besides the callers'.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from queue import SimpleQueue
from threading import Lock
from time import monotonic, sleep
from typing import Any, Generic, NoReturn, TypeVar

from webhook.clock import Clock
from webhook.ledger.errors import BatchRejectedError

Item = TypeVar("Item")
Result = TypeVar("Result")

LARGEST_BATCH = 100
"""Items that are written together at most."""

WAIT_TIMEOUT = 0.25
"""Seconds that an item waits behind a slow batch, up to 0.1 s more. Then its thread writes beside that batch."""


_MOMENT = 1e-6
"""Seconds. After ``sleep(0)`` gevent may continue before it has looked at its sockets."""


class _Ticket(Generic[Item, Result]):
    """An item in the queue, and its result. Only ``wait`` and ``wake`` may run in several threads at once."""

    def __init__(self, item: Item) -> None:
        self.item = item
        self.since = monotonic()
        self.is_taken = False
        self.is_late = False
        self.result: Callable[[], Result] | None = None
        self._calls: SimpleQueue[None] = SimpleQueue()

    def wake(self) -> None:
        self._calls.put(None)

    def wait(self) -> None:
        """Return when another thread calls ``wake``."""
        self._calls.get()


class GroupCommit(Generic[Item, Result]):
    """Calls ``write`` with the items of several threads, and returns to each thread its own result.

    ``write`` returns a result for each item, or raises. After :class:`BatchRejectedError` each item is written alone.
    """

    def __init__(self, write: Callable[[Sequence[Item]], Sequence[Result]]) -> None:
        self._write = write
        self._lock = Lock()
        self._waiting: list[_Ticket[Item, Result]] = []
        self._batches_in_progress = 0
        self._clock = Clock(self._wake_late)

    def __call__(self, item: Item) -> Result:
        """Return the item's result once it is written. Raise the error of ``write`` for it."""
        ticket: _Ticket[Item, Result] = _Ticket(item)
        with self._lock:
            self._waiting.append(ticket)
        try:
            while ticket.result is None:
                if self._claim(ticket):
                    self._write_queue()
                else:
                    self._clock.start()
                    ticket.wait()
        except BaseException:
            self._leave(ticket)
            raise
        return ticket.result()

    def _claim(self, ticket: _Ticket[Item, Result]) -> bool:
        """Return whether this thread writes now. The others wait until :meth:`_hand_out` ends the claim."""
        with self._lock:
            if ticket.is_taken or (self._batches_in_progress and not ticket.is_late):
                return False
            self._batches_in_progress += 1
            return True

    def _write_queue(self) -> None:
        batch: list[_Ticket[Item, Result]] = []
        results: list[Callable[[], Result]] = []
        try:
            _let_others_queue()
            batch = self._take_batch()
            # If a timeout or the like ends this thread while it writes, each of the other threads writes alone.
            results = [self._writing_alone(ticket.item) for ticket in batch]
            results = self._write_batch([ticket.item for ticket in batch]) if batch else []
        finally:
            self._hand_out(batch, results)

    def _take_batch(self) -> list[_Ticket[Item, Result]]:
        """Return the first tickets of the queue. There are none if a late thread has taken them all."""
        with self._lock:
            batch = self._waiting[:LARGEST_BATCH]
            del self._waiting[:LARGEST_BATCH]
            for each in batch:
                each.is_taken = True
            return batch

    def _write_batch(self, items: list[Item]) -> list[Callable[[], Result]]:
        try:
            return [_returning(result) for _, result in zip(items, self._write(items), strict=True)]
        except BatchRejectedError as error:
            return [_raising(error)] if len(items) == 1 else [self._writing_alone(item) for item in items]
        except Exception as error:  # noqa: BLE001 - each thread raises it again
            return [_raising(error)] * len(items)

    def _hand_out(self, batch: list[_Ticket[Item, Result]], results: list[Callable[[], Result]]) -> None:
        with self._lock:
            self._batches_in_progress -= 1
        self._wake_next()
        for ticket, result in zip(batch, results, strict=True):
            ticket.result = result
            ticket.wake()

    def _wake_next(self) -> None:
        with self._lock:
            next_in_line = self._waiting[:1]
        for ticket in next_in_line:
            ticket.wake()

    def _wake_late(self) -> bool:
        """Let the threads write that have waited for too long. Return whether any thread waits for its turn."""
        latest = monotonic() - WAIT_TIMEOUT
        with self._lock:
            late = [ticket for ticket in self._waiting if ticket.since < latest and not ticket.is_late]
            for ticket in late:
                ticket.is_late = True
            is_any_waiting = bool(self._waiting)
        for ticket in late:
            ticket.wake()
        return is_any_waiting

    def _leave(self, ticket: _Ticket[Item, Result]) -> None:
        """Take the ticket of a thread that ends out of the queue. It may have been woken to write, so wake the next."""
        with self._lock:
            if not ticket.is_taken:
                self._waiting.remove(ticket)
        self._wake_next()

    def _writing_alone(self, item: Item) -> Callable[[], Result]:
        return lambda: self._write([item])[0]


def _let_others_queue() -> None:
    """Let gevent's event loop turn twice: it reads the requests that have arrived, and their items join the queue."""
    for _ in range(2):
        sleep(_MOMENT)


def _returning(result: Result) -> Callable[[], Result]:
    return lambda: result


def _raising(error: Exception) -> Callable[[], Any]:
    traceback = error.__traceback__  # without the frames that each raise below adds

    def result() -> NoReturn:
        raise error.with_traceback(traceback)

    return result
