"""A model of spending: what each call must return, and the balances and holds that must result.

The model follows section 6 of docs/reference/contract.md, not the SQL. A hold expires by a step of its own, so a test
controls the time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

Result = int | str
"""Credits, or the SQLSTATE of a refusal."""
Step = tuple[str, tuple[Any, ...]]
"""The name of a method of :class:`Bank` and its arguments."""


@dataclass(frozen=True)
class Hold:
    """A hold, in credits. ``state`` is open, expired, captured or released."""

    user: str
    amount: int
    state: str = "open"


@dataclass(frozen=True)
class Generation:
    """A debit, in credits, and whether it was given back."""

    user: str
    cost: int
    is_refunded: bool = False


@dataclass
class Bank:
    """The users' credits, holds and generations, and the credits that Stripe can still refund."""

    balances: dict[str, int]
    refundable: dict[str, int]
    holds: dict[str, Hold] = field(default_factory=dict)
    generations: dict[str, Generation] = field(default_factory=dict)

    def copy(self) -> Bank:
        return Bank({**self.balances}, {**self.refundable}, {**self.holds}, {**self.generations})

    def available(self, user: str) -> int:
        """Return the balance less the open holds."""
        held = sum(hold.amount for hold in self.holds.values() if (hold.user, hold.state) == (user, "open"))
        return self.balances[user] - held

    def buy(self, user: str, credits_bought: int) -> Result:
        self.balances[user] += credits_bought
        return 0

    def take_back(self, user: str, credits_refunded: int) -> Result:
        """Stripe refunds a part of the first purchase, at most all of it."""
        taken = min(credits_refunded, self.refundable[user])
        self.refundable[user] -= taken
        self.balances[user] -= taken
        return 0

    def expire(self, generation: str) -> Result:
        """Let the time of an open hold end."""
        hold = self.holds.get(generation)
        if hold and hold.state == "open":
            self.holds[generation] = replace(hold, state="expired")
        return 0

    def authorize(self, user: str, cost: int, generation: str) -> Result:
        if generation in self.holds:
            return "CR002"
        if known := self.generations.get(generation):
            if (known.user, known.cost) != (user, cost):
                return "CR002"
            return "CR003" if known.is_refunded else self.balances[user]
        if self.available(user) < cost:
            return "CR001"
        return self._debit(user, cost, generation)

    def reserve(self, user: str, cost: int, generation: str) -> Result:
        if generation in self.generations and generation not in self.holds:
            return "CR002"
        known = self.holds.get(generation)
        if known and (known.user, known.amount) != (user, cost):
            return "CR002"
        if known and (known.state == "released" or self._is_refunded(generation)):
            return "CR003"
        if not known or known.state == "expired":
            if self.available(user) < cost:
                return "CR001"
            self.holds[generation] = Hold(user, cost)
        return self.available(user)

    def capture(self, generation: str, cost: int | None) -> Result:
        hold = self.holds.get(generation)
        if not hold:
            return "CR004"
        cost = hold.amount if cost is None else cost
        if cost > hold.amount:
            return "CR007"
        if hold.state == "released":
            return "CR003"
        if hold.state == "captured":
            return self._captured_again(generation, cost)
        if hold.state == "expired" and self.available(hold.user) < cost:
            return "CR001"
        self.holds[generation] = replace(hold, state="captured")
        return self._debit(hold.user, cost, generation)

    def _captured_again(self, generation: str, cost: int) -> Result:
        debit = self.generations[generation]
        if debit.cost != cost:
            return "CR002"
        return "CR003" if debit.is_refunded else self.balances[debit.user]

    def release(self, generation: str) -> Result:
        hold = self.holds.get(generation)
        if not hold:
            return "CR004"
        if hold.state == "captured":
            return "CR008"
        self.holds[generation] = replace(hold, state="released")
        return self.available(hold.user)

    def refund(self, generation: str) -> Result:
        known = self.generations.get(generation)
        if not known:
            return "CR004"
        if not known.is_refunded:
            self.generations[generation] = replace(known, is_refunded=True)
            self.balances[known.user] += known.cost
        return self.balances[known.user]

    def _is_refunded(self, generation: str) -> bool:
        return generation in self.generations and self.generations[generation].is_refunded

    def _debit(self, user: str, cost: int, generation: str) -> Result:
        self.generations[generation] = Generation(user, cost)
        self.balances[user] -= cost
        return self.balances[user]


def run_step(bank: Bank, step: Step) -> Result:
    """Change the bank, and return what the step must return."""
    name, arguments = step
    method: Callable[..., Result] = getattr(bank, name)
    return method(*arguments)
