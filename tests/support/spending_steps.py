"""Random steps of :mod:`support.spending_model`, and a caller that makes them in a database."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from uuid import uuid4

import psycopg
from hypothesis import strategies as st

from support.generations import authorize, available, capture, new_generation, refund_generation, release, reserve
from support.ledger_queries import new_user
from support.roles import record, refund, sale
from support.spending_model import Bank, Result, Step

USERS = ("A", "B")
GENERATIONS = ("1", "2", "3", "4")
START = 100
"""The credits that each user has bought at first."""

_users = st.sampled_from(USERS)
_generations = st.sampled_from(GENERATIONS)
_costs = st.sampled_from([20, 30, 60, 90])
_steps = {
    "buy": (_users, st.integers(1, 40)),
    "take_back": (_users, st.integers(1, 80)),
    "expire": (_generations,),
    "authorize": (_users, _costs, _generations),
    "reserve": (_users, _costs, _generations),
    "capture": (_generations, st.none() | _costs),
    "release": (_generations,),
    "refund": (_generations,),
}
steps: st.SearchStrategy[list[Step]] = st.lists(
    st.one_of(*(st.tuples(st.just(name), st.tuples(*arguments)) for name, arguments in _steps.items())), max_size=30
)


def random_step(random: Random, generations: int) -> Step:
    """Return a step with one of as many generations. In nine of ten calls, a generation has its usual user and cost."""
    number = random.randrange(generations)
    user, cost = USERS[number % 2], 10 * (1 + number % 4)
    if random.random() < 0.1:
        user, cost = random.choice(USERS), random.randint(1, 40)
    name = random.choice([*_steps, "reserve", "reserve", "capture", "capture", "buy"])
    match name:
        case "buy" | "take_back":
            return name, (user, random.randint(1, 20))
        case "authorize" | "reserve":
            return name, (user, cost, str(number))
        case "capture":
            return name, (str(number), random.choice([None, cost]))
        case _:
            return name, (str(number),)


def new_bank() -> Bank:
    return Bank(dict.fromkeys(USERS, START), dict.fromkeys(USERS, START))


@dataclass
class Customers:
    """The users of one example in a database, and the ids of their generations."""

    users: dict[str, str]
    generations: dict[str, str] = field(default_factory=dict)

    @classmethod
    def sign_up(cls, owner: psycopg.Connection) -> Customers:
        """Create the users, who buy their first credits."""
        customers = cls({name: new_user(owner) for name in USERS})
        for user in customers.users.values():
            record(owner, sale(f"pi_{user}", user, credits=START, money_amount=100 * START))
        return customers

    def id_of(self, generation: str) -> str:
        return self.generations.setdefault(generation, new_generation())

    def make(self, connection: psycopg.Connection, step: Step) -> Result:
        """Make the step and return its credits; raises :class:`psycopg.Error`."""
        match step:
            case "buy", (user, amount):
                new = sale(f"pi_{uuid4()}", self.users[user], credits=amount, money_amount=100 * amount)
                record(connection, new)
            case "take_back", (user, amount):
                record(connection, refund(f"re_{uuid4()}", f"pi_{self.users[user]}", 100 * amount))
            case "expire", (generation,):
                self._expire(connection, self.id_of(generation))
            case "authorize", (user, cost, generation):
                return authorize(connection, self.users[user], cost, self.id_of(generation))
            case "reserve", (user, cost, generation):
                return reserve(connection, self.users[user], cost, self.id_of(generation))
            case "capture", (generation, cost):
                return capture(connection, self.id_of(generation), cost)
            case "release", (generation,):
                return release(connection, self.id_of(generation))
            case "refund", (generation,):
                return refund_generation(connection, self.id_of(generation))
        return 0

    def _expire(self, connection: psycopg.Connection, generation: str) -> None:
        """Let an open hold expire now, in one order with all calls of the users."""
        with connection.transaction():
            connection.execute("select from public.users order by id for no key update")
            connection.execute(
                """
                update public.generation_holds
                set expires_at = clock_timestamp()
                where id = %s and captured_at is null and released_at is null
                """,
                [generation],
            )

    def state(self, connection: psycopg.Connection) -> tuple[object, ...]:
        """Return balances, available credits, states of holds and costs of generations, as :func:`state_of` does."""
        names = {id_: name for name, id_ in (self.users | self.generations).items()}
        users = list(self.users.values())
        balances = connection.execute("select id::text, credits_balance from public.users where id = any (%s)", [users])
        holds = connection.execute(_HOLDS, [users])
        debits = connection.execute(_DEBITS, [users])
        return (
            {names[id_]: credits_balance for id_, credits_balance in balances},
            {name: available(connection, id_) for name, id_ in self.users.items()},
            {names[id_]: (names[user], amount, state) for id_, user, amount, state in holds},
            {names[id_]: (names[user], cost, is_refunded) for id_, user, cost, is_refunded in debits},
        )


def state_of(bank: Bank) -> tuple[object, ...]:
    """Return the state of the model, as :meth:`Customers.state` does."""
    return (
        bank.balances,
        {user: bank.available(user) for user in bank.balances},
        {id_: (hold.user, hold.amount, hold.state) for id_, hold in bank.holds.items()},
        {id_: (debit.user, debit.cost, debit.is_refunded) for id_, debit in bank.generations.items()},
    )


_HOLDS = """
    select
        id::text,
        user_id::text,
        amount,
        case
            when captured_at is not null then 'captured'
            when released_at is not null then 'released'
            when expires_at > clock_timestamp() then 'open'
            else 'expired'
        end
    from public.generation_holds
    where user_id = any (%s)
"""
_DEBITS = """
    select
        id::text,
        user_id::text,
        -amount,
        exists (select from public.transactions as given where given.refunds = transactions.id)
    from public.transactions
    where user_id = any (%s) and type = 'GENERATION'
"""
