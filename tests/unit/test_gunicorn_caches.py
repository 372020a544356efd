"""The caches inside gunicorn: they return what gunicorn would, and the installed version uses them."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from email.utils import formatdate
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from gunicorn import util
from gunicorn.config import Config
from gunicorn.http import message, wsgi
from gunicorn.workers.ggevent import GeventWorker

from webhook.server.gunicorn_caches import add_caches
from webhook.server.worker import Worker

TRUST = "_peer_is_trusted_proxy"


@pytest.fixture(autouse=True)
def _restored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restore gunicorn afterwards."""
    for owner, name in (
        (util, "http_date"),
        (wsgi, "WSGIErrorsWrapper"),
        (message.HeaderPolicy, TRUST),
    ):
        monkeypatch.setattr(owner, name, getattr(owner, name))


@pytest.fixture
def config() -> Iterator[Config]:
    made = Config()
    made.set("forwarded_allow_ips", "127.0.0.1,10.0.0.0/8,::1")
    return made


def test_setting_as_an_attribute_keeps_its_value(config: Config) -> None:
    """The settings do not change once a process has been started."""
    config.set("keepalive", 5)
    before = {name: getattr(config, name) for name in config.settings}
    add_caches(config)
    assert {name: getattr(config, name) for name in config.settings} == before
    assert before["keepalive"] == vars(config)["keepalive"] == 5


def test_process_adds_the_caches_before_it_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    served = Mock()
    monkeypatch.setattr(GeventWorker, "init_process", lambda _: served(vars(made.cfg).get("keepalive")))
    made: Any = Worker(1, 1, [], None, 30, Config(), Mock())
    made.tmp.close()
    made.init_process()
    served.assert_called_once_with(2)


def test_date_is_that_of_the_current_second(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    add_caches(config)
    for now in (1.9, 2.0, 2.5, 3.1, 1793388125.7):
        monkeypatch.setattr(time, "time", lambda now=now: now)
        assert util.http_date() == formatdate(int(now), usegmt=True)
    assert util.http_date(0) == "Thu, 01 Jan 1970 00:00:00 GMT"


@pytest.mark.parametrize(
    "peer",
    [
        ("127.0.0.1", 1),
        ("127.0.0.2", 1),
        ("10.9.8.7", 1),
        ("11.0.0.1", 1),
        ("::1", 1, 0, 0),
        ("::2", 1, 0, 0),
        ("x", 1),
        "",
    ],
    ids=str,
)
def test_trust_in_a_sender_is_that_of_gunicorn(config: Config, peer: Any) -> None:
    request = SimpleNamespace(cfg=config, peer_addr=peer)
    expected = getattr(message.HeaderPolicy, TRUST)(request)
    add_caches(config)
    for _ in range(2):
        assert getattr(message.HeaderPolicy, TRUST)(request) is expected


def test_gunicorn_uses_each_name_that_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    date, errors, trust = Mock(return_value="the date"), Mock(), Mock(return_value=False)
    monkeypatch.setattr(util, "http_date", date)
    monkeypatch.setattr(wsgi, "WSGIErrorsWrapper", errors)
    monkeypatch.setattr(message.HeaderPolicy, TRUST, lambda _: trust())
    assert b"Date: the date\r\n" in answer_of_gunicorn()
    errors.assert_called_once()
    trust.assert_called_once()


def answer_of_gunicorn() -> bytes:
    def application(_: Any, start: Any) -> list[bytes]:
        start("200 OK", [("Content-Length", "2")])
        return [b"ok"]

    made: Any = GeventWorker(1, 1, [], None, 30, Config(), Mock())
    made.tmp.close()
    made.wsgi = application
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        made.handle(SimpleNamespace(getsockname=lambda: ("127.0.0.1", 80)), ours, ("127.0.0.1", 1))
        return theirs.recv(1 << 16)
