"""`webhook parked ID` finds events by payment and user; `webhook retry` says what settled a sale."""

from __future__ import annotations

import json
from typing import Any

import pytest

from support.recorded import USER_ID, invoice_event, invoice_payment_event, session_event
from support.roles import ALICE
from support.shop import Shop
from support.stored_rows import entered_on, set_parked_age

GRANT = """
    insert into public.transactions (user_id, amount, type, stripe_id, payment_id, money_amount, currency)
    values (%s, 100, 'PURCHASE', 'pi_1', 'pi_1', 1000, 'usd')
"""


def session(event_id: str = "evt_1", **fields: Any) -> dict[str, Any]:
    return session_event(event_id=event_id, **{"id": "cs_1", "payment_intent": "pi_1", "customer": "cus_1"} | fields)


def found(shop: Shop, name: str) -> list[str]:
    """Return the ids of the events that `webhook parked NAME` shows."""
    return [json.loads(line)["event_id"] for line in shop.run("parked", name, "--json").stdout.splitlines()]


@pytest.mark.parametrize("name", ["evt_1", "pi_1", "cs_1", "cus_1", USER_ID, USER_ID.upper()])
def test_parked_event_is_found_by_each_of_its_ids(shop: Shop, name: str) -> None:
    shop.deliver(
        session(credits="ten"), session("evt_2", id="cs_2", payment_intent="pi_2", customer=None, user_id=ALICE)
    )
    assert found(shop, name) == ["evt_1"]


def test_parked_invoice_is_found_by_its_payment(shop: Shop) -> None:
    shop.deliver(
        invoice_event(event_id="evt_1", id="in_1", credits="ten"),
        invoice_payment_event(invoice="in_1", payment_intent="pi_1"),
    )
    assert found(shop, "pi_1") == found(shop, "in_1") == ["evt_1"]


@pytest.mark.parametrize("name", ["usd", "payment_intent", "checkout.session", "evt_", "%", ".*", "pi_2", ALICE])
def test_other_words_of_a_payload_find_nothing(shop: Shop, name: str) -> None:
    shop.deliver(session(credits="ten"))
    result = shop.run("parked", name)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"webhook: never parked: {name} (no event, payment, user or payer of a parked event)\n"


def test_settled_event_is_found_by_payment_and_user(shop: Shop) -> None:
    """Its payload is gone, and the ledger knows whose sale it is."""
    shop.deliver(session(credits="ten"))
    shop.admin.execute(GRANT, [USER_ID])
    shop.run("retry")
    assert found(shop, "pi_1") == found(shop, USER_ID) == ["evt_1"]


def test_several_events_of_a_payment_are_listed(shop: Shop) -> None:
    shop.deliver(session(credits="ten"), session("evt_2", credits="ten"))
    lines = [line.split("\t") for line in shop.run("parked", "pi_1").stdout.splitlines()]
    assert [(line[0], line[1], *line[3:]) for line in lines] == [
        (event_id, "invalid_credits", "pi_1", USER_ID) for event_id in ("evt_1", "evt_2")
    ]


def test_single_event_of_a_payment_is_shown_with_its_payload(shop: Shop) -> None:
    shop.deliver(session(credits="ten"))
    shown = shop.run("parked", "pi_1").stdout
    assert shown == shop.run("parked", "evt_1").stdout
    assert '"object": "event"' in shown


def test_event_without_payment_and_user_shows_dashes(shop: Shop) -> None:
    shop.deliver(session(currency=None, user_id=None))
    set_parked_age(shop.admin, "3 hours")
    assert shop.run("parked").stdout == "evt_1\tunreadable\t3h 0m\t-\t-\n"


@pytest.mark.parametrize("command", [("retry", "evt_1"), ("retry", "evt_1", "evt_1")])
def test_retry_of_a_settled_event_names_its_row(shop: Shop, command: tuple[str, ...]) -> None:
    shop.deliver(session(credits="ten"))
    shop.admin.execute(GRANT, [USER_ID])
    shop.run("retry")
    result = shop.run(*command)
    line = f"evt_1\tduplicate\tsettled by pi_1: +100 for {USER_ID} on {entered_on(shop.admin)} (entered by hand)\n"
    assert (result.exit_code, result.stdout) == (0, line * (len(command) - 1))


def test_retry_names_the_event_that_settled_the_sale(shop: Shop) -> None:
    shop.deliver(session(credits="ten"), session("evt_2"))
    assert f"settled by pi_1: +100 for {USER_ID}" in shop.run("retry", "evt_1").stdout
    assert "(event evt_2)" in shop.run("retry", "evt_1").stdout


def test_retry_of_a_settled_event_without_rows_says_settled(shop: Shop) -> None:
    shop.deliver(session(currency=None))
    shop.admin.execute("select billing.resolve('evt_1')")
    result = shop.run("retry", "evt_1")
    assert (result.exit_code, result.stdout) == (0, "evt_1\tduplicate\tsettled\n")


def test_retry_in_the_wrong_mode_names_the_setting(shop: Shop) -> None:
    shop.deliver(session(credits="ten"))
    result = shop.run("retry", STRIPE_LIVEMODE="true", STRIPE_API_KEY="rk_live_1")
    assert (result.exit_code, result.stdout) == (1, "evt_1\tparked\twrong_mode: set STRIPE_LIVEMODE\n")
    set_parked_age(shop.admin, "3 hours")
    assert shop.run("parked").stdout.startswith("evt_1\tinvalid_credits\t3h 0m\tpi_1\t")


def discarded(shop: Shop, event: dict[str, Any]) -> None:
    shop.deliver(event)
    assert shop.run("discard", event["id"], "--reason", "a test").exit_code == 0


def test_discarded_event_is_shown_with_its_payload(shop: Shop) -> None:
    event = session(credits="ten")
    discarded(shop, event)
    assert json.loads(shop.run("parked", "evt_1", "--json").stdout)["payload"] == event
    assert '"object": "event"' in shop.run("parked", "evt_1").stdout


def test_discarded_event_is_settled_by_retry(shop: Shop) -> None:
    discarded(shop, session(user_id=ALICE))
    shop.sign_up(ALICE)
    result = shop.run("retry", "evt_1")
    assert (result.exit_code, result.stdout, shop.balance(ALICE)) == (0, "evt_1\trecorded\n", 100)
    assert json.loads(shop.run("parked", "evt_1", "--json").stdout)["resolution"] == "settled"


def test_discarded_event_that_stays_unsettled_is_listed_again(shop: Shop) -> None:
    discarded(shop, session(user_id=ALICE))
    assert shop.run("retry", "evt_1").exit_code == 1
    assert shop.run("parked").stdout.startswith("evt_1\tunknown_user\t")


def test_retry_of_all_events_leaves_discarded_ones(shop: Shop) -> None:
    discarded(shop, session(user_id=ALICE))
    shop.sign_up(ALICE)
    assert shop.run("retry").stdout == ""
    assert shop.balance(ALICE) == 0


def test_retry_of_an_event_discarded_long_ago_names_reconcile(shop: Shop) -> None:
    discarded(shop, session(user_id=ALICE))
    shop.admin.execute("update billing.parked_events set resolved_at = now() - interval '31 days'")
    result = shop.run("retry", "evt_1")
    line = "webhook: discarded, and the payload is dropped: evt_1; webhook reconcile reads the sale again\n"
    assert (result.exit_code, result.stderr) == (2, line)
