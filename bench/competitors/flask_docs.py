"""Flask as in Stripe's documentation: ``construct_event``, then one idempotent insert, on gunicorn sync workers."""

from __future__ import annotations

import os
from typing import Any

import stripe
from flask import Flask, jsonify, request
from psycopg_pool import ConnectionPool

_INSERT = """
insert into public.transactions (user_id, amount, type, stripe_id, payment_id, money_amount, currency, event_id)
values (%s, %s, 'PURCHASE', %s, %s, %s, %s, %s)
on conflict (stripe_id) do nothing
"""


def create_app() -> Flask:
    """Return the application. Each process has its own connection pool."""
    app = Flask(__name__)
    secret = os.environ["STRIPE_WEBHOOK_SECRET"]
    pool = ConnectionPool(os.environ["DATABASE_URL"], min_size=1, max_size=2, open=True)

    @app.post("/webhook")
    def webhook() -> Any:
        try:
            event = stripe.Webhook.construct_event(request.data, request.headers.get("Stripe-Signature"), secret)
        except (ValueError, stripe.SignatureVerificationError):
            return "", 400
        if event.type == "checkout.session.completed":
            _fulfil(pool, event)
        return jsonify(success=True)

    @app.get("/healthz")
    def healthz() -> Any:
        return jsonify(status="ok")

    return app


def _fulfil(pool: ConnectionPool, event: stripe.Event) -> None:
    session = event.data.object
    payment_id = session.payment_intent
    values = (session.metadata["user_id"], int(session.metadata["credits"]), payment_id, payment_id)
    with pool.connection() as connection:
        connection.execute(_INSERT, (*values, session.amount_total, session.currency, event.id))
