"""The series of one process: a registry of every metric of the table, and what a pipeline and its subtasks count.

Label values are bounded by the size of the pipeline: never a key, a payload or an error's text.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
from streamproc.observability.metric_table import METRICS, SUBTASK, Collector

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

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

    def gone(self) -> None:
        """The job no longer has this subtask: nothing of it is exposed any more."""
        for metric in METRICS:
            if metric.labels == SUBTASK:
                self._registry.drop(metric.name, *self._labels)

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
        self._built: set[tuple[str, int]] = set()  # those of the job as it was last built
        self._accounted: set[str] = set()  # nodes with a series of the ledger
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
        self._accounted.add(step)
        return self._registry.gauge("ledger_unaccounted_records", self._pipeline, step)

    @contextmanager
    def building(self) -> Iterator[None]:
        """Around the making of a job's subtasks. Once they are made, the series of steps and subtasks that the job
        has no longer go: after a rescale or an upgrade they would stand still for ever."""
        self._built.clear()
        yield
        for gone in self._subtasks.keys() - self._built:
            self._subtasks.pop(gone).gone()
        for step in self._accounted - {step for step, _ in self._built}:
            self._accounted.remove(step)
            self._registry.drop("ledger_unaccounted_records", self._pipeline, step)

    def subtask(self, step: str, subtask: int) -> SubtaskMetrics:
        """The same object for the same subtask, also across restarts: counters only grow."""
        self._built.add((step, subtask))
        found = self._subtasks.get((step, subtask))
        if found is None:
            found = self._subtasks[step, subtask] = SubtaskMetrics(self._registry, self._pipeline, step, subtask)
        return found


def _seconds(watermark_ms: int) -> float:
    if watermark_ms <= WATERMARK_MIN:
        return math.nan
    return math.inf if watermark_ms >= WATERMARK_MAX else watermark_ms / 1000
