"""`make mutants`: remove each safeguard of settlement, spending and the console in turn; the tests have to fail.

A mutant is a copy of the project with one piece of text replaced. The suite runs RUNS times on each mutant, and at
least nine runs in ten have to fail. The last row is the unchanged project, on which every run has to pass.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tools import console_mutants, page_mutants
from tools.mutant import Mutant

PROJECT = Path(__file__).parent.parent
COPIED = (".env.example", "docs", "pyproject.toml", "sql", "tests", "tools", "webhook")
SUITE = (
    "tests/worker/test_batches.py",
    "tests/sql/test_bulk_recording.py",
    "tests/sql/test_sale_of.py",
    "tests/worker/test_claims.py",
    "tests/sql/test_transactions.py",
    "tests/unit/test_reversals.py",
    "tests/unit/test_billing_stories.py",
    "tests/processes/test_races.py",
    "tests/sql/test_settlement.py",
    "tests/sql/test_permutations.py",
    "tests/sql/test_spending_races.py",
    "tests/sql/test_adjust.py",
    "tests/sql/test_assign.py",
    "tests/sql/test_holds.py",
    "tests/sql/test_holds_end.py",
    "tests/sql/test_holds_access.py",
    "tests/sql/test_holds_races.py",
    "tests/sql/test_holds_waits.py",
    "tests/sql/test_holds_property.py",
)
TRANSACTIONS = "sql/20261127000002_transactions.sql"
FACTS = "sql/20261127000003_facts.sql"
CLAIMS = "sql/20261127000004_claims.sql"
LOCKS = "sql/20261127000007_sales_and_locks.sql"
SETTLEMENT = "sql/20261127000008_settlement.sql"
RECORDING = "sql/20261127000009_recording.sql"
BULK_RECORDING = "sql/20261127000010_bulk_recording.sql"
HOLDS = "sql/20261127000013_generation_holds.sql"
SPENDING = "sql/20261127000014_spending.sql"
OPERATOR = "sql/20261127000015_operator.sql"
MINUTES_A_RUN = 15


MUTANTS = (
    Mutant(
        "payment lock",
        LOCKS,
        "perform pg_advisory_xact_lock(locks.key)\n",
        "perform locks.key\n",
    ),
    Mutant(
        "linked set in the lock",
        LOCKS,
        "v_ids := billing.ids_to_lock(p_payment_ids);",
        "v_ids := p_payment_ids;",
    ),
    Mutant(
        "links read under the lock",
        LOCKS,
        "    v_ids text[] := p_payment_ids;\nbegin\n    loop\n        v_locked := v_ids;\n",
        "    v_ids text[];\nbegin\n    loop\n"
        "        v_locked := billing.ids_to_lock(p_payment_ids);\n        p_payment_ids := '{}';\n",
    ),
    Mutant(
        "subscription and customer in the lock of a fact",
        LOCKS,
        "fact ->> 'invoice_id', fact ->> 'subscription_id', fact ->> 'customer_id'\n",
        "fact ->> 'invoice_id'\n",
    ),
    Mutant(
        "subscription and customer in the lock of a sale",
        LOCKS,
        "select unnest(array_remove(array[subscription_id, customer_id], null))\n            from billing.sales",
        "select payment_id\n            from billing.sales",
    ),
    Mutant(
        "sign-ups wait for a claim",
        LOCKS,
        "perform pg_advisory_xact_lock(4242, sign_ups.key)\n",
        "perform sign_ups.key\n",
    ),
    Mutant(
        "level of a claim",
        CLAIMS,
        "order by level desc, case when level = 4 then created end desc nulls last",
        "order by case when level = 4 then created end desc nulls last",
    ),
    Mutant(
        "newest invoice of a subscription",
        CLAIMS,
        "order by level desc, case when level = 4 then created end desc nulls last",
        "order by level desc",
    ),
    Mutant(
        "several claimants own nothing",
        LOCKS,
        "if cardinality(v_sale.claimants) = 1 then",
        "if cardinality(v_sale.claimants) >= 1 then",
    ),
    Mutant(
        "gift cancels the claim of its payment",
        CLAIMS,
        "gift.user_id = claims.user_id and gift.level = -1",
        "gift.user_id = claims.user_id and gift.level = -2",
    ),
    Mutant(
        "payment that names most counts",
        LOCKS,
        '(v_missing, not v_payment.paid, -v_version, v_payment_id collate "C")\n'
        "            < (v_sale_missing, not v_sale.paid, -v_sale_version, v_sale.payment_id)",
        '(not v_payment.paid, -v_version, v_payment_id collate "C")\n'
        "            < (not v_sale.paid, -v_sale_version, v_sale.payment_id)",
    ),
    Mutant(
        "user who exists counts before another",
        LOCKS,
        "v_payment.user_id := coalesce(v_user_id, v_known_user_id, v_payment.user_id);",
        "v_payment.user_id := coalesce(v_user_id, v_payment.user_id);",
    ),
    Mutant(
        "sale is read again after a change",
        RECORDING,
        "                v_sale := billing.sale_of(v_payment_ids);\n            end if;",
        "                null;\n            end if;",
    ),
    Mutant(
        "reversal clears the rows of other users",
        SETTLEMENT,
        "    elsif v_reversal_id is null or v_purchase.is_shared then",
        "    elsif v_reversal_id is null then",
    ),
    Mutant(
        "short answer only if all sales are new",
        RECORDING,
        "if cardinality(v_new) = jsonb_array_length(p_deliveries) then",
        "if cardinality(v_new) > 0 then",
    ),
    Mutant(
        "new sale comes first in its batch",
        BULK_RECORDING,
        "earlier.position < each.position",
        "earlier.position > each.position",
    ),
    Mutant(
        "sales that lose their user take credits back",
        RECORDING,
        "    elsif p_sale.paid then\n",
        "    elsif false then\n",
    ),
    Mutant(
        "failed refund stays failed",
        "webhook/events/reversals.py",
        "version=2 if failed else 1",
        "version=1 if failed else 2",
    ),
    Mutant(
        "customer balance pays no credits",
        "webhook/events/shares.py",
        "+ max(0, end - start)",
        "",
    ),
    Mutant(
        "debt of a switch is not money",
        "webhook/events/shares.py",
        "(_new_debt(source) if has_credit else 0)",
        "0",
    ),
    Mutant(
        "part of a period grants its part",
        "webhook/events/billing_periods.py",
        "else Fraction(line.amount) / full",
        "else WHOLE",
    ),
    Mutant(
        "version guard",
        FACTS,
        "where (excluded.version, -excluded.money_amount) > (known.version, -known.money_amount)",
        "where (excluded.version, -excluded.money_amount) <> (known.version, -known.money_amount)",
    ),
    Mutant(
        "first credits of a price count",
        FACTS,
        "when (p_fact ->> 'priced')::boolean then (",
        "when false then (",
    ),
    Mutant(
        "cap at the money paid",
        SETTLEMENT,
        "least(p_reversed, p_money_amount)",
        "p_reversed",
    ),
    Mutant(
        "reversal of the fact booked last",
        SETTLEMENT,
        "window booking as (order by is_booked desc, reversal_id = p_reversal_id, reversal_id",
        "window booking as (order by is_booked desc, reversal_id",
    ),
    Mutant(
        "waiting reversal gives nothing back",
        SETTLEMENT,
        "v_amount := least(v_amount, 0);",
        "null;",
    ),
    Mutant(
        "user rows in one order",
        RECORDING,
        "    perform billing.lock_users(v_facts);\n",
        "    null;\n",
    ),
    Mutant(
        "user rows of an insert in one order",
        TRANSACTIONS,
        "    where id in (select user_id from entries)\n    order by id\n    for no key update;\n",
        "    where false;\n",
    ),
    Mutant(
        "known reversal keeps a payment from being new",
        BULK_RECORDING,
        "(select 1 from billing.reversals where payment_id = sale.payment_id limit 1),\n",
        "",
    ),
    Mutant(
        "claim of a new sale concerns no other sale",
        BULK_RECORDING,
        "                        (select 1 from billing.sales where customer_id = claim.customer_id limit 1),\n",
        "",
    ),
    Mutant(
        "claim of a new sale is of its user",
        BULK_RECORDING,
        "                    and claim.user_id = sale.user_id\n",
        "",
    ),
    Mutant(
        "new sale is paid",
        BULK_RECORDING,
        "            and sale.paid -- Only a sale has this field.\n",
        "            and sale.paid is not null\n",
    ),
    Mutant(
        "payment of a new sale is in no earlier delivery",
        BULK_RECORDING,
        "cardinality(array_positions(p_ids, sale.payment_id)) = 1",
        "true",
    ),
    Mutant(
        "user row locked for a spend",
        HOLDS,
        "where id = p_user_id\n    for no key update",
        "where id = p_user_id",
    ),
    Mutant(
        "user row locked for a refund of a generation",
        SPENDING,
        "where id = v_generation.user_id\n    for no key update",
        "where id = v_generation.user_id",
    ),
    Mutant(
        "user row locked for a capture or release",
        HOLDS,
        "where id = v_user_id\n    for no key update",
        "where id = v_user_id",
    ),
    Mutant(
        "available credits checked to authorize",
        SPENDING,
        "v_held := billing.held_credits(p_user_id, clock_timestamp());",
        "v_held := 0;",
    ),
    Mutant(
        "available credits checked to reserve",
        SPENDING,
        "v_held := billing.held_credits(p_user_id, v_now);",
        "v_held := 0;",
    ),
    Mutant(
        "available credits checked for a late capture",
        SPENDING,
        "v_held := billing.held_credits(v_hold.user_id, v_now);",
        "v_held := 0;",
    ),
    Mutant(
        "expired hold stops counting",
        HOLDS,
        "            and expires_at > p_at\n",
        "",
    ),
    Mutant(
        "expired hold is reserved again",
        SPENDING,
        "v_hold.captured_at is not null or v_hold.expires_at > v_now",
        "true",
    ),
    Mutant(
        "late capture is a new debit",
        SPENDING,
        "if v_hold.expires_at <= v_now then",
        "if false then",
    ),
    Mutant(
        "clock read under the lock to authorize",
        SPENDING,
        "held_credits(p_user_id, clock_timestamp())",
        "held_credits(p_user_id, now())",
    ),
    Mutant(
        "clock read under the lock to reserve",
        SPENDING,
        "v_now := clock_timestamp();\n    v_held",
        "v_now := now();\n    v_held",
    ),
    Mutant(
        "clock read under the lock to capture",
        SPENDING,
        "v_now := clock_timestamp();\n\n    select",
        "v_now := now();\n\n    select",
    ),
    Mutant(
        "clock read under the lock to release",
        SPENDING,
        "v_now timestamptz := clock_timestamp();",
        "v_now timestamptz := now();",
    ),
    Mutant(
        "new generation id locked",
        HOLDS,
        "perform pg_advisory_xact_lock(20261127, uuid_hash(p_generation_id));",
        "null;",
    ),
    Mutant(
        "reservation visible to an older snapshot",
        SPENDING,
        "    update public.users\n    set email = email\n    where id = p_user_id;\n",
        "",
    ),
    Mutant(
        "ended hold stays as it is",
        HOLDS,
        "when (old.captured_at is not null or old.released_at is not null)",
        "when (false)",
    ),
    Mutant(
        "assignment counts for linked payments",
        LOCKS,
        "where payment_id = any (p_payment_ids) and withdrawn_by is null",
        "where payment_id = p_payment_ids[1] and withdrawn_by is null",
    ),
    Mutant(
        "withdrawn assignment does not count",
        LOCKS,
        "where payment_id = any (p_payment_ids) and withdrawn_by is null",
        "where payment_id = any (p_payment_ids)",
    ),
    Mutant(
        "latest assigned user counts",
        LOCKS,
        "withdrawn_by is null\n        order by number desc\n    loop",
        "withdrawn_by is null\n        order by number\n    loop",
    ),
    Mutant(
        "assigned user counts before claims",
        LOCKS,
        "    v_names_user := v_user_id is not null;\n",
        "    v_names_user := false;\n",
    ),
    Mutant(
        "only the latest assignment is withdrawn",
        OPERATOR,
        """        and number = (
            select max(number)
            from billing.assignments
            where payment_id = any (p_payment_ids) and withdrawn_by is null
        );
""",
        "        and withdrawn_by is null;\n",
    ),
    Mutant(
        "debt refused",
        OPERATOR,
        "where credits < 0 and available < 0",
        "where false",
    ),
    Mutant(
        "user row locked for an adjustment",
        OPERATOR,
        "    where id = p_user_id\n    for no key update;",
        "    where id = p_user_id;",
    ),
)


OF_THE_CONSOLE = (*console_mutants.MUTANTS, *page_mutants.MUTANTS)
ALL = (*MUTANTS, *OF_THE_CONSOLE)


def is_red(mutant: Mutant | None) -> bool:
    """Return whether the suite fails on a copy of the project with the mutant in it."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "project")
        copy.mkdir()
        for name in COPIED:
            source = PROJECT / name
            shutil.copytree(source, copy / name) if source.is_dir() else shutil.copy(source, copy / name)
        if mutant:
            _mutate(copy / mutant.file, mutant)
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-x", "-q", *_suite(mutant)],
            cwd=copy,
            env=os.environ | {"PYTHONPATH": str(copy)},
            capture_output=True,
            timeout=MINUTES_A_RUN * 60,
            check=False,
        )
        if done.returncode not in (0, 1):
            raise SystemExit(f"the suite did not run:\n{done.stdout.decode()}{done.stderr.decode()}")
        return done.returncode == 1


def _suite(mutant: Mutant | None) -> tuple[str, ...]:
    """Return the tests to run: those of the mutant, or all of them on the unchanged project."""
    if mutant:
        return mutant.suite or SUITE
    return (*SUITE, *sorted({file for each in OF_THE_CONSOLE for file in each.suite}))


def _mutate(file: Path, mutant: Mutant) -> None:
    text = file.read_text(encoding="utf-8")
    if text.count(mutant.old) != 1:
        raise SystemExit(f"{mutant.name}: {mutant.file} must contain the text to replace exactly once")
    file.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")


def main(runs: int, names: list[str]) -> bool:
    """Print the table, and return whether every mutant is red and the project is green."""
    print(f"{'removed':<46}{'red':>8}{'seconds':>9}", flush=True)
    passed = True
    for mutant in (*ALL, None):
        name = mutant.name if mutant else "nothing"
        if names and name not in names:
            continue
        started = time.monotonic()
        red = sum(is_red(mutant) for _ in range(runs))
        passed &= red * 10 >= runs * 9 if mutant else red == 0
        print(f"{name:<46}{red:>5}/{runs}{time.monotonic() - started:>9.0f}", flush=True)
    return passed


if __name__ == "__main__":
    sys.exit(not main(int(os.environ.get("RUNS", "10")), sys.argv[1:]))
