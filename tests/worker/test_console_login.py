"""The login of the console: names and tokens, cookies, logout and scripts."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from support.console import ANN, BOB, OPERATOR_TOKEN, SAME_ORIGIN, VIEWER_TOKEN, bearer, change, log_in, token
from webhook.console.login import Login
from worker.conftest import MakeApp

COOKIE = "console-80"
VIEW = "/console/test/view"


def cookie(response: TestResponse, name: str = "console") -> str:
    """Return the Set-Cookie header of the login."""
    [header] = [each for each in response.headers.getlist("Set-Cookie") if name in each]
    return header


def with_cookie(client: FlaskClient, value: str) -> FlaskClient:
    client.set_cookie(COOKIE, value, path="/console")
    return client


def signed(key: str, name: str = "ann", purpose: str = "login") -> str:
    return Login(name, "operator", key).sign(purpose, name)


def test_console_without_tokens_does_not_exist(make_app: MakeApp) -> None:
    client = make_app().test_client()
    assert [client.get(path).status_code for path in ("/console", "/console/login", "/console/x")] == [404] * 3


def test_page_without_login_leads_to_the_login(console: FlaskClient) -> None:
    response = console.get(f"{VIEW}?text=pi_1")
    assert (response.status_code, response.location) == (303, f"/console/login?next={VIEW}?text%3Dpi_1")


def test_unknown_page_without_login_leads_to_the_login(console: FlaskClient) -> None:
    """Whether an address exists is not shown before the login."""
    assert console.get("/console/nothing").status_code == 303


def test_change_without_login_is_refused(console: FlaskClient) -> None:
    assert change(console).status_code == 401


def test_login_opens_the_console(console: FlaskClient) -> None:
    response = log_in(console)
    assert (response.status_code, response.location) == (303, "/console")
    page = console.get(VIEW)
    assert page.status_code == 200
    assert "<bdi>ann</bdi>" in page.text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ann", VIEWER_TOKEN),
        ("bob", OPERATOR_TOKEN),
        ("ann", ""),
        ("", OPERATOR_TOKEN),
        ("ann", ANN.digest),
        ("änn", "tökén"),
    ],
)
def test_login_with_a_wrong_pair_is_refused(console: FlaskClient, name: str, text: str) -> None:
    assert log_in(console, name, text).status_code == 401
    assert console.get(VIEW).status_code == 303


def test_failed_login_shows_neither_name_nor_token(console: FlaskClient) -> None:
    page = log_in(console, "a-name", "a-token").text
    assert "do not match" in page
    assert not [each for each in ("a-name", "a-token") if each in page]


@pytest.mark.parametrize("old", ["old token", "new token"])
def test_name_may_have_two_tokens_while_one_is_replaced(make_console: Callable[..., FlaskClient], old: str) -> None:
    tokens = (token("ann", "operator", "old token"), token("ann", "operator", "new token"))
    console = make_console(tokens=tokens)
    assert log_in(console, "ann", old).status_code == 303
    assert console.get(VIEW).status_code == 200


def test_login_cookie_over_http_is_httponly_and_lax(console: FlaskClient) -> None:
    header = cookie(log_in(console))
    assert header.startswith("console-80=")
    assert {"HttpOnly", "SameSite=Lax", "Path=/console", f"Max-Age={12 * 3600}"} <= set(header.split("; "))


def test_login_cookie_over_https_belongs_to_the_host(console: FlaskClient) -> None:
    header = cookie(log_in(console, base_url="https://console.example"))
    assert header.startswith("__Host-console=")
    assert {"HttpOnly", "SameSite=Lax", "Path=/", "Secure"} <= set(header.split("; "))


@pytest.mark.parametrize(("hours", "status"), [(11.9, 200), (12.1, 303)])
def test_login_ends_after_twelve_hours(
    ann: FlaskClient, monkeypatch: pytest.MonkeyPatch, hours: float, status: int
) -> None:
    later = time.time() + hours * 3600
    monkeypatch.setattr("itsdangerous.timed.time.time", lambda: later)
    assert ann.get(VIEW).status_code == status


def test_removed_entry_logs_out(ann: FlaskClient, make_console: Callable[..., FlaskClient]) -> None:
    """Another entry of the same name does not help: the cookie is signed with the hash of the old token."""
    value = ann.get_cookie(COOKIE, path="/console").value
    later = make_console(tokens=(token("ann", "operator", "another token"), BOB))
    assert with_cookie(later, value).get(VIEW).status_code == 303


def test_role_is_that_of_the_entry_now(ann: FlaskClient, make_console: Callable[..., FlaskClient]) -> None:
    value = ann.get_cookie(COOKIE, path="/console").value
    later = make_console(tokens=(token("ann", "viewer", OPERATOR_TOKEN),))
    assert with_cookie(later, value).get("/console/test/payload").status_code == 403


FORGED = {
    "empty": lambda: "",
    "not signed": lambda: "ann",
    "another key": lambda: signed("another key"),
    "the key of an operator, another name": lambda: signed(ANN.digest, "bob"),
    "the key of a viewer, the name of an operator": lambda: signed(BOB.digest, "ann"),
    "signed for a notice": lambda: signed(ANN.digest, purpose="console-notice"),
    "cut off": lambda: signed(ANN.digest)[:-1],
    "longer": lambda: f"{signed(ANN.digest)}x",
}


@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED)
def test_forged_cookie_is_refused(console: FlaskClient, forge: Callable[[], str]) -> None:
    assert with_cookie(console, forge()).get(VIEW).status_code == 303


def test_good_cookie_is_accepted(console: FlaskClient) -> None:
    """So the tests of forged cookies send what would be one."""
    assert with_cookie(console, signed(ANN.digest)).get(VIEW).status_code == 200


def test_logout_deletes_the_cookie(ann: FlaskClient) -> None:
    response = ann.post("/console/logout", headers=SAME_ORIGIN)
    assert (response.status_code, response.location) == (303, "/console/login")
    assert ann.get(VIEW).status_code == 303


def test_logout_by_get_does_nothing(ann: FlaskClient) -> None:
    assert ann.get("/console/logout").status_code == 404
    assert ann.get(VIEW).status_code == 200


def test_script_logs_in_with_a_bearer_token(console: FlaskClient) -> None:
    assert console.get(VIEW, headers=bearer()).status_code == 200


@pytest.mark.parametrize("header", ["Bearer wrong", "Bearer", "Bearer ", "Basic YW5uOnRva2Vu", f"Bearer {ANN.digest}"])
def test_script_with_a_wrong_token_is_refused(console: FlaskClient, header: str) -> None:
    response = console.get(VIEW, headers={"Authorization": header})
    assert (response.status_code, response.headers["WWW-Authenticate"]) == (401, "Bearer")


def test_wrong_bearer_token_beside_a_cookie_is_refused(ann: FlaskClient) -> None:
    """A bearer token frees a request from the rules on its origin, so the cookie must not count beside it."""
    assert ann.get(VIEW, headers=bearer("wrong")).status_code == 401


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example",
        "//evil.example",
        "/console/../x",
        "/console\\evil",
        "/consolex",
        "/webhook",
        "/console//evil.example",
        "/console/\r\nSet-Cookie: a=b",
        "javascript:alert(1)",
        "/console/é",
        "http://[",
    ],
)
def test_login_leads_to_no_other_site(console: FlaskClient, target: str) -> None:
    form = {"name": "ann", "token": OPERATOR_TOKEN, "next": target}
    response = console.post("/console/login", data=form, headers=SAME_ORIGIN)
    assert (response.status_code, response.location) in [(303, "/console"), (303, target)]
    assert response.location == "/console" or target.startswith("/console/")


def test_login_leads_to_the_page_that_was_asked_for(console: FlaskClient) -> None:
    form = {"name": "ann", "token": OPERATOR_TOKEN, "next": f"{VIEW}?text=a%40b.example"}
    response = console.post("/console/login", data=form, headers=SAME_ORIGIN)
    assert response.location == f"{VIEW}?text=a%40b.example"


def test_login_page_after_the_login_leads_on(ann: FlaskClient) -> None:
    assert ann.get("/console/login").location == "/console"
