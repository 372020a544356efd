"""Signed deliveries for the load: ``checkout.session.completed`` of 4 KB, each one a new sale of an existing user."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

SECRET = "whsec_only_for_the_bench"  # noqa: S105
USERS = tuple(f"00000000-0000-4000-8000-{100000000000 + number}" for number in range(1000))

RECORDED = Path(__file__).parent.parent / "tests/events/2026-10-28.endive/checkout.session.completed.json"
_USER_ID = b"7b0d4c5e-2f3a-4c1d-9e8f-0a1b2c3d4e5f"
_EVENT_ID = b"evt_1UXvcvK4mTq9ZwLxaFvZWSML"
_SESSION_ID = b"cs_test_a1lTTanEnN20spdD4pMpaevIk3lZJtJKsaPt8FpNZZDPKscIrDnBBmNScr"
_PAYMENT_ID = b"pi_3UXvxvK4mTq9ZwLx13ejJBd7"


@dataclass(frozen=True)
class Deliveries:
    """A file of signed bodies. Each is sent once, within 300 seconds of signing: the limit on a signature's age."""

    path: Path
    body_length: int
    payments: str
    """The common prefix of their payment ids, which no other payment has."""


def write_deliveries(path: Path, count: int, users: tuple[str, ...] = USERS) -> Deliveries:
    """Write ``count`` records with new ids, in the format that ``load/deliver.lua`` reads."""
    batch = secrets.token_hex(4).encode()
    template = RECORDED.read_bytes()
    now = int(time.time())
    with path.open("wb") as file:
        for number in range(count):
            body = _body(template, batch, number, users[number % len(users)])
            file.write(b"%s\n%s" % (_signature(body, now), body))
    return Deliveries(path, len(template), f"pi_3{batch.decode()}")


def _body(template: bytes, batch: bytes, number: int, user_id: str) -> bytes:
    """Return the recorded event with new ids, as long as Stripe's."""
    body = template.replace(_USER_ID, user_id.encode())
    for recorded in (_EVENT_ID, _SESSION_ID, _PAYMENT_ID):
        prefix = recorded[: recorded.rindex(b"_") + 2] + batch + b"%08d" % number
        body = body.replace(recorded, prefix + recorded[len(prefix) :])
    return body


def _signature(body: bytes, timestamp: int) -> bytes:
    signed = hmac.new(SECRET.encode(), b"%d.%b" % (timestamp, body), hashlib.sha256)
    return b"t=%d,v1=%b" % (timestamp, signed.hexdigest().encode())
