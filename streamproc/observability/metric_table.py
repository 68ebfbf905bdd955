"""One table names every metric there is; dashboards, alerts and docs may use no other.

Names, units and labels are part of the contract with users.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

PREFIX: Final = "streamproc_"

Kind = Literal["counter", "gauge", "histogram"]
Collector = Counter | Gauge | Histogram

SUBTASK: Final = ("pipeline", "step", "subtask")
PIPELINE: Final = ("pipeline",)

_LATENCY_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_CHECKPOINT_S: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0)
_LOOP_LAG_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


@dataclass(frozen=True, slots=True)
class Metric:
    """One row of the table. `name` is as exposed, without the prefix."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    help: str
    buckets: tuple[float, ...] = ()

    def collector(self, registry: CollectorRegistry) -> Collector:
        """Register it; prometheus_client itself puts `_total` behind a counter's name."""
        name = PREFIX + self.name
        match self.kind:
            case "counter":
                return Counter(name, self.help, self.labels, registry=registry)
            case "gauge":
                return Gauge(name, self.help, self.labels, registry=registry)
            case "histogram":
                return Histogram(name, self.help, self.labels, registry=registry, buckets=self.buckets)


METRICS: Final[tuple[Metric, ...]] = (
    Metric("records_in_total", "counter", SUBTASK, "Records taken in: read by a source, received by a step or sink."),
    Metric("records_out_total", "counter", SUBTASK, "Records handed on: to channels, or by a sink to the outside."),
    Metric("bytes_in_total", "counter", SUBTASK, "Bytes of payload read by a source."),
    Metric("late_records_total", "counter", SUBTASK, "Records late for every window they belong to."),
    Metric("error_records_total", "counter", SUBTASK, "Records that could not be decoded or processed."),
    Metric(
        "filtered_records_total",
        "counter",
        SUBTASK,
        "Records left out as they should be: a condition, a duplicate, no partner, a tombstone.",
    ),
    Metric(
        "ledger_unaccounted_records",
        "gauge",
        ("pipeline", "step"),
        "Records in, less those whose fate is known, as of the last completed checkpoint. Not 0: lost (above), "
        "or doubled (below).",
    ),
    Metric(
        "watermark_seconds", "gauge", SUBTASK, "Watermark, seconds since the epoch. NaN: none yet. +Inf: end of input."
    ),
    Metric("watermark_lag_seconds", "gauge", SUBTASK, "Processing time minus watermark. NaN: no watermark yet."),
    Metric(
        "watermark_skew_seconds",
        "gauge",
        SUBTASK,
        "Of a source: event time between the fastest and the slowest split that counts. +Inf: one has had no row yet.",
    ),
    Metric(
        "split_silent_seconds",
        "gauge",
        SUBTASK,
        "Of a source: for how long the split that holds its watermark back has brought no row.",
    ),
    Metric("source_lag_records", "gauge", SUBTASK, "Records between a source and the end of its splits."),
    Metric("source_reachable", "gauge", SUBTASK, "1 while what a source reads from answers, else 0."),
    Metric("sink_reachable", "gauge", SUBTASK, "1 while what a sink writes to answers, else 0."),
    Metric(
        "busy_seconds_total",
        "counter",
        SUBTASK,
        "Time a node's subtask spent processing; nodes of one chain share subtasks. Waiting for a free thread is idle. "
        "Busy, backpressured and idle together are all the time it ran.",
    ),
    Metric(
        "backpressured_seconds_total",
        "counter",
        SUBTASK,
        "Time a node's subtask spent waiting for room downstream, or for its sink.",
    ),
    Metric("idle_seconds_total", "counter", SUBTASK, "Time a node's subtask spent waiting for input."),
    Metric("channel_rows", "gauge", SUBTASK, "Rows waiting in a subtask's input channels."),
    Metric("state_bytes", "gauge", SUBTASK, "Size of a subtask's local state."),
    Metric(
        "end_to_end_latency_seconds",
        "histogram",
        SUBTASK,
        "From a row's event time to its being taken by a sink: of each batch the oldest and the newest row.",
        _LATENCY_S,
    ),
    Metric(
        "checkpoint_duration_seconds",
        "histogram",
        PIPELINE,
        "From a checkpoint's trigger to its completion.",
        _CHECKPOINT_S,
    ),
    Metric("checkpoint_size_bytes", "gauge", PIPELINE, "Bytes of all files of the last completed checkpoint."),
    Metric(
        "checkpoint_alignment_seconds",
        "gauge",
        PIPELINE,
        "Longest wait of a subtask for its last barrier, in the last completed checkpoint.",
    ),
    Metric("checkpoints_total", "counter", ("pipeline", "result"), "Checkpoints that ended, as completed or aborted."),
    Metric("last_completed_checkpoint_id", "gauge", PIPELINE, "Number of the newest completed checkpoint."),
    Metric(
        "last_completed_checkpoint_timestamp_seconds",
        "gauge",
        PIPELINE,
        "When the newest checkpoint was completed, seconds since the epoch.",
    ),
    Metric("restarts_total", "counter", PIPELINE, "Restarts after a failure."),
    Metric("uncommitted_transactions", "gauge", PIPELINE, "Prepared transactions that wait for their commit."),
    Metric("up", "gauge", PIPELINE, "1 while the pipeline runs, else 0."),
    Metric("wanted", "gauge", PIPELINE, "1 while the pipeline is wanted to run, else 0."),
    Metric("ready", "gauge", PIPELINE, "1 while the pipeline does what is wanted of it, else 0."),
    Metric(
        "event_loop_lag_seconds",
        "histogram",
        (),
        "How late the event loop wakes a timer: time during which it served nobody.",
        _LOOP_LAG_S,
    ),
)


def metric_table() -> str:
    """The table as Markdown, for the docs."""
    rows = [f"| `{PREFIX}{m.name}` | {m.kind} | {', '.join(m.labels) or '–'} | {m.help} |" for m in METRICS]
    return "\n".join(["| metric | kind | labels | meaning |", "|---|---|---|---|", *rows]) + "\n"
