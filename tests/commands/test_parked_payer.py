"""The payer's e-mail address is kept with an open parked event, and with no other."""

from __future__ import annotations

import json
from typing import Any

import pytest
from psycopg import errors

from support.recorded import USER_ID, session_event
from support.shop import Shop

ADDRESS = "Anna.Müller@example.com"


def session(**fields: Any) -> dict[str, Any]:
    details = {"email": ADDRESS, "name": "Anna"}
    return session_event(event_id="evt_1", id="cs_1", payment_intent="pi_1", customer_details=details, **fields)


def payers(shop: Shop) -> list[str | None]:
    return [payer for (payer,) in shop.admin.execute("select payer_email from billing.parked_events")]


@pytest.mark.parametrize("name", [ADDRESS, ADDRESS.lower(), ADDRESS.upper()])
def test_parked_event_is_found_by_its_payers_address(shop: Shop, name: str) -> None:
    shop.deliver(session(credits="ten"), session_event(event_id="evt_2", payment_intent="pi_2", credits="ten"))
    [found] = shop.run("parked", name, "--json").stdout.splitlines()
    assert (json.loads(found)["event_id"], json.loads(found)["payer_email"]) == ("evt_1", ADDRESS)
    assert f"payer    {ADDRESS}\n" in shop.run("parked", name).stdout


def test_object_that_reconcile_parks_keeps_its_payer(shop: Shop) -> None:
    shop.stripe.add_events(session(credits="ten"))
    shop.reconcile("--since", "1d")
    assert payers(shop) == [ADDRESS]


def test_settled_event_keeps_no_payer(shop: Shop) -> None:
    shop.deliver(session(credits="ten"), session())
    assert (payers(shop), shop.balance()) == ([None], 100)
    assert shop.run("parked", ADDRESS).exit_code == 1


def test_event_resolved_without_a_sale_keeps_no_payer(shop: Shop) -> None:
    shop.deliver(session(credits="ten"))
    shop.admin.execute("select billing.resolve('evt_1')")
    assert payers(shop) == [None]


def test_discarded_event_keeps_no_payer_until_it_is_reopened(shop: Shop) -> None:
    shop.deliver(session(credits="ten"))
    shop.run("discard", "evt_1", "--reason", "a test")
    assert payers(shop) == [None]
    assert shop.run("retry", "evt_1").exit_code == 1
    assert payers(shop) == [ADDRESS]


def test_sale_without_event_is_reopened_without_a_payer(shop: Shop) -> None:
    """Its payload is no event of Stripe."""
    payload = json.dumps({"id": "pi_9", "object": "event", "type": "billing.sale"})
    shop.admin.execute("select billing.park('pi_9', 'billing.sale', 'missing_user', 'pi_9', %s)", [payload])
    shop.run("discard", "pi_9", "--reason", "a test")
    result = shop.run("retry", "pi_9", STRIPE_API_KEY="")
    assert not isinstance(result.exception, Exception), result.exception
    assert payers(shop) == [None]


def test_resolved_event_with_a_payer_is_refused(shop: Shop) -> None:
    """The constraint also holds where the trigger that drops the address is disabled."""
    shop.deliver(session(credits="ten"))
    shop.admin.execute("alter table billing.parked_events disable trigger parked_events_drop_personal_data")
    with pytest.raises(errors.CheckViolation, match="parked_events_payer_email_while_open"):
        shop.admin.execute("select billing.resolve('evt_1')")


def test_payer_is_found_by_index(shop: Shop) -> None:
    shop.admin.execute(
        "insert into billing.parked_events (event_id, event_type, reason, payload, payer_email)"
        " select 'evt_' || n, 'a.type', 'missing_user', '{}', n || '@example.com' from generate_series(1, 2000) as n"
    )
    shop.admin.execute("analyze billing.parked_events")
    plan = shop.admin.execute(
        "explain select from billing.parked_events where lower(payer_email) = lower('7@Example.com')"
        " and resolved_at is null"
    ).fetchall()
    assert "parked_events_payer_idx" in str(plan)


# Erasure


def kept(shop: Shop) -> list[tuple[str | None, str]]:
    """Return the payer of each parked event, and the event type in its payload."""
    query = "select payer_email, payload ->> 'type' from billing.parked_events"
    return shop.admin.execute(query).fetchall()


@pytest.mark.parametrize("written", [ADDRESS, ADDRESS.upper()])
@pytest.mark.parametrize("discarded", [False, True], ids=["open", "discarded"])
def test_erase_drops_the_events_with_the_users_address(shop: Shop, written: str, *, discarded: bool) -> None:
    r"""Their sales stay listed, without the event. In JSON an ü may be \u00fc, and an Ü \u00dc."""
    shop.admin.execute("update auth.users set email = %s where id = %s", [written, USER_ID])
    shop.deliver(session(user_id=None, credits="ten"))
    if discarded:
        shop.run("discard", "evt_1", "--reason", "a test")
    shop.admin.execute("select billing.erase_user(%s)", [USER_ID])
    assert kept(shop) == [(None, "billing.sale")]


def test_erase_keeps_parked_events_of_other_payers(shop: Shop) -> None:
    shop.deliver(session(user_id=None, credits="ten"))
    shop.admin.execute("select billing.erase_user(%s)", [USER_ID])
    assert payers(shop) == [ADDRESS]
