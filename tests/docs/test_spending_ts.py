"""src/spending.ts, run by Node: the supabase-js code of docs/how-to/spend.md works as documented."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event
from typing import Any

import pytest

from support.roles import ALICE
from support.spending_page import GENERATION, snippets
from support.waiting import WAIT_TIMEOUT
from tools.supabase_cli import SRC, needs_tools

pytestmark = needs_tools

REFUSED = {"code": "CR006", "message": "unknown_user", "details": None, "hint": None}
UNAVAILABLE = {"code": "PGRST000", "message": "could not connect", "details": None, "hint": None}

Response = tuple[int, Any] | None
Calls = list[dict[str, Any]]


@pytest.fixture
def supabase() -> Iterator[Callable[..., tuple[str, Calls]]]:
    """Return a function that starts a stand-in for Supabase and returns its URL and the calls that it receives.

    It sends the given responses in order. For None it sends nothing, so that the call times out.
    """
    ended, calls = Event(), []

    def start(*responses: Response) -> tuple[str, Calls]:
        remaining = iter(responses)

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                calls.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                if (response := next(remaining)) is None:
                    ended.wait(WAIT_TIMEOUT)
                    return
                self.send_response(response[0])
                self.end_headers()
                self.wfile.write(json.dumps(response[1]).encode())

            def log_message(self, *_: object) -> None:
                """Log nothing."""

        server.RequestHandlerClass = Handler
        thread.submit(server.serve_forever)
        return f"http://127.0.0.1:{server.server_port}", calls

    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server, ThreadPoolExecutor(1) as thread:
        yield start
        ended.set()
        server.shutdown()


def node(url: str, script: str) -> subprocess.CompletedProcess[str]:
    """Run a script in Node with the page's functions and short timeouts."""
    text = (SRC / "spending.ts").read_text(encoding="utf-8")
    assert text.count("timeout(10_000)") == 2
    copy = SRC / "short_timeouts.ts"
    names = f"""
        import * as page from "./short_timeouts.ts";
        const {{ authorize, refund, untilAnswered, watchBalance }} = page;
        const [userId, generationId] = ["{ALICE}", "{GENERATION}"];
        const supabase = page.connect("{url}", "service-key");
    """
    try:
        copy.write_text(text.replace("10_000", "100").replace("1000 * seconds", "seconds"), encoding="utf-8")
        return subprocess.run(
            [
                str(SRC / ".venv" / "bin" / "node"),
                "--input-type=module",
                "--eval",
                f"{names}\n{script}\nprocess.exit();",
            ],
            cwd=SRC,
            capture_output=True,
            text=True,
            timeout=WAIT_TIMEOUT,
            check=False,
        )
    finally:
        copy.unlink()


@pytest.mark.parametrize("failure", [None, (503, UNAVAILABLE), (502, "a gateway's page")])
def test_failed_authorization_is_retried_with_the_same_id(
    supabase: Callable[..., tuple[str, Calls]], failure: Response
) -> None:
    """It retries after a timeout, an unavailable database and a gateway error."""
    url, calls = supabase(failure, failure, (200, 70))
    [call] = snippets("js")
    assert node(url, f"{call} console.log(balance);").stdout == "70\n"
    assert calls == [{"p_user_id": ALICE, "p_cost": 30, "p_generation_id": GENERATION}] * 3


def test_timed_out_refund_is_retried_with_the_same_id(
    supabase: Callable[..., tuple[str, Calls]],
) -> None:
    url, calls = supabase(None, (200, 100))
    done = node(url, "console.log(await untilAnswered(() => refund(supabase, generationId)));")
    assert (done.stdout, calls) == ("100\n", [{"p_generation_id": GENERATION}] * 2)


def test_refused_call_is_not_retried(supabase: Callable[..., tuple[str, Calls]]) -> None:
    url, calls = supabase((400, REFUSED))
    done = node(url, "await untilAnswered(() => authorize(supabase, userId, 30, generationId)).catch(console.log);")
    assert ("CR006" in done.stdout, len(calls)) == (True, 1)


def test_balance_can_be_watched_by_several_parts_of_a_page() -> None:
    """Each part has its own channel."""
    watching = "watchBalance(supabase, userId, () => {});"
    done = node("http://127.0.0.1:9", f"{watching * 2} console.log(supabase.getChannels().length);")
    assert done.stdout == "2\n", done.stderr


def test_watched_balance_is_read_after_the_subscription() -> None:
    """Earlier changes are included, and a response that is older than a change is dropped."""
    script = """
        let subscribed, change;
        const shown = [], responses = [];
        const reading = { single: () => new Promise((resolve) => responses.push(resolve)) };
        const channel = {
            on: (_kind, _filter, call) => ((change = call), channel),
            subscribe: (call) => ((subscribed = call), channel),
        };
        const supabase = { channel: () => channel, from: () => ({ select: () => ({ eq: () => reading }) }) };
        page.watchBalance(supabase, userId, (balance) => shown.push(balance));

        const first = subscribed("SUBSCRIBED");
        responses[0]({ data: { credits_balance: 100 } });
        await first;
        await subscribed("CLOSED");
        const again = subscribed("SUBSCRIBED");
        change({ new: { credits_balance: 40 } });
        responses[1]({ data: { credits_balance: 70 } });
        await again;
        console.log(shown.join());
    """
    assert node("http://127.0.0.1:9", f"await (async () => {{{script}}})();").stdout == "100,40\n"
