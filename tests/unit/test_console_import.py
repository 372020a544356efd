"""A worker without a console loads nothing of it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from support.project import PROJECT
from webhook.settings import child_environment

SETTINGS = {
    "DATABASE_URL": "postgresql://worker@127.0.0.1:1/postgres",
    "STRIPE_WEBHOOK_SECRET": "whsec_1",
    "STRIPE_LIVEMODE": "false",
}
COUNT = """
import sys
from webhook.app import from_environment
from_environment()
print(len([name for name in sys.modules if name.startswith(("webhook.console", "webhook.explain"))]))
"""


@pytest.mark.parametrize(("tokens", "is_loaded"), [("", False), (f"ann:viewer:{'0' * 64}", True)])
def test_console_is_loaded_with_tokens_only(tokens: str, is_loaded: bool) -> None:  # noqa: FBT001 - expected
    environment = child_environment({**SETTINGS, "CONSOLE_TOKENS": tokens}, without=("STRIPE_", "OPERATOR_"))
    done = subprocess.run(
        [sys.executable, "-c", COUNT], cwd=PROJECT, env=environment, capture_output=True, text=True, check=True
    )
    assert (int(done.stdout) > 0) is is_loaded
