"""The spending part of ``webhook demo``: a video job that is captured, and one that dies, so that its hold expires."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

import click
import psycopg

_MOST = 60
_COST = 45
_MOST_OF_DEAD_JOB = 30
"""Credits."""
_LIFETIME = "2 seconds"
"""Of the dead job's hold. Real holds last as long as the longest job."""


@dataclass(frozen=True)
class _Generator:
    connection: psycopg.Connection[Any]
    user_id: str

    def show(self, title: str) -> None:
        """Print balance, held and available credits."""
        query = "select credits_balance, billing.available_credits(id) from public.users where id = %s"
        [(balance, available)] = self.connection.execute(query, [self.user_id]).fetchall()
        click.echo(f"  {title:<40} balance {balance:>3}, held {balance - available:>2}, available {available:>3}")

    def reserve(self, most: int, lifetime: str) -> str:
        """Hold credits for a new job and return its id."""
        job = str(uuid.uuid4())
        call = "select public.reserve_generation(%s, %s, %s, %s)"
        self.connection.execute(call, [self.user_id, most, job, lifetime])
        return job

    def capture(self, job: str, cost: int) -> None:
        self.connection.execute("select public.capture_generation(%s, %s)", [job, cost])

    def wait_for_expiry(self, job: str) -> None:
        """Wait until the hold expires, by the database's clock."""
        waiting = "select pg_catalog.pg_sleep_until(expires_at) from public.generation_holds where id = %s"
        self.connection.execute(waiting, [job])


def run(connection: psycopg.Connection[Any], user_id: str) -> None:
    """Run two jobs as the video generator does, as service_role; raises :class:`psycopg.Error`."""
    connection.execute("set role service_role")
    generator = _Generator(connection, user_id)
    click.echo("Video jobs reserve credits before they run:")
    job = generator.reserve(_MOST, "1 hour")
    generator.show(f"a job reserves {_MOST}, the most it may cost")
    generator.capture(job, _COST)
    generator.show(f"it succeeds, and captures {_COST}")
    dead_job = generator.reserve(_MOST_OF_DEAD_JOB, _LIFETIME)
    generator.show(f"a second job reserves {_MOST_OF_DEAD_JOB} for {_LIFETIME}")
    generator.wait_for_expiry(dead_job)
    generator.show("its worker dies, and the hold expires")
