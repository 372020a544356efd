"""Waiting for a condition, with a timeout."""

from __future__ import annotations

import time
from collections.abc import Callable

WAIT_TIMEOUT = 20
"""The default timeout of tests, in seconds."""


def eventually(condition: Callable[[], object], seconds: float = WAIT_TIMEOUT) -> None:
    """Wait until ``condition`` returns a true value; fail after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"the condition was not met within {seconds} s"
        time.sleep(0.01)
