"""A stand-in for Stripe's API on loopback: lists that page, objects, events; it can limit the rate, stall and fail.

It keeps the current objects and their events. It answers over real HTTP, so that tests use the real client with its
timeouts and retries: https://docs.stripe.com/api/pagination.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from support.recorded import payment_intent_event

JSONObject = dict[str, Any]
DAY = 86_400

LISTS = {
    "/v1/checkout/sessions": "checkout.session",
    "/v1/payment_intents": "payment_intent",
    "/v1/invoices": "invoice",
    "/v1/invoice_payments": "invoice_payment",
    "/v1/refunds": "refund",
    "/v1/disputes": "dispute",
    "/v1/charges": "charge",
    "/v1/events": "event",
    "/v1/subscriptions": "subscription",
    "/v1/prices": "price",
}

CONDITION = re.compile(r'([a-z0-9_.]+)(:|>=|<)(?:"([^"]*)"|([^"]*))')
SEARCHABLE = {
    "/v1/charges": {"amount", "created", "currency", "customer", "payment_method_details.card.last4", "status"},
    "/v1/payment_intents": {"amount", "created", "currency", "customer", "status"},
    "/v1/invoices": {"created", "currency", "customer", "number", "receipt_number", "status", "subscription", "total"},
}
"""The fields that Stripe can search: https://docs.stripe.com/search#supported-query-fields-for-each-resource."""


@dataclass
class StripeStandIn:
    """The state of Stripe. ``objects`` has all objects of one account, by id."""

    account: str | None = None
    objects: dict[str, JSONObject] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    error_status: Callable[[str, int], int | None] = lambda path, number: None  # noqa: ARG005
    """Returns the status of the error for a path and its number of requests; 0 closes the connection instead."""
    rejected_parameters: set[str] = field(default_factory=set)
    """Parameters that lists reject with a 400 whose code is not resource_missing."""
    before_answer: Callable[[str], None] = lambda path: None  # noqa: ARG005
    url: str = ""

    def add_events(self, *events: JSONObject, at: float | None = None, created: float | None = None) -> None:
        """Add events of ``at`` a time (default: a minute ago) on objects ``created`` then or at another time."""
        for event in events:
            moment = int(time.time() - 60 if at is None else at)
            source = deepcopy(event["data"]["object"])
            if source["object"] == "invoice":
                source["status_transitions"]["paid_at"] = moment
            known = self.objects.get(source["id"])
            made = known["created"] if known else int(moment if created is None else created)
            _shift_periods(source, made)
            self.objects[source["id"]] = source | {"created": made}
            self.objects[event["id"]] = event | {
                "created": moment,
                "data": {"object": source | {"created": made}},
            }
            self._make_payment(source, made)

    def _make_payment(self, source: JSONObject, created: int) -> None:
        """Add the PaymentIntent of a session or of an invoice's payment."""
        payment_id = source.get("payment_intent") or (source.get("payment") or {}).get("payment_intent")
        if source["object"] not in ("checkout.session", "invoice_payment") or not payment_id:
            return
        paid = source.get("payment_status", "paid") == "paid"
        event = payment_intent_event(id=payment_id, user_id=None, credits=None)
        made = event["data"]["object"] | {"created": created, "status": "succeeded" if paid else "processing"}
        known = self.objects.setdefault(payment_id, made)
        if paid and known["status"] == "processing":
            known["status"] = "succeeded"

    def _is_listed(self, source: JSONObject) -> bool:
        """Whether lists still have the object: Stripe keeps events for 30 days."""
        return source["object"] != "event" or source["created"] >= time.time() - 30 * DAY

    def delete_events(self) -> None:
        """Remove all events, as if Stripe had created none, or had deleted the old ones."""
        self.objects = {key: value for key, value in self.objects.items() if value["object"] != "event"}

    def settings(self, database_url: str) -> dict[str, str]:
        """The environment of a command that uses this stand-in."""
        return {"DATABASE_URL": database_url, "STRIPE_API_KEY": "rk_test_1", "STRIPE_API_BASE": self.url}

    def answer(self, path: str, query: dict[str, str], account: str | None) -> tuple[int, JSONObject]:
        """Return the status and the body of a response."""
        objects = self.objects if account == self.account else {}
        if path.removesuffix("/search") in SEARCHABLE and path.endswith("/search"):
            return self._search(list(objects.values()), path.removesuffix("/search"), query)
        if path in LISTS:
            return self._list(list(objects.values()), path, query)
        kind, _, object_id = path.rpartition("/")
        if object_id == "line_items" and (session := objects.get(kind.rpartition("/")[2])):
            lines = [self._expanded(line, ["price"]) for line in session.get("line_items", {}).get("data", [])]
            return 200, {"object": "list", "data": lines, "has_more": False, "url": path}
        source = objects.get(object_id)
        if source is None or LISTS.get(kind) != source["object"]:
            return 404, {"error": {"type": "invalid_request_error", "code": "resource_missing", "message": "gone"}}
        return 200, self._expanded(source, [value for key, value in query.items() if key.startswith("expand")])

    def _list(self, every: list[JSONObject], path: str, query: dict[str, str]) -> tuple[int, JSONObject]:
        if self.rejected_parameters & query.keys():
            return 400, {"error": {"type": "invalid_request_error", "code": "parameter_invalid", "message": "no"}}
        if (payment_id := query.get("payment_intent")) and payment_id not in self.objects:
            return 400, {"error": {"type": "invalid_request_error", "code": "resource_missing", "message": "gone"}}
        every = [source for source in every if source["object"] == LISTS[path] and self._is_listed(source)]
        found = [source for source in every if _matches(source, query)]
        found.sort(key=lambda source: (source["created"], source["id"]), reverse=True)
        ids = [source["id"] for source in found]
        start = ids.index(query["starting_after"]) + 1 if "starting_after" in query else 0
        limit = int(query.get("limit", "10"))
        fields = [value[len("data.") :] for key, value in query.items() if key.startswith("expand")]
        page = [self._expanded(source, fields) for source in found[start : start + limit]]
        return 200, {"object": "list", "data": page, "has_more": start + limit < len(found), "url": path}

    def _search(self, every: list[JSONObject], path: str, query: dict[str, str]) -> tuple[int, JSONObject]:
        """Return what fits all conditions: https://docs.stripe.com/search#search-query-language."""
        conditions = [CONDITION.fullmatch(each) for each in query["query"].split(" AND ")]
        allowed = SEARCHABLE[path]
        if not all(each and (each[1] in allowed) for each in conditions):
            return 400, {"error": {"type": "invalid_request_error", "code": "parameter_invalid", "message": "no"}}
        found = [
            source
            for source in every
            if source["object"] == LISTS[path]
            and all(_fits(_field(source, each[1]), each[2], each[3] or each[4]) for each in conditions if each)
        ]
        fields = [value[len("data.") :] for key, value in query.items() if key.startswith("expand")]
        page = [self._expanded(source, fields) for source in found[: int(query["limit"])]]
        return 200, {"object": "search_result", "data": page, "has_more": False, "url": f"{path}/search"}

    def _expanded(self, source: JSONObject, fields: list[str]) -> JSONObject:
        """Return the object with these fields expanded: https://docs.stripe.com/expand."""
        shown = deepcopy(source)
        if shown["object"] == "invoice":
            payments = [each for each in self.objects.values() if each.get("invoice") == shown["id"]]
            payments = [each for each in payments if each["object"] == "invoice_payment"]
            shown.pop("payments", None)
            if "payments" in fields:
                shown["payments"] = {"object": "list", "data": payments[:10], "has_more": len(payments) > 10}
        if shown["object"] == "checkout.session":
            lines = shown.pop("line_items", None) or {"object": "list", "data": [], "has_more": False}
            if "line_items" in fields:
                shown["line_items"] = lines
        for name in fields:
            self._expand(shown, name.split("."))
        return shown

    def _expand(self, holder: JSONObject, path: list[str]) -> None:
        name, *rest = path
        held = self.objects.get(held_id) if isinstance(held_id := holder.get(name), str) else holder.get(name)
        if isinstance(held, dict) and held.get("object") != "list":
            holder[name] = deepcopy(held)
            if rest:
                self._expand(holder[name], rest)


def _shift_periods(source: JSONObject, created: int) -> None:
    """Shift the periods of an invoice's lines along with its creation."""
    for line in source["lines"]["data"] if source["object"] == "invoice" else ():
        shift = created - source["created"]
        line["period"] = {name: at + shift for name, at in line["period"].items()}


def _field(source: JSONObject, name: str) -> Any:
    """Return the field of a search; ``payment_method_details.card.last4`` is nested."""
    value: Any = source
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _fits(value: Any, operator: str, wanted: str) -> bool:
    match operator:
        case ":":
            return str(value) == wanted
        case ">=":
            return int(value) >= int(wanted)
        case _:
            return int(value) < int(wanted)


_SUBSCRIPTION = "parent.subscription_details.subscription"
"""Where an invoice names its subscription. A session has a field for it."""


def _matches(source: JSONObject, query: dict[str, str]) -> bool:
    created = source["created"]
    types = [value for key, value in query.items() if key.startswith("types")]
    return (
        created >= int(query.get("created[gte]", "0"))
        and created < int(query.get("created[lt]", "99999999999"))
        and (not types or source["type"] in types)
        and ("payment_intent" not in query or source.get("payment_intent") == query["payment_intent"])
        and query.get("payment[payment_intent]") in (None, (source.get("payment") or {}).get("payment_intent"))
        and query.get("customer_details[email]") in (None, _field(source, "customer_details.email"))
        and ("customer" not in query or source.get("customer") == query["customer"])
        and query.get("subscription") in (None, source.get("subscription"), _field(source, _SUBSCRIPTION))
        and ("invoice" not in query or source.get("invoice") == query["invoice"])
        and ("charge" not in query or source.get("charge") == query["charge"])
    )


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Print nothing: some tests close the connection on purpose."""


@contextmanager
def serving(stand_in: StripeStandIn) -> Iterator[StripeStandIn]:
    """Serve on a port of loopback, and set ``url`` to the value for STRIPE_API_BASE."""
    lock = threading.Lock()
    counts: Counter[str] = Counter()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = dict(parse_qsl(parts.query))
            with lock:
                stand_in.requests.append((parts.path, query))
                counts[parts.path] += 1
                error = stand_in.error_status(parts.path, counts[parts.path])
            stand_in.before_answer(parts.path)
            if error == 0:
                self.close_connection = True
                return
            if error:
                status, body = error, {"error": {"type": "api_error", "message": "refused"}}
            else:
                with lock:
                    status, body = stand_in.answer(parts.path, query, self.headers.get("Stripe-Account"))
            text = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    with _QuietServer(("127.0.0.1", 0), Handler) as server:
        stand_in.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield stand_in
        finally:
            server.shutdown()
