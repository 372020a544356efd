"""The body of an event is parsed as strict JSON, whichever parser reads it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.recorded import EVENTS, NEWEST, recorded
from webhook.events.event import EventScope, read_event
from webhook.events.interpret import interpret
from webhook.events.signature import InvalidDeliveryError, Rejection


def reject(constant: str) -> NoReturn:
    raise ValueError(constant)


STRICT = json.JSONDecoder(parse_constant=reject)

NUMBERS = [
    *("0", "-0", "-0.0", "1.5", "1E5", "1e-400", "1e22", "0.1234567890123456789", "9007199254740993"),
    *("9223372036854775807", "9223372036854775808", "18446744073709551615", "-9223372036854775808"),
    *("9" * 400, "1e400", "-1e400", "12345678901234567890.5"),
]
LONG_NUMBERS = [2**64, -(2**63) - 1, 10**30]
"""Beyond 64 bits, the worker's parser returns a float."""
STRINGS = [
    *(r'"\ud800"', r'"\udfff\ud800"', r'"\ud83d\ude00"', r'"\u0000"', '"\x7f"', '"\u2028"', '"é😀"', r'"\/\b\f"'),
    *('"' + digit * 30 + '"' for digit in "059"),
]
INVALID = [
    *("NaN", "Infinity", "-Infinity", "01", "1.", ".5", "+1", "0x1", "1_0", "2.5e", "[1,]", "[1 2]", "{1:2}", "[1]x"),
    *("nul", "True", "", " ", '"', '"\x01"', r'"\x"', r'"\u12"', "\ufeff1", "\u00a01", "\x0c1", "/**/1", "[" * 5000),
]
VALUES = st.recursive(
    st.sampled_from([*NUMBERS, *STRINGS, "true", "false", "null"])
    | st.integers(-(2**63), 2**64 - 1).map(str)
    | st.text().map(json.dumps),
    lambda values: (
        st.lists(values).map(lambda items: f"[{', '.join(items)}]")
        | st.lists(st.tuples(st.sampled_from(STRINGS), values)).map(
            lambda pairs: "{" + ",\n".join(f"{key} : {value}" for key, value in pairs) + "}"
        )
    ),
    max_leaves=20,
)


def event_with(value: str) -> str:
    """Return the text of an event whose object contains the value, which may be no JSON."""
    return f'{{"id": "evt_1", "type": "refund.created", "data": {{"object": {{"value": {value}}}}}}}'


def parsed(value: str) -> Any:
    return read_event(event_with(value)).object["value"]


def described(value: Any) -> str:
    """Return the value with its types: 1, 1.0 and true are equal in Python."""
    return repr(value)


def with_each_number_replaced(value: Any, number: int) -> Iterator[Any]:
    """Yield copies of a JSON value, each with another one of its numbers replaced."""
    if type(value) is int:
        yield number
    elif isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            for other in with_each_number_replaced(item, number):
                copy = value.copy()
                copy[key] = other
                yield copy


def short(value: str) -> str:
    return ascii(value)[:20]


@pytest.mark.parametrize("value", [*NUMBERS, *STRINGS], ids=short)
def test_odd_value_is_parsed_as_by_the_strict_parser(value: str) -> None:
    assert described(parsed(value)) == described(STRICT.decode(value))


@given(VALUES)
def test_any_value_is_parsed_as_by_the_strict_parser(value: str) -> None:
    """Names that occur twice are included: the last one counts."""
    assert described(parsed(value)) == described(STRICT.decode(value))


@pytest.mark.parametrize("value", INVALID, ids=short)
def test_text_that_is_not_json_is_rejected(value: str) -> None:
    with pytest.raises(InvalidDeliveryError) as raised:
        read_event(event_with(value))
    assert raised.value.rejection is Rejection.NOT_JSON


@pytest.mark.parametrize("number", LONG_NUMBERS)
@pytest.mark.parametrize("name", sorted(path.stem for path in (EVENTS / NEWEST).glob("*.json")))
def test_long_number_has_the_meaning_of_the_strict_parser(
    name: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it is: no field may be as large."""
    bodies = [json.dumps(body) for body in with_each_number_replaced(recorded(name), number)]
    fast = [interpret(read_event(body), EventScope(livemode=False)) for body in bodies]
    monkeypatch.setattr("webhook.events.event.orjson.loads", STRICT.decode)
    assert fast == [interpret(read_event(body), EventScope(livemode=False)) for body in bodies]
    assert len(bodies) > 1


def test_recorded_event_is_parsed_as_by_the_strict_parser() -> None:
    event = recorded("invoice.paid")
    assert read_event(json.dumps(event, ensure_ascii=False)).object == event["data"]["object"]
