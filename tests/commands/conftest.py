"""Fixtures for the tests of commands."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import responses

from support.databases import Database
from support.recorded import USER_ID
from support.shop import Shop, opened
from support.stripe_stand_in import StripeStandIn, serving
from webhook.stripe_api import bulk as stripe_reader


@pytest.fixture
def stripe(stripe_api: responses.RequestsMock) -> Iterator[StripeStandIn]:
    """A stand-in for Stripe's API over real HTTP, with an account without objects."""
    with serving(StripeStandIn()) as stand_in:
        stripe_api.add_passthru(stand_in.url)
        yield stand_in


@pytest.fixture
def shop(database: Database, stripe: StripeStandIn, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    """A shop with the user of the recorded events. Retries wait for at most 50 ms."""
    monkeypatch.setattr(stripe_reader, "_MAX_BACKOFF", 0.05)
    with opened(database, stripe) as shop:
        shop.sign_up(USER_ID)
        yield shop
