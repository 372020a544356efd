"""Errors that end a run early, after which its report still has to be printed."""

from __future__ import annotations

import traceback
from collections.abc import Callable

from webhook.errors import ExpectedError


def failure_of(run: Callable[[], None]) -> BaseException | None:
    """Call ``run``, and return the error that ended it early."""
    try:
        run()
    except (ExpectedError, OSError) as error:
        return error
    except KeyboardInterrupt:
        return InterruptedError("interrupted")
    except Exception as error:  # noqa: BLE001 - a bug must not end with exit code 1, which means "all is recorded now"
        traceback.print_exc()
        return error
    return None
