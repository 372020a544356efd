"""Reads of a page: read-only transactions and requests to Stripe that end with the page's time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from gevent import Timeout
from gevent.monkey import is_module_patched

from webhook.console.limits import Deadline
from webhook.errors import ExpectedError
from webhook.ledger.connections import Database, Row
from webhook.ledger.queries import query
from webhook.settings import StripeSettings
from webhook.stripe_api.bulk import StripeReader

CONNECTIONS = 2
"""Connections of each kind: to read, to record and to act."""

_STRIPE_TIMEOUT = (2.0, 4.0)
"""Seconds to connect to Stripe and to wait for a response."""


class PageTimeoutError(ExpectedError):
    """The time of a page is over. The message is for people."""


@contextmanager
def limited(deadline: Deadline) -> Iterator[None]:
    """End the block at the deadline, also while it waits for a server that does not answer.

    This needs greenlets, as in the worker. ``webhook console`` holds up no delivery.
    """
    with Timeout(deadline.seconds_left, _too_slow()) if is_module_patched("socket") else nullcontext():
        yield


class PageLedger:
    """Runs named queries as ``service_role`` in a read-only transaction, for :mod:`webhook.explain` too.

    A statement is cancelled at the end of the page's time.
    """

    def __init__(self, database_url: str, deadline: Callable[[], Deadline]) -> None:
        self._database = Database(database_url, begin="begin_page", connections=CONNECTIONS)
        self._deadline = deadline

    def rows(self, name: str, **parameters: Any) -> list[Row]:
        """Return the rows of ``sql/queries/<name>.sql``; raises :class:`LedgerUnavailableError`."""
        milliseconds = int(_seconds_left(self._deadline()) * 1000)
        return self._database.call(query(name), {**parameters, "page_timeout": f"{milliseconds + 1}ms"})

    def close(self) -> None:
        """Close the idle connections."""
        self._database.close()


class PageStripe(StripeReader):
    """Reads at Stripe for a page: each request is tried once, and none begins after the page's time."""

    def __init__(self, settings: StripeSettings, deadline: Callable[[], Deadline]) -> None:
        super().__init__(settings, timeout=_STRIPE_TIMEOUT)
        self._deadline = deadline
        self.stop()

    def _get(self, account: str | None, path: str, **parameters: Any) -> Any:
        _seconds_left(self._deadline())
        return super()._get(account, path, **parameters)


def _seconds_left(deadline: Deadline) -> float:
    if left := deadline.seconds_left:
        return left
    raise _too_slow()


def _too_slow() -> PageTimeoutError:
    return PageTimeoutError("This page took too long: search for less.")
