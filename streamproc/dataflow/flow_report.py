"""What a subtask's chain has counted, moved into metrics and status: differences since the last report.

Nothing is counted into a metric per batch: a report comes when somebody looks, or once a second for the status.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from operators.element import WATERMARK_MIN, EventTimeMs
from streamproc.dataflow.activity import TimeSpent
from streamproc.dataflow.chain import Chain
from streamproc.observability.metrics import SubtaskMetrics
from streamproc.observability.status import JobObserver, RecordError


class FlowReport:
    """Of one subtask, number `index` of its vertex; `nodes` are those in its chain, `sink` among them."""

    def __init__(self, observer: JobObserver, chain: Chain, index: int, nodes: Sequence[str], sink: str | None) -> None:
        metrics = observer.metrics
        self._status = observer.status
        self._chain = chain
        self._steps: dict[str, SubtaskMetrics] = {step: metrics.subtask(step, index) for step in chain.flows}
        self._nodes = [metrics.subtask(node, index) for node in nodes]
        self._sink = metrics.subtask(sink, index) if sink else None
        self._reported = dict.fromkeys(chain.flows, (0, 0, 0, 0, 0))
        self._reported_spent = TimeSpent()
        self._reported_sink = 0, 0

    def error(self, node: str, split: str | None, offset: int | None, error: str, records: int) -> None:
        """Let the status remember a bad record, or several."""
        self._status.errors.append(RecordError(time.time(), node, split, offset, error, records))

    def flows(self) -> None:
        """Rows in and out of each step, late, in error, left out."""
        for step, flow in self._chain.flows.items():
            counters = [op.counters for op in self._chain.all_operators if op.step == step]
            late = sum(each.late for each in counters)
            errors = sum(each.errors for each in counters)
            now = flow.rows_in, flow.rows_out, late, errors, sum(each.filtered for each in counters)
            seen = self._reported[step]
            if now == seen:
                continue
            self._reported[step] = now
            metrics = self._steps[step]
            metrics.records_in.inc(now[0] - seen[0])
            metrics.records_out.inc(now[1] - seen[1])
            metrics.late_records.inc(late - seen[2])
            metrics.error_records.inc(errors - seen[3])
            metrics.filtered_records.inc(now[4] - seen[4])
            self._status.late_records += late - seen[2]
            self._status.error_records += errors - seen[3]
            if errors > seen[3]:
                self.error(step, None, None, next(each.last_error for each in counters), errors - seen[3])

    def time(self, spent: TimeSpent, watermark: EventTimeMs) -> None:
        """What the time has gone into, and how far event time has come: of every node alike."""
        # Read while a call begins on another thread, one of the three may be microseconds more than it comes to be.
        told = self._reported_spent
        self._reported_spent = TimeSpent(*map(max, spent, told))
        seconds = [now - then for now, then in zip(self._reported_spent, told, strict=True)]
        for metrics in self._nodes:
            metrics.spent(*seconds)
            if watermark > WATERMARK_MIN or metrics.has_watermark:
                metrics.set_watermark(watermark)

    def sink(self, handed: int, written: int) -> None:
        """Rows handed to the sink's writer, and those it has taken; since the subtask began."""
        if self._sink is not None:
            before, taken = self._reported_sink
            self._reported_sink = handed, written
            self._sink.records_in.inc(handed - before)
            self._sink.records_out.inc(written - taken)

    def state(self, step: str, size_bytes: int) -> None:
        """How large the step's keyed state is."""
        self._steps[step].state_bytes.set(size_bytes)
