"""Stories as text for a terminal: sections of aligned lines. Text from outside is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from webhook.explain.candidates import Candidate
from webhook.explain.counting import SOURCES, counting_assignment, counting_values
from webhook.explain.escapes import printable
from webhook.explain.outcome import Verdict
from webhook.explain.records import Action, Assignment, Claim, Entry, Fact, Hold, ParkedEvent, Reversal, UnpaidSale
from webhook.explain.settlement import settlement
from webhook.explain.story import EventStory, GenerationStory, SaleStory, Story, User, UserStory
from webhook.explain.wording import counted, moment, money

Row = Sequence[str]


def verdict_lines(verdict: Verdict) -> list[str]:
    """Return the verdict, who paid, and what to do."""
    to_do = [f"to do: {verdict.remedy}"] if verdict.remedy else []
    note = [verdict.note] if verdict.note else []
    return [printable(line) for line in (verdict.sentence, *note, *to_do)]


def story_lines(story: Story) -> list[str]:
    """Return the story. A section without rows is left out."""
    match story:
        case SaleStory():
            return _sale(story)
        case UserStory():
            return _user(story)
        case GenerationStory():
            return _generation(story)
        case EventStory():
            rest = _sale(story.sale) if story.sale else _section("operator actions", map(_action, story.actions))
            return rest if story.sale else [*_section("parked events", [_event(story.event)]), *rest]


def candidate_lines(candidates: Iterable[Candidate]) -> list[str]:
    """Return a table of candidates, or nothing without candidates."""
    rows = [
        (
            each.payment_id or each.event_id or f"user {each.user_id}",
            each.user_id or "-",
            each.email or "-",
            money(each.amount, each.currency),
            moment(each.at) if each.at else "-",
            each.state,
        )
        for each in candidates
    ]
    return _table([("ID", "ACCOUNT", "PAYER", "AMOUNT", "TIME", "STATE"), *rows]) if rows else []


def _sale(story: SaleStory) -> list[str]:
    return [
        *_section("user", [_account(story.user)] if story.user else []),
        *_section("facts", [_fact(story, each) for each in story.facts]),
        *_section("assignments by operators", [_assignment(story, each) for each in story.assignments]),
        *_section("claims", map(_claim, story.claims)),
        *_section("links", ([f"{invoice_id} is paid by {payment_id}"] for invoice_id, payment_id in story.links)),
        *_section("refunds and disputes", map(_reversal, story.reversals)),
        *_section("settlement", _settlement(story)),
        *_section("ledger", map(_entry, story.rows)),
        *_section("open holds of the user", map(_hold, story.holds)),
        *_section("parked events", map(_event, story.parked)),
        *_section("operator actions", map(_action, story.actions)),
        *_section("equal purchases within a day", ([p.payment_id, moment(p.created_at)] for p in story.similar)),
    ]


def _user(story: UserStory) -> list[str]:
    entries = [(*_entry(row), f"balance {after}") for row, after in zip(story.rows, story.balances, strict=True)]
    return [
        *_section("user", [_account(story.user)]),
        *_section("pending payments", map(_unpaid, story.unpaid)),
        *_section("parked events", map(_event, story.parked)),
        *_section("open holds", map(_hold, story.holds)),
        *_section("ledger, newest first" if not story.next else "ledger, newest 100 rows", entries),
        *_section("operator actions", map(_action, story.actions)),
    ]


def _generation(story: GenerationStory) -> list[str]:
    entries = [row for row in (story.entry, story.refund) if row]
    return [
        *_section("user", [_account(story.user)]),
        *_section("hold", [_hold(story.hold)] if story.hold else []),
        *_section("ledger", map(_entry, entries)),
    ]


def _section(title: str, rows: Iterable[Row]) -> list[str]:
    lines = _table([*rows])
    return ["", title, *(f"  {line}" for line in lines)] if lines else []


def _table(rows: Sequence[Row]) -> list[str]:
    """Return one escaped line for each row, with columns of equal width."""
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def _account(user: User) -> Row:
    return (
        user.id,
        user.email or "no e-mail address",
        f"balance {user.balance}, held {user.held}, available {user.available}",
    )


def _fact(story: SaleStory, fact: Fact) -> Row:
    who = fact.user_id or fact.subscription_id or fact.customer_id or "nobody"
    counts = ", ".join(counting_values(story, fact))
    return (
        SOURCES[fact.version],
        fact.payment_id,
        f"for {who}" + ("" if fact.user_exists or not fact.user_id else " (no account)"),
        "credits not named" if fact.credits is None else counted(fact.credits, "credit"),
        money(fact.money_amount, fact.currency),
        "paid" if fact.paid else "not paid",
        f"counts: {counts}" if counts else "counts: nothing",
        moment(fact.recorded_at),
    )


def _assignment(story: SaleStory, each: Assignment) -> Row:
    counts = ", ".join(counting_assignment(story, each)) or "nothing"
    return (
        f"action {each.number}",
        each.payment_id,
        f"for {each.user_id}" if each.user_id else "user not named",
        "credits not named" if each.credits is None else counted(each.credits, "credit"),
        f"withdrawn by action {each.withdrawn_by}" if each.withdrawn_by else f"counts: {counts}",
    )


def _claim(claim: Claim) -> Row:
    account = "account gone" if claim.is_erased else "account exists" if claim.user_exists else "no account"
    return (claim.subject_id, f"is for {claim.user_id}", f"level {claim.level}", account)


def _reversal(reversal: Reversal) -> Row:
    kind = "dispute" if reversal.is_dispute else "refund"
    gone = f"{money(reversal.money_amount, reversal.currency)} gone"
    return (kind, reversal.reversal_id, f"of {reversal.payment_id}", gone, moment(reversal.recorded_at))


def _settlement(story: SaleStory) -> list[Row]:
    result = settlement(story)
    if result is None:
        return [[f"not settled: {story.unsettled_reason}"]] if story.sale and story.unsettled_reason else []
    difference = "" if result.is_settled else f"; the ledger has {result.granted}, other users {result.elsewhere}"
    return [[f"{result.formula}{difference}"]]


def _entry(entry: Entry) -> Row:
    return (
        moment(entry.created_at),
        entry.type,
        f"{entry.amount:+}",
        money(entry.money_amount, entry.currency),
        entry.stripe_id or entry.description or entry.id,
        entry.event_id or "by hand",
        entry.user_id,
    )


def _hold(hold: Hold) -> Row:
    end = [f"captured {moment(hold.captured_at)}"] if hold.captured_at else []
    end += [f"released {moment(hold.released_at)}"] if hold.released_at else []
    return (hold.id, counted(hold.amount, "credit"), f"until {moment(hold.expires_at)}", *(end or ["not ended"]))


def _event(event: ParkedEvent) -> Row:
    state = f"{event.resolution} {moment(event.resolved_at)}" if event.resolution and event.resolved_at else "open"
    by = f"by {event.discarded_by}: {event.discard_reason}" if event.discarded_by else ""
    payer = f"payer {event.payer_email}" if event.payer_email else ""
    return (event.id, event.type, event.reason, moment(event.parked_at), state, payer, by)


def _unpaid(sale: UnpaidSale) -> Row:
    credits_ = "credits not named" if sale.credits is None else counted(sale.credits, "credit")
    return (sale.payment_id, credits_, money(sale.money_amount, sale.currency), moment(sale.recorded_at))


def _action(action: Action) -> Row:
    return (
        str(action.number),
        moment(action.created_at),
        action.action,
        action.subject or "-",
        f"by {action.by} ({action.login}, {action.channel})",
        f"+{action.credits_given} -{action.credits_taken}",
        action.reason or "-",
    )
