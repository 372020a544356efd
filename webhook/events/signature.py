"""Verify that Stripe signed a delivery: https://docs.stripe.com/webhooks/signature."""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import Enum

from stripe import SignatureVerificationError, WebhookSignature

TOLERANCE = 300
"""Seconds for which a signature is valid: https://docs.stripe.com/webhooks#replay-attacks."""


_USUAL = re.compile(r"t=[0-9]+(?:,v[01]=[0-9a-f]+)+")
"""The header as Stripe sends it. It needs no further look."""


class Rejection(Enum):
    """Why a delivery is answered 400, or 404 if its path is wrong."""

    NO_SIGNATURE = "no Stripe-Signature header"
    MALFORMED_SIGNATURE = "malformed Stripe-Signature header"
    WRONG_SIGNATURE = "the signature does not match"
    OLD_SIGNATURE = "the signature is too old"
    BROKEN_BODY = "the body is incomplete or malformed"
    NOT_UTF8 = "the body is not UTF-8"
    NOT_JSON = "the body is not JSON"
    NOT_AN_EVENT = "the body is not a Stripe event"
    WRONG_PATH = "deliveries go to /webhook: correct the URL of the endpoint"

    @property
    def reason(self) -> str:
        """The name in metrics and logs."""
        return self.name.lower()


class InvalidDeliveryError(Exception):
    """Stripe did not sign the delivery, or its body is not an event. The message names the reason without data."""

    def __init__(self, rejection: Rejection) -> None:
        super().__init__(rejection.value)
        self.rejection = rejection


def verify(body: bytes, signature: str | None, secrets: Iterable[str]) -> tuple[str, int]:
    """Return the body as text, and the position of the secret that signed it, 0 for the first.

    Raises :class:`InvalidDeliveryError`.
    """
    header = _single_header(signature)
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise InvalidDeliveryError(Rejection.NOT_UTF8) from None
    is_old = False
    for position, secret in enumerate(secrets):
        try:
            WebhookSignature.verify_header(text, header, secret, TOLERANCE)
        except SignatureVerificationError as error:
            is_old |= str(error.args[0]).startswith("Timestamp")  # the signature itself matched this secret
        else:
            return text, position
    raise InvalidDeliveryError(Rejection.OLD_SIGNATURE if is_old else Rejection.WRONG_SIGNATURE)


def _single_header(signature: str | None) -> str:
    """Return the header with its spaces removed; raise :class:`InvalidDeliveryError` if it is missing or malformed.

    WSGI joins repeated headers with a comma. Two headers therefore look like one with two timestamps, or with an item
    that has no scheme.
    """
    if not signature:
        raise InvalidDeliveryError(Rejection.NO_SIGNATURE)
    if _USUAL.fullmatch(signature):
        return signature
    items = [item.strip().partition("=") for item in signature.split(",")]
    timestamps = sum(name == "t" for name, _, _ in items)
    if timestamps != 1 or not signature.isascii() or not all(separator for _, separator, _ in items):
        raise InvalidDeliveryError(Rejection.MALFORMED_SIGNATURE)
    return ",".join(name + separator + value for name, separator, value in items)
