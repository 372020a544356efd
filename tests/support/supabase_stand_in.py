"""A stand-in for Supabase's API over real HTTP."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import psycopg
from psycopg import sql

from support.waiting import WAIT_TIMEOUT


@dataclass(frozen=True)
class Request:
    """A call of a function or a read of a table: its name, and the body or the query."""

    name: str
    arguments: dict[str, Any]


Response = tuple[int, Any] | None
"""Status and JSON body, or None for no answer."""


@contextmanager
def serving(respond: Callable[[Request], Response]) -> Iterator[str]:
    """Yield the URL of a server that answers requests with ``respond``, one after the other."""
    ended = Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self._answer(json.loads(self.rfile.read(int(self.headers["content-length"]))))

        def do_GET(self) -> None:
            self._answer(dict(parse_qsl(urlsplit(self.path).query)))

        def _answer(self, arguments: dict[str, Any]) -> None:
            name = urlsplit(self.path).path.rpartition("/")[2]
            if (response := respond(Request(name, arguments))) is None:
                ended.wait(WAIT_TIMEOUT)
                return
            self.send_response(response[0])
            self.end_headers()
            self.wfile.write(json.dumps(response[1]).encode())

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server, ThreadPoolExecutor(1) as thread:
        thread.submit(server.serve_forever)
        yield f"http://127.0.0.1:{server.server_port}"
        ended.set()
        server.shutdown()


def call_in_database(connection: psycopg.Connection, request: Request) -> Response:
    """Call the function as PostgREST does, with named arguments, and return its result or its error."""
    arguments = sql.SQL(", ").join(
        sql.SQL("{} => {}").format(sql.Identifier(name), sql.Placeholder(name)) for name in request.arguments
    )
    call = sql.SQL("select public.{}({})").format(sql.Identifier(request.name), arguments)
    try:
        [(result,)] = connection.execute(call, request.arguments).fetchall()
    except psycopg.Error as error:
        diagnosis = error.diag
        details = {"details": diagnosis.message_detail, "hint": diagnosis.message_hint}
        return 400, {"code": error.sqlstate, "message": diagnosis.message_primary, **details}
    return 200, result
