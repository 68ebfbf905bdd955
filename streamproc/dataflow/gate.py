"""A subtask's inputs as one ordered stream of events: batches, the agreed watermark, aligned barriers.

Channels take turns. One that has delivered a barrier is not read until all have (aligned
checkpoints): no row behind the barrier can get into the snapshot.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from operators.element import Barrier, CheckpointId, EventTimeMs, RecordBatch, Watermark
from streamproc.dataflow.alignment import BarrierAligner, WatermarkValve
from streamproc.dataflow.channel import Channel


@dataclass(frozen=True, slots=True)
class BatchEvent:
    """Rows for one input of the step, the watermark at their arrival, and the bound the other channels set to
    row watermarks."""

    frame: pl.DataFrame
    watermark: EventTimeMs
    others: EventTimeMs
    port: int


@dataclass(frozen=True, slots=True)
class BarrierEvent:
    """All channels have reached the barrier; `alignment_s` is the time since the first one had."""

    checkpoint: CheckpointId
    alignment_s: float


@dataclass(frozen=True, slots=True)
class Input:
    """One channel. `held_back`: its barrier has come, the others' have not."""

    port: int
    watermark: Watermark
    rows: int
    held_back: bool


GateEvent = BatchEvent | Watermark | BarrierEvent


class InputGate:
    """Reads channels round-robin; one reader."""

    def __init__(self, channels: Sequence[Channel], ports: Sequence[int]) -> None:
        """`ports`: the input of the step that each channel feeds."""
        self._channels = channels
        self._ports = ports
        self._arrival = asyncio.Event()
        self._valve = WatermarkValve(len(channels))
        self._aligner = BarrierAligner(len(channels))
        self._next = 0
        self._alignment_began = 0.0
        for channel in channels:
            channel.notify(self._arrival.set)

    @property
    def watermark(self) -> Watermark:
        """The agreed watermark."""
        return self._valve.current

    def rows_waiting(self) -> int:
        """Rows in all channels."""
        return sum(channel.rows for channel in self._channels)

    def inputs(self) -> list[Input]:
        """Each channel as it is now."""
        held_back = self._aligner.held_back
        return [
            Input(port, watermark, channel.rows, held_back=index in held_back)
            for index, (port, watermark, channel) in enumerate(
                zip(self._ports, self._valve.channels(), self._channels, strict=True)
            )
        ]

    async def next_event(self, timeout_s: float | None = None) -> GateEvent | None:
        """The next event; None when nothing has come for `timeout_s`."""
        while True:
            self._arrival.clear()
            event = self.event_at_hand()
            if event is not None:
                return event
            try:
                async with asyncio.timeout(timeout_s):
                    await self._arrival.wait()
            except TimeoutError:
                return None

    def event_at_hand(self) -> GateEvent | None:
        """The next event, if there is one now."""
        count = len(self._channels)
        empty = 0
        while empty < count:
            index = self._next
            self._next = (index + 1) % count
            element = None if index in self._aligner.held_back else self._channels[index].get_nowait()
            if element is None:
                empty += 1
                continue
            empty = 0
            event = self._on_element(index, element)
            if event is not None:
                return event
        return None

    def _on_element(self, index: int, element: RecordBatch | Watermark | Barrier) -> GateEvent | None:
        if isinstance(element, RecordBatch):
            return BatchEvent(element.frame, self._valve.current.time, self._valve.others(index), self._ports[index])
        if isinstance(element, Watermark):
            return self._valve.advance(index, element)
        if not self._aligner.held_back:
            self._alignment_began = time.monotonic()
        aligned = self._aligner.on_barrier(index, element.checkpoint)
        if aligned is None:
            return None
        return BarrierEvent(aligned.checkpoint, time.monotonic() - self._alignment_began)
