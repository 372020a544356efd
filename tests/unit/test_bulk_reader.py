"""How reconciliation and audit read Stripe: patiently, a few requests and pages at a time."""

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
    """Waits for nothing, and notes for how long it was asked to."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout or 0)
        return False


@pytest.fixture
def reader() -> StripeReader:
    reader = StripeReader(StripeSettings("rk_test_1"))
    reader._stopped = Clock()  # noqa: SLF001 - what it sleeps by
    return reader


def waits_of(reader: StripeReader) -> list[float]:
    assert reader.get(None, "/v1/refunds", "re_1") == {"id": "re_1"}
    return reader._stopped.waits  # type: ignore[attr-defined] # noqa: SLF001 - see above


def refused(stripe_api: Mock, status: int, **headers: str) -> None:
    stripe_api.get(REFUND, status=status, json={"error": {"message": "later"}}, headers=headers)


@pytest.mark.parametrize("status", [409, 429, 500, 503])
def test_answer_that_may_be_another_later_is_waited_for(reader: StripeReader, stripe_api: Mock, status: int) -> None:
    """Twice, with a longer wait."""
    for _ in range(2):
        refused(stripe_api, status)
    stripe_api.get(REFUND, json={"id": "re_1"})
    assert len(waits_of(reader)) == 2


@pytest.mark.parametrize(("asked_for", "waited"), [("33", 33), ("3600", 60)])
def test_wait_that_stripe_asks_for_is_kept(reader: StripeReader, stripe_api: Mock, asked_for: str, waited: int) -> None:
    """A minute at most."""
    refused(stripe_api, 429, **{"retry-after": asked_for})
    stripe_api.get(REFUND, json={"id": "re_1"})
    assert waits_of(reader) == [waited]


def test_wait_that_nobody_can_read_is_our_own(reader: StripeReader, stripe_api: Mock) -> None:
    """Such as a date."""
    refused(stripe_api, 429, **{"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"})
    stripe_api.get(REFUND, json={"id": "re_1"})
    assert waits_of(reader)[0] <= 1


def test_request_that_stripe_says_to_repeat_is_repeated(reader: StripeReader, stripe_api: Mock) -> None:
    """Whatever the status."""
    refused(stripe_api, 400, **{"Stripe-Should-Retry": "true"})
    stripe_api.get(REFUND, json={"id": "re_1"})
    assert len(waits_of(reader)) == 1


def test_request_that_stripe_says_not_to_repeat_is_not(reader: StripeReader, stripe_api: Mock) -> None:
    """Whatever the status."""
    refused(stripe_api, 500, **{"Stripe-Should-Retry": "false"})
    with pytest.raises(StripeUnavailableError, match="status 500"):
        reader.get(None, "/v1/refunds", "re_1")
    assert len(stripe_api.calls) == 1


@pytest.mark.enable_socket
@pytest.mark.parametrize(("meeting", "happens"), [(8, True), (9, False)])
def test_eight_requests_are_under_way_at_once_and_never_more(
    stripe_api: Mock,
    meeting: int,
    happens: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """So many as Stripe's limit bears."""
    place, met = threading.Barrier(meeting), []

    def meet(_: str) -> None:
        try:
            place.wait(20 if happens else 0.5)
            met.append(True)
        except threading.BrokenBarrierError:
            met.append(False)

    with serving(StripeStandIn(before_answer=meet)) as stripe, ThreadPoolExecutor(16) as pool:
        stripe_api.add_passthru(stripe.url)
        reader = StripeReader(StripeSettings("rk_test_1", stripe.url))
        list(pool.map(lambda _: reader.get(None, "/v1/refunds", "re_none"), range(16)))
    assert met == [happens] * 16


def test_pages_that_nobody_takes_yet_are_not_read(stripe_api: Mock) -> None:
    """A few ahead, so that memory stays flat."""
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
