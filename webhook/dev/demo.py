"""``webhook demo``: a signed sale for a running ``webhook dev``, without a Stripe account."""

from __future__ import annotations

import json
import secrets
import time
import uuid
from dataclasses import dataclass
from typing import Any

import click
import psycopg
import requests
from psycopg.conninfo import conninfo_to_dict
from stripe import WebhookSignature

from webhook.dev import demo_spending
from webhook.dev.errors import DevError
from webhook.dev.http import loopback_session
from webhook.dev.state import DevServer, running_server

CREDITS = 100
MONEY_AMOUNT = 1000
"""Cents."""
_TIMEOUT = 30
"""Seconds."""


@dataclass(frozen=True)
class _Demo:
    server: DevServer
    connection: psycopg.Connection[Any]
    user_id: str

    def send(self, event: dict[str, Any]) -> str:
        """Deliver the event as Stripe does, and return the outcome; raises :class:`DevError`."""
        body = json.dumps(event)
        signature = WebhookSignature.generate_signature_header(body, self.server.webhook_secret)
        headers = {"Content-Type": "application/json", "Stripe-Signature": signature}
        try:
            with loopback_session() as session:
                response = session.post(f"{self.server.url}/webhook", body, headers=headers, timeout=_TIMEOUT)
        except requests.RequestException as error:
            raise DevError(f"no answer from {self.server.url}: {error}") from None
        if not response.ok:
            raise DevError(f"the worker answered {response.status_code}: {response.text}")
        return str(response.json()["outcome"])

    def balance(self) -> int:
        query = "select credits_balance from public.users where id = %s"
        [(credits_balance,)] = self.connection.execute(query, [self.user_id]).fetchall()
        return int(credits_balance)

    def show(self, title: str, event: dict[str, Any]) -> None:
        """Deliver the event, and print the outcome and the balance before and after."""
        before = self.balance()
        outcome = self.send(event)
        click.echo(f"  {title:<34} {outcome:<10} {before} → {self.balance()} credits")


def run(*, refund: bool = False, spend: bool = False) -> None:
    """Sell 100 credits to a new user, and repeat the delivery twice; raises :class:`DevError`.

    With ``refund``, a refund of a quarter of the money is delivered before its sale. With ``spend``, two video jobs
    reserve credits afterwards.
    """
    server = running_server()
    if not _is_local(server.database_url):
        raise DevError("the demo creates a test user and a sale, so it requires a database on this machine")
    try:
        with psycopg.connect(server.database_url, autocommit=True) as connection:
            demo = _Demo(server, connection, _sign_up(connection))
            click.echo(f"A new user, {demo.user_id}, buys {CREDITS} credits for $10:")
            _sell(demo, refund=refund)
            if spend:
                demo_spending.run(connection, demo.user_id)
    except psycopg.Error as error:
        raise DevError(f"the database of `webhook dev`: {' '.join(str(error).split())}") from None


def _sell(demo: _Demo, *, refund: bool) -> None:
    payment_id = f"pi_demo{secrets.token_hex(10)}"
    sale = _event("checkout.session.completed", _session(payment_id, demo.user_id))
    if refund:
        demo.show("refund.created, a quarter", _event("refund.created", _refund(payment_id)))
    demo.show("checkout.session.completed", sale)
    demo.show("the same, delivered again", sale)
    demo.show("the same under another event id", _event("checkout.session.completed", sale["data"]["object"]))


def _is_local(database_url: str) -> bool:
    host = str(conninfo_to_dict(database_url).get("host") or "")
    return host.startswith("/") or host in ("", "localhost", "127.0.0.1", "::1")


def _sign_up(connection: psycopg.Connection[Any]) -> str:
    user_id = str(uuid.uuid4())
    connection.execute("insert into auth.users (id, email) values (%s, %s)", [user_id, f"{user_id}@example.com"])
    return user_id


def _event(event_type: str, source: dict[str, Any]) -> dict[str, Any]:
    """Return an event: https://docs.stripe.com/api/events/object."""
    return {
        "id": f"evt_demo{secrets.token_hex(10)}",
        "object": "event",
        "api_version": "2026-10-28.endive",
        "created": int(time.time()),
        "data": {"object": source},
        "livemode": False,
        "pending_webhooks": 1,
        "request": {"id": None, "idempotency_key": None},
        "type": event_type,
    }


def _session(payment_id: str, user_id: str) -> dict[str, Any]:
    return {
        "id": f"cs_test_demo{secrets.token_hex(20)}",
        "object": "checkout.session",
        "amount_subtotal": MONEY_AMOUNT,
        "amount_total": MONEY_AMOUNT,
        "client_reference_id": user_id,
        "created": int(time.time()),
        "currency": "usd",
        "invoice": None,
        "livemode": False,
        "metadata": {"credits": str(CREDITS), "user_id": user_id},
        "mode": "payment",
        "payment_intent": payment_id,
        "payment_method_types": ["card"],
        "payment_status": "paid",
        "status": "complete",
    }


def _refund(payment_id: str) -> dict[str, Any]:
    return {
        "id": f"re_demo{secrets.token_hex(10)}",
        "object": "refund",
        "amount": MONEY_AMOUNT // 4,
        "charge": f"ch_demo{secrets.token_hex(10)}",
        "created": int(time.time()),
        "currency": "usd",
        "metadata": {},
        "payment_intent": payment_id,
        "reason": "requested_by_customer",
        "status": "succeeded",
    }
