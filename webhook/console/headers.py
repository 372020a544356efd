"""The headers of every answer of the console."""

from __future__ import annotations

from werkzeug.wrappers import Response

_POLICY = (
    "default-src 'none'",
    "script-src 'none'",
    "style-src 'self'",
    "img-src data:",
    "form-action 'self'",
    "base-uri 'none'",
    "frame-ancestors 'none'",
)
_HEADERS = {
    "Content-Security-Policy": "; ".join(_POLICY),
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "X-Robots-Tag": "noindex, nofollow",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Vary": "Cookie, Authorization",
}


def protect(response: Response) -> Response:
    """Return the response with the headers; one that it has stays."""
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    return response
