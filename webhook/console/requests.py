"""Rules on requests: where they come from. Pure functions of the WSGI environment."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

Environ = Mapping[str, Any]

_LOCAL_HOSTS = ("127.0.0.1", "localhost", "[::1]")
_PROXY_HEADERS = ("HTTP_FORWARDED", "HTTP_X_FORWARDED_", "HTTP_VIA", "HTTP_CF_", "HTTP_X_REAL_IP")
"""Names, and beginnings of names, of the headers that a proxy adds."""
_DEFAULT_PORTS = {"http": 80, "https": 443}


def is_local(environ: Environ, port: int | None = None) -> bool:
    """Return whether a program on this machine sent the request itself, to ``port`` if given.

    The ``Host`` counts because of DNS rebinding: a web page whose name resolves to 127.0.0.1 sends its own name.
    """
    return _is_loopback_peer(environ) and _is_local_host(environ, port) and not _is_forwarded(environ)


def is_https(environ: Environ) -> bool:
    """Return whether the client uses HTTPS, by the word of the proxy if there is one."""
    forwarded = str(environ.get("HTTP_X_FORWARDED_PROTO", "")).partition(",")[0].strip().lower()
    return forwarded == "https" if forwarded else environ["wsgi.url_scheme"] == "https"


def bearer_token(environ: Environ) -> str | None:
    """Return the token of ``Authorization: Bearer``, ``None`` for another header or none."""
    scheme, _, token = str(environ.get("HTTP_AUTHORIZATION", "")).partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def is_change_from_here(environ: Environ) -> bool:
    """Return whether a POST comes from a page of this console, or from a script that logs in with a token.

    https://developer.mozilla.org/docs/Web/HTTP/Reference/Headers/Sec-Fetch-Site
    """
    if site := environ.get("HTTP_SEC_FETCH_SITE"):
        return bool(site == "same-origin")
    origin = environ.get("HTTP_ORIGIN")
    if origin in (None, "null"):
        return bearer_token(environ) is not None
    return (place := _place(str(origin))) is not None and place == _own_place(environ)


def is_from_here(environ: Environ) -> bool:
    """Return whether a person opened the page from this console or by its address, not from another site's link."""
    return environ.get("HTTP_SEC_FETCH_SITE", "none") in ("same-origin", "none")


def is_page_view(environ: Environ) -> bool:
    """Return whether a GET from another site is a link that a person followed, not part of another page."""
    if is_from_here(environ):
        return True
    return environ.get("HTTP_SEC_FETCH_MODE") == "navigate" and environ.get("HTTP_SEC_FETCH_DEST") == "document"


def _is_loopback_peer(environ: Environ) -> bool:
    try:
        address = ip_address(str(environ.get("REMOTE_ADDR", "")))
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def _is_local_host(environ: Environ, port: int | None) -> bool:
    host = str(environ.get("HTTP_HOST", "")).lower()
    name, separator, sent = host.rpartition(":") if not host.endswith("]") and ":" in host else (host, "", "")
    if name not in _LOCAL_HOSTS:
        return False
    return port is None or (sent if separator else str(_DEFAULT_PORTS["http"])) == str(port)


def _is_forwarded(environ: Environ) -> bool:
    return any(name.startswith(_PROXY_HEADERS) for name in environ)


def _own_place(environ: Environ) -> tuple[str, int] | None:
    scheme = "https" if is_https(environ) else "http"
    return _place(f"{scheme}://{environ.get('HTTP_HOST', '')}")


def _place(origin: str) -> tuple[str, int] | None:
    """Return the host and port of an origin, ``None`` if it is malformed."""
    try:
        parts = urlsplit(origin)
        port = parts.port or _DEFAULT_PORTS[parts.scheme]
    except (ValueError, KeyError):
        return None
    return (parts.hostname, port) if parts.hostname else None
