"""A stand-in for the lists of Stripe's API, without Stripe's latency: one long list of Checkout Sessions.

Usage: python -m bench.stripe_lists PORT COUNT. Each of the COUNT sessions is a sale to one of the bench's users.
"""

from __future__ import annotations

import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

from bench.deliveries import SESSION, USERS

_PAGE = 100
_EMPTY = b'{"object": "list", "data": [], "has_more": false, "url": ""}'


class Lists(BaseHTTPRequestHandler):
    """Answers with pages built from the JSON of one session."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    count = 0
    started = int(time.time())
    session = json.dumps(json.loads(SESSION)["data"]["object"] | {"created": started - 60})

    def do_GET(self) -> None:
        """Answer with a page of the list."""
        parts = urlsplit(self.path)
        query = dict(parse_qsl(parts.query))
        is_in_window = int(query.get("created[lt]", "0")) > self.started - 60
        body = self._page(query) if parts.path == "/v1/checkout/sessions" and is_in_window else _EMPTY
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _page(self, query: dict[str, str]) -> bytes:
        first = int(query["starting_after"].rpartition("_")[2]) + 1 if "starting_after" in query else 0
        end = min(first + _PAGE, self.count)
        sessions = ", ".join(self._session(number) for number in range(first, end))
        more = "true" if end < self.count else "false"
        return f'{{"object": "list", "data": [{sessions}], "has_more": {more}, "url": ""}}'.encode()

    def _session(self, number: int) -> str:
        source = json.loads(self.session)
        names = {"id": f"cs_{number}", "payment_intent": f"pi_3{number:023}"}
        metadata = source["metadata"] | {"user_id": USERS[number % len(USERS)]}
        return json.dumps(source | names | {"metadata": metadata})

    def log_message(self, *_: object) -> None:
        """Log nothing."""


if __name__ == "__main__":
    Lists.count = int(sys.argv[2])
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Lists).serve_forever()
