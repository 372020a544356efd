"""Single requests and paginated lists, as plain JSON; every failure is a :class:`StripeUnavailableError`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

from stripe import RequestsClient, StripeClient, StripeError

from webhook.settings import StripeSettings
from webhook.stripe_api.errors import StripeUnavailableError

DEFAULT_RETRIES = 1
OPERATOR_TIMEOUT = (5.0, 20.0)
"""Seconds to connect and to wait for a response when a person waits, not a delivery."""
_PAGE_SIZE = 100


def new_client(settings: StripeSettings, timeout: tuple[float, float], retries: int = DEFAULT_RETRIES) -> StripeClient:
    """Return Stripe's client; ``timeout`` is in seconds, to connect and to wait for a response."""
    return StripeClient(
        settings.api_key,
        http_client=RequestsClient(timeout=timeout),
        max_network_retries=retries,
        base_addresses={"api": settings.base} if settings.base else None,
    )


def request(client: StripeClient, method: str, path: str, **parameters: Any) -> Any:
    """Return the JSON object in the response; raises :class:`StripeUnavailableError`."""
    with _translated_errors():
        response = client.raw_request(method, path, **parameters)
    if not isinstance(response.data, dict):
        raise StripeUnavailableError("Stripe's response is not an object")
    return response.data


def pages(page_of: Callable[..., Any], **parameters: Any) -> Iterator[list[Any]]:
    """Yield the objects of each page of a list: https://docs.stripe.com/api/pagination.

    ``page_of`` requests one page. Raises :class:`StripeUnavailableError`.
    """
    while True:
        page = page_of(limit=_PAGE_SIZE, **parameters)
        try:
            objects, has_more = list(page["data"]), page["has_more"]
        except (KeyError, TypeError):
            raise StripeUnavailableError("Stripe's response is not a list") from None
        yield objects
        match objects:
            case _ if not has_more:
                return
            case [*_, {"id": str(last)}]:
                parameters["starting_after"] = last
            case _:
                raise StripeUnavailableError("Stripe's list has more pages, but its last object has no id")


def all_pages(page_of: Callable[..., Any], **parameters: Any) -> list[Any]:
    """Return the objects of all pages, as :func:`pages` reads them."""
    return [each for page in pages(page_of, **parameters) for each in page]


def path_segment(value: str) -> str:
    """Return an id as one segment of a path: a slash in it is escaped."""
    return quote(value, safe="")


@contextmanager
def _translated_errors() -> Iterator[None]:
    try:
        yield
    except StripeError as error:
        status = f"status {error.http_status}" if error.http_status else "no answer"
        raise StripeUnavailableError(
            f"Stripe: {type(error).__name__}, {status}", error.http_status, error.code, error.headers
        ) from error
