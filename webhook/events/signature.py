"""Verify that Stripe signed a delivery: https://docs.stripe.com/webhooks/signature."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from stripe import SignatureVerificationError, WebhookSignature

TOLERANCE = 300
"""Seconds that a signature stays good: https://docs.stripe.com/webhooks#replay-attacks."""


class Rejection(Enum):
    """What is wrong with a delivery that is not Stripe's, or not an event."""

    NO_SIGNATURE = "no Stripe-Signature header"
    MALFORMED_SIGNATURE = "malformed Stripe-Signature header"
    WRONG_SIGNATURE = "the signature does not match"
    OLD_SIGNATURE = "the signature is too old"
    BROKEN_BODY = "the body does not come whole"
    NOT_UTF8 = "the body is not UTF-8"
    NOT_JSON = "the body is not JSON"
    NOT_AN_EVENT = "the body is not a Stripe event"

    @property
    def cause(self) -> str:
        """As metrics and logs name it."""
        return self.name.lower()


class InvalidDeliveryError(Exception):
    """The delivery is not Stripe's, or not an event: answered 400. The message says which, and quotes nothing."""

    def __init__(self, rejection: Rejection) -> None:
        """Say which problem."""
        super().__init__(rejection.value)
        self.rejection = rejection


def verify(body: bytes, signature: str | None, secrets: Iterable[str]) -> str:
    """Return the body as text once one of the secrets has signed it, lately; else raise :class:`InvalidDeliveryError`."""
    header = _one_signature_header(signature)
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise InvalidDeliveryError(Rejection.NOT_UTF8) from None
    problem = "no signing secret"
    for secret in secrets:
        try:
            WebhookSignature.verify_header(text, header, secret, TOLERANCE)
        except SignatureVerificationError as error:
            problem = str(error.args[0])
        else:
            return text
    stale = problem.startswith("Timestamp")
    raise InvalidDeliveryError(Rejection.OLD_SIGNATURE if stale else Rejection.WRONG_SIGNATURE)


def _one_signature_header(signature: str | None) -> str:
    """WSGI joins repeated headers with a comma: two would show as two timestamps, or as an item of no scheme."""
    if not signature:
        raise InvalidDeliveryError(Rejection.NO_SIGNATURE)
    items = [item.strip().partition("=") for item in signature.split(",")]
    timestamps = sum(name == "t" for name, _, _ in items)
    if timestamps != 1 or not signature.isascii() or not all(separator for _, separator, _ in items):
        raise InvalidDeliveryError(Rejection.MALFORMED_SIGNATURE)
    return ",".join(name + separator + value for name, separator, value in items)
