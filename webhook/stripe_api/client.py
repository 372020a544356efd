"""Stripe's API, asked only where an event alone is not enough."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from cachetools import TTLCache
from stripe import RequestsClient, StripeClient, StripeError

from webhook.events.lookups import ChargeRefunds, InvoiceLines, Lookup, Price, RelatedObject, Resolve, SessionLines
from webhook.settings import StripeSettings

_TIMEOUT = (2.0, 3.0)
"""Seconds to connect, and to wait for an answer: Checkout waits 10 for ours."""
_RETRIES = 1
_AT_ONCE = 6
"""Questions under way in a process: a slow Stripe holds up so many deliveries, and is asked no more often."""
_PRICES_KEPT = 1000
_SECONDS_KEPT = 300
_PAGE = 100
_SECONDS = re.compile(r"[0-9]{1,4}")
OPERATORS_TIMEOUT = (5.0, 20.0)
"""Seconds, where a person waits and no delivery does."""


class StripeUnavailableError(Exception):
    """Stripe's API does not answer now, or not with this key; the message says which, without data of any delivery."""

    def __init__(
        self, message: str, status: int | None = None, code: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        """``status``, ``code`` and ``headers`` are those of an answer that refuses, ``None`` where there was none."""
        super().__init__(message)
        said = headers or {}
        self.status = status
        self.should_retry = {"true": True, "false": False}.get(str(said.get("Stripe-Should-Retry")))
        """Whether Stripe says that the same request may be answered later; ``None`` where it says neither."""
        self.retry_after = int(after) if _SECONDS.fullmatch(after := str(said.get("Retry-After"))) else 0
        """Seconds that Stripe asks to wait for."""
        self.names_nothing = code == "resource_missing"
        """Whether the request named something that is not there: https://docs.stripe.com/error-codes."""

    def with_permission_hint(self, right: str) -> StripeUnavailableError:
        """Return the same in an operator's words; ``right`` is what a restricted key needs here."""
        match self.status:
            case HTTPStatus.UNAUTHORIZED:
                return StripeUnavailableError("Stripe does not accept this key", self.status)
            case HTTPStatus.FORBIDDEN:
                return StripeUnavailableError(f"the key lacks a right: add {right}", self.status)
            case HTTPStatus.TOO_MANY_REQUESTS:
                return StripeUnavailableError("Stripe is asked too often: try again in a minute", self.status)
            case _:
                return self


Watch = Callable[[], AbstractContextManager[None]]


class StripeAPI:
    """Answers questions as plain JSON; safe to share between threads."""

    def __init__(
        self,
        settings: StripeSettings,
        watch: Watch = nullcontext,
        *,
        timeout: tuple[float, float] = _TIMEOUT,
        retries: int = _RETRIES,
        at_once: int = _AT_ONCE,
    ) -> None:
        """Nothing is asked yet. Each request happens inside what ``watch`` returns."""
        self._watch = watch
        self._client = _client(settings, timeout, retries)
        self._places = threading.BoundedSemaphore(at_once)
        self._prices: TTLCache[tuple[str | None, str], Any] = TTLCache(_PRICES_KEPT, _SECONDS_KEPT)
        self._prices_lock = threading.Lock()

    def resolver(self, account: str | None = None) -> Resolve:
        """Return what answers questions about ``account``'s objects, by default our own."""
        return partial(self._answer, account)

    def _answer(self, account: str | None, question: Lookup) -> Any:
        match question:
            case SessionLines(session_id):
                return self._listed(account, f"/v1/checkout/sessions/{in_path(session_id)}/line_items")
            case InvoiceLines(invoice_id):
                return self._listed(account, f"/v1/invoices/{in_path(invoice_id)}/lines")
            case ChargeRefunds(charge_id):
                return self._listed(account, "/v1/refunds", charge=charge_id)
            case RelatedObject(path):
                return self._got(account, path)
            case Price(price_id):
                return self._price(account, price_id)

    def _price(self, account: str | None, price_id: str) -> Any:
        key = (account, price_id)
        with self._prices_lock:
            if key in self._prices:
                return self._prices[key]
        price = self._got(account, f"/v1/prices/{in_path(price_id)}", expand=["product"])
        with self._prices_lock:
            self._prices[key] = price
        return price

    def _listed(self, account: str | None, path: str, **parameters: Any) -> list[Any]:
        return _all_pages(partial(self._got, account, path), **parameters)

    def _got(self, account: str | None, path: str, **parameters: Any) -> Any:
        with self._place(), self._watch():
            return _request(self._client, "get", path, stripe_account=account, **parameters)

    @contextmanager
    def _place(self) -> Iterator[None]:
        """One of the places for a question; who finds none is asked to come back."""
        if not self._places.acquire(blocking=False):
            raise StripeUnavailableError("too many questions wait for Stripe")
        try:
            yield
        finally:
            self._places.release()


class StripeOperator:
    """What the commands of an operator resolve and change; the worker itself never writes. Answers are plain JSON."""

    def __init__(self, settings: StripeSettings) -> None:
        """Nothing is asked yet."""
        self._client = _client(settings, OPERATORS_TIMEOUT)

    def endpoints(self) -> list[Any]:
        """Return all endpoints: https://docs.stripe.com/api/webhook_endpoints/list."""
        return _all_pages(partial(_request, self._client, "get", "/v1/webhook_endpoints"))

    def create_endpoint(self, **parameters: Any) -> Any:
        """Return the new endpoint, with its ``secret``: https://docs.stripe.com/api/webhook_endpoints/create."""
        return _request(self._client, "post", "/v1/webhook_endpoints", **parameters)

    def update_endpoint(self, endpoint_id: str, **parameters: Any) -> Any:
        """Return the endpoint as it is then: https://docs.stripe.com/api/webhook_endpoints/update."""
        return _request(self._client, "post", f"/v1/webhook_endpoints/{in_path(endpoint_id)}", **parameters)

    def delete_endpoint(self, endpoint_id: str) -> None:
        """Nothing is delivered there any more: https://docs.stripe.com/api/webhook_endpoints/delete."""
        _request(self._client, "delete", f"/v1/webhook_endpoints/{in_path(endpoint_id)}")

    def undelivered_events(self, types: tuple[str, ...], since: int) -> list[Any]:
        """Return the events that Stripe still delivers, or gave up on: https://docs.stripe.com/api/events/list."""
        page = partial(_request, self._client, "get", "/v1/events")
        return _all_pages(page, types=list(types), created={"gte": since}, delivery_success=False)

    def try_list(self, path: str) -> None:
        """Resolve for one object of a list: the key's right to do so is all that counts."""
        _request(self._client, "get", path, limit=1)


def stripe_api(settings: StripeSettings | None, watch: Watch = nullcontext) -> StripeAPI | None:
    """Return the API as the settings describe it, ``None`` without a key."""
    return StripeAPI(settings, watch) if settings else None


def in_path(value: str) -> str:
    """Return an id as it stands in the path of a request."""
    return quote(value, safe="")


def _client(settings: StripeSettings, timeout: tuple[float, float], retries: int = _RETRIES) -> StripeClient:
    return StripeClient(
        settings.api_key,
        http_client=RequestsClient(timeout=timeout),
        max_network_retries=retries,
        base_addresses={"api": settings.base} if settings.base else None,
    )


def _all_pages(page_of: Callable[..., Any], **parameters: Any) -> list[Any]:
    return [each for page in pages(page_of, **parameters) for each in page]


def pages(page_of: Callable[..., Any], **parameters: Any) -> Iterator[list[Any]]:
    """Yield the objects of each page: https://docs.stripe.com/api/pagination."""
    while True:
        page = page_of(limit=_PAGE, **parameters)
        try:
            objects, has_more = list(page["data"]), page["has_more"]
        except (KeyError, TypeError):
            raise StripeUnavailableError("Stripe's answer is no list") from None
        yield objects
        match objects:
            case _ if not has_more:
                return
            case [*_, {"id": str(last)}]:
                parameters["starting_after"] = last
            case _:
                raise StripeUnavailableError("Stripe's answer does not say how its list goes on")


def _request(client: StripeClient, method: str, path: str, **parameters: Any) -> Any:
    with _translated_errors():
        response = client.raw_request(method, path, **parameters)
    if not isinstance(response.data, dict):
        raise StripeUnavailableError("Stripe's answer is no object")
    return response.data


@contextmanager
def _translated_errors() -> Iterator[None]:
    try:
        yield
    except StripeError as error:
        status = f"status {error.http_status}" if error.http_status else "no answer"
        raise StripeUnavailableError(
            f"Stripe: {type(error).__name__}, {status}", error.http_status, error.code, error.headers
        ) from error
