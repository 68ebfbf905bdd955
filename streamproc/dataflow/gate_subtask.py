"""A subtask that reads other subtasks.

What is at hand goes through the chain in one call as long as that is few rows: a call on another thread costs more
than a small batch does. The order of events is kept; a barrier waits for what came before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from operators.element import Watermark
from streamproc.checkpoint.coordinator import SubtaskId
from streamproc.dataflow.chain import Routed
from streamproc.dataflow.gate import BarrierEvent, BatchEvent, GateEvent, InputGate
from streamproc.dataflow.subtask import CLOCK_S, FEW_ROWS, Subtask, SubtaskParts
from streamproc.observability.facts import InputFacts


class GateSubtask(Subtask):
    """`senders`: whose the channels of the gate are."""

    def __init__(self, parts: SubtaskParts, gate: InputGate, senders: Sequence[SubtaskId]) -> None:
        super().__init__(parts)
        self._gate = gate
        self._senders = senders

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self.activity.now("waiting for input")
            event = await self._gate.next_event(CLOCK_S if self._chain.uses_processing_time else None)
            await self._tell_clock()
            if event is not None:
                await self._handle(self._at_hand(event))

    def _at_hand(self, event: GateEvent) -> list[GateEvent]:
        """With what follows at once, while it is few rows: batches, and what ends them (a watermark or a barrier)."""
        events, rows = [event], 0
        while isinstance(event, BatchEvent) and (rows := rows + event.frame.height) < FEW_ROWS:
            following = self._gate.event_at_hand()
            if following is None:
                break
            events.append(event := following)
        return events

    async def _handle(self, events: Sequence[GateEvent]) -> None:
        last = events[-1]
        batches = [event for event in events if isinstance(event, BatchEvent)]
        if batches:
            watermark = last if isinstance(last, Watermark) else None
            await self._send(self._through(batches, watermark))
            if watermark is not None:
                self._broadcast(watermark)
        elif isinstance(last, Watermark):
            await self._advance(last)
        if isinstance(last, BarrierEvent):
            await self._checkpoint(last.checkpoint, {}, last.alignment_s)

    def _through(self, batches: Sequence[BatchEvent], watermark: Watermark | None) -> Iterator[Routed]:
        for batch in batches:
            yield from self._chain.process(batch.frame, batch.watermark, batch.others, batch.port)
        if watermark is not None:
            yield from self._chain.on_watermark(watermark.time)

    def report(self) -> None:
        super().report()
        self._own.channel_rows.set(self._gate.rows_waiting())

    def _input_facts(self) -> tuple[InputFacts, ...]:
        return tuple(
            InputFacts(
                sender[0], sender[1], seen.port, seen.watermark.time, seen.watermark.idle, seen.rows, seen.held_back
            )
            for sender, seen in zip(self._senders, self._gate.inputs(), strict=True)
        )
