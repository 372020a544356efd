"""The lines of the bench, a module each: to add one, write it and name it in :data:`LINES`.

A line is a function that takes the :class:`Bench` and returns a :class:`Section`; a round that loses a sale raises.
"""

from __future__ import annotations

from collections.abc import Callable

from bench.lines.bench import Bench
from bench.lines.ledger import large_ledger
from bench.lines.process import process
from bench.lines.reconcile import reconcile
from bench.lines.rivals import rivals
from bench.lines.steady import steady_rate
from bench.lines.user import one_user
from bench.report import Section

LINES: dict[str, Callable[[Bench], Section]] = {
    "rivals": rivals,
    "steady": steady_rate,
    "ledger": large_ledger,
    "user": one_user,
    "process": process,
    "reconcile": reconcile,
}
