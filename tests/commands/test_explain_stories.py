"""Stories of sales and users: read after real deliveries, each with its verdict."""

from __future__ import annotations

from support.recorded import USER_ID, refund_event, session_event
from support.roles import ALICE
from support.shop import Shop
from webhook.explain import find, load_event, load_sale, load_user, verdict
from webhook.explain.story import Cursor


def test_sale_of_a_delivered_session_is_granted(shop: Shop) -> None:
    shop.deliver(session_event(payment_intent="pi_1", credits=100, amount=1000))
    story = load_sale(shop.ledger, "pi_1")
    assert story
    assert (story.sale.credits, story.sale.user_id, story.user.balance) == (100, USER_ID, 100)
    assert verdict(story).code == "granted"
    assert f"100 credits were granted to {USER_ID}@example.com on" in verdict(story).sentence
    assert not verdict(story).needs_attention


def test_refunded_sale_shows_what_was_taken_back(shop: Shop) -> None:
    shop.deliver(
        session_event(payment_intent="pi_1", credits=100, amount=1000),
        refund_event(id="re_1", payment_intent="pi_1", amount=550, status="succeeded"),
    )
    story = load_sale(shop.ledger, "pi_1")
    assert verdict(story).code == "taken_back"
    assert "55 were taken back after a refund" in verdict(story).sentence
    assert [row.amount for row in story.rows] == [100, -55]


def test_parked_event_names_its_reason_and_remedy(shop: Shop) -> None:
    shop.deliver(session_event(event_id="evt_1", payment_intent="pi_1", credits=100, user_id=ALICE))
    found = find(shop.ledger, "evt_1")
    assert (found.kind, found.id) == ("parked event", "evt_1")
    story = load_event(shop.ledger, "evt_1")
    assert verdict(story).code == "parked"
    assert verdict(story).needs_attention
    assert "webhook retry evt_1" in verdict(story).remedy


def test_find_leads_from_ids_to_the_sale(shop: Shop) -> None:
    shop.deliver(
        session_event(payment_intent="pi_1", credits=100, amount=1000),
        refund_event(id="re_1", payment_intent="pi_1", amount=550, status="succeeded"),
    )
    assert [(find(shop.ledger, each).kind, find(shop.ledger, each).id) for each in ("pi_1", "re_1", "re_1:2")] == [
        ("sale", "pi_1")
    ] * 3
    assert find(shop.ledger, f"{USER_ID}@EXAMPLE.com").id == USER_ID
    assert find(shop.ledger, USER_ID.upper()).id == USER_ID
    assert find(shop.ledger, "pi_2").kind == "nothing"


def test_pages_of_a_user_have_a_running_balance(shop: Shop) -> None:
    shop.admin.execute(
        "insert into public.transactions (user_id, amount, type) select %s, n, 'REFUND' from generate_series(1, 150) n",
        [USER_ID],
    )
    first = load_user(shop.ledger, USER_ID)
    assert (len(first.rows), first.balances[0]) == (100, 150 * 151 // 2)
    last = load_user(shop.ledger, USER_ID, Cursor.parse(str(first.next)))
    assert (len(last.rows), last.next) == (50, None)
    assert last.balances[-1] == last.rows[-1].amount
    assert {row.id for row in first.rows} & {row.id for row in last.rows} == set()
