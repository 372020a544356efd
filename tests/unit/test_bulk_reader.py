"""Bulk reads of Stripe's API: retries, concurrent requests and read-ahead."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import pytest
import responses

from support.stripe_stand_in import StripeStandIn, serving
from webhook.reconcile.pages import Page, Source, read_all
from webhook.settings import StripeSettings
from webhook.stripe_api.bulk import StripeReader
from webhook.stripe_api.errors import StripeUnavailableError

REFUND = "https://api.stripe.com/v1/refunds/re_1"
Mock = responses.RequestsMock


class Clock(threading.Event):
    """An event whose ``wait`` returns at once and records the timeout."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout or 0)
        return False


@pytest.fixture
def reader() -> StripeReader:
    reader = StripeReader(StripeSettings("rk_test_1"))
    reader._stopped = Clock()  # noqa: SLF001 - the event on which it sleeps
    return reader


def waits_of(reader: StripeReader) -> list[float]:
    assert reader.get(None, "/v1/refunds", "re_1") == {"id": "re_1"}
    return reader._stopped.waits  # type: ignore[attr-defined] # noqa: SLF001 - see above


def add_error(stripe_api: Mock, status: int, **headers: str) -> None:
    stripe_api.get(REFUND, status=status, json={"error": {"message": "later"}}, headers=headers)


@pytest.mark.parametrize("status", [409, 429, 500, 503])
def test_get_with_a_transient_error_is_retried(reader: StripeReader, stripe_api: Mock, status: int) -> None:
    """A second error in a row is retried too."""
    for _ in range(2):
        add_error(stripe_api, status)
    stripe_api.get(REFUND, json={"id": "re_1"})
    assert len(waits_of(reader)) == 2


@pytest.mark.parametrize(("retry_after", "waited"), [("33", 33), ("3600", 60)])
def test_retry_waits_as_long_as_the_retry_after_header(
    reader: StripeReader, stripe_api: Mock, retry_after: str, waited: int
) -> None:
    """The wait is at most one minute."""
    add_error(stripe_api, 429, **{"retry-after": retry_after})
    stripe_api.get(REFUND, json={"id": "re_1"})
    assert waits_of(reader) == [waited]


def test_retry_after_that_is_a_date_uses_the_default_wait(reader: StripeReader, stripe_api: Mock) -> None:
    """Only a number of seconds is parsed."""
    add_error(stripe_api, 429, **{"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"})
    stripe_api.get(REFUND, json={"id": "re_1"})
    assert waits_of(reader)[0] <= 1


def test_error_with_should_retry_true_is_retried(reader: StripeReader, stripe_api: Mock) -> None:
    """Stripe's header overrides the status."""
    add_error(stripe_api, 400, **{"Stripe-Should-Retry": "true"})
    stripe_api.get(REFUND, json={"id": "re_1"})
    assert len(waits_of(reader)) == 1


def test_error_with_should_retry_false_is_not_retried(reader: StripeReader, stripe_api: Mock) -> None:
    """Stripe's header overrides the status."""
    add_error(stripe_api, 500, **{"Stripe-Should-Retry": "false"})
    with pytest.raises(StripeUnavailableError, match="status 500"):
        reader.get(None, "/v1/refunds", "re_1")
    assert len(stripe_api.calls) == 1


@pytest.mark.enable_socket
@pytest.mark.parametrize(("parties", "is_reached"), [(8, True), (9, False)])
def test_concurrent_requests_are_limited_to_eight(
    stripe_api: Mock,
    parties: int,
    is_reached: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """Stripe limits how many requests may run at the same time."""
    barrier, met = threading.Barrier(parties), []

    def meet(_: str) -> None:
        try:
            barrier.wait(20 if is_reached else 0.5)
            met.append(True)
        except threading.BrokenBarrierError:
            met.append(False)

    with serving(StripeStandIn(before_answer=meet)) as stripe, ThreadPoolExecutor(16) as pool:
        stripe_api.add_passthru(stripe.url)
        reader = StripeReader(StripeSettings("rk_test_1", stripe.url))
        list(pool.map(lambda _: reader.get(None, "/v1/refunds", "re_none"), range(16)))
    assert met == [is_reached] * 16


def test_pages_are_read_only_a_few_ahead_of_the_consumer(stripe_api: Mock) -> None:
    """Memory use stays constant."""
    del stripe_api
    read, far_ahead = count(), threading.Event()

    def pages() -> Iterator[Page]:
        while (number := next(read)) < 100:
            if number == 20:
                far_ahead.set()
            yield Page("refunds", [], 0)

    stopped = threading.Event()
    items: Iterator[Any] = read_all([Source("refunds", "a permission", pages, 0, 1)], stopped)
    assert isinstance(next(items), Page)
    assert not far_ahead.wait(0.5)
    assert len(list(items)) == 100
