"""The notice that Stripe does not answer."""

from __future__ import annotations

import threading
from contextlib import suppress

import pytest

from webhook.stripe_api import silence
from webhook.stripe_api.errors import StripeUnavailableError
from webhook.stripe_api.silence import Silence

WAIT_TIMEOUT = 60


def request(watch: Silence, status: int | None) -> None:
    """Make a request that fails with this status, ``None`` for no response."""
    with suppress(StripeUnavailableError), watch.during():
        raise StripeUnavailableError("failed", status)


def test_silence_over_several_requests_is_reported_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(silence, "SILENCE", 0.01)
    reported = threading.Semaphore(0)
    watch = Silence(reported.release)
    for _ in range(3):
        request(watch, None)
    assert reported.acquire(timeout=WAIT_TIMEOUT)
    request(watch, None)
    assert not reported.acquire(blocking=False)


@pytest.mark.parametrize("status", [429, 500])
def test_an_error_from_stripe_ends_the_silence(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    """It can be reached."""
    monkeypatch.setattr(silence, "SILENCE", WAIT_TIMEOUT)
    watch = Silence(lambda: None)
    request(watch, status)
    assert watch._timer.finished.is_set()  # noqa: SLF001 - it will never report


def test_a_failure_without_a_response_keeps_the_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(silence, "SILENCE", WAIT_TIMEOUT)
    watch = Silence(lambda: None)
    request(watch, None)
    assert not watch._timer.finished.is_set()  # noqa: SLF001 - it would still report
    watch.end()
