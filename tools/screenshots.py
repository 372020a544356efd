"""`make screenshots`: pictures of the console in docs/images.

It starts `webhook dev` in a temporary folder, delivers the events of a small shop and opens the pages in Chromium.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from signal import SIGINT
from typing import Any

import psycopg
from stripe import WebhookSignature

from tools.chromium import launched, missing
from webhook.dev.ports import free_port
from webhook.dev.state import DevServer, running_server
from webhook.settings import child_environment

PROJECT = Path(__file__).parents[1]
IMAGES = PROJECT / "docs" / "images"
MOST_BYTES = 200_000
WINDOW = {"width": 1100, "height": 780}
TOKEN = secrets.token_urlsafe(32)
ENTRY = f"support:operator:{hashlib.sha256(TOKEN.encode()).hexdigest()}"
ANN = "5f0c7a3e-5a3b-4c62-9c1e-0d6a3f1f6a10"
SALE = "pi_3UYcP2K4mTq9ZwLx1kHd8RtA"
PICTURES = {"console-sale.png": f"/console/sales/{SALE}", "console-parked.png": "/console/parked"}

_SETTINGS = ("CONSOLE_", "DATABASE_", "MIGRATION_", "OPERATOR_", "PG", "STRIPE_")


def main() -> int:
    if reason := missing():
        print(reason, file=sys.stderr)
        return 2
    IMAGES.mkdir(exist_ok=True)
    with running_dev() as server:
        fill(server)
        take_pictures(server)
    too_large = [name for name in PICTURES if (IMAGES / name).stat().st_size > MOST_BYTES]
    print(*(f"{name} is larger than {MOST_BYTES} bytes" for name in too_large), sep="\n", end="")
    return 1 if too_large else 0


@contextmanager
def running_dev() -> Iterator[DevServer]:
    """Yield a `webhook dev` with an empty database."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)  # for the user nobody, which runs Postgres if root starts it
        command = [str(Path(sys.executable).with_name("webhook")), "dev", "--port", str(free_port())]
        environment = child_environment({"CONSOLE_TOKENS": ENTRY}, without=_SETTINGS)
        with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True) as process:
            try:
                if not any("Ctrl-C" in line for line in process.stdout or ()):
                    raise RuntimeError("webhook dev did not start: its messages are above")
                with chdir(folder):
                    yield running_server()
            finally:
                process.send_signal(SIGINT)
                process.communicate()


def fill(server: DevServer) -> None:
    """Sell credits to Ann, refund a part and spend some. Park the events of three other buyers."""
    with psycopg.connect(server.database_url, autocommit=True) as owner:
        owner.execute("insert into auth.users (id, email) values (%s, 'ann@example.com')", [ANN])
        deliver(server, 1, "checkout.session.completed", session(1, SALE, user_id=ANN, credits="100"))
        owner.execute("set role service_role")
        owner.execute("select public.authorize_generation(%s, 30, gen_random_uuid())", [ANN])
        deliver(server, 2, "refund.created", refund(SALE))
        deliver(server, 3, "checkout.session.completed", session(3, "pi_3UYbM1K4mTq9ZwLx0tWv5QpC", credits="50"))
        deliver(server, 4, "checkout.session.completed", session(4, "pi_3UYaKXK4mTq9ZwLx2bNc7JyE", user_id=ANN))
        unknown = {"user_id": "11111111-0000-4000-8000-000000000001", "credits": "500"}
        deliver(server, 5, "checkout.session.completed", session(5, "pi_3UYZJzK4mTq9ZwLx1fGh3KmD", **unknown))


def session(number: int, payment_id: str, **metadata: str) -> dict[str, Any]:
    """Return a paid Checkout Session of $10 with this metadata."""
    return {
        "id": f"cs_test_a{number}UYcN7K4mTq9ZwLx",
        "object": "checkout.session",
        "mode": "payment",
        "payment_intent": payment_id,
        "payment_status": "paid",
        "amount_total": 1000,
        "currency": "usd",
        "created": int(time.time()),
        "customer_details": {"email": f"buyer{number}@example.com", "name": "A buyer"},
        "metadata": metadata,
    }


def refund(payment_id: str) -> dict[str, Any]:
    """Return a refund of $2.50."""
    return {
        "id": "re_3UYcP2K4mTq9ZwLx1sDf6GhJ",
        "object": "refund",
        "payment_intent": payment_id,
        "amount": 250,
        "currency": "usd",
        "status": "succeeded",
    }


def deliver(server: DevServer, number: int, event_type: str, source: dict[str, Any]) -> None:
    """Deliver an event as Stripe does."""
    event = {
        "id": f"evt_{number}UYcQ4K4mTq9ZwLx5aBcDeFg",
        "object": "event",
        "api_version": "2026-10-28.endive",
        "created": int(time.time()),
        "data": {"object": source},
        "livemode": False,
        "type": event_type,
    }
    body = json.dumps(event)
    headers = {"Stripe-Signature": WebhookSignature.generate_signature_header(body, server.webhook_secret)}
    request = urllib.request.Request(f"{server.url}/webhook", body.encode(), headers)  # noqa: S310 - loopback
    with urllib.request.urlopen(request) as answer:  # noqa: S310
        print(answer.read().decode().strip())


def take_pictures(server: DevServer) -> None:
    with launched() as browser:
        login = {"Authorization": f"Bearer {TOKEN}"}
        page = browser.new_page(base_url=server.url, viewport=WINDOW, locale="en-GB", extra_http_headers=login)
        for name, path in PICTURES.items():
            if not (answer := page.goto(path)) or not answer.ok:
                raise RuntimeError(f"{path} was not answered with a page")
            page.screenshot(path=IMAGES / name)
            print(f"docs/images/{name}: {(IMAGES / name).stat().st_size} bytes")


if __name__ == "__main__":
    sys.exit(main())
