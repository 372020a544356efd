"""Templates, and the filters that make text from outside visible and harmless."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from itertools import groupby
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from webhook.explain import wording
from webhook.explain.escapes import printable

NOTHING = "-"
_STRIPE_ID = re.compile(r"([a-z]+)_[A-Za-z0-9_]+", re.ASCII)
_DASHBOARD = "https://dashboard.stripe.com"
_DASHBOARD_PAGES = {
    "pi": "payments",
    "ch": "payments",
    "py": "payments",
    "in": "invoices",
    "cus": "customers",
    "sub": "subscriptions",
    "evt": "events",
}


class Templates:
    """The templates of the console. They escape every value that is not marked as HTML."""

    def __init__(self, *, livemode: bool, **values: Any) -> None:
        """``livemode`` chooses the part of Stripe's Dashboard; templates see the ``values`` as globals."""
        self._environment = Environment(
            loader=PackageLoader("webhook.console"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.globals.update(values)
        self._environment.filters.update(
            outside=outside,
            outside_lines=outside_lines,
            money=money,
            credits=credits_,
            when=when,
            object_id=lambda object_id: link_to_dashboard(object_id, livemode=livemode),
        )

    def render(self, template: str, **values: Any) -> str:
        """Return the page."""
        return self._environment.get_template(template).render(**values)


def outside(text: Any) -> Markup:
    """Return text from outside, with control characters, bidirectional marks and line separators made visible."""
    if text is None:
        return Markup(NOTHING)  # noqa: S704 - a constant
    value = str(text)
    if value.isprintable():  # nearly every text; a long list has a thousand
        return Markup(f"<bdi>{escape(value)}</bdi>")  # noqa: S704 - the text is escaped
    parts = "".join(_visible("".join(run), is_mark=not shown) for shown, run in groupby(value, str.isprintable))
    return Markup(f"<bdi>{parts}</bdi>")  # noqa: S704 - the parts are escaped


def outside_lines(text: str) -> Markup:
    """Return text of several lines, such as a payload; each line as :func:`outside` has it."""
    return Markup("\n").join(outside(line) for line in str(text).split("\n"))


def money(amount: int | None, currency: str | None) -> str:
    """Return an amount in minor units, such as ``10.00 USD``."""
    return printable(wording.money(amount, currency)) if amount is not None and currency else NOTHING


def credits_(amount: int | None, *, signed: bool = False) -> str:
    """Return credits with a separator for thousands; ``signed`` also shows the sign of a gain."""
    if amount is None:
        return NOTHING
    return f"{amount:+,}" if signed else f"{amount:,}"


def when(at: datetime | None) -> Markup:
    """Return a time in UTC."""
    if at is None:
        return Markup(NOTHING)  # noqa: S704 - a constant
    shown = wording.moment(at)
    return Markup('<time datetime="{}">{}</time>').format(at.astimezone(UTC).isoformat(timespec="seconds"), shown)


def link_to_dashboard(object_id: str | None, *, livemode: bool) -> Markup:
    """Return an id with a link to Stripe's Dashboard, if it has the form of an id of Stripe."""
    shown = Markup("<code>{}</code>").format(outside(object_id))
    found = _STRIPE_ID.fullmatch(object_id or "")
    if found is None:
        return shown
    mode = "" if livemode else "/test"
    page = _DASHBOARD_PAGES.get(found[1])
    address = f"{_DASHBOARD}{mode}/" + (f"{page}/{found[0]}" if page else f"search?query={found[0]}")
    link = Markup('<a class="dashboard" href="{}" rel="noreferrer" title="Open in the Dashboard of Stripe">Stripe</a>')
    return Markup("{} {}").format(shown, link.format(address))


@cache
def style_sheet() -> tuple[str, str]:
    """Return the style sheet, and a version that changes with it."""
    text = (files("webhook.console") / "templates" / "style.css").read_text(encoding="utf-8")
    return text, hashlib.sha256(text.encode()).hexdigest()[:12]


def _visible(part: str, *, is_mark: bool) -> str:
    return f'<span class="mark">{escape(printable(part))}</span>' if is_mark else escape(part)
