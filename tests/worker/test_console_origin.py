"""Where a request of the console comes from: forms of other sites, pages that embed it, and clients without HTTPS."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from flask.testing import FlaskClient

from support.console import OPERATOR_TOKEN, TestPages, bearer, change, log_in
from webhook.console.requests import is_change_from_here, is_https

VIEW = "/console/test/view"
HTTPS = "https://console.example"


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost"},
        {"Origin": "http://localhost"},
        {"Origin": "http://localhost:80"},
    ],
    ids=str,
)
def test_change_from_this_console_is_made(ann: FlaskClient, test_pages: TestPages, headers: dict[str, str]) -> None:
    assert change(ann, **headers).status_code == 303
    assert test_pages.changes == ["a reason by ann"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "Same-Origin"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"},
        {"Origin": "http://evil.example"},
        {"Origin": "http://localhost:8000"},
        {"Origin": "https://localhost"},
        {"Origin": "http://localhost.evil.example"},
        {"Origin": "http://evil.example#localhost"},
        {"Origin": "http://[localhost"},
        {"Origin": "localhost"},
        {"Origin": ""},
        {"Origin": "null"},
        {"Referer": "http://localhost/console"},
    ],
    ids=str,
)
def test_change_from_elsewhere_is_refused(ann: FlaskClient, test_pages: TestPages, headers: dict[str, str]) -> None:
    response = change(ann, **headers)
    assert response.status_code == 403
    assert "another site" in response.text
    assert test_pages.changes == []


@pytest.mark.parametrize("headers", [{}, {"Origin": "null"}], ids=str)
def test_script_needs_no_origin(console: FlaskClient, test_pages: TestPages, headers: dict[str, str]) -> None:
    assert change(console, **bearer(), **headers).status_code == 303
    assert test_pages.changes == ["a reason by ann"]


@pytest.mark.parametrize("headers", [{"Sec-Fetch-Site": "cross-site"}, {"Origin": "http://evil.example"}], ids=str)
def test_script_of_another_site_is_refused(console: FlaskClient, headers: dict[str, str]) -> None:
    assert change(console, **bearer(), **headers).status_code == 403


@pytest.mark.parametrize("path", ["/console/login", "/console/logout", "/console/nothing"])
def test_every_post_keeps_the_origin_rule(console: FlaskClient, path: str) -> None:
    """A login that another site sends would put the person into another account."""
    form = {"name": "ann", "token": OPERATOR_TOKEN}
    response = console.post(path, data=form, headers={"Sec-Fetch-Site": "cross-site"})
    assert (response.status_code, response.headers.getlist("Set-Cookie")) == (403, [])


@pytest.mark.parametrize("method", ["put", "patch", "delete", "options"])
def test_other_methods_change_nothing(ann: FlaskClient, method: str) -> None:
    """They keep the origin rule, and have no page."""
    request = getattr(ann, method)
    assert request("/console/test/change", headers={"Origin": "http://evil.example"}).status_code == 403
    assert request("/console/test/change", headers={"Origin": "http://localhost"}).status_code == 404


def test_change_by_get_does_not_exist(ann: FlaskClient, test_pages: TestPages) -> None:
    assert ann.get("/console/test/change?reason=x").status_code == 404
    assert test_pages.changes == []


def test_origin_over_https_has_its_default_port(make_console: Callable[..., FlaskClient]) -> None:
    console = make_console()
    log_in(console, base_url=HTTPS)
    for origin, status in ((HTTPS, 303), (f"{HTTPS}:443", 303), ("http://console.example", 403)):
        form = {"reason": "x"}
        response = console.post("/console/test/change", data=form, headers={"Origin": origin}, base_url=HTTPS)
        assert response.status_code == status, origin


@pytest.mark.parametrize("host", ["", "localhost:99999", "["])
@pytest.mark.parametrize("origin", ["localhost", "http://", "http://[", "moz-extension://a"])
def test_malformed_origin_equals_no_malformed_host(host: str, origin: str) -> None:
    sent = {"wsgi.url_scheme": "http", "HTTP_HOST": host, "HTTP_ORIGIN": origin}
    assert not is_change_from_here(sent)


def test_origin_behind_a_proxy_is_that_of_https() -> None:
    proxied = {"wsgi.url_scheme": "http", "HTTP_X_FORWARDED_PROTO": "https", "HTTP_HOST": "console.example"}
    assert is_change_from_here({**proxied, "HTTP_ORIGIN": HTTPS})
    assert not is_change_from_here({**proxied, "HTTP_ORIGIN": "http://console.example"})


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "style"},
        {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"},
    ],
    ids=str,
)
def test_page_that_a_person_opens_is_shown(ann: FlaskClient, headers: dict[str, str]) -> None:
    assert ann.get(VIEW, headers=headers).status_code == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site", "unknown"])
@pytest.mark.parametrize(
    ("mode", "destination"),
    [("navigate", "iframe"), ("navigate", "object"), ("no-cors", "image"), ("cors", "empty"), ("no-cors", "document")],
)
def test_page_inside_another_site_is_refused(ann: FlaskClient, site: str, mode: str, destination: str) -> None:
    headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode, "Sec-Fetch-Dest": destination}
    assert ann.get(VIEW, headers=headers).status_code == 403


@pytest.mark.parametrize(
    ("headers", "peer"),
    [
        ({}, "10.0.0.8"),
        ({"X-Forwarded-Proto": "http"}, "10.0.0.8"),
        ({"X-Forwarded-Proto": "http"}, "127.0.0.1"),
        ({"X-Forwarded-For": "203.0.113.9"}, "127.0.0.1"),
        ({"Host": "console.example"}, "127.0.0.1"),
        ({}, ""),
    ],
    ids=str,
)
@pytest.mark.parametrize("path", ["/console/login", VIEW, "/console/style.css"])
def test_client_without_https_is_refused(console: FlaskClient, headers: dict[str, str], peer: str, path: str) -> None:
    response = console.get(path, headers=headers, environ_overrides={"REMOTE_ADDR": peer})
    assert (response.status_code, "HTTPS" in response.text) == (403, True)


def test_token_without_https_logs_in_nowhere(console: FlaskClient) -> None:
    response = log_in(console, environ_overrides={"REMOTE_ADDR": "10.0.0.8"})
    assert (response.status_code, response.headers.getlist("Set-Cookie")) == (403, [])


@pytest.mark.parametrize(
    ("scheme", "forwarded", "expected"),
    [
        ("http", None, False),
        ("https", None, True),
        ("http", "https", True),
        ("http", "HTTPS", True),
        ("http", "https,http", True),
        ("http", "http,https", False),
        ("https", "http", False),
    ],
)
def test_https_is_what_the_client_used(scheme: str, forwarded: str | None, expected: bool) -> None:  # noqa: FBT001
    sent = {} if forwarded is None else {"HTTP_X_FORWARDED_PROTO": forwarded}
    assert is_https({"wsgi.url_scheme": scheme, **sent}) is expected
