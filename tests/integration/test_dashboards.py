"""A real Prometheus scrapes a real service with two pipelines on a real broker: every expression of every panel has
data, every rule can be reckoned with metrics that exist, and nothing alerts while all is well."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any

import pytest

from deploy.dashboards.promql import EXPOSED, metrics_of
from deploy.dashboards.render import rendered
from tests.broker import Broker
from tests.prometheus import SCRAPE_S, Prometheus, Sample, labelled, rules, running_or_skipped
from tests.serving import Service

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

PRODUCER, COUNTS = "makes-clicks", "counts-clicks"
PRODUCES = f"""
version: 1
pipeline: {PRODUCER}
job: {{checkpoint: {{every: 1s}}}}
sources:
  made: {{type: datagen, table: bid, rate: 500}}
sinks:
  clicks: {{type: kafka, brokers: ["BROKERS"], input: made, topic: clicks, delivery: at_least_once}}
"""
READS = f"""
version: 1
pipeline: {COUNTS}
job: {{checkpoint: {{every: 1s}}, parallelism: 2, errors: dlq}}
connections:
  main: {{type: kafka, brokers: ["BROKERS"]}}
sources:
  clicks:
    type: kafka
    connection: main
    topic: clicks
    schema: {{auction: int64, bidder: int64, price: int64, dateTime: timestamp}}
    event_time: {{column: dateTime, out_of_order: 50ms}}
steps:
  dear: {{input: clicks, where: price > 100}}
  counts:
    input: dear
    key: [bidder]
    window: {{tumble: 100ms}}  # of the generator's time, which passes more slowly than ours
    aggregate: {{bids: count(*), spent: sum(price)}}
sinks:
  out: {{type: kafka, connection: main, input: counts, topic: counts, key: [bidder]}}
  rejected: {{type: file, input: "*.errors", path: rejected, format: json}}
"""
SETTLED_S = 60.0
GRAPH_S = 15.0  # as far back as panels are asked


@pytest.fixture(scope="module")
def watched(kafka: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Prometheus, scraping a service whose pipelines have run for a while."""
    folder = tmp_path_factory.mktemp("watched")
    for topic in ("clicks", "counts"):
        kafka.create_topic(topic, 3)
    for name, text in ((PRODUCER, PRODUCES), (COUNTS, READS)):
        (folder / f"{name}.yaml").write_text(text.replace("BROKERS", kafka.bootstrap))
    service = Service(folder)
    with running_or_skipped(rules()) as prometheus:
        service.start()
        try:
            prometheus.scrape("streamproc", service.metrics_address)
            for name in (PRODUCER, COUNTS):
                service.do("apply", f"{name}.yaml", "--yes")
            prometheus.until(
                lambda prometheus: labelled(prometheus.query("streamproc_up == 1"), "pipeline") == {PRODUCER, COUNTS},
                what="both pipelines run",
            )
            yield prometheus
            assert service.stop() == 0, service.log()
        finally:
            service.kill()


def dashboards() -> dict[str, dict[str, Any]]:
    return {name: json.loads(text) for name, text in rendered().items()}


def asked(prometheus: Prometheus, board: dict[str, Any], panel: dict[str, Any], target: dict[str, Any]) -> list[Sample]:
    """What Grafana would get: variables in their places, the time range of a graph or one instant. NaN is no data."""
    several = any(variable.get("includeAll") for variable in board["templating"].get("list", []))
    least = panel.get("interval")
    window = f"{int(least[:-1]) * 60 + SCRAPE_S}s" if least else f"{5 * SCRAPE_S}s"
    expr = target["expr"].replace("$__rate_interval", window).replace("$pipeline", ".+" if several else COUNTS)
    assert "$" not in expr, expr
    if target.get("instant"):
        return [sample for sample in prometheus.query(expr) if not math.isnan(sample.value)]
    return prometheus.range(expr, GRAPH_S)


@pytest.mark.parametrize("name", sorted(dashboards()))
def test_every_panel_has_data(name: str, watched: Prometheus) -> None:
    board = dashboards()[name]
    targets = [(panel, target) for panel in board["panels"] if panel["type"] != "row" for target in panel["targets"]]

    def without_data(prometheus: Prometheus) -> list[str]:
        return [f"{panel['title']}: {t['expr']}" for panel, t in targets if not asked(prometheus, board, panel, t)]

    missing: list[str] = []

    def all_have(prometheus: Prometheus) -> bool:
        missing[:] = without_data(prometheus)
        return not missing

    try:
        watched.until(all_have, SETTLED_S, what=f"panels of {name}")
    except AssertionError as late:
        raise AssertionError("\n".join(missing)) from late
    for panel, target in targets:
        for label in re.findall(r"{{(\w+)}}", target["legendFormat"]):
            assert labelled(asked(watched, board, panel, target), label), (panel["title"], label)


def test_every_alert_looks_at_metrics_that_exist_and_nobody_is_called(watched: Prometheus) -> None:
    for group in watched.rules():
        for rule in group["rules"]:
            assert rule["health"] in ("ok", "unknown"), (rule["name"], rule.get("lastError"))
            for metric in metrics_of(rule["query"]) & EXPOSED:
                assert watched.query(metric), (rule["name"], metric)
    assert [alert for alert in watched.alerts() if alert.labels["severity"] == "page"] == []


def test_both_pipelines_are_green(watched: Prometheus) -> None:
    state = "streamproc_wanted * (1 + (1 - streamproc_ready) * (2 - streamproc_up))"
    assert {(one.labels["pipeline"], one.value) for one in watched.query(state)} == {(PRODUCER, 1), (COUNTS, 1)}
    assert {one.value for one in watched.query("streamproc_ledger_unaccounted_records")} == {0}
