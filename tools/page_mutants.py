"""The safeguards of the console's pages and actions, as in :mod:`tools.console_mutants`."""

from __future__ import annotations

from tools.mutant import Mutant

PAGES = "webhook/console/pages"
CONTENT = "webhook/console/content"
TEMPLATES = "webhook/console/templates/pages"
BULK_RETRY = "webhook/actions/bulk_retry.py"
CURSORS = f"{CONTENT}/cursors.py"

ACTIONS = ("tests/worker/test_console_pages_actions.py",)
READING = ("tests/worker/test_console_pages_reading.py",)
ADVICE = ("tests/worker/test_console_pages_advice.py",)
ASSIGNMENTS = ("tests/sql/test_assign.py",)

MUTANTS = (
    Mutant(
        "console limit of an assignment",
        f"{PAGES}/assign.py",
        "        most_credits=console.max_credits,",
        "        most_credits=None,",
        ACTIONS,
    ),
    Mutant(
        "limit counts what an assignment moves",
        "sql/20261127000015_operator.sql",
        "greatest(v_given, v_taken, p_credits) > p_most_credits",
        "p_credits > p_most_credits",
        ASSIGNMENTS,
    ),
    Mutant(
        "debt of an adjustment allowed explicitly",
        f"{PAGES}/adjust.py",
        'allow_debt=request.form.get("allow_debt") == "yes"',
        "allow_debt=True",
        ACTIONS,
    ),
    Mutant(
        "preview fixes the id of an adjustment",
        f"{PAGES}/adjust.py",
        "forms.action_id(request.form)",
        "forms.new_action_id()",
        ACTIONS,
    ),
    Mutant(
        "preview fixes the id of an assignment",
        f"{PAGES}/assign.py",
        "forms.action_id(request.form)",
        "forms.new_action_id()",
        ACTIONS,
    ),
    Mutant(
        "link fills in no reason",
        f"{PAGES}/assign.py",
        '_LINKED = ("name", "user", "withdraw")',
        '_LINKED = ("name", "user", "withdraw", "reason")',
        ACTIONS,
    ),
    Mutant("payloads for operators", f"{PAGES}/parked.py", "if console.me.role == OPERATOR:", "if True:", READING),
    Mutant(
        "forms of actions for operators",
        f"{PAGES}/assign.py",
        '@console.view("/console/assign", role=OPERATOR)',
        '@console.view("/console/assign")',
        ACTIONS,
    ),
    Mutant(
        "buttons for operators",
        f"{TEMPLATES}/_parts.html",
        "{% set ours = steps if may_act else",
        "{% set ours = steps if true else",
        READING,
    ),
    Mutant(
        "signed running balance",
        CURSORS,
        "_signer(console, user_id).unsign(text).decode()",
        'text.rpartition(".")[0]',
        READING,
    ),
    Mutant("running balance of one user", CURSORS, ".{user_id}", "", READING),
    Mutant("payload cut at 64 KiB", f"{CONTENT}/stories.py", "whole[:MOST_PAYLOAD]", "whole", ADVICE),
    Mutant(
        "bulk retry of what was parked before",
        "sql/queries/console_parked.sql",
        "or parked_at <= %(until)s",
        "or %(until)s is not null",
        ACTIONS,
    ),
    Mutant(
        "bulk retry continues after the last event",
        BULK_RETRY,
        "after=Position(event.parked_at, event.id)",
        "after=bulk.after",
        ACTIONS,
    ),
    Mutant("bulk retry ends after its time", BULK_RETRY, "if clock() >= end or", "if", ACTIONS),
    Mutant(
        "marks of a reference visible",
        f"{TEMPLATES}/_stories.html",
        "{{ event.user_reference | outside }}",
        "{{ event.user_reference }}",
        READING,
    ),
    Mutant(
        "marks of a payload visible",
        f"{TEMPLATES}/story.html",
        "{{ payload.text | outside_lines }}",
        "{{ payload.text }}",
        READING,
    ),
)
