"""One table names every metric there is; dashboards, alerts and docs may use no other.

Names, units and labels are part of the contract with users. Label values are bounded by the size of
the pipeline: never a key, a payload or an error's text.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from operators.element import WATERMARK_MAX, WATERMARK_MIN

PREFIX: Final = "streamproc_"
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

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

CheckpointResult = Literal["completed", "aborted"]


class MetricRegistry:
    """Every metric of one process. Not the library's global registry, so that jobs in one test
    process, or an embedding program's own metrics, do not mix."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a `_created` series beside each counter would double their number
        self.clock = clock
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        self._collectors = {metric.name: metric.collector(self._registry) for metric in METRICS}
        self._pipelines: list[PipelineMetrics] = []

    def add(self, pipeline: PipelineMetrics) -> None:
        """Its figures are asked for at each scrape."""
        self._pipelines.append(pipeline)

    def drop(self, name: str, *labels: str) -> None:
        """Expose one series no longer, if it is there."""
        self._collectors[name].remove(*labels)

    def counter(self, name: str, *labels: str) -> Counter:
        """The series of `labels`, in the table's order."""
        found = self._bind(name, labels)
        assert isinstance(found, Counter), name
        return found

    def gauge(self, name: str, *labels: str) -> Gauge:
        """The series of `labels`, in the table's order."""
        found = self._bind(name, labels)
        assert isinstance(found, Gauge), name
        return found

    def histogram(self, name: str, *labels: str) -> Histogram:
        """The series of `labels`, in the table's order."""
        found = self._bind(name, labels)
        assert isinstance(found, Histogram), name
        return found

    def _bind(self, name: str, labels: tuple[str, ...]) -> Collector:
        collector = self._collectors[name]
        return collector.labels(*labels) if labels else collector

    def forget(self, pipeline: str) -> None:
        """Take every series of the pipeline away: it is no more. Nothing may be reported of it afterwards."""
        self._pipelines = [each for each in self._pipelines if each.name != pipeline]
        for metric in METRICS:
            if "pipeline" in metric.labels:
                self._collectors[metric.name].remove_by_labels({"pipeline": pipeline})

    @property
    def event_loop_lag(self) -> Histogram:
        """Seconds."""
        return self.histogram("event_loop_lag_seconds")

    async def scrape(self) -> bytes:
        """The text format of Prometheus, every figure as it is now. On the event loop that the jobs run on."""
        for pipeline in self._pipelines:
            pipeline.refresh()
        return await asyncio.to_thread(self.render)

    def render(self) -> bytes:
        """As `scrape`, with the figures as last reported. CPU work: call it on a worker thread."""
        return generate_latest(self._registry)


class SubtaskMetrics:
    """One subtask's series, bound once so that a batch costs no look-up.

    The counters every subtask has exist from the start, so that a rate sees their first increase. The others
    appear with their first use: a step has no source lag, and a zero would claim it has caught up.
    """

    def __init__(self, registry: MetricRegistry, pipeline: str, step: str, subtask: int) -> None:
        self._registry = registry
        self._labels = (pipeline, step, str(subtask))
        self.records_in = registry.counter("records_in_total", *self._labels)
        self.records_out = registry.counter("records_out_total", *self._labels)
        self.late_records = registry.counter("late_records_total", *self._labels)
        self.error_records = registry.counter("error_records_total", *self._labels)
        self.filtered_records = registry.counter("filtered_records_total", *self._labels)
        self.busy_seconds = registry.counter("busy_seconds_total", *self._labels)
        self.backpressured_seconds = registry.counter("backpressured_seconds_total", *self._labels)
        self.idle_seconds = registry.counter("idle_seconds_total", *self._labels)
        self._watermark_ms: int = WATERMARK_MIN

    @cached_property
    def bytes_in(self) -> Counter:
        """Of a source."""
        return self._registry.counter("bytes_in_total", *self._labels)

    @cached_property
    def source_lag_records(self) -> Gauge:
        """Of a source."""
        return self._registry.gauge("source_lag_records", *self._labels)

    @cached_property
    def watermark_skew_seconds(self) -> Gauge:
        """Of a source with event time."""
        return self._registry.gauge("watermark_skew_seconds", *self._labels)

    @cached_property
    def split_silent_seconds(self) -> Gauge:
        """Of a source with event time."""
        return self._registry.gauge("split_silent_seconds", *self._labels)

    @cached_property
    def source_reachable(self) -> Gauge:
        """Of a source."""
        return self._registry.gauge("source_reachable", *self._labels)

    @cached_property
    def sink_reachable(self) -> Gauge:
        """Of a sink."""
        return self._registry.gauge("sink_reachable", *self._labels)

    @cached_property
    def channel_rows(self) -> Gauge:
        """Of a subtask with input channels."""
        return self._registry.gauge("channel_rows", *self._labels)

    @cached_property
    def state_bytes(self) -> Gauge:
        """Of a stateful subtask."""
        return self._registry.gauge("state_bytes", *self._labels)

    @cached_property
    def end_to_end_latency(self) -> Histogram:
        """Of a sink; seconds."""
        return self._registry.histogram("end_to_end_latency_seconds", *self._labels)

    @cached_property
    def _watermark(self) -> Gauge:
        # Its lag is reckoned when somebody asks: it must grow while the watermark stands still.
        self._registry.gauge("watermark_lag_seconds", *self._labels).set_function(self._lag_s)
        return self._registry.gauge("watermark_seconds", *self._labels)

    def set_watermark(self, watermark_ms: int) -> None:
        """Milliseconds since the epoch, `WATERMARK_MIN` and `WATERMARK_MAX` included."""
        self._watermark_ms = watermark_ms
        self._watermark.set(_seconds(watermark_ms))

    def ended(self) -> None:
        """Nothing runs any more: what was true of a moment is exposed no longer. Counters stay."""
        for metric in METRICS:
            if metric.kind == "gauge" and metric.labels == SUBTASK:
                self._registry.drop(metric.name, *self._labels)
        for name in [name for name, used in self.__dict__.items() if isinstance(used, Gauge)]:
            del self.__dict__[name]
        self._watermark_ms = WATERMARK_MIN

    @property
    def has_watermark(self) -> bool:
        """Whether the series exists."""
        return "_watermark" in self.__dict__

    def spent(self, busy: float, backpressured: float, idle: float) -> None:
        """So many more seconds of each."""
        if busy:
            self.busy_seconds.inc(busy)
        if backpressured:
            self.backpressured_seconds.inc(backpressured)
        if idle:
            self.idle_seconds.inc(idle)

    def _lag_s(self) -> float:
        if self._watermark_ms >= WATERMARK_MAX:
            return 0.0
        return self._registry.clock() - _seconds(self._watermark_ms)


class PipelineMetrics:
    """The series of one pipeline, and of its subtasks."""

    def __init__(self, registry: MetricRegistry, pipeline: str) -> None:
        self._registry = registry
        self._pipeline = self.name = pipeline
        self.refresh: Callable[[], None] = lambda: None  # brings the figures of a running job up to date
        registry.add(self)
        self._subtasks: dict[tuple[str, int], SubtaskMetrics] = {}
        self.checkpoint_duration = registry.histogram("checkpoint_duration_seconds", pipeline)
        self.checkpoint_size_bytes = registry.gauge("checkpoint_size_bytes", pipeline)
        self.checkpoint_alignment_seconds = registry.gauge("checkpoint_alignment_seconds", pipeline)
        self._checkpoints = {
            result: registry.counter("checkpoints_total", pipeline, result) for result in ("completed", "aborted")
        }
        self.last_completed_checkpoint_id = registry.gauge("last_completed_checkpoint_id", pipeline)
        self.restarts_total = registry.counter("restarts_total", pipeline)
        self.uncommitted_transactions = registry.gauge("uncommitted_transactions", pipeline)
        self.up = registry.gauge("up", pipeline)

    @cached_property
    def last_completed_checkpoint_timestamp(self) -> Gauge:
        """Seconds since the epoch; absent before the first."""
        return self._registry.gauge("last_completed_checkpoint_timestamp_seconds", self._pipeline)

    def ended(self) -> None:
        """The job has ended, for good or until it is started again."""
        for subtask in self._subtasks.values():
            subtask.ended()

    def checkpoints_total(self, result: CheckpointResult) -> Counter:
        """Checkpoints that ended this way."""
        return self._checkpoints[result]

    def ledger_unaccounted(self, step: str) -> Gauge:
        """Of one node."""
        return self._registry.gauge("ledger_unaccounted_records", self._pipeline, step)

    def subtask(self, step: str, subtask: int) -> SubtaskMetrics:
        """The same object for the same subtask, also across restarts: counters only grow."""
        found = self._subtasks.get((step, subtask))
        if found is None:
            found = self._subtasks[step, subtask] = SubtaskMetrics(self._registry, self._pipeline, step, subtask)
        return found


def metric_table() -> str:
    """The table as Markdown, for the docs."""
    rows = [f"| `{PREFIX}{m.name}` | {m.kind} | {', '.join(m.labels) or '–'} | {m.help} |" for m in METRICS]
    return "\n".join(["| metric | kind | labels | meaning |", "|---|---|---|---|", *rows]) + "\n"


def _seconds(watermark_ms: int) -> float:
    if watermark_ms <= WATERMARK_MIN:
        return math.nan
    return math.inf if watermark_ms >= WATERMARK_MAX else watermark_ms / 1000
