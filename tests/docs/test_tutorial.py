"""docs/tutorial.md: its shell commands, run in one session against a real worker, print the shown output."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from support.databases import Database
from support.project import DOCS, PROJECT
from support.waiting import WAIT_TIMEOUT
from support.worker import SECRET, working

PAGE = (DOCS / "tutorial.md").read_text(encoding="utf-8")
STEPS = re.findall(r"^```sh\n(.*?)^```$(?:\s+^```text\n(.*?)^```$)?", PAGE, re.DOTALL | re.MULTILINE)
END = "-- end of step --"


def test_tutorial_commands_print_the_shown_output(database: Database, tmp_path: Path) -> None:
    """All steps run in order, from the sign-up to the audit."""
    with working(database.url, tmp_path) as worker:
        script = "\n".join(f"{{\n{commands}}} 2>&1\necho '{END}'" for commands, _ in STEPS)
        environment = {
            "DATABASE_URL": database.admin_url,
            "STRIPE_WEBHOOK_SECRET": SECRET,
            "PATH": f"{Path(sys.executable).parent}:{os.defpath}",
        }
        done = subprocess.run(
            ["bash", "-c", script.replace("http://127.0.0.1:4242", worker.url)],
            cwd=PROJECT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=WAIT_TIMEOUT * 3,
            check=False,
        )
    printed = done.stdout.split(f"{END}\n")
    shown = [output for _, output in STEPS]
    assert printed == [*shown, ""], done.stderr
