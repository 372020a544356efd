"""The login of the console: names and tokens, cookies, logout and scripts."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient

from support.console import OPERATOR_TOKEN, VIEWER_TOKEN, console_settings, log_in
from support.databases import Database
from worker.conftest import MakeApp


@pytest.fixture
def client(make_app: MakeApp, database: Database) -> FlaskClient:
    return make_app(console=console_settings(database)).test_client()


def test_console_without_tokens_does_not_exist(make_app: MakeApp) -> None:
    client = make_app().test_client()
    assert [client.get(path).status_code for path in ("/console", "/console/login")] == [404, 404]


def test_page_without_login_leads_to_the_login(client: FlaskClient) -> None:
    response = client.get("/console?q=pi_1")
    assert (response.status_code, response.location) == (303, "/console/login?next=/console?q%3Dpi_1")


def test_login_opens_the_console(client: FlaskClient) -> None:
    response = log_in(client)
    assert (response.status_code, response.location) == (303, "/console")
    page = client.get("/console")
    assert page.status_code == 200
    assert ">ann<" in page.text


@pytest.mark.parametrize(
    ("name", "text"), [("ann", VIEWER_TOKEN), ("bob", OPERATOR_TOKEN), ("ann", ""), ("", OPERATOR_TOKEN)]
)
def test_login_with_a_wrong_pair_is_refused(client: FlaskClient, name: str, text: str) -> None:
    assert log_in(client, name, text).status_code == 401
    assert client.get("/console").status_code == 303
