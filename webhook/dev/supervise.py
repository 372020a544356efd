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
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
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


def first_to_end(*programs: SupervisedProcess) -> SupervisedProcess:
    """Wait until one of the programs ends, and return it."""
    ended: SimpleQueue[SupervisedProcess] = SimpleQueue()

    def wait(program: SupervisedProcess) -> None:
        program.process.wait()
        ended.put(program)

    for each in programs:
        threading.Thread(target=wait, args=(each,), daemon=True).start()
    return ended.get()


def start(  # noqa: PLR0913
    command: Sequence[str],
    *,
    stop_signal: signal.Signals = signal.SIGTERM,
    user: str = "",
    environment: Mapping[str, str],
    output: IO[bytes] | int | None = None,
    keep_open: Sequence[int] = (),
    with_descendants: bool = False,
) -> SupervisedProcess:
    """Start ``command``, as ``user`` if given (only root can).

    ``stop_signal`` is the signal for a clean stop. ``output`` receives standard output and error. The file descriptors
    ``keep_open`` stay open while the program runs, so a lock on them stays held. ``with_descendants`` also signals the
    processes that the program starts, for one that does not stop them itself.
    """
    process = subprocess.Popen(  # noqa: S603
        [sys.executable, "-P", "-m", __name__, str(int(stop_signal)), user, str(int(with_descendants)), *command],
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


def _run(stop_signal: int, user: str, command: Sequence[str], *, with_descendants: bool) -> int:
    program = subprocess.Popen(  # noqa: S603
        command,
        stdin=subprocess.DEVNULL,
        user=user or None,
        group=group_of(user),
        extra_groups=[] if user else None,
        process_group=0 if with_descendants else None,
    )
    send = partial(_send, program, with_descendants)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: send(stop_signal))
    threading.Thread(target=_stop_at_end_of_input, args=(program, send, stop_signal), daemon=True).start()
    code = program.wait()
    if with_descendants:
        send(signal.SIGKILL)
    return code


def _send(program: subprocess.Popen[bytes], with_descendants: bool, number: int) -> None:  # noqa: FBT001
    with suppress(ProcessLookupError):
        if with_descendants:
            os.killpg(program.pid, number)
        else:
            program.send_signal(number)


def _stop_at_end_of_input(program: subprocess.Popen[bytes], send: Callable[[int], None], stop_signal: int) -> None:
    # This thread may still read when the interpreter exits. Through sys.stdin it would hold a lock and abort the exit.
    os.read(0, 1)
    send(stop_signal)
    try:
        program.wait(_SECONDS_TO_STOP)
    except subprocess.TimeoutExpired:
        send(signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(abs(_run(int(sys.argv[1]), sys.argv[2], sys.argv[4:], with_descendants=sys.argv[3] == "1")))
