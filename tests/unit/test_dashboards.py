"""The dashboards and alerts as files: what Grafana and Prometheus will read is what the code says, and names nothing
that the code does not have."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

import streamproc
from deploy.dashboards.promql import EXPOSED, OF_PROMETHEUS, PROCESS, UnknownMetric, metrics_of, series
from deploy.dashboards.render import DIRECTORY, rendered
from streamproc.observability.metric_table import METRICS, PREFIX
from streamproc.observability.metrics import MetricRegistry
from tests.prometheus import promtool

ROOT = Path(streamproc.__file__).parent.parent
PROMETHEUS = ROOT / "deploy" / "prometheus"
GRAFANA = ROOT / "deploy" / "grafana"
RUNBOOKS = ROOT / "docs" / "runbooks.md"

TEXTS = rendered()
DASHBOARDS: dict[str, dict[str, Any]] = {name: json.loads(text) for name, text in TEXTS.items()}
ALERTS: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"] for rule in group["rules"]
]
KNOWN = EXPOSED | PROCESS | OF_PROMETHEUS

_OUR_NAMES = re.compile(rf"\b{PREFIX}[a-z_]+\b")
_VARIABLES = re.compile(r"\$\{?(\w+)")
_GRAFANAS_OWN = {"__rate_interval", "__interval", "__range", "__value", "__url_time_range"}

every_dashboard = pytest.mark.parametrize("name", sorted(DASHBOARDS))
every_alert = pytest.mark.parametrize("alert", ALERTS, ids=[alert["alert"] for alert in ALERTS])


def panels(name: str) -> list[dict[str, Any]]:
    """Without rows."""
    return [panel for panel in DASHBOARDS[name]["panels"] if panel["type"] != "row"]


def expressions(name: str) -> Iterator[str]:
    for panel in panels(name):
        yield from (target["expr"] for target in panel["targets"])
    yield from (annotation["expr"] for annotation in DASHBOARDS[name]["annotations"]["list"])


# --- dashboards


def test_what_is_committed_is_what_the_code_renders() -> None:
    committed = {path.name: path.read_text() for path in DIRECTORY.glob("*.json")}
    assert committed == TEXTS, "run `make dashboards`"


@every_dashboard
def test_the_types_of_grafana_read_back_what_was_rendered(name: str) -> None:
    register_default_plugins()
    again = json.loads(json.dumps(Dashboard.from_json(DASHBOARDS[name]), cls=JSONEncoder))
    assert again == DASHBOARDS[name]


@every_dashboard
def test_panels_have_numbers_of_their_own_and_do_not_overlap(name: str) -> None:
    everything = DASHBOARDS[name]["panels"]
    assert len({panel["id"] for panel in everything}) == len(everything)
    for panel in everything:
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
    for one, other in itertools.combinations((panel["gridPos"] for panel in everything), 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below, (one, other)


@every_dashboard
def test_every_panel_says_what_it_means_and_has_a_unit(name: str) -> None:
    for panel in panels(name):
        assert len(panel["description"]) > 30, panel["title"]
        assert panel["description"].endswith("."), panel["title"]
        if panel["type"] in ("timeseries", "stat"):
            assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
    titles = [panel["title"] for panel in panels(name)]
    assert len(set(titles)) == len(titles)


@every_dashboard
def test_every_variable_is_defined_and_used(name: str) -> None:
    defined = {variable["name"] for variable in DASHBOARDS[name]["templating"].get("list", [])}
    used = {found for expr in expressions(name) for found in _VARIABLES.findall(expr)}
    assert used - _GRAFANAS_OWN == defined


@every_dashboard
def test_every_query_goes_to_the_provisioned_datasource(name: str) -> None:
    (source,) = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text())["datasources"]
    wanted = {"type": source["type"], "uid": source["uid"]}
    board = DASHBOARDS[name]
    named = [*panels(name), *board["annotations"]["list"], *board["templating"].get("list", [])]
    named += [target for panel in panels(name) for target in panel["targets"]]
    assert [one["datasource"] for one in named] == [wanted] * len(named)


@every_dashboard
def test_metrics_of_a_dashboard_are_in_the_codes_table(name: str) -> None:
    for expr in expressions(name):
        assert metrics_of(expr)
        assert metrics_of(expr) <= KNOWN, expr
    for variable in DASHBOARDS[name]["templating"].get("list", []):
        assert set(_OUR_NAMES.findall(variable["query"])) <= EXPOSED


def test_links_lead_to_dashboards_that_exist() -> None:
    uids = [board["uid"] for board in DASHBOARDS.values()]
    assert len(set(uids)) == len(uids)
    for text in TEXTS.values():
        assert set(re.findall(r'"/d/([\w-]+)', text)) <= set(uids)
    tags = [set(board["tags"]) for board in DASHBOARDS.values()]
    assert all(set(link["tags"]) <= own for own in tags for board in DASHBOARDS.values() for link in board["links"])


def test_the_provisioned_folder_is_the_one_that_compose_mounts() -> None:
    (provider,) = yaml.safe_load((GRAFANA / "provisioning/dashboards/streamproc.yml").read_text())["providers"]
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    mounts = dict(reversed(volume.split(":")[:2]) for volume in compose["services"]["grafana"]["volumes"])
    assert (ROOT / mounts[provider["options"]["path"]]).resolve() == DIRECTORY.resolve()


def test_every_metric_is_shown_on_some_dashboard() -> None:
    shown = {metric for name in DASHBOARDS for expr in expressions(name) for metric in metrics_of(expr)}
    table = {PREFIX + metric.name for metric in METRICS}
    assert {name for name in table if not any(metric.startswith(name) for metric in shown)} == set()


# --- expressions


@pytest.mark.parametrize(
    ("expression", "metrics"),
    [
        ("up", {"up"}),
        ('sum by (step) (rate(a_total{step="b", c=~"d|e"}[5m])) > 0.5', {"a_total"}),
        ("a and on (x, y) b unless ignoring (z) c offset 5m", {"a", "b", "c"}),
        ("a / on (x) group_left (b) c", {"a", "c"}),
        ("histogram_quantile(0.99, sum by (le) (rate(a_bucket[$__rate_interval])))", {"a_bucket"}),
        ("a < inf or NaN", {"a"}),
        ("a > bool 1e9", {"a"}),
        ("time() - max(a) by (b)", {"a"}),
        ('label_replace(a, "b", "c $1", "d", "(e)")', {"a"}),
    ],
)
def test_metrics_are_found_in_an_expression(expression: str, metrics: set[str]) -> None:
    assert metrics_of(expression) == metrics


def test_an_expression_cannot_be_written_with_a_metric_that_is_not_there() -> None:
    with pytest.raises(UnknownMetric, match="streamproc_records_total"):
        series("records_total")
    with pytest.raises(UnknownMetric, match="end_to_end_latency_seconds"):
        series("end_to_end_latency_seconds")  # a histogram is stored as its buckets, sum and count


def test_metrics_of_the_process_are_exposed() -> None:
    text = MetricRegistry().render().decode()
    assert {name for name in PROCESS if f"\n{name} " not in text} == set()


# --- alerts


@every_alert
def test_metrics_of_an_alert_are_in_the_codes_table(alert: dict[str, Any]) -> None:
    assert metrics_of(alert["expr"])
    assert metrics_of(alert["expr"]) <= KNOWN
    assert set(_OUR_NAMES.findall(json.dumps(alert["annotations"]))) <= EXPOSED


@every_alert
def test_an_alert_says_who_is_wanted_what_is_wrong_and_what_to_do(alert: dict[str, Any]) -> None:
    assert alert["labels"] in ({"severity": s, "service": "streamproc"} for s in ("page", "ticket"))
    assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}
    assert alert["annotations"]["runbook_url"] == f"docs/runbooks.md#{alert['alert'].lower()}"
    if "pipeline" in alert["expr"] or alert["expr"].startswith("streamproc_"):
        assert "{{ $labels.pipeline }}" in alert["annotations"]["summary"]


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    sections = re.split(r"^## ", RUNBOOKS.read_text(), flags=re.MULTILINE)[1:]
    runbooks = {section.partition("\n")[0]: section for section in sections}
    assert sorted(runbooks) == sorted(alert["alert"] for alert in ALERTS)
    for name, text in runbooks.items():
        parts = re.findall(r"^\*\*(.+?)\*\*", text, re.MULTILINE)
        assert parts == ["What it means.", "What users see.", "What to look at.", "What to do.", "When to escalate."], (
            name
        )


def test_panels_that_runbooks_name_exist() -> None:
    by_title = {board["title"].removeprefix("Streamproc / "): name for name, board in DASHBOARDS.items()}
    named = re.findall(r"\*([^*\n]+)\* › \*([^*\n]+)\*", RUNBOOKS.read_text())
    assert named
    for board, panel in named:
        assert panel in {panel["title"] for panel in panels(by_title[board])}, (board, panel)


def test_metrics_of_the_docs_are_in_the_codes_table() -> None:
    names = EXPOSED | {PREFIX + metric.name for metric in METRICS}
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        found = {name for name in _OUR_NAMES.findall(page.read_text()) if not name.endswith("_")}
        assert found <= names, page.name


def test_prometheus_takes_the_configuration_and_the_rules() -> None:
    for arguments in (("config", "prometheus.yml"), ("rules", "alerts.yml")):
        done = promtool("check", arguments[0], str(PROMETHEUS / arguments[1]))
        assert done.returncode == 0, done.stdout + done.stderr


def test_alerts_fire_for_what_is_broken_and_for_nothing_else() -> None:
    file = PROMETHEUS / "alerts_test.yml"
    done = promtool("test", "rules", str(file))
    assert done.returncode == 0, done.stdout + done.stderr
    tested = set(re.findall(r'labels: \'ALERTS\{alertname="(\w+)"', file.read_text()))
    assert tested == {alert["alert"] for alert in ALERTS}
