"""Another web site on this machine: its pages attack the console in the same browser."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HOSTS = {"another site": "localhost", "another port of the same host": "127.0.0.1"}
"""The console is on 127.0.0.1. Browsers send cookies that are SameSite to every port of a host."""


@contextmanager
def serving(html: str, host: str) -> Iterator[str]:
    """Serve one page on a port of its own, and yield its address with this name of the machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(html.encode())

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server, ThreadPoolExecutor(1) as thread:
        thread.submit(server.serve_forever)
        yield f"http://{host}:{server.server_port}/"
        server.shutdown()


def form(action: str, fields: dict[str, str]) -> str:
    """Return a page with a form that sends the fields as soon as it is loaded."""
    inputs = "".join(f'<input name="{escape(name)}" value="{escape(value)}">' for name, value in fields.items())
    return f"""<!doctype html><title>A prize</title><link rel="icon" href="data:,">
        <form method="post" action="{escape(action)}">{inputs}<button>Win</button></form>
        <script>document.forms[0].submit()</script>"""
