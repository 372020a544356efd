"""Fixtures for the tests of commands."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import responses

from support.stripe_stand_in import StripeStandIn, serving


@pytest.fixture
def stripe(stripe_api: responses.RequestsMock) -> Iterator[StripeStandIn]:
    """A stand-in for Stripe's API over real HTTP, with an account without objects."""
    with serving(StripeStandIn()) as stand_in:
        stripe_api.add_passthru(stand_in.url)
        yield stand_in
