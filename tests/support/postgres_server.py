"""A Postgres server that tests can stop, crash, suspend and demote, and start again on the same port."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil
import psycopg

from support.databases import PASSWORD, WORKER, Database
from support.ports import free_port
from webhook.dev import postgres
from webhook.ledger.migrate import migrate

TERMINATE = f"""
    select pg_terminate_backend(pid, 5000)
    from pg_stat_activity
    where usename = '{WORKER}' and datname = current_database()
"""


class PostgresServer:
    """A Postgres server of a test's own, with the whole schema."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port, self.running = folder / "data", free_port(), ExitStack()
        self.start()
        self.database = Database(postgres.superuser_url(self.folder, self.port))
        postgres.prepare(self.database.superuser_url, PASSWORD)
        self.execute(f"create role {WORKER} login noinherit password '{PASSWORD}' in role service_role")
        migrate(self.database.admin_url)

    def start(self) -> None:
        url = self.running.enter_context(postgres.running(self.folder, port=self.port, durable=False))
        assert f":{self.port}/" in url

    def stop(self) -> None:
        self.running.close()

    def execute(self, *statements: str) -> None:
        with self.superuser() as superuser:
            for statement in statements:
                superuser.execute(statement)

    def superuser(self) -> psycopg.Connection:
        return psycopg.connect(self.database.superuser_url, autocommit=True)

    @property
    def postmaster(self) -> psutil.Process:
        return psutil.Process(int((self.folder / "postmaster.pid").read_text().split()[0]))

    def stop_immediately(self) -> None:
        """As in a crash: no checkpoint is written and no client is notified."""
        self.postmaster.send_signal(signal.SIGQUIT)
        self.stop()

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Suspend every process of the server: connections stay open and new ones queue up."""
        first = self.postmaster
        first.suspend()  # it starts no other processes from now on
        others = first.children()
        for process in others:
            with suppress(psutil.NoSuchProcess):
                process.suspend()
        try:
            yield
        finally:
            for process in (first, *others):
                with suppress(psutil.NoSuchProcess):
                    process.resume()

    @contextmanager
    def demoted(self) -> Iterator[None]:
        """Restart as a read-only standby, then promote it: https://www.postgresql.org/docs/current/warm-standby.html."""
        self.stop()
        (self.folder / "standby.signal").touch()
        self.start()
        yield
        self.execute("select pg_promote()")

    @property
    def log(self) -> str:
        """The server's log since its last start."""
        return self.folder.with_name(f"{self.folder.name}.log").read_text(encoding="utf-8", errors="replace")
