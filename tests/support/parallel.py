"""The groups of test files that one process of a parallel run executes one after the other."""

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
"""These files measure time or memory. Two of them at once would distort each other's measurements."""

WRITING_IN_SRC = ("tests/docs/test_spending_ts.py", "tests/docs/test_types.py")
"""These files write a file below src/, next to the ones that tsc and prettier check."""

CHANGING_ROLES = (
    "tests/commands/test_dev.py",
    "tests/commands/test_doctor.py",
    "tests/commands/test_migrate.py",
    "tests/processes/test_wheel.py",
    "tests/sql/test_access.py",
    "tests/sql/test_upgrades.py",
)
"""These files change or compare all roles. On a shared server, they would see each other's changes."""


class Files(LoadScopeScheduling):
    """Assigns whole files, or groups of files, to a process, so a module's fixtures are set up once."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        groups = {"timed": TIMED, "src": WRITING_IN_SRC}
        if "TEST_DATABASE_URL" in os.environ:
            groups["roles"] = CHANGING_ROLES
        return next((name for name, files in groups.items() if file in files), file)
