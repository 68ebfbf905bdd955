"""Kafka: what comes in from the brokers and goes out to them. Other kinds of sources and sinks show here as well."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard, units

from deploy.dashboards import queries
from deploy.dashboards.layout import Line, Section, lay_out, pipeline_variable
from deploy.dashboards.panels import REACHED, Query, lines, timeline
from deploy.dashboards.promql import OF_PIPELINE, least, most, rate, series, total

BY_NODE = ("pipeline", "step")
NODE = "{{pipeline}} {{step}}"


def build() -> dashboard.Dashboard:
    """The dashboard."""
    return lay_out(
        "streamproc-kafka",
        "Streamproc / Kafka",
        "Sources and sinks: whether brokers answer, how far behind readers are, what is written and how fast.",
        [
            Section("Brokers", [_reached()]),
            Section("Sources", [_lag(), _read()]),
            Section("Sinks", [_written()]),
        ],
        [pipeline_variable(several=True)],
    )


def _reached() -> Line:
    return Line(
        6,
        [
            timeline(
                f"{kind}s reach their brokers",
                f"Whether each {kind.lower()} reaches what it talks to. Unreachable: the pipeline waits and goes on by "
                "itself; look at the brokers and the network between.",
                Query(least(series(f"{kind.lower()}_reachable", OF_PIPELINE), *BY_NODE), NODE),
                REACHED,
            )
            for kind in ("Source", "Sink")
        ],
    )


def _lag() -> Line:
    lag = queries.source_lag(OF_PIPELINE, by=BY_NODE)
    pace = queries.read(OF_PIPELINE, by=BY_NODE)
    return Line(
        8,
        [
            lines(
                "Records behind, by source",
                "Records between each source and the end of its partitions. Growing for minutes: it, or what is "
                "behind it, is too slow.",
                Query(lag, NODE),
            ),
            lines(
                "Records behind, by subtask",
                "The same for each reader. One far above the others: a hot partition, or a slow subtask.",
                Query(total(series("source_lag_records", OF_PIPELINE), *BY_NODE, "subtask"), NODE + " {{subtask}}"),
            ),
            lines(
                "Time behind",
                "How long the records that wait would take at the pace of now. Above minutes and growing: it does not "
                "keep up.",
                Query(f"{lag} / ({pace} > 0)", NODE),
                unit=units.Seconds,
            ),
        ],
    )


def _read() -> Line:
    return Line(
        8,
        [
            lines(
                "Records read",
                "Records a second, by source. 0 with nothing behind: its producer is silent. 0 with records behind: "
                "`streamproc why` says where they are stuck.",
                Query(queries.read(OF_PIPELINE, by=BY_NODE), NODE),
                unit=units.RecordsPerSecond,
            ),
            lines(
                "Bytes read",
                "Payload a second, by source: what the network between brokers and service must carry.",
                Query(total(rate(series("bytes_in_total", OF_PIPELINE)), *BY_NODE), NODE),
                unit=units.BytesPerSecondIEC,
            ),
            lines(
                "Skew of partitions",
                "How far a source's slowest partition is behind its furthest in event time. Growing by a second a "
                "second: that partition brings nothing, and holds windows back. `streamproc why` names it.",
                Query(queries.skew(OF_PIPELINE, by=BY_NODE), NODE),
                unit=units.Seconds,
            ),
        ],
    )


def _written() -> Line:
    return Line(
        8,
        [
            lines(
                "Records written",
                "Records a second handed to the brokers, by sink. Exactly-once readers see them with a checkpoint.",
                Query(queries.written(OF_PIPELINE, by=BY_NODE), NODE),
                unit=units.RecordsPerSecond,
            ),
            lines(
                "Latency to the sink (p95)",
                "From a row's event time to its being taken by this sink, 95 of 100 sooner.",
                Query(queries.latency(0.95, OF_PIPELINE, by=BY_NODE), NODE),
                unit=units.Seconds,
                min_interval="1m",
            ),
            lines(
                "Transactions waiting for their commit",
                "Prepared transactions of exactly-once sinks. Above 0 for minutes: the broker's transaction "
                "coordinator does not answer; it drops them after `transaction_timeout`.",
                Query(most(series("uncommitted_transactions", OF_PIPELINE), "pipeline"), "{{pipeline}}"),
            ),
        ],
    )
