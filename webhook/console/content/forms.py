"""Reads the fields of a form."""

from __future__ import annotations

import re
import uuid

from werkzeug.datastructures import MultiDict

from webhook.errors import ExpectedError
from webhook.events.fields import IDENTIFIER
from webhook.events.sales import user_id_of
from webhook.explain.escapes import printable

LONGEST_REASON, LONGEST_DESCRIPTION = 1000, 200
_WHOLE_NUMBER = re.compile(r"[0-9]{1,10}", re.ASCII)

Form = MultiDict[str, str]


class FieldError(ExpectedError):
    """A field of a form is missing or wrong. The message names the field."""


def text(form: Form, name: str, title: str, longest: int) -> str:
    """Return a text that is required."""
    if found := optional_text(form, name, title, longest):
        return found
    raise FieldError(f"{title} is empty.")


def optional_text(form: Form, name: str, title: str, longest: int) -> str | None:
    """Return one line of text, ``None`` if it is empty."""
    value = form.get(name, "").strip()
    if not value.isprintable():
        raise FieldError(f"{title} must be one line of text, without control characters.")
    if len(value) > longest:
        raise FieldError(f"{title} has more than {longest} characters.")
    return value or None


def prefilled(fields: Form) -> dict[str, str]:
    """Return the fields to show in a form again, with control characters as escapes: a link may contain them."""
    return {name: printable(value) for name, value in fields.items()}


def reason(form: Form) -> str:
    """Return the reason of an action."""
    return text(form, "reason", "The reason", LONGEST_REASON)


def credits_(form: Form, most: int) -> int:
    """Return a number of credits, from 1 to ``most``."""
    value = form.get("credits", "").strip()
    if not _WHOLE_NUMBER.fullmatch(value) or not 1 <= int(value) <= most:
        raise FieldError(f"Credits must be a whole number from 1 to {most}. The command line has no such limit.")
    return int(value)


def optional_credits(form: Form, most: int) -> int | None:
    """Return a number of credits, ``None`` if the field is empty."""
    return credits_(form, most) if form.get("credits", "").strip() else None


def action_id(form: Form) -> str:
    """Return the id that the preview fixed."""
    if found := user_id_of(form.get("id", "")):
        return str(found)
    raise FieldError("The form has no action id: open it again.")


def new_action_id() -> str:
    """Return the id of a new action."""
    return str(uuid.uuid4())


def identifier(form: Form, name: str) -> str:
    """Return the id of an event or payment."""
    value = form.get(name, "").strip()
    if IDENTIFIER.fullmatch(value):
        return value
    raise FieldError("The id of the event or payment is missing or wrong.")
