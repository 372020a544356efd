"""What the words of a search mean."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from webhook.explain.query import Query, read_query

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)  # a Thursday
UUID = "7b0d4c5e-2f3a-4c1d-9e8f-0a1b2c3d4e5f"


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("pi_1", {"id": "pi_1"}),
        ("re_1:2", {"id": "re_1"}),
        ("cs_test_a1B2", {"id": "cs_test_a1B2"}),
        (UUID.upper(), {"uuid": UUID}),
        ("Anna@Example.com", {"email": "Anna@Example.com"}),
        ("1230-7299", {"number": "1230-7299"}),
        ("ABCD1234-0007", {"number": "ABCD1234-0007"}),
        ("4242 10.00 2026-11-24", {"last4": "4242", "amount": Decimal("10.00"), "day": date(2026, 11, 24)}),
        (
            "4242 1500 jpy yesterday",
            {"last4": "4242", "amount": Decimal(1500), "currency": "jpy", "day": date(2026, 11, 25)},
        ),
        ("a@b $10 Tuesday", {"email": "a@b", "amount": Decimal(10), "day": date(2026, 11, 24)}),
        (
            "a@b 10,50eur thursday",
            {"email": "a@b", "amount": Decimal("10.50"), "currency": "eur", "day": date(2026, 11, 26)},
        ),
        ("2026-13-45", {"unread": ("2026-13-45",)}),
        ("pi_1 pi_2", {"id": "pi_1", "unread": ("pi_2",)}),
        ("", {}),
    ],
)
def test_words_of_a_query_are_read(text: str, fields: dict[str, object]) -> None:
    assert read_query(text, NOW) == Query(text, **fields)


@pytest.mark.parametrize("marked", ["{}.", "<{}>", "({}).", '"{}",'])
def test_marks_around_a_word_are_left_out(marked: str) -> None:
    """It was copied from a sentence or a mail."""
    assert read_query(marked.format("pi_1"), NOW) == Query("pi_1", id="pi_1")
    assert read_query(marked.format("a@b.example"), NOW) == Query("a@b.example", email="a@b.example")


def test_bytes_that_are_no_text_become_question_marks() -> None:
    """Postgres and terminals accept neither half a surrogate pair nor a NUL."""
    assert read_query("a\udcff\x00@b", NOW) == Query("a? @b", unread=("a?", "@b"))
