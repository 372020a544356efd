"""The pages of the console that change something: retry, assign, adjust, discard and bulk retry."""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import psycopg
import pytest
from flask.testing import FlaskClient
from werkzeug.datastructures import MultiDict

from support.console import VIEWER_TOKEN, console_settings
from support.databases import Database
from support.delivery import deliver_to
from support.generations import authorize, new_generation
from support.operators import actions
from support.pages import Browser, Page
from support.recorded import refund_event, session_event
from support.roles import ALICE, BOB, CAROL, balance, contents, sign_up
from webhook.console.pages.bulk import read_bulk
from webhook.ledger.errors import LedgerUnavailableError
from webhook.ledger.ledger import Ledger
from webhook.ledger.operator import OperatorLedger
from worker.conftest import MakeApp

PAYMENT = "pi_1"
EVENT = "evt_1"
ID = "99999999-0000-4000-8000-000000000009"
Admin = psycopg.Connection[Any]
Deliver = Callable[[dict[str, Any]], str]


@pytest.fixture
def client(make_app: MakeApp, database: Database) -> FlaskClient:
    """A client of an app with a console. One action may move 500 credits."""
    return make_app(console=console_settings(database, max_credits=500)).test_client()


@pytest.fixture
def ann(client: FlaskClient) -> Browser:
    """Ann, an operator."""
    return Browser(client)


@pytest.fixture
def deliver(ledger: Ledger, admin: Admin) -> Deliver:
    """Deliver an event and return its outcome. Alice and Bob have accounts."""
    sign_up(admin, ALICE, BOB)
    return lambda event: deliver_to(ledger, event).name


def session(**fields: Any) -> dict[str, Any]:
    """Return a paid session of 100 credits for 10.00, for Alice unless the fields say otherwise."""
    values = {"event_id": EVENT, "user_id": ALICE, "payment_intent": PAYMENT, "amount": 1000, "customer": None}
    return session_event(**values | fields)


def parked(admin: Admin) -> dict[str, str]:
    """Return the reasons of the open events."""
    query = "select event_id, reason from billing.parked_events where resolved_at is null"
    return dict(admin.execute(query).fetchall())


def notice(page: Page) -> str:
    """Return the notice of a page."""
    [found] = re.findall(r'<p class="notice" role="status">(.*?)</p>', page.html, re.DOTALL)
    return re.sub(r"<[^>]*>", "", found)


# Retry


def test_retry_settles_an_event_and_shows_its_sale(ann: Browser, deliver: Deliver, admin: Admin) -> None:
    deliver(session(user_id=CAROL))
    sign_up(admin, CAROL)
    page = ann.send(ann.get(f"/console/parked/{EVENT}"), f"Retry {EVENT}")
    assert (page.path, notice(page)) == (f"/console/sales/{PAYMENT}", f"{EVENT} is settled.")
    assert (parked(admin), balance(admin, CAROL)) == ({}, 100)


def test_retry_of_an_event_that_stays_parked_says_why(ann: Browser, deliver: Deliver, admin: Admin) -> None:
    deliver(session(user_id=CAROL))
    page = ann.send(ann.get("/console/parked"), "Retry")
    assert (page.path, notice(page)) == (
        f"/console/parked/{EVENT}",
        f"{EVENT} stays parked: unknown_user. Nothing was changed. This page shows what is still to do.",
    )
    assert parked(admin) == {EVENT: "unknown_user"}


def test_retry_sent_twice_grants_once(ann: Browser, deliver: Deliver, admin: Admin) -> None:
    deliver(session(user_id=CAROL))
    sign_up(admin, CAROL)
    for _ in range(2):
        page = ann.post("/console/retry", event_id=EVENT)
        assert page.status == 200
    assert notice(page).startswith(f"{EVENT}: settled by {PAYMENT}: +100 for {CAROL}")
    assert balance(admin, CAROL) == 100


def test_retry_puts_a_discarded_event_back(ann: Browser, deliver: Deliver, admin: Admin) -> None:
    deliver(session(user_id=CAROL))
    ann.post("/console/discard", event_id=EVENT, reason="a test")
    page = ann.get("/console/parked?state=discarded")
    assert "by ann as webhook_operator: a test" in page.text
    ann.send(page, "Retry")
    assert parked(admin) == {EVENT: "unknown_user"}


@pytest.mark.parametrize("event_id", ["evt_none", "", "x y", "\x00"])
def test_retry_of_no_event_changes_nothing(ann: Browser, deliver: Deliver, admin: Admin, event_id: str) -> None:
    deliver(session(user_id=CAROL))
    before = contents(admin)
    assert ann.post("/console/retry", event_id=event_id).status == 409
    assert contents(admin) == before


# Assign


def test_assign_prefills_the_account_of_the_payer(ann: Browser, deliver: Deliver, admin: Admin) -> None:
    """The verdict, one link, a reason, the preview and the button: the customer has the credits."""
    event = session(user_id=None)
    event["data"]["object"]["customer_details"]["email"] = "B@example.com"
    deliver(event)
    form = ann.get(ann.get(f"/console/parked/{EVENT}").link("Assign it to b@example.com"))
    preview = ann.send(form, "Preview", reason="metadata forgotten")
    assert "b@example.com +100 100 100" in preview.text
    assert balance(admin, BOB) == 0
    page = ann.send(preview, "Assign the sale")
    assert page.path == f"/console/sales/{PAYMENT}"
    assert notice(page) == "Action 1; +100 credits for b@example.com, balance 100."
    assert (parked(admin), balance(admin, BOB)) == ({}, 100)
    assert actions(admin) == [("assign", PAYMENT, "metadata forgotten", 100, 0)]


def test_assign_sent_twice_acts_once(ann: Browser, deliver: Deliver, admin: Admin) -> None:
    deliver(session())
    form = ann.get(ann.get(f"/console/sales/{PAYMENT}").link("Move to another account"))
    preview = ann.send(form, "Preview", user="b@example.com", reason="paid by Bob")
    first, second = (ann.send(preview, "Assign the sale") for _ in range(2))
    assert notice(second) == "Action 1 was done before."
    assert first.path == second.path
    assert (balance(admin, ALICE), balance(admin, BOB), len(actions(admin))) == (0, 100, 1)


def test_assign_of_credits_settles_with_its_refund(ann: Browser, deliver: Deliver, admin: Admin) -> None:
    deliver(session(credits=None))
    deliver(refund_event(id="re_1", payment_intent=PAYMENT, amount=500))
    form = ann.get(ann.get(f"/console/parked/{EVENT}").link("Assign the credits"))
    preview = ann.send(form, "Preview", credits="60", reason="by hand")
    assert "60 − floor(60 × 500 / 1000) = 30" in preview.text  # noqa: RUF001
    ann.send(preview, "Assign the sale")
    assert balance(admin, ALICE) == 30


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"user": "", "credits": ""}, "Name the user, the credits or both."),
        ({"user": "nobody@example.com"}, "No account has this id or e-mail address."),
        ({"user": CAROL}, f"There is no user {CAROL}."),
        ({"user": BOB, "name": "evt_none"}, "never parked: evt_none"),
        ({"user": BOB, "name": "pi_none"}, "No sale pi_none is known."),
        ({"user": BOB, "name": "x y"}, "The id of the event or payment is missing or wrong."),
        ({"credits": "501"}, "Credits must be a whole number from 1 to 500."),
        ({"credits": "0"}, "Credits must be a whole number from 1 to 500."),
        ({"credits": "1.5"}, "Credits must be a whole number from 1 to 500."),
        ({"user": BOB, "reason": " "}, "The reason is empty."),
        ({"user": BOB, "reason": "x" * 1001}, "The reason has more than 1000 characters."),
        ({"user": BOB, "reason": "x\u202e"}, "The reason must be one line of text"),
        ({"user": "\x00x"}, "No account has this id or e-mail address."),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_assign_with_a_wrong_field_shows_the_form_again(
    ann: Browser, deliver: Deliver, admin: Admin, fields: dict[str, str], problem: str
) -> None:
    deliver(session())
    before = contents(admin)
    page = ann.post("/console/assign/preview", **{"name": PAYMENT, "reason": "a test"} | fields)
    assert page.status == 400
    assert problem in page.text
    assert "Preview" in page.buttons
    assert contents(admin) == before


def test_assign_to_an_address_of_two_accounts_names_both(ann: Browser, deliver: Deliver, admin: Admin) -> None:
    deliver(session())
    admin.execute("insert into auth.users (id, email) values (%s, 'b@example.com')", [CAROL])
    page = ann.post("/console/assign/preview", name=PAYMENT, reason="a test", user="b@example.com")
    assert f"Several accounts have this address: {BOB}, {CAROL}." in page.text


def test_assign_that_makes_a_debt_has_to_allow_it(ann: Browser, deliver: Deliver, admin: Admin) -> None:
    deliver(session())
    authorize(admin, ALICE, 60, new_generation())
    preview = ann.post("/console/assign/preview", name=PAYMENT, user=BOB, reason="a test")
    assert "a@example.com has spent or holds these credits, and would owe 60" in preview.text
    refused = ann.send(preview, "Assign the sale")
    assert refused.status == 409
    assert "takes 100 credits from the user" in refused.text
    assert "--allow-debt" not in refused.text
    assert (balance(admin, ALICE), balance(admin, BOB)) == (40, 0)
    ann.send(refused, "Assign the sale", allow_debt="yes")
    assert (balance(admin, ALICE), balance(admin, BOB)) == (-60, 100)


@pytest.mark.parametrize("path", ["/console/assign/preview", "/console/assign"])
def test_assign_of_more_than_the_limit_is_refused(ann: Browser, deliver: Deliver, admin: Admin, path: str) -> None:
    """Also if the form names the user only: the sale has 600 credits."""
    deliver(session(credits="600"))
    before = contents(admin)
    page = ann.post(path, name=PAYMENT, user=BOB, reason="a test", id=ID)
    assert "One action may move 500 credits at most" in page.text
    assert contents(admin) == before
    assert "Assign the sale" not in page.buttons


def test_assign_with_forged_credits_beyond_the_limit_is_refused(ann: Browser, deliver: Deliver, admin: Admin) -> None:
    deliver(session())
    before = contents(admin)
    page = ann.post("/console/assign", name=PAYMENT, credits="501", reason="x", id=ID)
    assert page.status == 409
    assert contents(admin) == before


def test_withdrawal_ends_the_latest_assignment(ann: Browser, deliver: Deliver, admin: Admin) -> None:
    deliver(session())
    ann.send(ann.post("/console/assign/preview", name=PAYMENT, user=BOB, reason="a typo"), "Assign the sale")
    form = ann.get(ann.get(f"/console/sales/{PAYMENT}").link("Withdraw the latest assignment"))
    preview = ann.send(form, "Preview", reason="it was right")
    assert f"action 1, account b@example.com {BOB}" in preview.text
    page = ann.send(preview, "Withdraw it")
    assert notice(page).startswith("Action 2; -100 credits for")
    assert (balance(admin, ALICE), balance(admin, BOB)) == (100, 0)
    assert "Withdraw the latest assignment…" not in page.links


def test_withdrawal_that_makes_a_debt_has_to_allow_it(ann: Browser, deliver: Deliver, admin: Admin) -> None:
    deliver(session())
    ann.send(ann.post("/console/assign/preview", name=PAYMENT, user=BOB, reason="a typo"), "Assign the sale")
    authorize(admin, BOB, 60, new_generation())
    preview = ann.post("/console/assign/preview", name=PAYMENT, withdraw="1", reason="it was right")
    refused = ann.send(preview, "Withdraw it")
    assert (refused.status, balance(admin, BOB)) == (409, 40)
    ann.send(refused, "Withdraw it", allow_debt="yes")
    assert (balance(admin, ALICE), balance(admin, BOB)) == (100, -60)


# Adjust


def test_adjust_is_previewed_and_then_done_once(ann: Browser, deliver: Deliver, admin: Admin) -> None:
    deliver(session())
    form = ann.get(ann.get(f"/console/users/{ALICE}").link("Give or take credits"))
    preview = ann.send(form, "Preview", credits="30", reason="an apology", description="Sorry")
    assert "Balance 100 +30 130" in preview.text
    assert balance(admin, ALICE) == 100
    first, second = (ann.send(preview, "Give 30 credits") for _ in range(2))
    assert notice(first) == "Action 1: +30 credits. Balance 100 → 130."
    assert notice(second) == "Action 1 was done before. The balance is 130."
    assert balance(admin, ALICE) == 130
    assert actions(admin) == [("adjust", ALICE, "an apology", 30, 0)]
    assert admin.execute("select by, channel, login from billing.operator_actions").fetchall() == [
        ("ann", "console", "webhook_operator")
    ]


def test_two_previews_are_two_actions(ann: Browser, deliver: Deliver, admin: Admin) -> None:
    deliver(session())
    fields = {"direction": "give", "credits": "5", "reason": "a bonus"}
    previews = [ann.post(f"/console/users/{ALICE}/adjust/preview", **fields) for _ in range(2)]
    for preview in previews:
        ann.send(preview, "Give 5 credits")
    assert balance(admin, ALICE) == 110


def test_take_back_goes_down_to_the_available_credits(ann: Browser, deliver: Deliver, admin: Admin) -> None:
    """More needs the debt to be allowed. The page offers to take what is available."""
    deliver(session())
    authorize(admin, ALICE, 60, new_generation())
    preview = ann.post(f"/console/users/{ALICE}/adjust/preview", direction="take", credits="50", reason="an error")
    assert "The user has 40 credits available. This makes a debt" in preview.text
    refused = ann.send(preview, "Take 50 credits")
    assert (refused.status, balance(admin, ALICE)) == (409, 40)
    less = ann.send(preview, "Take only the 40 available")
    ann.send(less, "Take 40 credits")
    assert balance(admin, ALICE) == 0


def test_take_back_beyond_the_available_credits_can_be_allowed(ann: Browser, deliver: Deliver, admin: Admin) -> None:
    deliver(session())
    preview = ann.post(f"/console/users/{ALICE}/adjust/preview", direction="take", credits="150", reason="fraud")
    ann.send(preview, "Take 150 credits", allow_debt="yes")
    assert balance(admin, ALICE) == -50


@pytest.mark.parametrize("path", ["adjust/preview", "adjust"])
@pytest.mark.parametrize(
    "fields",
    [
        {"credits": "501"},
        {"credits": "-5"},
        {"credits": "0"},
        {"credits": ""},
        {"direction": ""},
        {"reason": ""},
        {"description": "x" * 201},
    ],
    ids=str,
)
def test_adjust_with_a_wrong_field_changes_nothing(
    ann: Browser, deliver: Deliver, admin: Admin, path: str, fields: dict[str, str]
) -> None:
    deliver(session())
    before = contents(admin)
    values = {"direction": "give", "credits": "5", "reason": "x", "id": ID}
    assert ann.post(f"/console/users/{ALICE}/{path}", **values | fields).status in (400, 409)
    assert contents(admin) == before


def test_adjust_without_the_id_of_a_preview_is_refused(ann: Browser, deliver: Deliver, admin: Admin) -> None:
    deliver(session())
    page = ann.post(f"/console/users/{ALICE}/adjust", direction="give", credits="5", reason="x")
    assert (page.status, balance(admin, ALICE)) == (409, 100)


@pytest.mark.parametrize(
    ("path", "function", "fields"),
    [
        (f"/console/users/{ALICE}/adjust", "adjust", {"direction": "give", "credits": "30"}),
        ("/console/assign", "assign", {"name": PAYMENT, "credits": "130"}),
    ],
    ids=["adjust", "assign"],
)
def test_action_without_an_answer_is_repeated_with_its_id(  # noqa: PLR0913, PLR0917 - fixtures
    ann: Browser,
    deliver: Deliver,
    admin: Admin,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    function: str,
    fields: dict[str, str],
) -> None:
    """The database did it, and the connection was lost before the answer."""
    deliver(session())
    done = getattr(OperatorLedger, function)

    def lose_the_answer(*arguments: Any, **options: Any) -> None:
        done(*arguments, **options)
        raise LedgerUnavailableError("no connection")

    with monkeypatch.context() as lost:
        lost.setattr(OperatorLedger, function, lose_the_answer)
        page = ann.post(path, **fields, reason="x", id=ID)
    assert page.status == 503
    assert "Send it again: it acts once." in page.text
    assert notice(ann.send(page, "Send it again")).startswith("Action 1 was done before.")
    assert (balance(admin, ALICE), len(actions(admin))) == (130, 1)


def test_same_action_from_two_windows_at_once_acts_once(client: FlaskClient, deliver: Deliver, admin: Admin) -> None:
    deliver(session())
    app, barrier = client.application, Barrier(2)

    def send(_: int) -> str:
        browser = Browser(app.test_client())
        barrier.wait()
        fields = {"direction": "give", "credits": "5", "reason": "x", "id": ID}
        return notice(browser.post(f"/console/users/{ALICE}/adjust", **fields))

    with ThreadPoolExecutor(2) as threads:
        notices = sorted(threads.map(send, range(2)))
    assert [each.split(".")[0] for each in notices] == ["Action 1 was done before", "Action 1: +5 credits"]
    assert balance(admin, ALICE) == 105


@pytest.mark.parametrize("path", ["/console/assign?name=pi_1", f"/console/users/{ALICE}/adjust?credits=5"])
def test_link_fills_in_no_reason(ann: Browser, deliver: Deliver, path: str) -> None:
    """A person has to type it: the link may come from somebody else."""
    deliver(session())
    fields = ann.get(f"{path}&reason=ok&description=ok&allow_debt=yes").form("Preview").fields
    assert fields["reason"] == ""
    assert "ok" not in fields.values()


# Discard


def test_discard_takes_an_event_off_the_list_once(ann: Browser, deliver: Deliver, admin: Admin) -> None:
    deliver(session(user_id=CAROL))
    form = ann.get(ann.get(f"/console/parked/{EVENT}").link("Discard"))
    first = ann.send(form, "Discard the event", reason="a test purchase")
    assert notice(first) == f"Action 1: {EVENT} is discarded."
    assert "ann as webhook_operator discarded the event evt_1: a test purchase." in first.text
    assert notice(ann.send(form, "Discard the event", reason="again")) == f"{EVENT} was discarded before."
    assert (parked(admin), actions(admin)) == ({}, [("discard", EVENT, "a test purchase", 0, 0)])


def test_discard_without_a_reason_shows_the_form_again(ann: Browser, deliver: Deliver, admin: Admin) -> None:
    deliver(session(user_id=CAROL))
    page = ann.post("/console/discard", event_id=EVENT, reason=" ")
    assert page.status == 400
    assert "The reason is empty." in page.text
    assert parked(admin) == {EVENT: "unknown_user"}


def test_discard_of_a_settled_event_is_refused(ann: Browser, deliver: Deliver, admin: Admin) -> None:
    deliver(session(user_id=CAROL))
    sign_up(admin, CAROL)
    ann.post("/console/retry", event_id=EVENT)
    page = ann.post("/console/discard", event_id=EVENT, reason="a test")
    assert page.status == 409
    assert f"Not parked (any more): {EVENT}." in page.text


# Bulk retry


def test_bulk_retry_counts_exactly_and_settles(ann: Browser, deliver: Deliver, admin: Admin) -> None:
    for number in range(30):
        deliver(session(event_id=f"evt_{number}", user_id=CAROL, payment_intent=f"pi_{number}"))
    deliver(session(event_id="evt_no_user", user_id=None, payment_intent="pi_none"))
    sign_up(admin, CAROL)
    form = ann.get(ann.get("/console/parked").link("Retry all"))
    assert "31 events are parked now." in form.text
    assert ("evt_0" in form.links, len([each for each in form.links if each.startswith("evt_")])) == (True, 20)
    page = ann.send(form, "Retry 31 events")
    assert "31 done, 0 left. 30 settled, 1 still needs a decision." in page.text
    assert "All done." not in page.text
    assert "evt_no_user" in page.links
    assert (parked(admin), balance(admin, CAROL)) == ({"evt_no_user": "missing_user"}, 3000)


def test_bulk_retry_of_a_reason_leaves_the_others(ann: Browser, deliver: Deliver, admin: Admin) -> None:
    deliver(session(event_id="evt_no_user", user_id=None, payment_intent="pi_none"))
    deliver(session(user_id=CAROL))
    sign_up(admin, CAROL)
    form = ann.get(ann.get("/console/parked?reason=missing_user").link("Retry all of this reason"))
    assert "1 done, 0 left. 0 settled, 1 still needs a decision." in ann.send(form, "Retry 1 event").text
    assert set(parked(admin)) == {"evt_no_user", EVENT}


def test_bulk_retry_leaves_out_what_is_parked_later(ann: Browser, deliver: Deliver, admin: Admin) -> None:
    deliver(session(event_id="evt_early", user_id=CAROL, payment_intent="pi_early"))
    form = ann.get("/console/retry-all")
    deliver(session(event_id="evt_later", user_id=CAROL, payment_intent="pi_later"))
    sign_up(admin, CAROL)
    assert "1 done, 0 left." in ann.send(form, "Retry 1 event").text
    assert parked(admin) == {"evt_later": "unknown_user"}


def test_bulk_retry_does_not_replace_what_others_settled(ann: Browser, deliver: Deliver, admin: Admin) -> None:
    """The event that was counted is gone by now. One that was parked later does not take its place."""
    deliver(session(event_id="evt_early", user_id=CAROL, payment_intent="pi_early"))
    form = ann.get("/console/retry-all")
    deliver(session(event_id="evt_later", user_id=CAROL, payment_intent="pi_later"))
    sign_up(admin, CAROL)
    ann.post("/console/retry", event_id="evt_early")
    assert "0 done, 0 left." in ann.send(form, "Retry 1 event").text
    assert parked(admin) == {"evt_later": "unknown_user"}


def test_bulk_retry_passes_events_that_stay_parked(
    ann: Browser, deliver: Deliver, admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(2):
        deliver(session(event_id=f"evt_{number}", user_id=None, payment_intent=f"pi_{number}"))
    monkeypatch.setattr("webhook.console.pages.bulk.STEP_SECONDS", 0)
    first = ann.send(ann.get("/console/retry-all"), "Retry 2 events")
    second = ann.send(first, "Continue")
    assert "evt_0 stays parked: missing_user" in first.text
    assert "evt_1 stays parked: missing_user" in second.text
    assert "2 done, 0 left. 0 settled, 2 still need a decision." in second.text
    assert set(parked(admin)) == {"evt_0", "evt_1"}


def test_bulk_retry_of_a_forged_number_stops_at_a_thousand() -> None:
    fields = {"events": "9999", "tried": "0", "settled": "0", "until": "2026-11-27T12:00:00+00:00"}
    assert read_bulk(MultiDict(fields)).events == 1000


def test_bulk_retry_continues_where_it_stopped(
    ann: Browser, deliver: Deliver, admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step ends after its time. Nothing is tried twice, and nothing is left out."""
    for number in range(3):
        deliver(session(event_id=f"evt_{number}", user_id=CAROL, payment_intent=f"pi_{number}"))
    sign_up(admin, CAROL)
    monkeypatch.setattr("webhook.console.pages.bulk.STEP_SECONDS", 0)
    page = ann.send(ann.get("/console/retry-all"), "Retry 3 events")
    assert "1 done, 2 left. 1 settled, 0 still need a decision." in page.text
    page = ann.send(page, "Continue")
    assert "2 done, 1 left. 2 settled, 0 still need a decision." in page.text
    page = ann.send(page, "Continue")
    assert "3 done, 0 left. 3 settled, 0 still need a decision." in page.text
    assert "All done." in page.text
    assert "Continue" not in page.buttons
    assert (parked(admin), balance(admin, CAROL)) == ({}, 300)


def test_bulk_retry_lists_at_most_a_hundred_outcomes(
    ann: Browser, deliver: Deliver, admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step may try a thousand events. Those that stay parked come first."""
    deliver(session(event_id="evt_1", user_id=CAROL))
    deliver(session(event_id="evt_2", user_id=None, payment_intent="pi_2"))
    sign_up(admin, CAROL)
    monkeypatch.setattr("webhook.console.pages.bulk.MOST_OUTCOMES", 1)
    page = ann.send(ann.get("/console/retry-all"), "Retry 2 events")
    assert (
        "evt_2 needs a decision evt_2 stays parked: missing_user 1 of 2 outcomes: first those that stay parked."
        in page.text
    )
    assert "evt_1" not in page.text


def test_bulk_retry_tries_at_most_a_thousand(ann: Browser, deliver: Deliver, admin: Admin) -> None:
    assert deliver
    admin.execute(
        "insert into billing.parked_events (event_id, event_type, reason, payload, parked_at)"
        " select 'evt_' || n, 'invoice.paid', 'missing_user', '{}', now() from generate_series(1, 1001) as n"
    )
    form = ann.get("/console/retry-all")
    assert "1,000 events are parked now, or more: one run tries the oldest 1,000." in form.text
    assert form.form("Retry 1,000 events").fields["events"] == "1000"


@pytest.mark.parametrize(
    "fields",
    [{"until": "yesterday"}, {"until": "2026-11-26T00:00:00"}, {"events": "-1"}, {"after": "x"}, {"tried": ""}],
)
def test_bulk_retry_with_a_damaged_form_is_refused(ann: Browser, deliver: Deliver, fields: dict[str, str]) -> None:
    deliver(session(user_id=CAROL))
    values = ann.get("/console/retry-all").form("Retry 1 event").fields
    assert ann.post("/console/retry-all", **values | fields).status == 409


# Who may act

ACTIONS = {
    "/console/retry": {"event_id": EVENT},
    "/console/reconcile": {"id": PAYMENT},
    "/console/discard": {"event_id": EVENT, "reason": "x"},
    "/console/assign/preview": {"name": EVENT, "user": BOB, "reason": "x"},
    "/console/assign": {"name": EVENT, "user": BOB, "reason": "x", "id": ID},
    f"/console/users/{BOB}/adjust/preview": {"direction": "give", "credits": "5", "reason": "x"},
    f"/console/users/{BOB}/adjust": {"direction": "give", "credits": "5", "reason": "x", "id": ID},
    "/console/retry-all": {"events": "1", "tried": "0", "settled": "0", "until": "2100-01-01T00:00:00+00:00"},
}
FORMS = ("/console/assign", f"/console/users/{BOB}/adjust", f"/console/discard?event_id={EVENT}", "/console/retry-all")


def test_every_action_of_the_console_is_attacked(client: FlaskClient) -> None:
    """The lists above name every POST, apart from those of the frame."""
    rules = client.application.url_map.iter_rules()
    posts = {str(rule).replace("<uuid:user_id>", BOB) for rule in rules if "POST" in (rule.methods or ())}
    ours = {rule for rule in posts if rule.startswith("/console") and "<path:_>" not in rule}
    assert ours - {"/console/login", "/console/logout"} == set(ACTIONS)


@pytest.mark.parametrize("path", ACTIONS)
def test_action_of_a_viewer_is_refused(client: FlaskClient, deliver: Deliver, admin: Admin, path: str) -> None:
    deliver(session(user_id=None))
    before = contents(admin)
    assert Browser(client, VIEWER_TOKEN).post(path, **ACTIONS[path]).status == 403
    assert contents(admin) == before


@pytest.mark.parametrize("path", sorted(ACTIONS.keys() - {"/console/reconcile"}))
def test_same_action_of_an_operator_is_done(ann: Browser, deliver: Deliver, path: str) -> None:
    """So the refusals above are not those of wrong fields. The tests of Stripe reconcile."""
    deliver(session(user_id=None))
    assert ann.post(path, **ACTIONS[path]).status == 200


@pytest.mark.parametrize("path", FORMS)
def test_form_of_an_action_is_for_operators_only(client: FlaskClient, deliver: Deliver, path: str) -> None:
    deliver(session(user_id=None))
    assert Browser(client, VIEWER_TOKEN).get(path).status == 403
    assert Browser(client).get(path).status == 200


@pytest.mark.parametrize("path", ACTIONS)
def test_console_without_the_operators_role_is_view_only(
    make_app: MakeApp, database: Database, deliver: Deliver, admin: Admin, path: str
) -> None:
    deliver(session(user_id=None))
    before = contents(admin)
    settings = console_settings(database, operator_database_url=database.url)
    ann = Browser(make_app(console=settings).test_client())
    assert ann.post(path, **ACTIONS[path]).status == 403
    assert contents(admin) == before
    for form in FORMS:
        assert [each.method for each in ann.get(form).forms if each.action != "/console/logout"] == []
