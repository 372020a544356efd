"""Hypothesis strategies: sales of the model, and the order in which their events arrive."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

from support.claims_model import ORDER, Change, Purchase, Renewal, Sold, Start, Story
from support.model import Dispute, Event, Payment, Refund, Sale, SaleTerms, new_id
from support.operator_model import Act, Assignment, IncompleteSale, Withdrawal

STRANGER = "00000000-0000-4000-8000-00000000beef"
"""A UUID of another system."""

amounts = st.one_of(st.integers(1, 20), st.integers(1, 5000), st.just(1000))


@st.composite
def refunds(draw: st.DrawFn) -> Refund:
    way = draw(st.sampled_from([["succeeded"], ["pending", "succeeded"], ["pending", "requires_action", "succeeded"]]))
    end = draw(st.sampled_from([[], [], ["failed"], ["canceled"]]))
    return Refund(draw(amounts), [*way, *end])


@st.composite
def disputes(draw: st.DrawFn) -> Dispute:
    moves = draw(st.lists(st.integers(-900, -1) | st.integers(1, 600), max_size=4))
    taken = [move for move in moves if move < 0]
    given = [move for move in moves if move > 0]
    while sum(given) > -sum(taken):
        given.pop()
    return Dispute(draw(amounts), [*taken, *given], draw(st.sampled_from(["won", "lost", "under_review"])))


SOURCES = (
    ["session"],
    ["session", "intent"],
    ["intent"],
    ["unpaid session"],
    ["unpaid session", "session"],
    ["unpaid session", "capture"],
    ["invoice"],
    ["session", "invoice"],
    ["user session", "credits intent"],
    ["customer invoice"],
)


@st.composite
def sales(draw: st.DrawFn, users: Sequence[str]) -> Sale:
    names = draw(st.sampled_from(SOURCES))
    first = SaleTerms(draw(st.sampled_from(users)), draw(st.integers(1, 1000)), draw(amounts))
    other = SaleTerms(draw(st.sampled_from(users)), draw(st.integers(1, 1000)), draw(amounts))
    disagree = draw(st.booleans()) and names != ["unpaid session", "session"]
    sources = {name: other if index and disagree else first for index, name in enumerate(names)}
    payments = st.builds(Payment, st.lists(refunds() | disputes(), max_size=3))
    most = 3 if any("invoice" in name for name in names) else 1
    return Sale(sources, draw(st.lists(payments, min_size=1, max_size=most)))


@st.composite
def deliveries(draw: st.DrawFn, events: Sequence[Event]) -> list[Event]:
    """All the events, some twice, some under a second event id, in any order."""
    copies = draw(st.lists(st.sampled_from(events), max_size=6))
    twins = draw(st.lists(st.sampled_from(events), max_size=6))
    everything = [*events, *copies, *({**event, "id": new_id("evt")} for event in twins)]
    draw(st.randoms(use_true_random=False)).shuffle(everything)
    return everything


@st.composite
def incomplete_sales(draw: st.DrawFn, users: Sequence[str]) -> IncompleteSale:
    lacks = draw(st.sampled_from([["user"], ["order"], ["credits"], ["number"], ["user", "number"]]))
    terms = SaleTerms(draw(st.sampled_from(users)), draw(st.integers(1, 1000)), draw(amounts))
    payment = Payment(draw(st.lists(refunds() | disputes(), max_size=2)))
    return IncompleteSale({"session": terms}, [payment], lacks=frozenset(lacks))


@st.composite
def operators_acts(draw: st.DrawFn, history: Sequence[Sale], users: Sequence[str]) -> list[Act]:
    """Assignments under any id of a sale, and withdrawals."""
    acts: list[Act] = []
    for sale in history:
        ids = [payment.id for payment in sale.payments]
        ids += [sale.invoice_id] if any("invoice" in name for name in sale.sources) else []
        for _ in range(draw(st.integers(0, 3))):
            user, credits_ = draw(st.none() | st.sampled_from(users)), draw(st.none() | st.integers(1, 1000))
            if user or credits_:
                acts.append(Assignment(sale, draw(st.sampled_from(ids)), user, credits_))
    withdrawals = [Withdrawal(act) for act in acts if draw(st.booleans())]
    return [*acts, *withdrawals]


@st.composite
def stories(draw: st.DrawFn, users: Sequence[str], late: str, erased: str) -> Story:
    """Few subscriptions and customers with many claims, also of strangers.

    The late user signs up and the erased one is erased, both at any time.
    """
    customers, subscriptions = [new_id("cus"), new_id("cus")], [new_id("sub") for _ in range(3)]
    paid_by = st.sampled_from([(name, draw(st.sampled_from(customers))) for name in subscriptions])
    names = st.sampled_from([*users, late, erased])
    others = st.none() | names | st.sampled_from([ORDER, STRANGER])
    payments = st.builds(Payment, st.lists(refunds() | disputes(), max_size=1))
    sold = st.builds(Sold, st.integers(1, 1000), amounts, payments)
    parts = st.one_of(
        st.builds(lambda pair, *named: Start(*pair, *named), paid_by, st.none() | names, others),
        st.builds(lambda pair, *rest: Renewal(*pair, *rest), paid_by, st.none() | names, st.integers(1, 3), sold),
        st.builds(lambda pair, sold: Renewal(*pair, None, 0, sold), paid_by, sold),
        st.builds(Purchase, st.sampled_from(customers), names, others, st.booleans(), sold),
        st.builds(
            lambda customer, sold: Purchase(customer, None, None, has_intent=False, sold=sold),
            st.sampled_from(customers),
            sold,
        ),
    )
    changes = [Change("sign up", late), Change("erase", erased)]
    return Story(draw(st.lists(parts, min_size=1, max_size=8)), changes, [*users, late], [erased])
