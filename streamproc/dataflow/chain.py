"""A chain of operators run as one: frames in, frames addressed to receivers (or to the sink) out.

Everything here runs on a worker thread and is driven lazily, so that a closing window of any size is
sent piece by piece.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import polars as pl

from operators.element import ROW_WATERMARK, WATERMARK_MIN, EventTimeMs
from operators.operator import (
    Closes,
    ClosesWindows,
    Counters,
    HoldsWatermark,
    Operator,
    TwoInputOperator,
    UsesProcessingTime,
)
from operators.stateless import Stateless
from streamproc.dataflow.partitioner import Partitioner
from streamproc.observability.ledger import StepLedger
from streamproc.pipeline.logical import StreamRef

SINK = -1  # the route index of the chain's own sink


class Routed(NamedTuple):
    """Rows for one receiver of one route; the sink takes all of them."""

    route: int
    receiver: int
    frame: pl.DataFrame


@dataclass(slots=True)
class ChainedOperator:
    """An operator subtask, the step it accounts for, and its counters."""

    step: str
    operator: Operator
    counters: Counters


@dataclass(slots=True)
class Route:
    """An edge seen from the sender: rows of `stream` pass `before`, then the partitioner, to the node `reader`."""

    index: int
    stream: StreamRef
    reader: str
    before: Sequence[ChainedOperator]
    partitioner: Partitioner


class StepFlow:
    """Rows that went in and out of one step, in this subtask. Out: what it makes of its input, also on side outputs;
    late rows and errors are not among them."""

    __slots__ = ("rows_in", "rows_out")

    def __init__(self) -> None:
        self.rows_in = 0
        self.rows_out = 0


class Chain:
    """The operators of one subtask and where their output goes."""

    def __init__(
        self,
        operators: Sequence[ChainedOperator],
        output: StreamRef,
        routes: Sequence[Route],
        *,
        sink: str | None,
        counted_by_sender: frozenset[int] = frozenset(),
    ) -> None:
        """`counted_by_sender`: inputs of the first step whose rows are counted ahead of the exchange."""
        self.operators = operators
        self._output = output
        self._routes: dict[StreamRef, list[Route]] = {}
        for route in routes:
            self._routes.setdefault(route.stream, []).append(route)
        self._has_sink = sink is not None
        self._seen = [WATERMARK_MIN] * (len(operators) + 1)  # by each operator, and by what follows the last
        holds = [isinstance(op.operator, HoldsWatermark) for op in operators]
        self._unheld = holds.index(True) + 1 if any(holds) else len(self._seen)
        self.uses_processing_time = any(isinstance(op.operator, UsesProcessingTime) for op in operators)
        # False: `on_watermark` only moves the watermark on.
        self.time_matters = not all(isinstance(op.operator, Stateless) for op in operators)
        self._closing = [(op.step, op.operator) for op in operators if isinstance(op.operator, ClosesWindows)]
        self.all_operators = [*operators, *(op for route in routes for op in route.before)]
        self.flows: Mapping[str, StepFlow] = {op.step: StepFlow() for op in self.all_operators}
        steps = [op.step for op in operators]
        self._counted_by_sender = counted_by_sender
        self._enters = [i == 0 or steps[i - 1] != step for i, step in enumerate(steps)]
        self._leaves = [i + 1 == len(steps) or steps[i + 1] != step for i, step in enumerate(steps)]
        self._next = [*steps[1:], sink] if steps else []  # the chain's node that reads what leaves an operator
        self._sent = dict.fromkeys([*steps[1:], *([sink] if steps and sink else []), *(r.reader for r in routes)], 0)

    @property
    def watermark(self) -> EventTimeMs:
        """What may be promised to receivers."""
        return self._seen[-1]

    def process(
        self, frame: pl.DataFrame, watermark: EventTimeMs, others: EventTimeMs, port: int = 0
    ) -> Iterator[Routed]:
        """Run one batch through. `others` bounds row watermarks (what other channels allow); `port`: the input
        of the first operator it is for."""
        for index in range(self._unheld):
            self._seen[index] = max(self._seen[index], watermark)
        if ROW_WATERMARK in frame.columns:
            frame = frame.with_columns(pl.col(ROW_WATERMARK).clip(upper_bound=others))
        yield from self._feed(0, frame, port)

    def on_watermark(self, watermark: EventTimeMs) -> Iterator[Routed]:
        """Event time advances. An operator's results pass the next one before that sees the watermark."""
        for index, chained in enumerate(self.operators):
            self._seen[index] = max(self._seen[index], watermark)
            for tag, out in chained.operator.on_watermark(watermark):
                yield from self._after(index, tag, out)
            if isinstance(chained.operator, HoldsWatermark):
                watermark = chained.operator.output_watermark(watermark)
        self._seen[-1] = max(self._seen[-1], watermark)

    def on_processing_time(self, now_ms: int) -> Iterator[Routed]:
        """The wall clock has come to `now_ms`."""
        for index, chained in enumerate(self.operators):
            if isinstance(chained.operator, UsesProcessingTime):
                for tag, out in chained.operator.on_processing_time(now_ms):
                    yield from self._after(index, tag, out)

    def close(self) -> None:
        """Release what operators hold beyond memory and state."""
        for chained in self.all_operators:
            if isinstance(chained.operator, Closes):
                chained.operator.close()

    def next_closes(self) -> dict[str, EventTimeMs]:
        """By step, the watermark at which its next window closes; steps with nothing open are left out."""
        closes: dict[str, EventTimeMs] = {}
        for step, operator in self._closing:
            if (due := operator.next_close()) is not None:
                closes[step] = min(due, closes.get(step, due))
        return closes

    def accounts(self) -> dict[str, StepLedger]:
        """Of each step what became of its rows here, and of each node what was sent to it from here."""
        accounts = {step: StepLedger(flow.rows_in, flow.rows_out) for step, flow in self.flows.items()}
        for chained in self.all_operators:
            counted = chained.counters
            accounts[chained.step] += StepLedger(
                filtered=counted.filtered, late=counted.late, errors=counted.errors, held=counted.taken - counted.made
            )
        for node, rows in self._sent.items():
            accounts[node] = accounts.get(node, StepLedger()) + StepLedger(sent=rows)
        return accounts

    def emit(self, stream: StreamRef, frame: pl.DataFrame) -> Iterator[Routed]:
        """Send rows of a side output that arose outside the operators (decode errors)."""
        yield from self._send(stream, frame)

    def _feed(self, index: int, frame: pl.DataFrame, port: int = 0) -> Iterator[Routed]:
        if index == len(self.operators):
            yield from self._send(self._output, frame)
            return
        chained = self.operators[index]
        if self._enters[index] and not (index == 0 and port in self._counted_by_sender):
            self.flows[chained.step].rows_in += frame.height
        operator = chained.operator
        if port:
            assert isinstance(operator, TwoInputOperator), "only a join has a right input"
            outputs = operator.process_right(frame, self._seen[index])
        else:
            outputs = operator.process(frame, self._seen[index])
        for tag, out in outputs:
            yield from self._after(index, tag, out)

    def _after(self, index: int, tag: str, frame: pl.DataFrame) -> Iterator[Routed]:
        step = self.operators[index].step
        if tag != "main":
            if tag not in ("late", "errors"):
                self.flows[step].rows_out += frame.height
            yield from self._send(StreamRef(step, tag), frame)
            return
        if self._leaves[index]:
            self.flows[step].rows_out += frame.height
            following = self._next[index]
            if following is not None:
                self._sent[following] += frame.height
        yield from self._feed(index + 1, frame)

    def _send(self, stream: StreamRef, frame: pl.DataFrame) -> Iterator[Routed]:
        if self._has_sink and stream == self._output:
            yield Routed(SINK, 0, frame)
        for route in self._routes.get(stream, ()):
            self._sent[route.reader] += frame.height
            yield from self._through(route, 0, frame)

    def _through(self, route: Route, index: int, frame: pl.DataFrame) -> Iterator[Routed]:
        """Past the sender's side of an edge: its operators, then the partitioner."""
        if index == len(route.before):
            for receiver, part in route.partitioner.partition(frame):
                yield Routed(route.index, receiver, part)
            return
        chained = route.before[index]
        if index == 0:
            self.flows[chained.step].rows_in += frame.height
        for tag, out in chained.operator.process(frame, self._seen[-1]):
            if tag == "main":
                yield from self._through(route, index + 1, out)
            else:
                yield from self._send(StreamRef(chained.step, tag), out)
