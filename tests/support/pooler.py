"""A real PgBouncer in transaction mode: https://www.pgbouncer.org/config.html."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from support.databases import PASSWORD, WORKER, Database
from support.ports import free_port
from support.waiting import eventually
from webhook.dev import supervise
from webhook.dev.cluster import environment, unprivileged_user

PGBOUNCER = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin")
needs_pgbouncer = pytest.mark.skipif(PGBOUNCER is None, reason="pgbouncer is not installed: apt-get install pgbouncer")

CONFIGURATION = """
[databases]
* = host={server.hostname} port={server.port}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {folder}/users.txt
pool_mode = transaction
default_pool_size = {size}
max_client_conn = 200
"""


class Pooler:
    """PgBouncer in front of a database, with at most ``size`` connections to it."""

    def __init__(self, database: Database, folder: Path, size: int) -> None:
        server, self.port = urlsplit(database.url), free_port()
        self.url = server._replace(netloc=f"{WORKER}:{PASSWORD}@127.0.0.1:{self.port}").geturl()
        self.configuration = folder / "pgbouncer.ini"
        self.configuration.write_text(CONFIGURATION.format(server=server, port=self.port, folder=folder, size=size))
        (folder / "users.txt").write_text(f'"{WORKER}" "{PASSWORD}"\n')
        self.log = folder / "pgbouncer.log"
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = supervise.start(
                [str(PGBOUNCER), str(self.configuration)],
                stop_signal=signal.SIGKILL,
                user=unprivileged_user(),
                environment=environment(),
                output=log,
            )
        eventually(lambda: self.is_up() or self.process.exit_code is not None)
        assert self.process.exit_code is None, self.log.read_text()

    def stop(self) -> None:
        self.process.stop()

    def is_up(self) -> bool:
        try:
            psycopg.connect(self.url).close()
        except psycopg.OperationalError:
            return False
        return True

    def execute(self, statements: str) -> list[tuple[Any, ...]]:
        """Run the statements as another client of the pool, and disconnect. Return the rows of the last one."""
        with closing(psycopg.connect(self.url, autocommit=True, prepare_threshold=None)) as client:
            cursor = client.execute(statements)
            cursor.set_result(-1)
            return cursor.fetchall() if cursor.description else []


@contextmanager
def pooling(database: Database, *, size: int) -> Iterator[Pooler]:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # for the user that PgBouncer runs as
        pooler = Pooler(database, Path(folder), size)
        try:
            yield pooler
        finally:
            pooler.stop()
