"""``webhook dev --listen`` runs the Stripe CLI as a child."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support import stripe_cli
from support.databases import Database, new_folder
from support.dev import WAIT_TIMEOUT, Dev, failing, is_free, serving
from support.recorded import USER_ID, session_event
from support.stripe_cli import KEY, SECRET, FakeCli
from webhook.events.interpret import HANDLED_EVENTS


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty working directory."""
    with new_folder() as folder:
        yield folder


@pytest.fixture
def cli(tmp_path: Path) -> FakeCli:
    return stripe_cli.install(tmp_path)


@contextmanager
def listening(folder: Path, cli: FakeCli, database: Database, **variables: str) -> Iterator[Dev]:
    """Run `webhook dev --listen` with a key, until its CLI is ready."""
    given = {"PATH": path(cli), "STRIPE_API_KEY": KEY, "DATABASE_URL": database.admin_url} | variables
    with serving(folder, 0, "--listen", **given) as dev:
        read_until(dev, "forwarded to this worker")
        yield dev


def path(cli: FakeCli) -> str:
    return f"{cli.folder}:{os.environ['PATH']}"


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def read_until(dev: Dev, word: str) -> str:
    """Return the next line of the output that contains the word."""
    return next(line for line in dev.process.stdout if word in line)


def sale() -> str:
    return json.dumps(session_event(event_id="evt_1", payment_intent="pi_1", user_id=USER_ID, credits=100))


def test_listen_forwards_signed_events_and_shows_them(folder: Path, cli: FakeCli, database: Database) -> None:
    """Nothing is copied and nothing is started again. `webhook demo` works beside it."""
    with listening(folder, cli, database) as dev:
        assert dev.printed("Stripe events") == "forwarded by the Stripe CLI"
        assert dev.printed("Signing secret").startswith(f"{SECRET}, whsec_")
        cli.send(sale())
        line = read_until(dev, "Stripe event ")
        assert line.split() == ["Stripe", "event", "checkout.session.completed", "evt_1", "answered", "200"]


def test_listen_passes_the_events_by_option_and_the_key_not(folder: Path, cli: FakeCli, database: Database) -> None:
    """Other users can read command lines."""
    with listening(folder, cli, database, STRIPE_WEBHOOK_SECRET="whsec_mine") as dev:
        pass
    first, second = cli.calls
    assert first["arguments"] == ["listen", "--print-secret"]
    assert second["arguments"] == [
        *("listen", "--skip-update", "--latest", "--events", ",".join(HANDLED_EVENTS)),
        *("--forward-to", f"http://127.0.0.1:{dev.port}/webhook"),
    ]
    for call in cli.calls:
        assert call["environment"]["STRIPE_API_KEY"] == KEY
        assert not {"DATABASE_URL", "STRIPE_WEBHOOK_SECRET"} & {*call["environment"]}


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_listen_stopped_leaves_no_process(folder: Path, cli: FakeCli, database: Database, by: signal.Signals) -> None:
    with listening(folder, cli, database) as dev:
        code, output = dev.stop(by)
        assert (code, output.splitlines()[-1]) == (0, "Stopped.")
        assert not is_running(cli.calls[-1]["pid"])
        assert is_free(dev.port)


def test_listen_killed_leaves_no_cli(folder: Path, cli: FakeCli, database: Database) -> None:
    with listening(folder, cli, database) as dev:
        dev.stop(signal.SIGKILL)  # its output ends once every child has ended
        assert not is_running(cli.calls[-1]["pid"])


def test_listen_whose_cli_dies_reports_why_and_stops(folder: Path, cli: FakeCli, database: Database) -> None:
    with listening(folder, cli, database) as dev:
        cli.send("die")
        output, _ = dev.process.communicate(timeout=WAIT_TIMEOUT)
        assert (dev.process.returncode, is_free(dev.port)) == (2, True)
    reason = "stripe listen ended by itself, with exit code 1: session expired, terminating"
    assert output.splitlines()[-1] == f"webhook: {reason}"


def test_listen_with_a_logged_in_cli_needs_no_key(folder: Path, cli: FakeCli, database: Database) -> None:
    (cli.folder / "login").touch()
    with listening(folder, cli, database, STRIPE_API_KEY="") as dev:
        assert dev.printed("Signing secret").startswith(SECRET)
    assert "STRIPE_API_KEY" not in cli.calls[0]["environment"]


def test_listen_with_npx_alone_uses_the_package(folder: Path, tmp_path: Path, database: Database) -> None:
    npx = stripe_cli.install(tmp_path, "npx")
    with listening(folder, npx, database, PATH=f"{tmp_path}:/bin") as dev:
        assert dev.printed("Stripe events") == "forwarded by the Stripe CLI"
    assert npx.calls[0]["arguments"] == ["--yes", "@stripe/cli", "listen", "--print-secret"]


def test_listen_on_another_port_forwards_to_it(folder: Path, cli: FakeCli, database: Database) -> None:
    """`make dev PORT=… LISTEN=1`."""
    with listening(folder, cli, database) as dev:
        assert cli.calls[1]["arguments"][-1] == f"http://127.0.0.1:{dev.port}/webhook"


def refusal(folder: Path, **variables: str) -> str:
    """Return the line that `webhook dev --listen` prints before it starts anything."""
    code, message = failing(folder, 0, "--listen", **variables)
    assert (code, message.count("\n")) == (2, 1)
    assert not (folder / ".dev" / "postgres").exists()
    return message


def test_listen_without_the_cli_prints_how_to_get_it(folder: Path, tmp_path: Path) -> None:
    message = refusal(folder, PATH=str(tmp_path), STRIPE_API_KEY=KEY)
    assert message.startswith("webhook: --listen needs the Stripe CLI: install it (https://docs.stripe.com/stripe-cli)")


@pytest.mark.parametrize("key", ["sk_live_51secret", "rk_live_51secret", "sk_org_51secret"])
def test_listen_with_another_key_than_a_test_key_is_refused(folder: Path, cli: FakeCli, key: str) -> None:
    message = refusal(folder, PATH=path(cli), STRIPE_API_KEY=key)
    assert message.startswith("webhook: STRIPE_API_KEY is not a test-mode key")
    assert key not in message
    assert not (cli.folder / "calls").exists()


def test_listen_in_live_mode_is_refused(folder: Path, cli: FakeCli) -> None:
    message = refusal(folder, PATH=path(cli), STRIPE_LIVEMODE="true")
    assert message.startswith("webhook: STRIPE_LIVEMODE is true")


def test_listen_without_key_and_login_names_both(folder: Path, cli: FakeCli) -> None:
    message = refusal(folder, PATH=path(cli))
    assert message == (
        "webhook: the Stripe CLI has no key: set STRIPE_API_KEY to a test-mode key, or run npx @stripe/cli login\n"
    )


def test_listen_with_an_expired_key_prints_stripes_message(folder: Path, cli: FakeCli) -> None:
    message = refusal(folder, PATH=path(cli), STRIPE_API_KEY="sk_test_expired")
    assert message == "webhook: the Stripe CLI cannot listen: Expired API Key provided: sk_test_***sted\n"
