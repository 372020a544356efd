"""src/spending.ts, as Node runs it: what docs/how-to/spend.md shows of supabase-js does what is said of it."""

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
from support.waiting import PATIENCE
from tools.supabase_cli import SRC, needs_tools

pytestmark = needs_tools

REFUSED = {"code": "CR006", "message": "unknown_user", "details": None, "hint": None}
AWAY = {"code": "PGRST000", "message": "could not connect", "details": None, "hint": None}

Answer = tuple[int, Any] | None
Calls = list[dict[str, Any]]


@pytest.fixture
def supabase() -> Iterator[Callable[..., tuple[str, Calls]]]:
    """Starts what answers in Supabase's place, None being silence; its URL, and the calls that came."""
    ended, calls = Event(), []

    def start(*answers: Answer) -> tuple[str, Calls]:
        left = iter(answers)

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                calls.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                if (answer := next(left)) is None:
                    ended.wait(PATIENCE)
                    return
                self.send_response(answer[0])
                self.end_headers()
                self.wfile.write(json.dumps(answer[1]).encode())

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        server.RequestHandlerClass = Handler
        thread.submit(server.serve_forever)
        return f"http://127.0.0.1:{server.server_port}", calls

    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server, ThreadPoolExecutor(1) as thread:
        yield start
        ended.set()
        server.shutdown()


def node(url: str, script: str) -> subprocess.CompletedProcess[str]:
    """What Node says of a script that has the page's functions, with a hundredth of their patience."""
    text = (SRC / "spending.ts").read_text(encoding="utf-8")
    assert text.count("timeout(10_000)") == 2
    copy = SRC / "hasty.ts"
    names = f"""
        import * as page from "./hasty.ts";
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
            timeout=PATIENCE,
            check=False,
        )
    finally:
        copy.unlink()


@pytest.mark.parametrize("trouble", [None, (503, AWAY), (502, "a gateway's page")])
def test_authorization_that_is_not_answered_is_repeated_with_the_same_id(
    supabase: Callable[..., tuple[str, Calls]], trouble: Answer
) -> None:
    """Silence, a database that is away and a gateway's error: the call comes again until the balance comes."""
    url, calls = supabase(trouble, trouble, (200, 70))
    [call] = snippets("js")
    assert node(url, f"{call} console.log(balance);").stdout == "70\n"
    assert calls == [{"p_user_id": ALICE, "p_cost": 30, "p_generation_id": GENERATION}] * 3


def test_refund_that_is_not_answered_is_repeated_with_the_same_id(
    supabase: Callable[..., tuple[str, Calls]],
) -> None:
    """A refund has the same patience."""
    url, calls = supabase(None, (200, 100))
    done = node(url, "console.log(await untilAnswered(() => refund(supabase, generationId)));")
    assert (done.stdout, calls) == ("100\n", [{"p_generation_id": GENERATION}] * 2)


def test_call_that_is_refused_is_not_repeated(supabase: Callable[..., tuple[str, Calls]]) -> None:
    """A refusal is an answer."""
    url, calls = supabase((400, REFUSED))
    done = node(url, "await untilAnswered(() => authorize(supabase, userId, 30, generationId)).catch(console.log);")
    assert ("CR006" in done.stdout, len(calls)) == (True, 1)


def test_balance_can_be_watched_by_several_parts_of_a_page() -> None:
    """Each has a channel of its own."""
    watching = "watchBalance(supabase, userId, () => {});"
    done = node("http://127.0.0.1:9", f"{watching * 2} console.log(supabase.getChannels().length);")
    assert done.stdout == "2\n", done.stderr


def test_balance_is_read_once_subscribed_and_gives_way_to_a_newer_change() -> None:
    """What changed before the subscription is seen, and an answer that a change overtook is not."""
    script = """
        let subscribed, change;
        const told = [], answers = [];
        const reading = { single: () => new Promise((answer) => answers.push(answer)) };
        const channel = {
            on: (_kind, _filter, call) => ((change = call), channel),
            subscribe: (call) => ((subscribed = call), channel),
        };
        const supabase = { channel: () => channel, from: () => ({ select: () => ({ eq: () => reading }) }) };
        page.watchBalance(supabase, userId, (balance) => told.push(balance));

        const first = subscribed("SUBSCRIBED");
        answers[0]({ data: { credits_balance: 100 } });
        await first;
        await subscribed("CLOSED");
        const again = subscribed("SUBSCRIBED");
        change({ new: { credits_balance: 40 } });
        answers[1]({ data: { credits_balance: 70 } });
        await again;
        console.log(told.join());
    """
    assert node("http://127.0.0.1:9", f"await (async () => {{{script}}})();").stdout == "100,40\n"
