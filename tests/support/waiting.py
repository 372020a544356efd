"""Waiting for a condition, with a timeout."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE = 20
"""Seconds after which a test fails."""


def eventually(is_so: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait until ``is_so`` returns something true; fail after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, f"still not so after {seconds} s"
        time.sleep(0.01)
