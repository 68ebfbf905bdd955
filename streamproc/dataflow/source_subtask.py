"""A subtask that reads a source: fetches, decodes, stamps event time, and runs its chain.

What has been emitted is what a checkpoint records: positions move only after the rows before them
have left. Batches grow with the load: what comes alone leaves within `max_delay`, a backlog leaves in
batches of `max_rows`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from operators.connector import Decoded, ErrorPolicy, Fetched, Position, SourceReader, SplitId
from operators.element import WATERMARK_MAX, WATERMARK_MIN, CheckpointId, EventTimeMs, Watermark
from state.failure import Failure
from streamproc.dataflow.chain import Routed
from streamproc.dataflow.event_time import SourceClock
from streamproc.dataflow.source_alignment import SourceAlignment
from streamproc.dataflow.subtask import Subtask, SubtaskParts
from streamproc.pipeline.logical import LogicalSource, StreamRef
from streamproc.pipeline.spec import BatchSpec

_IDLE_FETCH_S = 0.2  # how long one fetch waits when nothing comes: also the grain of idleness and of end of input
_LOOK_S_MAX = 2 * _IDLE_FETCH_S  # what a fetch counts for at most towards idleness: the process may have been stopped
_BUSY_S_MAX = 0.05  # the same for sending what one fetch brought


class PoisonRecord(Failure):
    """A record that cannot be decoded, where the pipeline says `errors: fail`."""

    acts = "user"

    def __init__(self, source: str, split: str, offset: int | None, error: str, count: int) -> None:
        where = f"{split} offset {offset}" if offset is not None else split
        more = f" ({count} such records in this batch)" if count > 1 else ""
        super().__init__(
            f"source {source}: record at {where}: {error}{more}. "
            f"Set `errors: skip` or `errors: dlq` on sources.{source} to go on without such records"
        )


@dataclass(frozen=True, slots=True)
class RestoredSplit:
    """What a checkpoint knows of a split."""

    position: Position
    max_time: EventTimeMs | None
    finished: bool


class SourceSubtask(Subtask):
    """One reader of a source."""

    def __init__(
        self,
        parts: SubtaskParts,
        source: LogicalSource,
        reader: SourceReader,
        batch: BatchSpec,
        restored: Mapping[SplitId, RestoredSplit] | None,
        alignment: SourceAlignment,
    ) -> None:
        super().__init__(parts)
        self._alignment = alignment
        self._source = source
        self._errors: ErrorPolicy = source.errors
        self._reader = reader
        self._batch = batch
        self._restored = restored
        self._clock = SourceClock(source.event_time)
        self._positions: dict[SplitId, Position] = {}
        self._finished: set[SplitId] = set()
        self._barriers: asyncio.Queue[CheckpointId] = asyncio.Queue()
        self._halted = False
        self._sent = Watermark(WATERMARK_MIN)
        self._looked_s = 0.0  # time for which splits were given the chance to bring rows: silence is counted in it
        self.exhausted = asyncio.Event()
        self.last_rows_s = time.monotonic()

    async def open(self) -> None:
        await super().open()
        restored = self._restored
        await self._reader.open(
            None if restored is None else {split: known.position for split, known in restored.items()}
        )
        self._learn_splits()

    async def close(self) -> None:
        await self._reader.close()
        await super().close()

    def trigger(self, checkpoint: CheckpointId, *, halt: bool) -> None:
        """Emit this barrier next; `halt`: and read nothing more after it."""
        self._halted = self._halted or halt
        self._barriers.put_nowait(checkpoint)

    def lag_records(self) -> int | None:
        """Records behind, as the reader knows."""
        return self._reader.lag_records()

    async def run(self) -> None:
        """Until cancelled."""
        await self._advance_clock()
        fetching: asyncio.Task[Sequence[Fetched]] | None = None
        barrier = asyncio.create_task(self._barriers.get())
        try:
            while True:
                if fetching is None and not self._halted and not self.exhausted.is_set():
                    self._learn_splits()
                    fetching = asyncio.create_task(self._fetch())
                waited = time.monotonic()
                await asyncio.wait([t for t in (fetching, barrier) if t], return_when=asyncio.FIRST_COMPLETED)
                self._own.idle_seconds.inc(time.monotonic() - waited)
                await self._tell_clock()
                if barrier.done():
                    checkpoint = barrier.result()
                    barrier = asyncio.create_task(self._barriers.get())
                    await self._checkpoint(checkpoint, {"sources": {self._source.name: self._snapshot()}})
                    if self._halted and fetching is not None:
                        await _cancelled(fetching)  # what it has fetched is behind the last barrier
                        fetching = None
                elif fetching is not None and fetching.done():
                    pieces = fetching.result()
                    fetching = None
                    await self._emit_all(pieces)
                    await self._after_fetch()
                self._report_flows()
        finally:
            barrier.cancel()
            if fetching is not None:
                await _cancelled(fetching)

    async def _fetch(self) -> list[Fetched]:
        """One round: what is there; when that is little, what comes within a third of `max_delay` too (the
        rest is for the way through the pipeline)."""
        await self._alignment.wait_for_peers()
        began_s = time.monotonic()
        max_rows = self._batch.max_rows
        pieces = list(await self._reader.fetch(max_rows, _IDLE_FETCH_S))
        rows = sum(piece.rows for piece in pieces)
        self._alignment.own.fetched(rows, self._reader.lag_records(), max_rows)
        if 0 < rows < max_rows // 4 and self._batch.max_delay and not any(piece.finished for piece in pieces):
            await asyncio.sleep(self._batch.max_delay / 3000)
            pieces += await self._reader.fetch(max_rows, 0.0)
        self._looked_s += min(time.monotonic() - began_s, _LOOK_S_MAX)
        if not pieces and not self._reader.listening():
            self._clock.none_is_silent(self._looked_s)
        return pieces

    async def _emit_all(self, pieces: Sequence[Fetched]) -> None:
        """Send what one fetch brought. While it waits for room downstream nobody looks what other splits have:
        they do not become idle by that."""
        for piece in pieces:
            if piece.rows:
                self._learn_splits()
                self._clock.heard(piece.split, self._looked_s)
        began_s = time.monotonic()
        for piece in pieces:
            await self._emit(piece)
        self._looked_s += min(time.monotonic() - began_s, _BUSY_S_MAX)

    async def _emit(self, piece: Fetched) -> None:
        if piece.rows:
            self.last_rows_s = time.monotonic()
            await self._send(self._decode_and_process(piece))
            self._own.records_in.inc(piece.rows)
            self._own.bytes_in.inc(piece.bytes)
            self._parts.observer.status.records_in += piece.rows
            self._alignment.own.latest = self._clock.latest
        self._learn_splits()
        self._positions[piece.split] = piece.position
        if piece.watermark is not None:
            self._clock.advance(piece.split, piece.watermark)
        if piece.finished and piece.split not in self._finished:
            self._finished.add(piece.split)
            self._clock.finish(piece.split)
        await self._advance_clock()

    def _decode_and_process(self, piece: Fetched) -> Iterator[Routed]:
        """On a worker thread."""
        decoded = piece.decode()
        if decoded.errors is not None and decoded.errors.height:
            yield from self._on_errors(decoded)
        if decoded.frame.height:
            frame = self._clock.stamp(piece.split, decoded.frame, self._looked_s)
            self._own.records_out.inc(frame.height)
            yield from self._chain.process(frame, self._sent.time, WATERMARK_MAX)

    def _on_errors(self, decoded: Decoded) -> Iterator[Routed]:
        errors = decoded.errors
        assert errors is not None
        if self._errors == "fail":
            first = errors.row(0, named=True)
            raise PoisonRecord(self._source.name, first["split"], first["offset"], first["error"], errors.height)
        self._own.error_records.inc(errors.height)
        self._parts.observer.status.error_records += errors.height
        if self._errors == "dlq":
            yield from self._chain.emit(StreamRef(self._source.name, "errors"), errors)

    async def _after_fetch(self) -> None:
        await self._advance_clock()
        lag = self._reader.lag_records()
        if lag is not None:
            self._own.source_lag_records.set(lag)
        if self._reader.exhausted() and self._finished >= set(self._reader.splits()):
            await self._advance(Watermark(WATERMARK_MAX))
            self._sent = Watermark(WATERMARK_MAX)
            self._alignment.own.behind = False
            self.exhausted.set()

    async def _advance_clock(self) -> None:
        watermark = self._clock.watermark(self._looked_s)
        if watermark != self._sent and not self.exhausted.is_set():
            self._sent = watermark
            await self._advance(watermark)

    def _learn_splits(self) -> None:
        """Splits the reader has found since; called when no fetched piece is under way beyond ours."""
        for split, position in self._reader.splits().items():
            if split in self._positions:
                continue
            known = (self._restored or {}).get(split)
            self._positions[split] = position
            max_time = known.max_time if known else None
            self._clock.add(split, max_time, self._looked_s, finished=bool(known and known.finished))
            if known and known.finished:
                self._finished.add(split)

    def _snapshot(self) -> dict[str, Any]:
        return {
            split: {
                "position": dict(position),
                "max_time": self._clock.max_time(split),
                "finished": split in self._finished,
            }
            for split, position in self._positions.items()
        }


async def _cancelled(task: asyncio.Task[Sequence[Fetched]]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
