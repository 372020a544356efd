"""A mixed load, as a shop with packs, subscriptions and refunds receives it."""

from __future__ import annotations

from bench.deliveries import PAYMENT_ID, RECORDED, USER_ID, renewed, session, user

CYCLE = ("session",) * 12 + ("session with customer",) * 3 + ("invoice", "link", "refund", "refund", "redelivery")
"""The deliveries in their order: 60 %, 15 %, 10 % (an invoice and its link), 10 % and 5 %."""

_EARLIER = 77
"""Refunds and redeliveries are about the session that came so many deliveries before, and that is answered by then."""

_INVOICE = (RECORDED / "invoice.paid.json").read_bytes()
_INVOICE_EVENT_ID = b"evt_1UXvO1K4mTq9ZwLxe3UWk4tj"
_INVOICE_ID = b"in_1UXvyLK4mTq9ZwLxT9ikqr35"
_CREATED = 1793388125
_LINK = (RECORDED / "invoice_payment.paid.json").read_bytes()
_LINK_EVENT_ID = b"evt_1UXvO1K4mTq9ZwLxQk81bMzd"
_LINK_ID = b"inpay_1UXvyLK4mTq9ZwLx7pQw2RsT"
_LINK_PAYMENT_ID = b"pi_3UXvyLK4mTq9ZwLx0Hn5VbYc"
_REFUND = (RECORDED / "refund.created.json").read_bytes()
_REFUND_EVENT_ID = b"evt_3UXvxvK4mTq9ZwLx0J0qJq55"
_REFUND_ID = b"re_3UXvxvK4mTq9ZwLx1xnLiwj4"
_CUSTOMER_ID = b"cus_9FCnW5ifzWwKkJ"
_SUBSCRIPTION_ID = b"sub_1UXvBDK4mTq9ZwLxwxWti2PI"


def mixed(batch: bytes, number: int) -> tuple[bytes, int]:
    """Return the body of the delivery with this number, and how many rows it adds to the ledger."""
    match CYCLE[number % len(CYCLE)]:
        case "session with customer":
            return session(batch, number).replace(b'"customer": null', b'"customer": "%b"' % _customer(number), 1), 1
        case "invoice":
            return _invoice(batch, number), 1
        case "link":
            body = renewed(_LINK, batch, number, _LINK_EVENT_ID, _LINK_ID, _LINK_PAYMENT_ID)
            return renewed(body, batch, number - 1, _INVOICE_ID), 0
        case "refund" if number >= _EARLIER:
            body = renewed(_REFUND, batch, number, _REFUND_EVENT_ID, _REFUND_ID)
            return renewed(body, batch, number - _EARLIER, PAYMENT_ID), 1
        case "redelivery" if number >= _EARLIER:
            return session(batch, number - _EARLIER), 0
        case _:
            return session(batch, number), 1


def _invoice(batch: bytes, number: int) -> bytes:
    """Return the invoice of a renewal. Its subscription's metadata names user and credits."""
    body = renewed(_INVOICE, batch, number, _INVOICE_EVENT_ID, _INVOICE_ID).replace(USER_ID, user(number))
    body = body.replace(_CUSTOMER_ID, _customer(number)).replace(_SUBSCRIPTION_ID, b"sub_" + _customer(number))
    return body.replace(b'"created": %d' % _CREATED, b'"created": %d' % (_CREATED + number))


def _customer(number: int) -> bytes:
    """Return the Stripe customer of the delivery's user."""
    return b"cus_%b" % user(number)[-12:]
