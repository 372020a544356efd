"""A program that ends when the process that started it ends, even if that was killed.

This module runs as a process between the two. It holds one end of a pipe. The other end closes when
:meth:`SupervisedProcess.stop` is called or when the starter dies; then this process stops the program. The program has
a session of its own. So Ctrl-C in the terminal reaches only the starter, which then stops everything in order.
"""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO

_SECONDS_TO_STOP = 20


@dataclass(frozen=True)
class SupervisedProcess:
    """A running program."""

    process: subprocess.Popen[bytes]

    @property
    def exit_code(self) -> int | None:
        """The exit code of the program, or the number of the signal that ended it; None while it runs."""
        return self.process.poll()

    def stop(self) -> None:
        """Stop the program and wait until it has ended, for at most about 20 s."""
        if self.process.stdin:
            self.process.stdin.close()
        self.process.wait()


def start(  # noqa: PLR0913
    command: Sequence[str],
    *,
    stop_signal: signal.Signals = signal.SIGTERM,
    user: str = "",
    environment: Mapping[str, str],
    output: IO[bytes] | None = None,
    keep_open: Sequence[int] = (),
) -> SupervisedProcess:
    """Start ``command``, as ``user`` if given (only root can).

    ``stop_signal`` is the signal for a clean stop. ``output`` receives standard output and error. The file descriptors
    ``keep_open`` stay open while the program runs, so a lock on them stays held.
    """
    process = subprocess.Popen(  # noqa: S603
        [sys.executable, "-P", "-m", __name__, str(int(stop_signal)), user, *command],
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=subprocess.STDOUT if output else None,
        env=dict(environment),
        pass_fds=keep_open,
        start_new_session=True,
    )
    return SupervisedProcess(process)


def group_of(user: str) -> int | None:
    """Return the id of the primary group of ``user``; None for "", the current user."""
    return pwd.getpwnam(user).pw_gid if user else None


def _run(stop_signal: int, user: str, command: Sequence[str]) -> int:
    program = subprocess.Popen(  # noqa: S603
        command,
        stdin=subprocess.DEVNULL,
        user=user or None,
        group=group_of(user),
        extra_groups=[] if user else None,
    )
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: program.send_signal(stop_signal))
    threading.Thread(target=_stop_at_end_of_input, args=(program, stop_signal), daemon=True).start()
    return program.wait()


def _stop_at_end_of_input(program: subprocess.Popen[bytes], stop_signal: int) -> None:
    # This thread may still read when the interpreter exits. Through sys.stdin it would hold a lock and abort the exit.
    os.read(0, 1)
    program.send_signal(stop_signal)
    try:
        program.wait(_SECONDS_TO_STOP)
    except subprocess.TimeoutExpired:
        program.kill()


if __name__ == "__main__":
    sys.exit(abs(_run(int(sys.argv[1]), sys.argv[2], sys.argv[3:])))
