"""docs/how-to/parked-events.md: after a correction of metadata at Stripe, retry and reconcile settle a parked sale."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
import responses
from click.testing import CliRunner

from support.databases import Database
from support.delivery import deliver_to
from support.recorded import USER_ID, invoice_event, payment_intent_event, session_event
from support.stripe_stand_in import StripeStandIn, serving
from webhook import cli
from webhook.ledger.ledger import Ledger

CORRECTED = {"user_id": USER_ID, "credits": "100"}
PAYMENT = session_event()["data"]["object"]["payment_intent"]


@pytest.mark.parametrize("command", [(["retry"], 0), (["reconcile", "--since", "1d"], 1)], ids=["retry", "reconcile"])
@pytest.mark.parametrize(
    ("event", "corrected"),
    [
        (session_event(user_id=None), PAYMENT),
        (session_event(credits="ten"), session_event()["data"]["object"]["id"]),
        (payment_intent_event(id="pi_own", user_id=None), "pi_own"),
        (invoice_event(id="in_1", user_id=None), "in_1"),
    ],
    ids=["session, by its payment", "session", "payment", "invoice"],
)
def test_metadata_corrected_at_stripe_settles_the_sale(  # noqa: PLR0913, PLR0917 - fixtures
    database: Database,
    admin: psycopg.Connection[Any],
    stripe_api: responses.RequestsMock,
    event: dict[str, Any],
    corrected: str,
    command: tuple[list[str], int],
) -> None:
    """Both read the objects at Stripe as they are now."""
    words, code = command
    admin.execute("insert into auth.users (id) values (%s)", [USER_ID])
    ledger = Ledger(database.url)
    assert deliver_to(ledger, event).name == "parked"
    ledger.close()
    with serving(StripeStandIn()) as stripe:
        stripe_api.add_passthru(stripe.url)
        stripe.add_events(event)
        stripe.objects[corrected]["metadata"] = CORRECTED
        operator = CliRunner(env=stripe.settings(database.url))
        assert operator.invoke(cli.commands, words).exit_code == code
        assert operator.invoke(cli.commands, ["parked"]).stdout == ""
    assert admin.execute("select credits_balance from public.users").fetchall() == [(100,)]
