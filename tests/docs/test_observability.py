"""docs/reference/metrics.md, the dashboard and the alerts name metrics that exist."""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from support.databases import Server
from support.ledger_queries import new_user
from support.project import DOCS
from support.worker import sale, working

REFERENCE = DOCS / "reference"
PAGE = REFERENCE / "metrics.md"
HEADING = "| metric | type | labels | |\n| --- | --- | --- | --- |\n"
END = "<!-- end of the table -->"

TARGET_LABELS = {"job", "instance"}
"""Prometheus adds these labels to every metric when it scrapes a target."""

Labels = dict[str, set[str]]


@pytest.fixture(scope="module")
def exposed(server: Server, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The metrics that a worker with two processes exposes after a few deliveries."""
    with (
        server.new_database(template) as database,
        working(database.url, Path(tmp_path_factory.mktemp("worker"))) as worker,
    ):
        with psycopg.connect(database.admin_url, autocommit=True) as admin:
            user_id = new_user(admin)
        worker.deliver(sale(user_id, "one"))
        worker.deliver(sale("nobody", "two"))
        worker.deliver({"id": "evt_1", "type": "customer.created", "data": {"object": {}}})
        with worker.connected() as connection:
            connection.request("GET", "/metrics")
            yield connection.getresponse().read().decode()


@pytest.fixture(scope="module")
def labels(exposed: str) -> Labels:
    """The labels of each exposed series."""
    found: Labels = defaultdict(set)
    for name, inside in re.findall(r"^(webhook_\w+)(?:\{(.*)\})? ", exposed, re.MULTILINE):
        found[name].update(re.findall(r'(\w+)="', inside))
    return found


def queries(node: Any) -> Iterator[str]:
    """Yield every PromQL expression of a dashboard or of rules."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("expr", "definition") and isinstance(value, str):
                yield value
            else:
                yield from queries(value)
    elif isinstance(node, list):
        for each in node:
            yield from queries(each)


def dashboard() -> Any:
    return json.loads((REFERENCE / "grafana-dashboard.json").read_text(encoding="utf-8"))


def rules() -> list[dict[str, Any]]:
    [group] = yaml.safe_load((REFERENCE / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    assert set(group) == {"name", "rules"}
    return list(group["rules"])


def alert_queries() -> list[str]:
    return [rule["expr"] for rule in rules()]


@pytest.mark.parametrize("query", [*queries(dashboard()), *alert_queries()])
def test_query_uses_exposed_metrics_and_labels(query: str, labels: Labels) -> None:
    """The queries are those of the dashboard and the alerts."""
    names = set(re.findall(r"\bwebhook_\w+", query))
    assert names
    assert names <= labels.keys()
    known = TARGET_LABELS.union(*(labels[name] for name in names))
    grouped = [label for inside in re.findall(r"\bby \(([^)]*)\)", query) for label in re.split(r",\s*", inside)]
    matched = re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"', query)
    assert {*grouped, *matched} <= known


def test_every_metric_is_on_the_dashboard(labels: Labels) -> None:
    shown = " ".join(queries(dashboard()))
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in labels}
    assert [name for name in families if name not in shown] == []


def test_dashboard_can_be_imported() -> None:
    """The import prompts for the data source, and every panel uses the chosen one."""
    board = dashboard()
    assert board["schemaVersion"] >= 36
    assert [(each["name"], each["type"]) for each in board["templating"]["list"]] == [
        ("datasource", "datasource"),
        ("job", "query"),
    ]
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        assert panel["title"]
        assert {"x", "y", "w", "h"} == set(panel["gridPos"])
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


def test_dashboard_panels_do_not_overlap() -> None:
    positions = [panel["gridPos"] for panel in dashboard()["panels"]]
    cells = [
        (x, y)
        for position in positions
        for x in range(position["x"], position["x"] + position["w"])
        for y in range(position["y"], position["y"] + position["h"])
    ]
    assert len(cells) == len(set(cells))


def test_alerts_have_the_required_fields() -> None:
    """Each has a name, an expression, a duration, a severity and a description of the response."""
    for rule in rules():
        assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
        assert re.fullmatch(r"\d+m", rule["for"])
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert set(rule["annotations"]) == {"summary", "description"}


def test_alerts_of_the_page_match_the_rules_file() -> None:
    """The order is the same."""
    listed = re.findall(r"^\| `(Webhook\w+)` ", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert listed == [rule["alert"] for rule in rules()]


def test_metrics_table_matches_the_exposed_metrics(exposed: str, labels: Labels) -> None:
    """Types, labels and help texts match, too."""
    rows = []
    for family, text in re.findall(r"^# HELP (\w+) (.*)$", exposed, re.MULTILINE):
        kind = re.search(rf"^# TYPE {family} (\w+)$", exposed, re.MULTILINE)
        assert kind
        found = labels[family] | labels[f"{family}_count"]
        rows.append(f"| `{family}` | {kind[1]} | {', '.join(f'`{each}`' for each in sorted(found))} | {text} |\n")
    before, heading, rest = PAGE.read_text(encoding="utf-8").partition(HEADING)
    table, end, after = rest.partition(END)
    if "UPDATE_DOCS" in os.environ:
        PAGE.write_text(before + heading + "".join(sorted(rows)) + end + after, encoding="utf-8")
        return
    assert table == "".join(sorted(rows))
