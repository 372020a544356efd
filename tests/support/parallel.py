"""Which tests of a parallel run one process runs, one after the other."""

from __future__ import annotations

import os

from xdist.scheduler import LoadScopeScheduling

TIMED = (
    "tests/processes/test_availability.py",
    "tests/processes/test_processes.py",
    "tests/processes/test_sigterm.py",
    "tests/processes/test_slow_clients.py",
    "tests/processes/test_soak.py",
    "tests/processes/test_unkillable.py",
)
"""They measure seconds or memory of several processes: two of them at once would measure each other."""

WRITING_IN_SRC = ("tests/docs/test_spending_ts.py", "tests/docs/test_types.py")
"""They write a file for Node beside those that tsc and prettier check."""

CHANGING_ROLES = (
    "tests/commands/test_dev.py",
    "tests/commands/test_doctor.py",
    "tests/commands/test_migrate.py",
    "tests/processes/test_wheel.py",
    "tests/sql/test_access.py",
    "tests/sql/test_upgrades.py",
)
"""They change roles or compare all of them: on one server that the processes share they would see each other's."""


class Files(LoadScopeScheduling):
    """Gives a process a file, or a group of files, at a time: fixtures of a module are set up once."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        groups = {"timed": TIMED, "src": WRITING_IN_SRC}
        if "TEST_DATABASE_URL" in os.environ:
            groups["roles"] = CHANGING_ROLES
        return next((name for name, files in groups.items() if file in files), file)
