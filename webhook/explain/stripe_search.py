"""Searches at Stripe for what the database does not know. It only reads, and reports all that it searched."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from http import HTTPStatus
from itertools import islice
from typing import Any, Protocol
from urllib.parse import quote

from webhook.explain.candidates import MOST, Candidate
from webhook.explain.query import Query, read_query
from webhook.explain.stripe_objects import candidate_of, named_object
from webhook.explain.wording import decimals
from webhook.stripe_api.errors import StripeUnavailableError

MOST_CHARGES = 300
"""Charges of a day that are compared with a receipt number, which Stripe cannot search."""

_CHARGES, _SESSIONS, _INTENTS = "/v1/charges", "/v1/checkout/sessions", "/v1/payment_intents"
_INVOICES = "/v1/invoices"
_PATHS = {
    "ch": _CHARGES,
    "py": _CHARGES,
    "cs": _SESSIONS,
    "pi": _INTENTS,
    "in": _INVOICES,
    "inpay": "/v1/invoice_payments",
    "re": "/v1/refunds",
    "pyr": "/v1/refunds",
    "dp": "/v1/disputes",
    "du": "/v1/disputes",
    "evt": "/v1/events",
}
"""Where Stripe has the object of an id, by its prefix."""
_LISTS = {"sub": (_INVOICES, "subscription"), "cus": (_CHARGES, "customer")}
"""The lists that are filtered by an id."""
_FIELD_PATHS = {"payment_intent": _INTENTS, "charge": _CHARGES, "invoice": _INVOICES}
_EXPAND = {_INTENTS: ["latest_charge"]}
_PERMISSIONS = {
    _CHARGES: "Charges and Refunds: Read",
    _SESSIONS: "Checkout Sessions: Read",
    _INTENTS: "PaymentIntents: Read, Charges and Refunds: Read",
    _INVOICES: "Invoices: Read",
    "/v1/invoice_payments": "Invoices: Read",
    "/v1/refunds": "Charges and Refunds: Read",
    "/v1/disputes": "Disputes: Read",
    "/v1/events": "Events: Read",
}

Object = Mapping[str, Any]


class Reader(Protocol):
    """Reads objects at Stripe, as :class:`webhook.stripe_api.bulk.StripeReader` does."""

    def get(self, account: str | None, path: str, object_id: str, **parameters: Any) -> dict[str, Any] | None:
        """Return one object, ``None`` if Stripe does not have it."""

    def pages(self, account: str | None, path: str, **parameters: Any) -> Iterator[list[dict[str, Any]]]:
        """Yield the pages of a list, newest objects first."""

    def search(self, account: str | None, path: str, query: str, **parameters: Any) -> list[dict[str, Any]]:
        """Return the first objects that a query in Stripe's search language finds."""


@dataclass
class StripeFindings:
    """The payments that were found at Stripe, each once, and what was searched, for people."""

    candidates: list[Candidate] = field(default_factory=list)
    searched: list[str] = field(default_factory=list)
    dashboard: str | None = None
    """The address of the Dashboard's search, if Stripe's API cannot search for it."""


def search_stripe(reader: Reader, text: str, accounts: Iterable[str | None] = (None,)) -> StripeFindings:
    """Return what Stripe knows; raises :class:`StripeUnavailableError`. ``None`` is the key's own account."""
    query, findings = read_query(text), StripeFindings()
    seen: set[str | None] = set()
    for account in accounts:
        search = _Search(reader, account, query, findings.searched)
        for source in search.objects():
            found = candidate_of(source)
            if found and found.payment_id not in seen and len(findings.candidates) < MOST:
                seen.add(found.payment_id)
                findings.candidates.append(found)
    if not findings.candidates:
        findings.dashboard = f"https://dashboard.stripe.com/search?query={quote(query.text, safe='')}"
    return findings


@dataclass(frozen=True)
class _Search:
    """The search in one account."""

    reader: Reader
    account: str | None
    query: Query
    searched: list[str]

    def objects(self) -> Iterator[Object]:
        """Yield the payments, sessions, charges and invoices that the query is for."""
        query = self.query
        if query.id:
            yield from self._by_id(query.prefix, query.id)
        elif query.number:
            yield from self._by_number(query.number)
        else:
            if query.email:
                yield from filter(self._fits, self._by_email(query.email))
            if query.amount is not None and query.day:
                yield from filter(self._fits, self._by_amount())

    def _by_id(self, prefix: str, object_id: str) -> Iterator[Object]:
        if prefix in _LISTS:
            path, parameter = _LISTS[prefix]
            yield from self._list(path, MOST, **{parameter: object_id})
        elif prefix in _PATHS:
            yield from self._payment(self._get(_PATHS[prefix], object_id))

    def _payment(self, source: Object | None) -> Iterator[Object]:
        """Yield the payment of any object: that of an event, a refund, a dispute or an invoice's payment."""
        if source is not None and source.get("object") == "event":
            source = source["data"]["object"]
        if source is None or candidate_of(source):
            yield from filter(None, [source])
        elif named := named_object(source):
            field_name, object_id = named
            yield from self._payment(self._get(_FIELD_PATHS[field_name], object_id))

    def _by_email(self, email: str) -> Iterator[Object]:
        yield from self._list(_SESSIONS, MOST, customer_details={"email": email})

    def _by_number(self, number: str) -> Iterator[Object]:
        for name in ("number", "receipt_number"):
            yield from self._search(_INVOICES, f"{name}:{_quoted(number)}")
        if self.query.day:
            first, last = _bounds(self.query.day)
            charges = self._list(_CHARGES, MOST_CHARGES, created={"gte": first, "lt": last})
            yield from (charge for charge in charges if charge.get("receipt_number") == number)
        else:
            self.searched.append("not charges: Stripe cannot search their receipt numbers; add the day of the payment")

    def _by_amount(self) -> Iterator[Object]:
        query = self.query
        first, last = _bounds(query.day or date.min)
        conditions = f"amount:{self._minor_units()} AND created>={first} AND created<{last}"
        if query.currency:
            conditions += f" AND currency:{_quoted(query.currency)}"
        if query.last4:
            yield from self._search(_CHARGES, f"{conditions} AND payment_method_details.card.last4:{query.last4}")
        elif query.email:
            yield from self._search(_INTENTS, conditions)

    def _fits(self, source: Object) -> bool:
        """Whether the payer, amount and day are those of the query, as far as it names them."""
        found, query = candidate_of(source), self.query
        return found is not None and (
            (not query.email or (found.email or "").lower() == query.email.lower())
            and (query.amount is None or found.amount == self._minor_units(found.currency))
            and (query.day is None or found.at is None or found.at.date() == query.day)
        )

    def _minor_units(self, currency: str | None = None) -> int:
        amount = self.query.amount or 0
        return int(amount * 10 ** decimals(self.query.currency or currency or "usd"))

    def _get(self, path: str, object_id: str) -> Object | None:
        title = f"{path.removeprefix('/v1/')}/{object_id}"
        return next(self._noted(path, title, lambda: self._one(path, object_id)), None)

    def _one(self, path: str, object_id: str) -> Iterator[Object]:
        source = self.reader.get(self.account, path, object_id, **_expand(path, ""))
        yield from filter(None, [source])

    def _list(self, path: str, most: int, **parameters: Any) -> Iterator[Object]:
        pages = self.reader.pages(self.account, path, **parameters, **_expand(path, "data."))
        shown = " ".join(f"{name} {value}" for name, value in _flat(parameters))
        title = f"{path.removeprefix('/v1/')} with {shown}, at most {most}"
        return self._noted(path, title, lambda: islice((each for page in pages for each in page), most))

    def _search(self, path: str, conditions: str) -> Iterator[Object]:
        title = f"{path.removeprefix('/v1/')} with {conditions}"
        search = self.reader.search
        return self._noted(path, title, lambda: iter(search(self.account, path, conditions, **_expand(path, "data."))))

    def _noted(self, path: str, title: str, read: Any) -> Iterator[Object]:
        """Yield the objects that ``read`` returns, and note what was searched, or that the key may not read it."""
        where = f" in {self.account}" if self.account else ""
        try:
            found = list(read())
        except StripeUnavailableError as error:
            if error.status != HTTPStatus.FORBIDDEN:
                raise
            self.searched.append(f"not {title}{where}: {error.with_permission_hint(_PERMISSIONS[path])}")
            return
        self.searched.append(f"{title}{where}: {len(found)} found")
        yield from found


def _expand(path: str, prefix: str) -> dict[str, Any]:
    fields = [prefix + name for name in _EXPAND.get(path, [])]
    return {"expand": fields} if fields else {}


def _flat(parameters: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in parameters.items():
        if isinstance(value, dict):
            yield from ((f"{name}[{key}]", each) for key, each in value.items())
        else:
            yield name, value


def _bounds(day: date) -> tuple[int, int]:
    """Return the first second of a day and of the next one, in UTC, in seconds since 1970."""
    start = datetime.combine(day, time(), UTC)
    return int(start.timestamp()), int((start + timedelta(days=1)).timestamp())


def _quoted(value: str) -> str:
    r"""Return a value for Stripe's search language: https://docs.stripe.com/search#search-query-language."""
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
