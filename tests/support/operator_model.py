"""A model of operators: what they say about sales, and the balances that must result, independent of the SQL.

Operators act in an order, and the number of an action counts across all sales. Everything else is a set.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import psycopg

from support.claims_model import ORDER
from support.model import Event, Sale, SaleTerms, new_id
from support.operators import NOT_LATEST, UNKNOWN_PAYMENT, assign
from support.recorded import session_event


@dataclass(frozen=True)
class IncompleteSale(Sale):
    """A sale whose only session lacks a usable user, usable credits, or both: it is parked until it is assigned."""

    lacks: frozenset[str] = frozenset()
    """"user" or "order" (a reference that is no user), and "credits" or "number" (not a number)."""

    def terms(self) -> SaleTerms:
        """Return the terms, with ``None`` for what is missing."""
        terms = self.sources["session"]
        return SaleTerms(
            None if self.lacks & {"user", "order"} else terms.user_id,  # type: ignore[arg-type]
            None if self.lacks & {"credits", "number"} else terms.credits,  # type: ignore[arg-type]
            terms.money,
        )

    def _source_events(self, name: str, terms: SaleTerms) -> Iterator[Event]:  # noqa: ARG002 - there is one source
        user = None if "user" in self.lacks else ORDER if "order" in self.lacks else terms.user_id
        stated: Any = None if "credits" in self.lacks else "ten" if "number" in self.lacks else terms.credits
        yield session_event(
            event_id=new_id("evt"),
            id=new_id("cs"),
            user_id=user,
            credits=stated,
            customer=None,
            payment_intent=self.payments[0].id,
            amount=terms.money,
        )


@dataclass(frozen=True, eq=False)
class Assignment:
    """User, credits or both for one of the payments of a sale."""

    sale: Sale
    payment_id: str
    user_id: str | None
    credits: int | None


@dataclass(frozen=True, eq=False)
class Withdrawal:
    """The end of an assignment, if it is the latest of its sale by then."""

    of: Assignment


Act = Assignment | Withdrawal


@dataclass
class Operators:
    """Acts as operators do: an assignment waits until its sale is known, and a withdrawal until there is something."""

    connection: psycopg.Connection[Any]
    numbers: dict[Assignment, int] = field(default_factory=dict)
    withdrawn: set[Assignment] = field(default_factory=set)
    waiting: list[Act] = field(default_factory=list)

    def take(self, act: Act) -> None:
        self.waiting.append(act)
        self.act_again()

    def act_again(self) -> None:
        """Do what is possible now, in the order in which it was asked for."""
        self.waiting = [act for act in self.waiting if not self._is_done(act)]

    def _is_done(self, act: Act) -> bool:
        if isinstance(act, Withdrawal):
            return act.of in self.numbers and self._withdraw(act.of)
        try:
            done = assign(self.connection, act.payment_id, act.user_id, act.credits, allow_debt=True)
        except psycopg.Error as error:
            if error.sqlstate != UNKNOWN_PAYMENT[0]:
                raise
            return False
        self.numbers[act] = done["number"]
        return True

    def _withdraw(self, assignment: Assignment) -> bool:
        """Withdraw the assignment, unless it is not the latest one. Either way nothing is left to do."""
        try:
            assign(self.connection, assignment.payment_id, withdraws=self.numbers[assignment], allow_debt=True)
        except psycopg.Error as error:
            if error.sqlstate != NOT_LATEST[0]:
                raise
        else:
            self.withdrawn.add(assignment)
        return True

    def terms(self, sale: Sale) -> SaleTerms:
        """Return the terms of a sale: for each column the latest assignment counts, then Stripe's facts."""
        own = [act for act in self.numbers if act.sale is sale and act not in self.withdrawn]
        terms = sale.terms()
        for act in sorted(own, key=lambda act: self.numbers[act]):
            terms = replace(terms, user_id=act.user_id or terms.user_id, credits=act.credits or terms.credits)
        return terms

    def balances(self, sales: Sequence[Sale], users: Sequence[str]) -> dict[str, int]:
        """Return every user's balance, in credits."""
        balances = Counter(dict.fromkeys(users, 0))
        for sale in sales:
            terms = self.terms(sale)
            if terms.user_id and terms.credits:
                balances[terms.user_id] += sale.remaining_credits(terms)
        return dict(balances)

    def unsettled(self, sales: Sequence[Sale]) -> set[str]:
        """Return the payments of the sales that lack user or credits."""
        lacking = [sale for sale in sales if not (self.terms(sale).user_id and self.terms(sale).credits)]
        return {sale.payments[0].id for sale in lacking}
