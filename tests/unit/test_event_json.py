"""The body of an event is parsed as strict JSON, whichever parser reads it."""

from __future__ import annotations

import json
from typing import Any, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.recorded import recorded
from webhook.events.event import read_event
from webhook.events.signature import InvalidDeliveryError, Rejection


def reject(constant: str) -> NoReturn:
    raise ValueError(constant)


STRICT = json.JSONDecoder(parse_constant=reject)

NUMBERS = [
    *("0", "-0", "-0.0", "1.5", "1E5", "1e-400", "1e22", "0.1234567890123456789", "9007199254740993"),
    *("9223372036854775807", "9223372036854775808", "18446744073709551615", "18446744073709551616"),
    *("-9223372036854775808", "-9223372036854775809", "9" * 400, "1e400", "-1e400", "12345678901234567890.5"),
]
STRINGS = [
    *(r'"\ud800"', r'"\udfff\ud800"', r'"\ud83d\ude00"', r'"\u0000"', '"\x7f"', '"\u2028"', '"é😀"', r'"\/\b\f"'),
    *('"' + digit * 30 + '"' for digit in "059"),
]
INVALID = [
    *("NaN", "Infinity", "-Infinity", "01", "1.", ".5", "+1", "0x1", "1_0", "2.5e", "[1,]", "[1 2]", "{1:2}", "[1]x"),
    *("nul", "True", "", " ", '"', '"\x01"', r'"\x"', r'"\u12"', "\ufeff1", "\u00a01", "\x0c1", "/**/1", "[" * 5000),
]
VALUES = st.recursive(
    st.sampled_from([*NUMBERS, *STRINGS, "true", "false", "null"]) | st.integers().map(str) | st.text().map(json.dumps),
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


def test_recorded_event_is_parsed_as_by_the_strict_parser() -> None:
    event = recorded("invoice.paid")
    assert read_event(json.dumps(event, ensure_ascii=False)).object == event["data"]["object"]
