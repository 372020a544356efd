"""src/spending.ts, run by Node: the supabase-js code of docs/how-to works as documented."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest

from support.databases import Database
from support.generations import available, expire, holds, reserve
from support.roles import ALICE, balance, connected
from support.spending_page import GENERATION, JOB, snippets
from support.supabase_stand_in import Request, Response, call_in_database, serving
from support.waiting import WAIT_TIMEOUT
from tools.supabase_cli import SRC, needs_tools

pytestmark = needs_tools

REFUSED = {"code": "CR006", "message": "unknown_user", "details": None, "hint": None}
UNAVAILABLE = {"code": "PGRST000", "message": "could not connect", "details": None, "hint": None}

Calls = list[dict[str, Any]]


@pytest.fixture
def supabase() -> Iterator[Callable[..., tuple[str, Calls]]]:
    """Return a function that starts a stand-in for Supabase and returns its URL and the calls that it receives.

    It sends the given responses in order. For None it sends nothing, so that the call times out.
    """
    with ExitStack() as stack:

        def start(*responses: Response) -> tuple[str, Calls]:
            remaining, calls = iter(responses), Calls()

            def respond(request: Request) -> Response:
                calls.append(request.arguments)
                return next(remaining)

            return stack.enter_context(serving(respond)), calls

        yield start


@pytest.fixture
def lossy_supabase(database: Database, owner: psycopg.Connection) -> Iterator[tuple[str, list[str]]]:
    """The URL of a stand-in for Supabase, and the functions that were called.

    It makes the calls in the database, and loses its first answer of each function after the commit.
    """
    assert owner
    called: list[str] = []
    with connected(database, "service_role") as api:

        def respond(request: Request) -> Response:
            called.append(request.name)
            response = call_in_database(api, request)
            return response if called.count(request.name) > 1 else None

        with serving(respond) as url:
            yield url, called


def node(url: str, script: str) -> subprocess.CompletedProcess[str]:
    """Run a script in Node with the page's functions and short timeouts."""
    text = (SRC / "spending.ts").read_text(encoding="utf-8")
    assert text.count("timeout(10_000)") == 5
    copy = SRC / "short_timeouts.ts"
    names = f"""
        import * as page from "./short_timeouts.ts";
        const {{ authorize, refund, untilAnswered, generate, account, watchAccount }} = page;
        const [userId, generationId] = ["{ALICE}", "{GENERATION}"];
        const supabase = page.connect("{url}", "service-key");
    """
    try:
        copy.write_text(
            text.replace("timeout(10_000)", "timeout(300)").replace("1000 * seconds", "seconds"), encoding="utf-8"
        )
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


GENERATING = """
    const [most, cost] = [%s, %s];
    const result = await generate(supabase, userId, most, generationId, async () => {
        if (cost === null) throw new Error("no video");
        return cost;
    }).catch((error) => error.message);
    console.log(result);
"""


@pytest.mark.parametrize(
    ("job", "result", "functions"),
    [
        ((60, "45"), "55", ["reserve_generation"] * 2 + ["capture_generation"] * 2),
        ((60, "null"), "no video", ["reserve_generation"] * 2 + ["release_generation"] * 2),
        ((101, "45"), "insufficient", ["reserve_generation"] * 2),
    ],
)
def test_generation_with_lost_answers_is_settled_once(
    lossy_supabase: tuple[str, list[str]],
    owner: psycopg.Connection,
    job: tuple[int, str],
    result: str,
    functions: list[str],
) -> None:
    """A job that succeeds, one that fails, and one that the user cannot afford."""
    url, called = lossy_supabase
    done = node(url, GENERATING % job)
    assert (done.stdout, called) == (f"{result}\n", functions), done.stderr
    assert balance(owner, ALICE) == available(owner, ALICE) == (55 if result == "55" else 100)


def test_generation_that_outlives_its_hold_is_unpaid(
    lossy_supabase: tuple[str, list[str]], owner: psycopg.Connection
) -> None:
    """The trigger stands for a long job: the hold has expired, and the credits were spent, when the capture comes."""
    owner.execute(
        """
        create function public.expire() returns trigger language plpgsql as $$
        begin
            new.expires_at := clock_timestamp();
            return new;
        end $$;
        create trigger expire before insert on public.generation_holds for each row execute function public.expire()
        """
    )
    url, _ = lossy_supabase
    spending = f"await untilAnswered(() => authorize(supabase, userId, 100, '{JOB}')); return 45"
    running = f"generate(supabase, userId, 60, generationId, async () => {{ {spending}; }})"
    done = node(url, f"console.log(await {running});")
    assert done.stdout == "unpaid\n", done.stderr
    assert holds(owner) == [(GENERATION, ALICE, 60, "expired")]


def test_account_is_read_in_one_request(supabase: Callable[..., tuple[str, Calls]]) -> None:
    """The database filters the open holds by its own time."""
    holds = [{"amount": 60, "expires_at": "2026-11-27T12:00:00Z"}, {"amount": 5, "expires_at": "2026-11-27T13:00:00Z"}]
    url, calls = supabase((200, {"credits_balance": 100, "generation_holds": holds}))
    done = node(url, "console.log(JSON.stringify(await account(supabase)));")
    assert json.loads(done.stdout) == {
        "balance": 100,
        "held": 65,
        "available": 35,
        "nextExpiry": "2026-11-27T12:00:00Z",
    }
    assert calls == [
        {
            "select": "credits_balance,generation_holds(amount,expires_at)",
            "generation_holds.captured_at": "is.null",
            "generation_holds.released_at": "is.null",
            "generation_holds.expires_at": "gt.now",
            "generation_holds.order": "expires_at.asc",
        }
    ]


def test_filter_of_the_account_takes_the_time_of_the_database(owner: psycopg.Connection) -> None:
    """PostgREST passes the filter's value as a parameter without a type."""
    reserve(owner, ALICE, 60, GENERATION)
    query = "select count(*) from public.generation_holds where expires_at > $1"
    with psycopg.ClientCursor(owner) as cursor:
        cursor.execute(f"prepare filter as {query}")
        assert cursor.execute("execute filter ('now')").fetchone() == (1,)
        expire(owner, GENERATION)
        assert cursor.execute("execute filter ('now')").fetchone() == (0,)


# The account's page. The script defines how the page reads, and which times it waits for.
WATCHING = """
    const shown = [], responses = [], calls = {}, timers = [];
    let subscribed;
    globalThis.setTimeout = (call, delay) => timers.push({ call, delay });
    globalThis.clearTimeout = (number) => number && (timers[number - 1].call = null);
    const reading = { single: () => new Promise((resolve) => responses.push(resolve)) };
    for (const name of ["select", "is", "gt", "order"]) reading[name] = () => reading;
    const channel = {
        on: (_kind, { event, table }, call) => ((calls[`${event} ${table}`] = call), channel),
        subscribe: (call) => ((subscribed = call), channel),
    };
    const supabase = { channel: () => channel, from: () => reading, removeChannel: () => shown.push("removed") };
    const stop = page.watchAccount(supabase, userId, ({ balance, held }) => shown.push(`${balance}/${held}`));
    const respond = async (number, credits_balance, ...generation_holds) => {
        responses[number]({ data: { credits_balance, generation_holds } });
        await new Promise((resolve) => setImmediate(resolve));
    };
    const hold = (amount, seconds) => ({
        amount, expires_at: new Date(Date.now() + 1000 * seconds).toISOString(),
    });
"""


def watched(script: str) -> str:
    """Return what the script prints after it has begun to watch the account."""
    done = node("http://127.0.0.1:9", f"await (async () => {{{WATCHING}{script}\nconsole.log(shown.join());}})();")
    assert done.stderr == ""
    return done.stdout.removesuffix("\n")


def test_account_can_be_watched_by_several_parts_of_a_page() -> None:
    """Each part has its own channel."""
    watching = "watchAccount(supabase, userId, () => {});"
    done = node("http://127.0.0.1:9", f"{watching * 2} console.log(supabase.getChannels().length);")
    assert done.stdout == "2\n", done.stderr


def test_watched_account_is_read_after_the_subscription() -> None:
    """It is read again when the page is back online."""
    script = """
        subscribed("SUBSCRIBED");
        await respond(0, 100);
        subscribed("CLOSED");
        subscribed("SUBSCRIBED");
        await respond(1, 40);
    """
    assert watched(script) == "100/0,40/0"


@pytest.mark.parametrize("change", ["UPDATE users", "INSERT generation_holds", "UPDATE generation_holds"])
def test_watched_account_is_read_after_each_change(change: str) -> None:
    """A response that a later read has overtaken is dropped."""
    script = f"""
        subscribed("SUBSCRIBED");
        calls["{change}"]();
        await respond(1, 100, hold(60, 3600));
        await respond(0, 100);
    """
    assert watched(script) == "100/60"


@pytest.mark.parametrize(("seconds", "delay"), [(30, 30_000), (-5, 1000), (86400, 60_000)])
def test_watched_account_is_read_after_the_next_expiry(seconds: int, delay: int) -> None:
    """A wrong clock of the browser neither stops the reads nor repeats them without a pause."""
    script = f"""
        subscribed("SUBSCRIBED");
        await respond(0, 100, hold(60, {seconds}), hold(5, 90000));
        timers[0].call();
        await respond(1, 100);
        shown.push(timers[0].delay > {delay} - 1000, timers[0].delay <= {delay});
    """
    assert watched(script) == "100/65,100/0,true,true"


def test_stopped_watch_shows_and_reads_nothing_more() -> None:
    script = """
        subscribed("SUBSCRIBED");
        await respond(0, 100, hold(60, 30));
        calls["UPDATE users"]();
        stop();
        await respond(1, 40);
        shown.push(timers[0].call === null, responses.length);
    """
    assert watched(script) == "100/60,removed,true,2"
