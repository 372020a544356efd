"""The cookies of the console. Over HTTPS no other host can set them; over HTTP their names hold the port."""

from __future__ import annotations

from werkzeug.wrappers import Request, Response

from webhook.console.requests import Environ, is_https

LOGIN, NOTICE = "console", "console-notice"


def read(request: Request, name: str) -> str | None:
    """Return the value of a cookie, ``None`` if it was not sent."""
    return request.cookies.get(_full_name(request.environ, name))


def write(response: Response, environ: Environ, name: str, value: str, *, max_age: int) -> None:
    """Set a cookie for ``max_age`` seconds. No script can read it, and no form on another site sends it."""
    response.set_cookie(
        _full_name(environ, name),
        value,
        max_age=max_age,
        path=_path(environ),
        secure=is_https(environ),
        httponly=True,
        samesite="Lax",
    )


def delete(response: Response, environ: Environ, name: str) -> None:
    """Delete a cookie."""
    response.delete_cookie(
        _full_name(environ, name),
        path=_path(environ),
        secure=is_https(environ),
        httponly=True,
        samesite="Lax",
    )


def _full_name(environ: Environ, name: str) -> str:
    """Return the name. Browsers share the cookies of a host between its ports, so a name on HTTP has the port.

    https://developer.mozilla.org/docs/Web/HTTP/Reference/Headers/Set-Cookie#cookie_prefixes
    """
    port = str(environ.get("HTTP_HOST", "")).rpartition(":")[2]
    return f"__Host-{name}" if is_https(environ) else f"{name}-{port if port.isdigit() else 80}"


def _path(environ: Environ) -> str:
    return "/" if is_https(environ) else "/console"
