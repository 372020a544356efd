"""Commands that wait for Stripe: after ten seconds without an answer they report it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from support.commands import started
from support.ports import free_port
from support.shop import Shop
from webhook.settings import child_environment
from webhook.stripe_api import silence
from webhook.stripe_api.silence import Silence

WAIT_TIMEOUT = 60
COMMANDS = ["reconcile --since 1d", "audit --stripe", "endpoint check", "doctor"]


@pytest.fixture
def silent(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """Stripe answers only once the command has reported the silence."""
    reported = threading.Event()
    original = Silence.__init__

    def watch(self: Silence, report: Callable[[], None]) -> None:
        original(self, lambda: (report(), reported.set())[0])

    monkeypatch.setattr(silence, "SILENCE", 0.05)
    monkeypatch.setattr(Silence, "__init__", watch)
    shop.stripe.before_answer = lambda _: reported.wait(WAIT_TIMEOUT)
    return shop


@pytest.mark.parametrize("line", COMMANDS)
def test_command_reports_once_that_stripe_is_silent(silent: Shop, line: str) -> None:
    """The address is named: STRIPE_API_BASE may be wrong. The command goes on."""
    result = silent.run(*line.split())
    notice = f"webhook: Stripe cannot be reached at {silent.stripe.url}: still trying\n"
    assert result.stderr.count(notice) == 1


@pytest.mark.parametrize("line", COMMANDS)
def test_command_reports_no_silence_if_stripe_answers(shop: Shop, line: str) -> None:
    assert "cannot be reached" not in shop.run(*line.split()).stderr


def test_reconcile_without_stripe_reports_it_within_15_seconds(shop: Shop) -> None:
    settings = shop.stripe.settings(shop.database.url) | {"STRIPE_API_BASE": f"http://127.0.0.1:{free_port()}"}
    began = time.monotonic()
    with started(child_environment(settings), "reconcile", "--since", "1d") as process:
        assert process.stderr
        line = process.stderr.readline()
    assert "Stripe cannot be reached at http://127.0.0.1" in line
    assert time.monotonic() - began < 15
