"""What the console advises, and its chart: pure functions."""

from __future__ import annotations

import ast
import re
import tracemalloc
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from support.project import PROJECT
from webhook.console.content import chart
from webhook.console.content.advice import in_words, steps_of_event
from webhook.console.content.stories import MOST_PAYLOAD, payload_of
from webhook.explain.overview import DailyCredits
from webhook.explain.records import ParkedEvent
from webhook.remedies import NO_ACCOUNT, NOT_A_UUID, REMEDIES

USER = "aaaaaaaa-0000-4000-8000-00000000000a"
LONG_AGO = datetime.now(UTC) - timedelta(days=31)


class Accounts:
    """A ledger of accounts, by e-mail address."""

    def __init__(self, **users: str) -> None:
        self._users = users

    def rows(self, name: str, **parameters: Any) -> list[dict[str, Any]]:
        if name == "explain_find_email":
            return [{"user_ids": [user for user, email in self._users.items() if email == parameters["email"]]}]
        user = parameters["user_id"]
        return [{"id": user, "email": self._users[user]}] if user in self._users else []


def event(reason: str, **fields: Any) -> ParkedEvent:
    names = (
        "payment_id",
        "user_reference",
        "payer_email",
        "resolution",
        "resolved_at",
        "discarded_by",
        "discard_reason",
    )
    values = dict.fromkeys(names) | {"payment_id": "pi_1"} | fields
    return ParkedEvent("evt_1", "x", reason, parked_at=datetime.now(UTC), **values)


@pytest.mark.parametrize("advice", [*REMEDIES.values(), NOT_A_UUID, NO_ACCOUNT])
def test_advice_names_buttons_instead_of_commands(advice: str) -> None:
    for event_id in (None, "evt_1"):
        words = in_words(advice.replace("EVENT", event_id) if event_id else advice, event_id)
        assert "`" not in words
        assert "webhook" not in words
        assert "EVENT" not in words


@pytest.mark.parametrize(
    ("advice", "words"),
    [
        ("reconcile this payment: webhook reconcile pi_1", "reconcile this payment"),
        ("webhook reconcile pi_1", "reconcile this payment"),
        (
            "webhook reconcile pi_1; if that changes nothing: webhook audit",
            "reconcile this payment; if that changes nothing: ask a developer to run `webhook audit`",
        ),
        (
            "look at the payment in Stripe's Dashboard; if it succeeded: webhook reconcile pi_1",
            "look at the payment in Stripe's Dashboard; if it succeeded: reconcile this payment",
        ),
        (
            "search at Stripe with --stripe; if the payment is yours: webhook reconcile pi_1",
            "search at Stripe; if the payment is yours: reconcile this payment",
        ),
        ("run webhook explain with the id of the right one", "open the right one"),
        ("Allow the debt to do it (--allow-debt, p_allow_debt).", "Allow the debt to do it."),
    ],
)
def test_advice_of_a_verdict_names_buttons(advice: str, words: str) -> None:
    assert in_words(advice) == words


def commands_in(file: Path) -> list[str]:
    """Return the texts of a module that name a command or an option, with an id for each value."""
    texts = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        match node:
            case ast.JoinedStr(parts):
                texts.append("".join(str(each.value) if isinstance(each, ast.Constant) else "pi_1" for each in parts))
            case ast.Constant(str(text)):
                texts.append(f"{text}pi_1" if text.endswith("webhook reconcile ") else text)
    return [text for text in texts if re.search(r"webhook [a-z]+ [^ ]|--[a-z]", text) and "``" not in text]


@pytest.mark.parametrize("name", ["sale_verdict", "user_verdict", "report"])
def test_every_command_in_a_verdict_has_words(name: str) -> None:
    """Support staff has no terminal."""
    texts = commands_in(PROJECT / "webhook" / "explain" / f"{name}.py")
    assert texts
    for text in texts:
        assert not re.search(r"--|webhook (?!audit)", in_words(text)), text


def test_key_of_the_console_is_not_asked_for() -> None:
    assert "STRIPE_API_KEY" in in_words(REMEDIES["missing_user"])
    assert "STRIPE_API_KEY" not in in_words(REMEDIES["missing_user"], has_stripe=True)


@pytest.mark.parametrize(
    ("parked", "accounts", "kinds"),
    [
        (event("missing_user"), {}, ["assign user", "retry", "discard"]),
        (
            event("missing_user", payer_email="a@x"),
            {USER: "a@x"},
            [f"assign {USER}", "assign user", "retry", "discard"],
        ),
        (event("missing_credits"), {}, ["assign credits", "retry", "discard"]),
        (event("unknown_user", user_reference=USER), {}, ["assign user", "retry", "discard"]),
        (event("unknown_user", user_reference=USER), {USER: "a@x"}, ["retry", "assign user", "discard"]),
        (event("unknown_user", user_reference="order_1"), {}, ["assign user", "retry", "discard"]),
        (event("unreadable"), {}, ["retry", "discard"]),
        (event("wrong_mode"), {}, ["retry", "discard"]),
        (event("missing_user", resolution="discarded"), {}, ["retry"]),
        (event("missing_user", resolution="discarded", resolved_at=LONG_AGO), {}, ["reconcile"]),
        (event("missing_user", resolution="discarded", resolved_at=LONG_AGO, payment_id=None), {}, []),
        (event("missing_user", resolution="settled"), {}, []),
    ],
)
def test_most_likely_step_comes_first(parked: ParkedEvent, accounts: dict[str, str], kinds: list[str]) -> None:
    steps = steps_of_event(parked, Accounts(**accounts))
    assert [f"{each.kind} {each.user.user_id if each.user else each.what}".strip() for each in steps] == kinds


def days(*credits_: tuple[int, int, int]) -> list[DailyCredits]:
    first = date(2026, 11, 1)
    return [DailyCredits(first + timedelta(days=n), *each) for n, each in enumerate(credits_)]


def test_chart_has_one_scale_for_both_sides() -> None:
    """100 credits up and 100 down are equally long, and the bars meet at the line of zero."""
    drawn = chart.draw(days((100, 0, 0), (0, 60, 40)))
    assert drawn is not None
    sold, spent, taken_back = drawn.bars
    assert sold.height == pytest.approx(spent.height + taken_back.height, abs=0.2)
    assert sold.y + sold.height == pytest.approx(drawn.zero, abs=0.2)
    assert spent.y == drawn.zero
    assert taken_back.y == pytest.approx(spent.y + spent.height, abs=0.2)
    assert [credits_ for _, credits_ in drawn.heights] == [100, -100, 0]


@pytest.mark.parametrize("credits_", [(5, 1, 0), (0, 3, 0), (7, 0, 0), (10**15, 1, 1), (10, -5, -5)])
def test_chart_stays_inside_its_box(credits_: tuple[int, int, int]) -> None:
    """Also if more was given back than taken on a day."""
    drawn = chart.draw(days(*[credits_] * 30))
    assert drawn is not None
    for bar in drawn.bars:
        assert chart.LEFT <= bar.x <= bar.x + bar.width <= chart.WIDTH - chart.RIGHT
        assert chart.TOP <= bar.y <= bar.y + bar.height <= chart.HEIGHT - chart.BOTTOM + 0.2
        assert bar.height >= 0


def test_chart_of_nothing_is_left_out() -> None:
    assert chart.draw(days((0, 0, 0))) is None


def test_labels_of_the_chart_do_not_overlap() -> None:
    drawn = chart.draw(days((1000, 1, 0)))
    assert drawn is not None
    assert [credits_ for _, credits_ in drawn.heights] == [1000, -1]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('{"a":1}', '{\n  "a": 1\n}'),
        ('{"a":"é"}', '{\n  "a": "é"\n}'),
        ("not json", "not json"),
        ('{"a":"\\ud800"}', '{\n  "a": "\\ud800"\n}'),
        ("[" * 100_000, "[" * MOST_PAYLOAD),
    ],
    ids=["indented", "letters", "not JSON", "half a surrogate pair", "deep"],
)
def test_payload_is_readable_text(text: str, shown: str) -> None:
    payload = payload_of(text)
    assert payload is not None
    assert payload.text == shown
    payload.text.encode()


def test_payload_is_cut_at_64_kibibytes_between_characters() -> None:
    payload = payload_of('"' + "é" * MOST_PAYLOAD + '"')
    assert payload is not None
    assert payload.is_cut
    assert len(payload.text.encode()) in (MOST_PAYLOAD, MOST_PAYLOAD - 1)
    assert payload_of(None) is None


def test_payload_that_indents_would_multiply_stays_small() -> None:
    """Indenting all of it would stop deliveries for seconds."""
    depth, numbers = 400, 10_000
    text = "[" * depth + "1," * numbers + "1" + "]" * depth
    tracemalloc.start()
    payload = payload_of(text)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert payload is not None
    assert (payload.is_cut, len(payload.text)) == (True, MOST_PAYLOAD)
    assert peak < 3_000_000
