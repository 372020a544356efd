"""`webhook explain` on what real deliveries left in the database."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from support.generations import capture, refund_generation, reserve
from support.operators import adjust, assign, discard
from support.recorded import USER_ID, dispute_event, invoice_payment_event, refund_event, session_event
from support.roles import ALICE, connected
from support.shop import Shop


def sold(shop: Shop, payment_id: str = "pi_1", **fields: Any) -> None:
    shop.deliver(session_event(event_id=f"evt_{payment_id}", payment_intent=payment_id, **fields))


def verdict(shop: Shop, *query: str) -> tuple[str, int]:
    """Return the code of the verdict and the exit code of the command."""
    result = shop.run("explain", "--json", *query)
    return json.loads(result.stdout)["verdict"]["code"], result.exit_code


def test_settled_sale_is_granted(shop: Shop) -> None:
    sold(shop, credits=100, amount=1000)
    assert verdict(shop, "pi_1") == ("granted", 0)


def test_verdict_comes_first_then_the_story(shop: Shop) -> None:
    sold(shop, credits=100, amount=1000)
    shop.deliver(refund_event(id="re_1", payment_intent="pi_1", amount=550, status="succeeded"))
    lines = shop.run("explain", "pi_1").stdout.splitlines()
    assert lines[0].startswith(f"100 credits were granted to {USER_ID}@example.com on ")
    assert lines[0].endswith(" for 10.00 USD, and 55 were taken back after a refund.")
    assert "  100 - floor(100 * 550 / 1000) = 45" in lines
    headings = [line for line in lines[1:] if line and not line.startswith(" ")]
    assert headings == ["user", "facts", "refunds and disputes", "settlement", "ledger"]


def test_fact_that_counts_is_named(shop: Shop) -> None:
    sold(shop, credits=100, amount=1000)
    [fact] = [line for line in shop.run("explain", "pi_1").stdout.splitlines() if "Checkout Session" in line]
    assert "counts: user, credits, money" in fact


def test_lost_dispute_is_taken_back(shop: Shop) -> None:
    sold(shop, credits=100, amount=1000)
    shop.deliver(dispute_event(payment_intent="pi_1", amount=1000, balance_transactions=[-1000]))
    assert verdict(shop, "pi_1") == ("taken_back", 0)


def test_failed_refund_leaves_the_sale_granted(shop: Shop) -> None:
    sold(shop, credits=100, amount=1000)
    shop.deliver(
        refund_event(id="re_1", payment_intent="pi_1", amount=550, status="succeeded"),
        refund_event("refund.failed", id="re_1", payment_intent="pi_1", amount=550, status="failed"),
    )
    assert verdict(shop, "re_1") == ("granted", 0)
    assert "a refund failed, so nothing is taken back" in shop.run("explain", "re_1").stdout


@pytest.mark.parametrize("query", ["evt_pi_1", "pi_1"])
def test_parked_sale_needs_attention(shop: Shop, query: str) -> None:
    """Its event and its payment lead to the same verdict."""
    sold(shop, credits=100, user_id=ALICE)
    assert verdict(shop, query) == ("parked", 1)
    assert "to do: " in shop.run("explain", query).stdout
    assert "webhook retry evt_pi_1" in shop.run("explain", query).stdout


@pytest.mark.parametrize("query", ["evt_pi_1", "pi_1", ALICE, "payer@work.example"])
def test_parked_sale_reports_credits_money_and_day(shop: Shop, query: str) -> None:
    sold(shop, credits=250, amount=2000, user_id=ALICE, customer_details={"email": "payer@work.example"})
    shop.admin.execute("update billing.parked_events set payload = %s", [paid_on_wednesday(shop)])
    shop.sign_up(ALICE)
    sentence = shop.run("explain", query).stdout.splitlines()[0]
    assert sentence.endswith("It reports 250 credits for 20.00 USD, paid on Wednesday, 2026-11-25.")


def paid_on_wednesday(shop: Shop) -> str:
    """Return the body of the only parked event with another day."""
    [payload] = shop.admin.execute("select payload from billing.parked_events").fetchone()
    return json.dumps(payload | {"created": int(datetime(2026, 11, 25, 9, 30, tzinfo=UTC).timestamp())})


def test_event_is_explained_without_its_body(shop: Shop) -> None:
    """A viewer may not see bodies."""
    sold(shop, credits=100, user_id=ALICE)
    document = json.loads(shop.run("explain", "--json", "evt_pi_1").stdout)
    assert document["story"]["reported"]["credits"] == 100
    assert document["story"]["event"]["payload"] is None
    assert "body" not in document["story"]


def test_sale_that_lost_its_event_reports_its_facts(shop: Shop) -> None:
    """Its body was dropped when it was settled."""
    sold(shop, credits=100, amount=1000)
    shop.admin.execute("select billing.park_sale(array['pi_1'], 'unknown_user', true)")
    assert "It reports 100 credits for 10.00 USD, paid." in shop.run("explain", "pi_1").stdout


def test_user_of_a_parked_event_needs_attention(shop: Shop) -> None:
    sold(shop, credits=100, user_id=ALICE)
    shop.sign_up(ALICE)
    assert verdict(shop, f"{ALICE}@example.com") == ("parked", 1)


def test_discarded_event_names_the_operator(shop: Shop) -> None:
    sold(shop, credits=100, user_id=ALICE)
    with connected(shop.database, "billing_operator") as operator:
        discard(operator, "evt_pi_1", reason="a test purchase")
    assert verdict(shop, "evt_pi_1") == ("discarded", 0)
    assert verdict(shop, "pi_1") == ("discarded", 0)
    assert "a test purchase" in shop.run("explain", "pi_1").stdout


def test_unpaid_session_is_pending(shop: Shop) -> None:
    shop.deliver(session_event("checkout.session.completed.unpaid", payment_intent="pi_1", credits=100))
    assert verdict(shop, "pi_1") == ("pending", 0)
    assert verdict(shop, USER_ID) == ("user_pending", 0)


def test_session_unpaid_for_weeks_was_never_paid(shop: Shop) -> None:
    shop.deliver(session_event("checkout.session.completed.unpaid", payment_intent="pi_1", credits=100))
    shop.admin.execute("update billing.sales set recorded_at = now() - interval '15 days'")
    assert verdict(shop, "pi_1") == ("never_paid", 1)


def test_equal_sales_of_a_day_are_paid_twice(shop: Shop) -> None:
    sold(shop, "pi_1", credits=100, amount=1000)
    sold(shop, "pi_2", credits=100, amount=1000)
    assert verdict(shop, "pi_1") == ("paid_twice", 1)
    assert verdict(shop, USER_ID) == ("user_paid_twice", 1)


def test_refund_of_one_of_two_sales_settles_the_matter(shop: Shop) -> None:
    sold(shop, "pi_1", credits=100, amount=1000)
    sold(shop, "pi_2", credits=100, amount=1000)
    shop.deliver(refund_event(id="re_1", payment_intent="pi_2", amount=1000, status="succeeded"))
    assert verdict(shop, "pi_1") == ("granted", 0)
    assert verdict(shop, USER_ID) == ("user_fine", 0)


def test_refund_without_its_sale_asks_to_reconcile(shop: Shop) -> None:
    shop.deliver(refund_event(id="re_1", payment_intent="pi_1", amount=550, status="succeeded"))
    assert verdict(shop, "re_1") == ("unknown_sale", 1)
    assert "reconcile this payment: webhook reconcile pi_1" in shop.run("explain", "re_1").stdout


def test_invoice_and_its_payment_are_one_sale(shop: Shop) -> None:
    sold(shop, credits=100, amount=1000)
    shop.deliver(invoice_payment_event(payment_intent="pi_1", invoice="in_1"))
    assert verdict(shop, "in_1") == ("granted", 0)
    assert "in_1 is paid by pi_1" in shop.run("explain", "in_1").stdout


def test_sale_of_an_erased_user_is_erased(shop: Shop) -> None:
    sold(shop, credits=100, amount=1000)
    shop.admin.execute("select billing.erase_user(%s)", [USER_ID])
    assert verdict(shop, "pi_1") == ("erased", 0)


def test_rows_that_do_not_add_up_are_inconsistent(shop: Shop) -> None:
    sold(shop, credits=100, amount=1000)
    shop.admin.execute("update billing.sales set credits = 90")
    assert verdict(shop, "pi_1") == ("inconsistent", 1)


def test_user_with_a_debt_owes_credits(shop: Shop) -> None:
    sold(shop, credits=100, amount=1000)
    shop.admin.execute(
        "insert into public.transactions (user_id, amount, type) values (%s, -80, 'GENERATION')", [USER_ID]
    )
    shop.deliver(refund_event(id="re_1", payment_intent="pi_1", amount=1000, status="succeeded"))
    assert verdict(shop, USER_ID) == ("user_debt", 0)
    assert "the user now owes 80 credits" in shop.run("explain", "pi_1").stdout


def test_user_without_a_purchase_needs_attention(shop: Shop) -> None:
    assert verdict(shop, USER_ID) == ("user_without_purchase", 1)


def test_generation_has_a_verdict_of_its_own(shop: Shop) -> None:
    sold(shop, credits=100, amount=1000)
    generation = "99999999-0000-4000-8000-000000000009"
    with connected(shop.database, "service_role") as service:
        reserve(service, USER_ID, 30, generation)
        assert verdict(shop, generation) == ("generation_held", 0)
        assert "balance 100, held 30, available 70" in shop.run("explain", generation).stdout
        capture(service, generation, 20)
        assert verdict(shop, generation) == ("generation_paid", 0)
        refund_generation(service, generation)
    assert verdict(shop, generation) == ("generation_refunded", 0)


def test_assignment_of_an_operator_is_shown(shop: Shop) -> None:
    sold(shop, credits=100, amount=1000)
    shop.sign_up(ALICE)
    with connected(shop.database, "billing_operator") as operator:
        assign(operator, "pi_1", ALICE)
    lines = shop.run("explain", "pi_1").stdout.splitlines()
    assert verdict(shop, "pi_1") == ("granted", 0)
    assert any("counts: user" in line and f"for {ALICE}" in line and "action " in line for line in lines)
    assert any("Checkout Session" in line and "counts: credits, money" in line for line in lines)
    assert f"  {ALICE}" in "\n".join(lines[:4])


def test_actions_of_operators_are_listed(shop: Shop) -> None:
    with connected(shop.database, "billing_operator") as operator:
        adjust(operator, USER_ID, 5, reason="a bonus")
    output = shop.run("explain", USER_ID).stdout
    assert "operator actions" in output
    assert "a bonus" in output


def test_unknown_id_names_where_it_was_looked_for(shop: Shop) -> None:
    result = shop.run("explain", "pi_9")
    assert result.exit_code == 1
    assert result.stdout.startswith("Nothing is known about pi_9 here.\n")
    assert "webhook reconcile pi_9" in result.stdout
    assert "the database: payments, invoices," in result.stdout


@pytest.mark.parametrize(
    ("query", "missing"),
    [
        ("10.00 usd tuesday", "the last four digits of the card are missing"),
        ("4242 tuesday", "the amount is missing"),
        ("4242 10.00", "the day is missing"),
    ],
)
def test_search_by_card_names_the_missing_part(shop: Shop, query: str, missing: str) -> None:
    assert missing in shop.run("explain", *query.split()).stdout


def test_text_that_names_nothing_is_not_found(shop: Shop) -> None:
    result = shop.run("explain", "no", "such\x1b[31m thing")
    assert result.exit_code == 1
    assert "\x1b" not in result.stdout


def test_accounts_of_one_address_are_candidates(shop: Shop) -> None:
    for user in (ALICE, USER_ID):
        shop.admin.execute(
            "insert into auth.users (id, email) values (%s, 'both@example.com')"
            " on conflict (id) do update set email = excluded.email",
            [user],
        )
    assert verdict(shop, "both@example.com") == ("candidates", 1)
    output = shop.run("explain", "Both@Example.com").stdout
    assert ALICE in output
    assert USER_ID in output


def test_text_from_outside_is_escaped_in_the_terminal(shop: Shop) -> None:
    """C0, C1, DEL, bidirectional characters and line separators."""
    hostile = "a\x1b[31m\x7f\x85\u202e\u2028\nb@example.com"
    shop.admin.execute("update public.users set email = %s where id = %s", [hostile, USER_ID])
    output = shop.run("explain", USER_ID).stdout
    assert r"a\x1b[31m\x7f\x85\u202e\u2028\x0ab@example.com" in output
    assert all(each.isprintable() or each == "\n" for each in output)


def test_json_is_one_document_in_ascii(shop: Shop) -> None:
    shop.admin.execute("update public.users set email = %s where id = %s", ["é\x7f\u202e@example.com", USER_ID])
    sold(shop, credits=100, amount=1000)
    output = shop.run("explain", "--json", "pi_1").stdout
    assert output.count("\n") == 1
    assert output.isascii()
    assert "\x7f" not in output
    document = json.loads(output)
    assert (document["kind"], document["settlement"]["formula"]) == ("sale", "100 - 0 = 100")
    assert document["story"]["user"]["email"] == "é\x7f\u202e@example.com"


def test_reply_contains_no_internal_word(shop: Shop) -> None:
    sold(shop, credits=100, amount=1000)
    reply = shop.run("explain", "--reply", "pi_1").stdout
    assert reply.startswith(
        "Hello,\n\nYour payment of 10.00 USD arrived, and 100 credits were added to your account on "
    )
    assert not any(word in reply for word in ("pi_1", USER_ID, "parked", "event", "webhook", "Stripe", "@"))


def test_reply_names_the_credits_that_an_operator_assigned(shop: Shop) -> None:
    sold(shop, credits=100, amount=1000)
    with connected(shop.database, "billing_operator") as operator:
        assign(operator, "pi_1", None, 120)
    assert "and 120 credits were added" in shop.run("explain", "--reply", "pi_1").stdout


def test_json_and_reply_exclude_each_other(shop: Shop) -> None:
    assert shop.run("explain", "--json", "--reply", "pi_1").exit_code == 2


def test_missing_database_is_an_error(shop: Shop) -> None:
    result = shop.run("explain", "pi_1", DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")
    assert result.exit_code == 2


def test_payer_address_of_a_parked_event_finds_it(shop: Shop) -> None:
    """ "I paid with my work e-mail": the payment names no account that exists."""
    details = {"email": "Payer@Work.example"}
    sold(shop, credits=100, user_id=ALICE, customer_details=details)
    assert verdict(shop, "payer@work.example") == ("parked", 1)
    assert "payer Payer@Work.example" in shop.run("explain", "payer@work.example").stdout


def test_ids_in_a_parked_event_find_it(shop: Shop) -> None:
    """The session's and the customer's id, while the event is open."""
    sold(shop, id="cs_77", customer="cus_77", credits=100, user_id=ALICE)
    assert [verdict(shop, each) for each in ("cs_77", "cus_77")] == [("parked", 1)] * 2
    shop.sign_up(ALICE)
    assert shop.run("retry").exit_code == 0
    assert verdict(shop, "cs_77") == ("nothing", 1)


def test_several_parked_payments_of_a_customer_are_compared(shop: Shop) -> None:
    for number in ("1", "2"):
        sold(shop, f"pi_{number}", id=f"cs_{number}", customer="cus_77", credits=100, user_id=ALICE)
    assert verdict(shop, "cus_77") == ("candidates", 1)
    assert "parked as unknown_user" in shop.run("explain", "cus_77").stdout
