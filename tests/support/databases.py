"""Databases for tests: each is a copy of a template, with the logins that use it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg

from webhook.dev import postgres

WORKER = "webhook_worker"
OPERATOR = "webhook_operator"
PASSWORD = "only-for-tests"


@dataclass(frozen=True)
class Database:
    """A database, and a URL for each role that uses it."""

    superuser_url: str

    @property
    def name(self) -> str:
        return urlsplit(self.superuser_url).path.removeprefix("/")

    @property
    def url(self) -> str:
        """For the worker's login, which can only switch to service_role."""
        return login(self.superuser_url, WORKER)

    @property
    def operator_url(self) -> str:
        """For the operator's login, which can switch to service_role and billing_operator."""
        return login(self.superuser_url, OPERATOR)

    @property
    def admin_url(self) -> str:
        """For the owner of the schema, which is not a superuser."""
        return login(self.superuser_url, postgres.ADMIN)


@dataclass(frozen=True)
class Server:
    """A Postgres server, and the connection of its superuser."""

    url: str
    connection: psycopg.Connection
    numbers: Iterator[int]

    @contextmanager
    def changing_roles(self) -> Iterator[None]:
        """Hold a lock: roles belong to the whole server, and several test processes may share it."""
        self.connection.execute("select pg_advisory_lock(1)")
        try:
            yield
        finally:
            self.connection.execute("select pg_advisory_unlock(1)")

    @contextmanager
    def new_database(self, template: str) -> Iterator[Database]:
        """Yield a copy of the database ``template``, and drop it at the end."""
        name = f"test_{os.getpid()}_{next(self.numbers)}"
        self.connection.execute(f"create database {name} owner {postgres.ADMIN} template {template} strategy file_copy")
        try:
            yield Database(urlunsplit(urlsplit(self.url)._replace(path=f"/{name}")))
        finally:
            self.connection.execute(f"drop database {name} with (force)")


def login(url: str, role: str) -> str:
    """Return ``url`` for another role."""
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{role}:{PASSWORD}@{place}"))


@contextmanager
def new_folder() -> Iterator[Path]:
    """Yield a folder for a Postgres server. Started by root, it runs as a user who cannot enter pytest's folders."""
    with tempfile.TemporaryDirectory(dir=memory_folder()) as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


def memory_folder() -> str | None:
    """The folder for files in memory, if it has room: a database is copied there in a tenth of the time."""
    folder = "/dev/shm"
    is_usable = os.access(folder, os.W_OK | os.X_OK) and shutil.disk_usage(folder).free > 2**30
    return folder if is_usable else None
