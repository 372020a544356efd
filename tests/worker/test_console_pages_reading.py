"""The pages of the console that only read: home, search, sale, user, parked events."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any
from urllib.parse import quote

import psycopg
import pytest

from support.console import VIEWER_TOKEN, console_settings
from support.databases import Database
from support.delivery import deliver_to
from support.generations import authorize, new_generation, refund_generation
from support.operators import adjust
from support.pages import Browser, Page
from support.recorded import refund_event, session_event
from support.roles import ALICE, BOB, CAROL, add, connected, sign_up
from support.stored_rows import entered_on, set_parked_age
from webhook.console.reading import PageTimeoutError
from webhook.ledger.ledger import Ledger
from worker.conftest import MakeApp

PAYMENT = "pi_1"
Admin = psycopg.Connection[Any]
Deliver = Callable[[dict[str, Any]], str]


@pytest.fixture
def ann(make_app: MakeApp, database: Database) -> Browser:
    """Ann, an operator."""
    return Browser(make_app(console=console_settings(database)).test_client())


@pytest.fixture
def bob(make_app: MakeApp, database: Database) -> Browser:
    """Bob, a viewer."""
    return Browser(make_app(console=console_settings(database)).test_client(), VIEWER_TOKEN)


@pytest.fixture
def deliver(ledger: Ledger, admin: Admin) -> Deliver:
    """Deliver an event and return its outcome. Alice and Bob have accounts."""
    sign_up(admin, ALICE, BOB)
    return lambda event: deliver_to(ledger, event).name


def session(**fields: Any) -> dict[str, Any]:
    """Return a paid session of 100 credits for 10.00, for Alice unless the fields say otherwise."""
    return session_event(**{"user_id": ALICE, "payment_intent": PAYMENT, "amount": 1000, "customer": None} | fields)


def rows_of(page: Page) -> list[list[str]]:
    """Return the cells of all rows of tables as text, headings included."""
    rows = re.findall(r"<tr>(.*?)</tr>", page.html, re.DOTALL)
    return [[text_of(cell) for cell in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row, re.DOTALL)] for row in rows]


def text_of(html: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", html)).split())


# Home


def test_home_of_an_empty_database_says_that_nothing_happened(ann: Browser, database: Database) -> None:
    assert database
    page = ann.get("/console")
    assert page.status == 200
    assert "Parked events none open" in page.text
    assert "Last delivery none that changed the ledger in 30 days" in page.text
    assert "Last reconciliation never" in page.text
    assert "No credits moved in the last 30 days." in page.text
    assert "view and act: one action moves 10,000 credits at most" in page.text


def test_home_names_the_oldest_parked_event(ann: Browser, deliver: Deliver, admin: Admin) -> None:
    for event_id in ("evt_b", "evt_a"):
        deliver(session(event_id=event_id, user_id=CAROL, payment_intent=f"pi_{event_id}"))
    set_parked_age(admin, "50 hours", "evt_a")
    page = ann.get("/console")
    assert "Parked events 2 open, the oldest for 2d 2h: evt_a" in page.text
    assert page.links["evt_a"] == "/console/parked/evt_a"


def test_home_draws_the_credits_of_each_day(ann: Browser, deliver: Deliver, admin: Admin, database: Database) -> None:
    deliver(session())
    deliver(refund_event(id="re_1", payment_intent=PAYMENT, amount=500))
    authorize(admin, ALICE, 30, new_generation())
    failed = new_generation()
    authorize(admin, ALICE, 11, failed)
    refund_generation(admin, failed)
    with connected(database, "billing_operator") as operator:
        adjust(operator, BOB, 7)
    yesterday = datetime.now(UTC) - timedelta(days=1)
    add(admin, BOB, 40, stripe_id="pi_2", payment_id="pi_2", created_at=str(yesterday))
    page = ann.get("/console")
    days = {row[0]: row[1:] for row in rows_of(page)[1:]}
    assert len(days) == 30
    assert days[entered_on(admin)] == ["100", "30", "50", "+7"]
    assert days[str(yesterday.date())] == ["40", "0", "0", "0"]
    assert re.findall(r"<rect[^>]*><title>[^:]*: ([^<]*)", page.html) == [
        "40 sold",
        "100 sold",
        "30 spent",
        "50 taken back",
    ]
    assert "Last delivery none" not in page.text


def test_home_counts_an_operators_purchase_row_as_no_delivery(ann: Browser, admin: Admin) -> None:
    sign_up(admin, ALICE)
    add(admin, ALICE, 40, stripe_id="pi_2", payment_id="pi_2", event_id="action:1")
    assert "Last delivery none that changed the ledger in 30 days" in ann.get("/console").text


def test_home_works_without_a_chart_that_is_too_slow(
    ann: Browser, deliver: Deliver, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliver(session())

    def load(*_: object) -> None:
        raise PageTimeoutError

    monkeypatch.setattr("webhook.console.content.recent_days.load_daily_credits", load)
    page = ann.get("/console")
    assert page.status == 200
    assert "The chart took too long this time." in page.text
    assert "Parked events none open" in page.text


# Sale


def test_sale_page_begins_with_the_verdict_and_shows_its_numbers(ann: Browser, deliver: Deliver) -> None:
    deliver(session())
    deliver(refund_event(id="re_1", payment_intent=PAYMENT, amount=550))
    page = ann.get(f"/console/sales/{PAYMENT}")
    verdict, formula = page.html.index('class="sentence"'), page.html.index("100 − floor(100 × 550 / 1000) = 45")  # noqa: RUF001
    assert page.html.index("<h1>") < verdict < formula < page.html.index("<table>")
    assert "5.50 USD of it are refunded or disputed. 45 credits stay with the user." in page.text
    assert "Your payment of 10.00 USD arrived, and 100 credits were added to your account on" in page.text
    assert page.links["a@example.com"] == f"/console/users/{ALICE}"


def test_sale_page_has_all_of_its_story(ann: Browser, deliver: Deliver) -> None:
    deliver(session(id="cs_1"))
    deliver(refund_event(id="re_1", payment_intent=PAYMENT, amount=500))
    text = ann.get(f"/console/sales/{PAYMENT}").text
    for part in (
        "What Stripe reports",
        "Checkout Session",
        "Refunds and disputes",
        "re_1",
        "Ledger",
        "PURCHASE",
        "REFUND",
    ):
        assert part in text


def test_page_of_an_unknown_sale_says_where_it_searched(ann: Browser, database: Database) -> None:
    assert database
    page = ann.get("/console/sales/pi_none")
    assert page.path == "/console/search"
    assert "Nothing is known about pi_none here." in page.text
    assert "the database: payments, invoices, sessions" in page.text


# User


def test_user_page_has_a_running_balance(ann: Browser, deliver: Deliver, admin: Admin) -> None:
    deliver(session())
    authorize(admin, ALICE, 30, new_generation())
    page = ann.get(f"/console/users/{ALICE}")
    assert "Balance 70 Held 0 Available 70 Debt none" in page.text
    ledger = [row[1:4] for row in rows_of(page) if row[1] in ("PURCHASE", "GENERATION")]
    assert ledger == [["GENERATION", "-30", "70"], ["PURCHASE", "+100", "100"]]


def test_user_with_a_debt_shows_it(ann: Browser, deliver: Deliver, admin: Admin) -> None:
    deliver(session())
    authorize(admin, ALICE, 60, new_generation())
    deliver(refund_event(id="re_1", payment_intent=PAYMENT, amount=1000))
    assert "Balance -60 Held 0 Available 0 Debt owes 60 credits" in ann.get(f"/console/users/{ALICE}").text


def test_user_page_reads_the_ledger_in_pages_of_100(ann: Browser, deliver: Deliver, admin: Admin) -> None:
    deliver(session())
    bought_often(admin)
    page, seen = ann.get(f"/console/users/{BOB}"), []
    while True:
        seen.append([int(row[3]) for row in rows_of(page) if row[1] == "REFUND"])
        if "Older →" not in page.links:
            break
        page = ann.get(page.links["Older →"])
    assert [len(rows) for rows in seen] == [100, 100, 50]
    assert [balance for rows in seen for balance in rows] == list(range(250, 0, -1))


def bought_often(admin: Admin) -> None:
    """Give Bob 250 credits in 250 rows."""
    admin.execute(
        "insert into public.transactions (user_id, amount, type, created_at)"
        " select %s, 1, 'REFUND', now() - n * interval '1 s' from generate_series(1, 250) as n",
        [BOB],
    )


def forged(address: str, old: str, new: str) -> str:
    assert old in address
    return address.replace(old, new)


def test_link_cannot_forge_a_running_balance(ann: Browser, deliver: Deliver, admin: Admin) -> None:
    """It leads to the first page instead. The same link of another user does, too."""
    deliver(session())
    bought_often(admin)
    address = ann.get(f"/console/users/{BOB}").link("Older")
    for path in (forged(address, "_150.", "_999."), forged(address, BOB, ALICE)):
        assert ann.get(path).text == ann.get(path.partition("?")[0]).text
    assert ann.get(address).text != ann.get(f"/console/users/{BOB}").text


def test_link_to_a_further_page_works_for_a_colleague(
    ann: Browser, bob: Browser, deliver: Deliver, admin: Admin
) -> None:
    deliver(session())
    bought_often(admin)
    address = ann.get(f"/console/users/{BOB}").link("Older")
    assert rows_of(bob.get(address)) == rows_of(ann.get(address))


def test_generation_is_found_with_its_cost(ann: Browser, deliver: Deliver, admin: Admin) -> None:
    deliver(session())
    generation = new_generation()
    authorize(admin, ALICE, 30, generation)
    page = ann.get(f"/console/search?q={generation}")
    assert f"Found: generation {generation}" in page.text
    assert "The generation cost 30 credits on" in page.text
    assert "Your generation was made and cost 30 credits." in page.text


def test_page_of_an_unknown_user_is_missing(ann: Browser, database: Database) -> None:
    assert database
    assert ann.get(f"/console/users/{CAROL}").status == 404


# Search


@pytest.mark.parametrize(
    ("text", "kind", "verdict"),
    [
        (PAYMENT, "sale", "100 credits were granted"),
        (ALICE, "user", "The user has 100 credits"),
        ("A@example.com", "user", "The user has 100 credits"),
        ("evt_parked", "parked event", "is parked as unknown_user"),
    ],
)
def test_search_shows_what_it_found(ann: Browser, deliver: Deliver, text: str, kind: str, verdict: str) -> None:
    deliver(session())
    deliver(session(event_id="evt_parked", user_id=CAROL, payment_intent="pi_2"))
    home = ann.get("/console")
    page = ann.send(home, "Search", q=text)
    assert page.status == 200
    assert f"Found: {kind}" in page.text
    assert verdict in page.text


def test_search_without_result_offers_a_reply(ann: Browser, database: Database) -> None:
    assert database
    page = ann.get("/console/search?q=payer@example.com")
    assert "Nothing is known about payer@example.com here." in page.text
    assert "We could not find your payment yet." in page.text
    assert "set STRIPE_API_KEY" in page.text


def test_search_for_several_accounts_compares_them(ann: Browser, deliver: Deliver, admin: Admin) -> None:
    deliver(session())
    admin.execute("insert into auth.users (id, email) values (%s, 'a@example.com')", [CAROL])
    page = ann.get("/console/search?q=a@example.com")
    assert "2 results: compare account, payer, amount, time and state. To do: open the right one" in page.text
    assert {href for text, href in page.links.items() if text == "Open"} <= {
        f"/console/users/{u}" for u in (ALICE, CAROL)
    }


def test_empty_search_returns_to_the_first_page(ann: Browser, database: Database) -> None:
    assert database
    assert ann.get("/console/search?q=+").path == "/console"


@pytest.mark.parametrize("text", ["%00", "pi_%00", "%ff", "pi_1%E2%80%AE", "'", '"><script>', "x" * 5000])
def test_search_for_anything_is_a_page(ann: Browser, database: Database, text: str) -> None:
    assert database
    page = ann.get(f"/console/search?q={text}")
    assert page.status == 200
    assert "<script" not in page.html


# Parked events


def park(deliver: Deliver, number: int) -> None:
    for each in range(number):
        deliver(session(event_id=f"evt_{each:03}", user_id=CAROL, payment_intent=f"pi_{each:03}"))


def test_parked_list_filters_by_reason(ann: Browser, deliver: Deliver) -> None:
    park(deliver, 2)
    deliver(session(event_id="evt_no_user", user_id=None, payment_intent="pi_none"))
    page = ann.get("/console/parked")
    assert [row[0].split()[0] for row in rows_of(page)[1:]] == ["evt_000", "evt_001", "evt_no_user"]
    assert "unknown_user (2)" in page.text
    filtered = ann.send(page, "Filter", reason="missing_user")
    assert [row[0].split()[0] for row in rows_of(filtered)[1:]] == ["evt_no_user"]
    assert "we do not know whose account the payment is for: assign the user" in filtered.text


def test_parked_list_is_read_in_pages_of_100(ann: Browser, deliver: Deliver, admin: Admin) -> None:
    sign_up(admin, CAROL)
    admin.execute(
        "insert into billing.parked_events (event_id, event_type, reason, payload, parked_at)"
        " select 'evt_' || n, 'invoice.paid', 'missing_user', '{}', now() - (n % 7) * interval '1 s'"
        " from generate_series(1, 205) as n"
    )
    assert deliver
    page, seen = ann.get("/console/parked"), []
    while True:
        seen += [row[0].split()[0] for row in rows_of(page)[1:]]
        if "Newer →" not in page.links:
            break
        page = ann.get(page.links["Newer →"])
    assert len(seen) == len({*seen}) == 205


def test_parked_event_shows_its_payload_to_operators_only(ann: Browser, bob: Browser, deliver: Deliver) -> None:
    deliver(session(event_id="evt_1", user_id=CAROL))
    mine, theirs = (browser.get("/console/parked/evt_1") for browser in (ann, bob))
    assert '"client_reference_id": "' in mine.text
    assert "Payload" in mine.text
    assert "Payload" not in theirs.text
    assert "client_reference_id" not in theirs.html


def test_large_payload_is_cut(ann: Browser, deliver: Deliver) -> None:
    deliver(
        session(event_id="evt_1", user_id=CAROL, metadata={"user_id": CAROL, "credits": "100", "note": "x" * 200_000})
    )
    page = ann.get("/console/parked/evt_1")
    assert "Only the first 64 KiB are shown." in page.text
    assert len(page.html) < 64 * 1024 + 20_000


def test_event_of_a_sale_has_the_story_of_the_sale(ann: Browser, deliver: Deliver) -> None:
    deliver(session(event_id="evt_1", user_id=None))
    page = ann.get("/console/parked/evt_1")
    assert "is parked as missing_user since" in page.text
    assert "What Stripe reports" in page.text


def test_page_of_an_unknown_event_is_missing(ann: Browser, database: Database) -> None:
    assert database
    assert ann.get("/console/parked/evt_none").status == 404


HOSTILE = "Eve</td><script>alert(1)</script>\u202eevil\x1b[31m\u2028\"'&amp;"


def test_text_from_outside_is_shown_as_text(ann: Browser, deliver: Deliver, admin: Admin) -> None:
    """Markup is escaped. Control characters, bidirectional marks and line separators are visible."""
    admin.execute("insert into auth.users (id, email) values (%s, %s)", [CAROL, HOSTILE])
    event = session(event_id="evt_1", user_id=HOSTILE)
    event["data"]["object"]["customer_details"]["email"] = "payer@example.com"
    event["data"]["object"]["metadata"]["note"] = HOSTILE
    deliver(event)
    admin.execute("update billing.parked_events set user_reference = %s, payer_email = %s", [HOSTILE, HOSTILE])
    for path in ("/console/parked/evt_1", "/console/parked", f"/console/users/{CAROL}", f"/console/search?q={CAROL}"):
        html = ann.get(path).html
        assert "<script" not in html
        assert [each for each in ("\u202e", "\x1b", "\u2028") if each in html] == [], path
        assert "&lt;script&gt;" in html
        assert "\\u202e" in html


def test_strange_ids_of_events_are_text_and_have_pages(ann: Browser, deliver: Deliver) -> None:
    event_id = 'evt_"><script>alert(1)</script>/x?y#z%41&amp;'
    deliver(session(event_id=event_id, user_id=CAROL, payment_intent='pi_"><img/src=x>/'))
    page = ann.get("/console/parked")
    assert "<script" not in page.html
    assert "<img" not in page.html
    found = ann.get(page.link("evt_"))
    assert found.status == 200
    assert event_id in found.text
    assert ann.get(found.link('pi_"')).status == 200
    assert event_id in ann.send(page, "Retry").text


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "2026-11-27T12:00:00", "x"])
def test_page_from_an_impossible_time_is_the_first_one(ann: Browser, deliver: Deliver, time: str) -> None:
    deliver(session(event_id="evt_1", user_id=CAROL))
    page = ann.get(f"/console/parked?after={quote(time)}_evt_0")
    assert page.status == 200
    assert "evt_1" in page.text


def test_every_page_is_readable_by_a_viewer_without_forms_that_act(bob: Browser, deliver: Deliver) -> None:
    deliver(session())
    deliver(session(event_id="evt_1", user_id=CAROL, payment_intent="pi_2"))
    paths = [
        "/console",
        f"/console/sales/{PAYMENT}",
        f"/console/users/{ALICE}",
        "/console/parked",
        "/console/parked/evt_1",
    ]
    for path in [*paths, "/console/search?q=pi_2"]:
        page = bob.get(path)
        assert page.status == 200
        assert {form.method for form in page.forms if form.action != "/console/logout"} <= {"get"}
        assert not [link for link in page.links.values() if re.search("assign|adjust|discard|retry", link)]


def test_stored_json_that_cannot_be_parsed_is_shown_as_it_came(ann: Browser, admin: Admin) -> None:
    admin.execute(
        "insert into billing.parked_events (event_id, event_type, reason, payload)"
        " values ('evt_1', 'x', 'unreadable', %s)",
        [json.dumps({"text": "\ud800"})],
    )
    assert ann.get("/console/parked/evt_1").status == 200


def test_lists_of_a_sale_have_a_hundred_rows(ann: Browser, deliver: Deliver, admin: Admin) -> None:
    """A sale with thousands of partial refunds must not hold up deliveries while its page is made."""
    deliver(session())
    admin.execute(
        "insert into billing.reversals (reversal_id, payment_id, version, money_amount, currency, event_id)"
        " select 're_' || n, 'pi_1', 1, 1, 'usd', 'evt_' || n from generate_series(1, 103) as n"
    )
    page = ann.get("/console/sales/pi_1")
    assert "The first 100 of 103." in page.text
    assert len(re.findall("<code><bdi>re_[0-9]+</bdi>", page.html)) == 100
