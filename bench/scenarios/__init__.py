"""The scenarios of the bench, one module each. To add one, write its function and list it in :data:`SCENARIOS`.

A scenario takes the :class:`Bench` and returns a :class:`Section`. It raises :class:`LostSaleError` if a sale is lost.
"""

from __future__ import annotations

from collections.abc import Callable

from bench.report import Section
from bench.scenarios.bench import Bench
from bench.scenarios.competitors import competitors
from bench.scenarios.console import console
from bench.scenarios.holds import holds
from bench.scenarios.ledger import large_ledger
from bench.scenarios.mixed import mixed_load
from bench.scenarios.process import process
from bench.scenarios.reconcile import reconcile
from bench.scenarios.spending import spending
from bench.scenarios.steady import steady_rate
from bench.scenarios.user import one_user

SCENARIOS: dict[str, Callable[[Bench], Section]] = {
    "competitors": competitors,
    "mixed": mixed_load,
    "spending": spending,
    "holds": holds,
    "steady": steady_rate,
    "ledger": large_ledger,
    "user": one_user,
    "process": process,
    "reconcile": reconcile,
    "console": console,
}
