"""(f): how many calls of the spending functions the database takes, without any program before it.

The method is that of pgledger's performance check: some accounts, 20 clients, each of which makes one call after the
other, each call for an account at random and in a transaction of its own.
"""

from __future__ import annotations

from functools import partial

from bench.database import Database
from bench.deliveries import USERS
from bench.load import Result
from bench.load.database_calls import run_script
from bench.report import Section
from bench.scenarios.bench import Bench

_CLIENTS = 20
_USERS = (10, 50, len(USERS))
AUTHORIZE = "select public.authorize_generation(:user, 1, :generation);"
REFUND = "select public.refund_generation(:generation);"
_CALLS = {
    "authorize": (AUTHORIZE,),
    "authorize, then refund": (AUTHORIZE, REFUND),
}


def spending(bench: Bench) -> Section:
    """Measure the calls of each script on few users, who wait for each other's locks, and on many."""
    with bench.server.new_database("spending") as database:
        database.give_credits(10**12)
        results = bench.in_turn(
            {
                f"{name}: {users} users": partial(spend, database, calls, range(users))
                for name, calls in _CALLS.items()
                for users in _USERS
            }
        )
    return Section(
        "(f) Spending",
        ("", "calls a second", "mean ms of a call"),
        [(name, f"{result.rate:.0f}", f"{result.p50:.1f}") for name, result in results.items()],
        note=f"pgbench with {_CLIENTS} clients. Each call is for a user at random, in its own transaction.",
    )


def spend(
    database: Database, calls: tuple[str, ...], users: range, seconds: float, *, clients: int = _CLIENTS
) -> Result:
    """Return the rate and the mean time of the calls. The users are numbers of :data:`USERS`."""
    result, _ = run_script(database.service_role_url, _script(calls, users), seconds, clients)
    database.check_balances()
    return Result(result.rate * len(calls), result.p50 / len(calls))


def _script(calls: tuple[str, ...], users: range) -> str:
    """Return the pgbench script. Each run is for a new generation."""
    user = f"('{USERS[0][:-4]}' || lpad(:number::text, 4, '0'))::uuid"
    generation = "('00000000-0000-4000-8000-' || lpad(to_hex(:id), 12, '0'))::uuid"
    lines = (line.replace(":user", user).replace(":generation", generation) for line in calls)
    return "\n".join(
        [f"\\set number random({users[0]}, {users[-1]})", "\\set id random(0, 281474976710655)", *lines, ""]
    )
