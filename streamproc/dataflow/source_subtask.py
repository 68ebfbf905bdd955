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
from functools import reduce
from typing import Any

import polars as pl

from operators.connector import Decoded, ErrorPolicy, Fetched, KnowsOutside, Position, SourceReader, SplitId
from operators.element import WATERMARK_MAX, WATERMARK_MIN, CheckpointId, EventTimeMs, Watermark
from state.failure import Failure
from streamproc.dataflow.chain import Routed
from streamproc.dataflow.event_time import SourceClock
from streamproc.dataflow.reachability import Outside
from streamproc.dataflow.source_alignment import SourceAlignment
from streamproc.dataflow.subtask import FEW_ROWS, Subtask, SubtaskParts
from streamproc.observability.facts import Doing, SourceFacts, SplitFacts, StepFacts
from streamproc.observability.ledger import StepLedger
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
        self.split, self.offset, self.error, self.count = split, offset, error, count
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
        *,
        bounded: bool,
    ) -> None:
        super().__init__(parts)
        self._alignment = alignment
        self._source = source
        self._errors: ErrorPolicy = source.errors
        self._reader = reader
        self._bounded = bounded
        self._batch = batch
        self._restored = restored
        self._clock = SourceClock(source.event_time)
        self._positions: dict[SplitId, Position] = {}
        self._finished: set[SplitId] = set()
        self._barriers: asyncio.Queue[CheckpointId | None] = asyncio.Queue()  # None: drain
        self._halted = False
        self._sent = Watermark(WATERMARK_MIN)
        self._looked_s = 0.0  # time for which splits were given the chance to bring rows: silence is counted in it
        self._rows_fetched = self._rows_read = self._rows_decoded = self._rows_bad = 0
        self._bytes_read = 0
        self._reported_reading = [0] * 5
        self._bad: list[tuple[str, int | None, str, int]] = []  # not told yet: split, offset, error, records
        self._silent = self._seconds = 0  # records that are no row; rows that are the second one of their record
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

    def drain(self) -> None:
        """Read nothing more, and let event time come to its end."""
        self._barriers.put_nowait(None)

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
                self.activity.now("waiting for input")
                await asyncio.wait([t for t in (fetching, barrier) if t], return_when=asyncio.FIRST_COMPLETED)
                await self._tell_clock()
                if barrier.done():
                    checkpoint = barrier.result()
                    barrier = asyncio.create_task(self._barriers.get())
                    if checkpoint is None:
                        self._halted = True
                        await self._end()
                    else:
                        await self._checkpoint(checkpoint, {"sources": {self._source.name: self._snapshot()}})
                    if self._halted and fetching is not None:
                        await _cancelled(fetching)  # what it has fetched is behind the last barrier
                        fetching = None
                elif fetching is not None and fetching.done():
                    pieces = fetching.result()
                    fetching = None
                    await self._emit_all(pieces)
                    await self._after_fetch()
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
                self._rows_fetched += piece.rows
                self._learn_splits()
                self._clock.heard(piece.split, self._looked_s)
        began_s = time.monotonic()
        for together in _few_rows_together(pieces):
            await self._emit(together)
        self._looked_s += min(time.monotonic() - began_s, _BUSY_S_MAX)

    async def _emit(self, pieces: Sequence[Fetched]) -> None:
        """Send pieces in one call, then let event time and positions move. That the watermark stands still between
        them makes no difference to their rows: how late each comes is said in its batch."""
        if any(piece.rows for piece in pieces):
            self.last_rows_s = time.monotonic()
            try:
                await self._send(self._decode_and_process(pieces))
            except PoisonRecord as poison:
                self._report.error(self._source.name, poison.split, poison.offset, poison.error, poison.count)
                raise
        self._learn_splits()
        for piece in pieces:
            self._rows_read += piece.rows
            self._bytes_read += piece.bytes
            self._parts.observer.status.records_in += piece.rows
            self._positions[piece.split] = piece.position
            if piece.watermark is not None:
                self._clock.advance(piece.split, piece.watermark)
            if piece.finished and piece.split not in self._finished:
                self._finished.add(piece.split)
                self._clock.finish(piece.split)
        self._alignment.own.latest = self._clock.latest
        await self._advance_clock()

    def _decode_and_process(self, pieces: Sequence[Fetched]) -> Iterator[Routed]:
        """On a worker thread. What few rows several splits bring goes through the chain as one batch: each row knows
        how late it is, and a batch costs the same for one row as for a thousand."""
        frames: list[pl.DataFrame] = []
        for piece in pieces:
            if not piece.rows:
                continue
            decoded = piece.decode()
            if decoded.errors is not None and decoded.errors.height:
                yield from self._on_errors(decoded)
            self._silent += decoded.silent
            self._seconds += decoded.seconds
            if decoded.frame.height:
                frame = self._clock.stamp(piece.split, decoded.frame, self._looked_s)
                self._rows_decoded += frame.height
                if frames and frames[-1].columns != frame.columns:  # only batches with late rows say how late
                    yield from self._process(frames)
                    frames = []
                frames.append(frame)
        if frames:
            yield from self._process(frames)

    def _process(self, frames: Sequence[pl.DataFrame]) -> Iterator[Routed]:
        frame = frames[0] if len(frames) == 1 else reduce(pl.DataFrame.vstack, frames).rechunk()
        return self._chain.process(frame, self._sent.time, WATERMARK_MAX)

    def _on_errors(self, decoded: Decoded) -> Iterator[Routed]:
        errors = decoded.errors
        assert errors is not None
        if self._errors == "fail":
            first = errors.row(0, named=True)
            raise PoisonRecord(self._source.name, first["split"], first["offset"], first["error"], errors.height)
        self._bad.append((errors.item(0, "split"), errors.item(0, "offset"), errors.item(0, "error"), errors.height))
        self._rows_bad += errors.height
        if self._errors == "dlq":
            yield from self._chain.emit(StreamRef(self._source.name, "errors"), errors)

    async def _after_fetch(self) -> None:
        await self._advance_clock()
        if self._reader.exhausted() and self._finished >= set(self._reader.splits()):
            await self._end()

    async def _end(self) -> None:
        """Nothing follows: everything closes."""
        if not self.exhausted.is_set():
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

    def report(self) -> None:
        super().report()
        if (lag := self._reader.lag_records()) is not None:
            self._own.source_lag_records.set(lag)
        if self._source.event_time is not None:
            self._own.set_watermark(self.watermark)  # also where there is none yet
            skew_s, silent_s = self._clock.skew(self._looked_s)
            self._own.watermark_skew_seconds.set(skew_s)
            self._own.split_silent_seconds.set(silent_s)

    def outsides(self) -> Iterator[Outside]:
        yield Outside("source", self._source.name, self._unreachable, self._own.source_reachable)
        yield from super().outsides()

    def _unreachable(self) -> str | None:
        if self.exhausted.is_set() or self._halted:
            return None
        return self._reader.unreachable() if isinstance(self._reader, KnowsOutside) else None

    def _report_flows(self) -> None:
        super()._report_flows()
        bad, self._bad = self._bad, []
        for split, offset, error, records in bad:
            self._report.error(self._source.name, split, offset, error, records)
        now = [self._rows_read, self._bytes_read, self._rows_decoded, self._silent, self._rows_bad]
        seen = self._reported_reading
        if now == seen:
            return
        self._reported_reading = now
        own = self._own
        own.records_in.inc(now[0] - seen[0])
        own.bytes_in.inc(now[1] - seen[1])
        own.records_out.inc(now[2] - seen[2])
        own.filtered_records.inc(now[3] - seen[3])
        own.error_records.inc(now[4] - seen[4])
        self._parts.observer.status.error_records += now[4] - seen[4]

    def _doing(self) -> Doing:
        return "waiting for peers" if self._alignment.waiting else super()._doing()

    def _source_facts(self) -> SourceFacts:
        event_time = self._source.event_time
        return SourceFacts(
            source=self._source.name,
            splits=tuple(
                SplitFacts(*each, position=self._positions.get(each.split, {}))
                for each in self._clock.splits(self._looked_s)
            ),
            out_of_order_ms=event_time.out_of_order_ms if event_time else None,
            idle_after_ms=event_time.idle_after_ms if event_time else None,
            lag_records=self._reader.lag_records(),
            listening=self._reader.listening(),
            bounded=self._bounded,
            lateness=self._clock.lateness(),
        )

    def _step_facts(self) -> Iterator[StepFacts]:
        rows, good = self._rows_read, self._rows_decoded
        yield StepFacts(self._source.name, rows, good, self._silent, 0, self._rows_bad, -self._seconds)
        yield from super()._step_facts()

    def _accounts(self) -> dict[str, StepLedger]:
        read = StepLedger(
            rows_in=self._rows_read,
            rows_out=self._rows_decoded,
            filtered=self._silent,
            errors=self._rows_bad,
            held=-self._seconds,
            sent=self._rows_fetched,
        )
        accounts = super()._accounts() | {self._source.name: read}
        if len(self._parts.nodes) > 1:
            chained = self._parts.nodes[1]
            accounts[chained] += StepLedger(sent=self._rows_decoded)
        return accounts

    def _snapshot(self) -> dict[str, Any]:
        return {
            split: {
                "position": dict(position),
                "max_time": self._clock.max_time(split),
                "finished": split in self._finished,
            }
            for split, position in self._positions.items()
        }


def _few_rows_together(pieces: Sequence[Fetched]) -> Iterator[list[Fetched]]:
    """In order; as long as they are few rows, for a call on another thread costs more than a small batch does. What a
    piece says beyond its rows (its split is at its end, event time has come so far) holds for those after it."""
    together: list[Fetched] = []
    rows = 0
    for piece in pieces:
        if together and rows + piece.rows > FEW_ROWS:
            yield together
            together, rows = [], 0
        together.append(piece)
        rows += piece.rows
        if piece.finished or piece.watermark is not None:
            yield together
            together, rows = [], 0
    if together:
        yield together


async def _cancelled(task: asyncio.Task[Sequence[Fetched]]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
