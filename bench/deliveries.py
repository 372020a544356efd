"""Signed deliveries for the load, written to a file that the load programs read."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

SECRET = "whsec_only_for_the_bench"  # noqa: S105
USERS = tuple(f"00000000-0000-4000-8000-{100000000000 + number}" for number in range(1000))

RECORDED = Path(__file__).parent.parent / "tests/events/2026-10-28.endive"
SESSION = (RECORDED / "checkout.session.completed.json").read_bytes()
USER_ID = b"7b0d4c5e-2f3a-4c1d-9e8f-0a1b2c3d4e5f"
EVENT_ID = b"evt_1UXvcvK4mTq9ZwLxaFvZWSML"
SESSION_ID = b"cs_test_a1lTTanEnN20spdD4pMpaevIk3lZJtJKsaPt8FpNZZDPKscIrDnBBmNScr"
PAYMENT_ID = b"pi_3UXvxvK4mTq9ZwLx13ejJBd7"

Write = Callable[[bytes, int], tuple[bytes, int]]
"""Returns the body of the delivery with this number, and how many rows it adds to the ledger. The first parameter is
unique for the file and part of all ids.
"""


@dataclass(frozen=True)
class Deliveries:
    """A file of signed bodies. Each is sent once, within 300 seconds of signing: the limit on a signature's age."""

    path: Path
    batch: str
    """A part of the ids of their ledger rows, and of no other row."""
    rows: Sequence[int]
    """The number of ledger rows after so many deliveries, from 0 on."""


def write_deliveries(path: Path, count: int, write: Write) -> Deliveries:
    """Write ``count`` records, each of them a line with the body's length and signature, and the body."""
    batch = secrets.token_hex(4)
    rows = array("l", [0])
    now = int(time.time())
    with path.open("wb") as file:
        for number in range(count):
            body, added = write(batch.encode(), number)
            file.write(b"%d %s\n%s" % (len(body), _signature(body, now), body))
            rows.append(rows[-1] + added)
    return Deliveries(path, batch, rows)


def sales(users: tuple[str, ...] = USERS) -> Write:
    """Return a load of new sales by Checkout Session, 4 KB each."""
    return lambda batch, number: (session(batch, number, users), 1)


def session(batch: bytes, number: int, users: tuple[str, ...] = USERS) -> bytes:
    """Return the body of a ``checkout.session.completed`` with new ids."""
    return renewed(SESSION, batch, number, EVENT_ID, SESSION_ID, PAYMENT_ID).replace(USER_ID, user(number, users))


def user(number: int, users: tuple[str, ...] = USERS) -> bytes:
    """Return the user of the delivery with this number."""
    return users[number % len(users)].encode()


def renewed(body: bytes, batch: bytes, number: int, *recorded: bytes) -> bytes:
    """Return the body with each of its ``recorded`` ids replaced by a new one of the same length."""
    for each in recorded:
        prefix = each[: each.rindex(b"_") + 2] + batch + b"%08d" % number
        body = body.replace(each, prefix + each[len(prefix) :])
    return body


def _signature(body: bytes, timestamp: int) -> bytes:
    signed = hmac.new(SECRET.encode(), b"%d.%b" % (timestamp, body), hashlib.sha256)
    return b"t=%d,v1=%b" % (timestamp, signed.hexdigest().encode())
