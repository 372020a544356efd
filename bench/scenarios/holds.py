"""How fast jobs of an unknown cost are, and whether a long history slows them down."""

from __future__ import annotations

from functools import partial

from bench.deliveries import USERS
from bench.report import Goal, Section
from bench.scenarios.bench import Bench
from bench.scenarios.spending import AUTHORIZE, REFUND, spend

_PAST = 10_000
_RESERVE = "select public.reserve_generation(:user, 2, :generation);"
_CAPTURE = "select public.capture_generation(:generation, 1);"
_RELEASE = "select public.release_generation(:generation);"
_CALLS = {
    "authorize, then refund": (AUTHORIZE, REFUND),
    "reserve, then capture": (_RESERVE, _CAPTURE),
}
_USERS = {"one user": range(1), f"{len(USERS):,} users": range(len(USERS))}
_PASTS = {"few past holds": range(900, 920), f"{_PAST:,} past holds": range(920, 940)}


def holds(bench: Bench) -> Section:
    """Measure holds beside direct debits, and reservations of users with ten thousand past holds each."""
    with bench.server.new_database("holds") as database:
        database.give_credits(10**12)
        for number in _PASTS[f"{_PAST:,} past holds"]:
            database.add_past_holds(USERS[number], _PAST)
        results = bench.in_turn(
            {
                f"{name}: {who}": partial(spend, database, calls, users)
                for name, calls in _CALLS.items()
                for who, users in _USERS.items()
            }
            | {
                f"reserve, then release: {past}": partial(spend, database, (_RESERVE, _RELEASE), users, clients=1)
                for past, users in _PASTS.items()
            }
        )
    rate_of_few, rate_of_many = (result.rate for result in list(results.values())[-len(_PASTS) :])
    return Section(
        "Holds",
        ("", "calls a second", "mean ms of a call"),
        [(name, f"{result.rate:.0f}", f"{result.p50:.1f}") for name, result in results.items()],
        [Goal(f"rate of users with {_PAST:,} past holds each, against few", rate_of_many / rate_of_few, least=0.9)],
        note="pgbench, each call in its own transaction. The last two rows have one client and 20 users.",
    )
