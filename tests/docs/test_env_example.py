""".env.example lists every variable that the program reads."""

from __future__ import annotations

import ast
import re

from support.project import PROJECT
from webhook.settings import (
    read_dev_settings,
    read_migration_database_url,
    read_operator_database_url,
    read_server_settings,
    read_settings,
)

LINES = (PROJECT / ".env.example").read_text(encoding="utf-8").splitlines()
VALUES = dict(found.groups() for line in LINES if (found := re.fullmatch(r"(?:# ?)?([A-Z_]+)=(.*)", line)))
VARIABLE = re.compile(r"[A-Z]+(_[A-Z]+)*")


def variables_of_settings() -> set[str]:
    """Return the variable names in webhook/settings.py, the only module that reads the environment."""
    tree = ast.parse((PROJECT / "webhook" / "settings.py").read_text(encoding="utf-8"))
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return {text for text in texts if VARIABLE.fullmatch(text)}


def test_env_example_lists_the_variables_of_the_settings() -> None:
    set_by_make = {"MAKELEVEL"}
    assert set(VALUES) == variables_of_settings() - set_by_make


def test_env_example_values_are_valid() -> None:
    """The values of optional variables are checked, too."""
    assert read_settings(VALUES).stripe
    assert read_server_settings(VALUES).workers
    assert read_dev_settings(VALUES).database_url
    assert read_operator_database_url(VALUES) == VALUES["OPERATOR_DATABASE_URL"]
    assert read_migration_database_url(VALUES) == VALUES["MIGRATION_DATABASE_URL"]


def test_env_example_sets_only_the_required_variables() -> None:
    """The optional variables are commented out."""
    required = [line.partition("=")[0] for line in LINES if line and not line.startswith("#")]
    assert required == ["DATABASE_URL", "STRIPE_WEBHOOK_SECRET", "STRIPE_LIVEMODE"]
