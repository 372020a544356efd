"""``webhook dev`` in a process of its own."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

from support.commands import WEBHOOK
from support.ports import free_port
from webhook.settings import child_environment

WAIT_TIMEOUT = 60


@dataclass(frozen=True)
class Dev:
    """A ``webhook dev``, and its output until it was ready."""

    process: subprocess.Popen[str]
    folder: Path
    port: int
    output: str

    def printed(self, label: str) -> str:
        """Return the value after this label in the output."""
        found = re.search(rf"^  {label} +(.*)$", self.output, re.MULTILINE)
        assert found, self.output
        return found[1]

    def get(self, path: str) -> int:
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=WAIT_TIMEOUT)) as connection:
            connection.request("GET", path)
            return connection.getresponse().status

    def stop(self, by: signal.Signals = signal.SIGINT) -> tuple[int, str]:
        """Return the exit code and the output after the signal."""
        self.process.send_signal(by)
        output, _ = self.process.communicate(timeout=WAIT_TIMEOUT)
        return self.process.returncode, output


def command(port: int, folder: Path, *options: str, **variables: str) -> dict[str, object]:
    """Return the arguments of :mod:`subprocess` for ``webhook dev``."""
    return {
        "args": [WEBHOOK, "dev", "--port", str(port), *options],
        "cwd": folder,
        "env": child_environment(variables, without=("STRIPE_", "DATABASE_", "MIGRATION_", "PG")),
        "text": True,
    }


@contextmanager
def serving(folder: Path, port: int = 0, *options: str, **variables: str) -> Iterator[Dev]:
    port = port or free_port()
    arguments = command(port, folder, *options, **variables)
    with subprocess.Popen(**arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:  # type: ignore[call-overload]
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "Ctrl-C" in line:
                break
        try:
            assert "Ctrl-C" in lines[-1], "".join(lines)
            yield Dev(process, folder, port, "".join(lines))
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=WAIT_TIMEOUT)


def failing(folder: Path, port: int = 0, *options: str, **variables: str) -> tuple[int, str]:
    """Return the exit code and the error message."""
    arguments = command(port or free_port(), folder, *options, **variables)
    done = subprocess.run(**arguments, capture_output=True, timeout=WAIT_TIMEOUT, check=False)  # type: ignore[call-overload]
    return done.returncode, done.stderr


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0
