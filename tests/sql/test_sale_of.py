"""Which facts and payments describe a sale, and whose ledger rows belong to it."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import psycopg
import pytest

from support.roles import ALICE, BOB, add, balance, record, refund, sale, sign_up

NOBODY = str(uuid4())

Fact = tuple[str, int, str | None, int | None, bool]
"""Payment, version, user, credits, and whether it is paid."""

CASES: dict[str, tuple[list[Fact], tuple[str, str | None, int | None, bool]]] = {
    "one that names user and credits, before a paid one": (
        [("pi_1", 1, ALICE, 10, False), ("in_1", 2, None, None, True)],
        ("pi_1", ALICE, 10, False),
    ),
    "one that names more, before a paid one": (
        [("pi_1", 1, ALICE, None, False), ("in_1", 2, None, None, True)],
        ("pi_1", ALICE, None, False),
    ),
    "user who exists, before another one": (
        [("pi_1", 1, ALICE, None, False), ("in_1", 2, NOBODY, None, True)],
        ("pi_1", ALICE, None, False),
    ),
    "credits of another user, before nothing": (
        [("pi_1", 1, NOBODY, 10, False), ("in_1", 2, None, None, True)],
        ("pi_1", NOBODY, 10, False),
    ),
    "paid one, before a higher version": (
        [("pi_1", 1, ALICE, 10, True), ("in_1", 2, BOB, 20, False)],
        ("pi_1", ALICE, 10, True),
    ),
    "higher version": ([("pi_1", 1, ALICE, 10, True), ("in_1", 2, BOB, 20, True)], ("in_1", BOB, 20, True)),
    "smaller id": ([("pi_2", 3, ALICE, 10, True), ("pi_1", 3, BOB, 20, True)], ("pi_1", BOB, 20, True)),
    "user of the higher version": (
        [("pi_1", 1, ALICE, 10, True), ("pi_1", 3, BOB, 20, True)],
        ("pi_1", BOB, 20, True),
    ),
    "what the higher version does not name": (
        [("pi_1", 1, ALICE, 10, True), ("pi_1", 3, None, None, False)],
        ("pi_1", ALICE, 10, True),
    ),
    "user who exists, before that of a higher version": (
        [("pi_1", 1, ALICE, 10, True), ("pi_1", 3, NOBODY, 20, True)],
        ("pi_1", ALICE, 20, True),
    ),
}


@pytest.fixture(autouse=True)
def _users(admin: psycopg.Connection[Any]) -> None:
    sign_up(admin, ALICE)
    sign_up(admin, BOB)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("order", [1, -1], ids=["as stated", "reversed"])
def test_sale_is_described_by(admin: psycopg.Connection[Any], name: str, order: int) -> None:
    facts, expected = CASES[name]
    for fact in facts:
        admin.execute(
            "insert into billing.sales (payment_id, version, user_id, credits, paid) values (%s, %s, %s, %s, %s)", fact
        )
    ids = list(dict.fromkeys(fact[0] for fact in facts))[::order]
    row = admin.execute("select payment_id, user_id::text, credits, paid from billing.sale_of(%s)", [ids]).fetchone()
    assert row == expected


def test_nothing_known_is_no_sale(admin: psycopg.Connection[Any]) -> None:
    assert admin.execute("select billing.sale_of(array['pi_1']) is null").fetchone() == (True,)


def test_refund_takes_back_what_another_user_got_by_hand(admin: psycopg.Connection[Any]) -> None:
    """The sale is Alice's, so a row that gave Bob credits of it is brought to 0."""
    record(admin, sale("pi_1", ALICE))
    columns = {"type": "REFUND", "stripe_id": "by_hand", "payment_id": "pi_1", "money_amount": "0", "currency": "usd"}
    add(admin, BOB, 5, **columns)
    assert record(admin, refund("re_1", "pi_1", 400), event_id="evt_2") == {"outcome": "recorded"}
    assert (balance(admin, ALICE), balance(admin, BOB)) == (60, 0)
