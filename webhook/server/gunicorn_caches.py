"""Values that gunicorn computes anew for each request, although they seldom change.

They take a tenth of its part of a request. The caches replace names inside gunicorn, so a test checks that the
installed version uses these names.
"""

from __future__ import annotations

import time
from functools import cache, lru_cache
from typing import Any

from gunicorn import util
from gunicorn.config import Config
from gunicorn.http import message, wsgi

_MOST_ADDRESSES = 1024


def add_caches(config: Config) -> None:
    """Add the caches to this process, which serves with these settings until its end."""
    # Some twenty settings are looked up for each request. As plain attributes they take no function calls.
    config.__dict__.update({name: setting.get() for name, setting in config.settings.items()})
    util.http_date = _http_date
    wsgi.WSGIErrorsWrapper = cache(wsgi.WSGIErrorsWrapper)
    message.HeaderPolicy._peer_is_trusted_proxy = _trust(config)  # noqa: SLF001


def _http_date(timestamp: float | None = None) -> str:
    """Return the value of a Date header: https://www.rfc-editor.org/rfc/rfc9110#field.date."""
    return str(_date_of(int(time.time() if timestamp is None else timestamp)))


_date_of = lru_cache(maxsize=1)(util.http_date)


def _trust(config: Config) -> Any:
    """Return the method that tells whether the sender of a request may set forwarding headers."""
    networks = config.forwarded_allow_networks()

    @lru_cache(_MOST_ADDRESSES)
    def is_trusted(address: str) -> bool:
        return bool(message._ip_in_allow_list(address, config.forwarded_allow_ips, networks))  # noqa: SLF001

    def is_trusted_peer(request: message.HeaderPolicy) -> bool:
        # On a Unix socket there is no address. gunicorn trusts whoever may open it.
        return not isinstance(request.peer_addr, tuple) or is_trusted(request.peer_addr[0])

    return is_trusted_peer
