"""A source in memory: gives the rows of a test when it is told to, and says when they are through.

It outlives the attempts of a job: after a crash each attempt opens a reader of its own, and whoever plays the
test gives again what came after the checkpoint.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import polars as pl

from operators.connector import ERRORS_SCHEMA, Decoded, Fetched, Position, SplitId
from operators.element import INSERT, KIND, EventTimeMs, Schema
from operators.types import FieldType, parse_type
from streamproc.formats.json import JsonDecoder
from streamproc.formats.protocol import BadRecord
from streamproc.pipeline.logical import LogicalSource
from streamproc.pipeline.spec import KafkaSourceSpec
from streamproc.pipeline.suggest import listed
from streamproc.testing.pipeline_compare import OP, OPS

GivenRow = Mapping[str, Any] | str  # the columns of a row, or a record as it stands on the wire
SPLIT: Final = SplitId("given-0")

_WIRE_OF_METADATA: Final[Mapping[str, FieldType]] = {
    "key": FieldType("bytes"),
    "partition": FieldType("int32"),
    "offset": FieldType("int64"),
    "timestamp": FieldType("timestamp"),
    "topic": FieldType("string"),
    "headers": parse_type("list[string]"),
}
_HEADERS: Final = parse_type({"key": "string", "value": "bytes"})


def given_fields(source: LogicalSource) -> dict[str, FieldType]:
    """What a given row may hold: the declared fields, then the columns that come from metadata."""
    fields = dict(source.fields) or {name: field_of(dtype) for name, dtype in source.schema.items()}
    if isinstance(source.config, KafkaSourceSpec):
        for name, kind in source.config.metadata.items():
            fields[name] = FieldType("list", item=_HEADERS) if kind == "headers" else _WIRE_OF_METADATA[kind]
    return fields


def field_of(dtype: pl.DataType) -> FieldType:
    """How a column of a generated source is written in a test."""
    plain = {pl.Int32: "int32", pl.Int64: "int64", pl.Float64: "float64", pl.Boolean: "boolean", pl.String: "string"}
    for known, name in plain.items():
        if dtype == known:
            return FieldType(name)
    return FieldType("timestamp") if isinstance(dtype, pl.Datetime) else FieldType("string")


class GivenDecoder:
    """Decodes given rows as the source would decode JSON records, with the same strict rules."""

    def __init__(self, source: LogicalSource) -> None:
        self._source = source
        self._fields = given_fields(source)
        required = (source.event_time.column,) if source.event_time else ()
        self._decoder = JsonDecoder(self._fields, required)

    @property
    def columns(self) -> list[str]:
        """Names that a row may hold."""
        return [*self._fields, *([OP] if self._source.changelog is not None else [])]

    def faults(self, rows: Sequence[GivenRow]) -> list[BadRecord]:
        """Rows of columns that the declared types refuse. A raw record may be broken: that is what it is for."""
        wanted = [at for at, row in enumerate(rows) if not isinstance(row, str)]
        _, bad = self._decoder.decode_each([self._wire(rows[at]) for at in wanted])
        return [BadRecord(wanted[each.at], each.message) for each in bad] + self._unknown_kinds(rows)

    def _unknown_kinds(self, rows: Sequence[GivenRow]) -> list[BadRecord]:
        if self._source.changelog is None:
            return []
        told = [(at, row.get(OP, OPS[0])) for at, row in enumerate(rows) if not isinstance(row, str)]
        return [
            BadRecord(at, f"'{op}' is no kind of change: there are {listed(OPS)}") for at, op in told if op not in OPS
        ]

    def decode(self, rows: Sequence[GivenRow], first: int) -> Decoded:
        """Rows of the source's schema; refused records as `ERRORS_SCHEMA` rows. `first`: the offset of the first."""
        values = [self._wire(row) for row in rows]
        frame, bad = self._decoder.decode_each(values)
        refused = {each.at for each in bad}
        taken = [at for at in range(len(rows)) if at not in refused]
        frame = self._with_metadata(frame, [first + at for at in taken]).select(self._visible)
        if self._source.changelog is not None:
            frame = frame.with_columns(pl.Series(KIND, [_kind(rows[at]) for at in taken], dtype=pl.Int8))
        return Decoded(frame, self._errors(values, bad, first) if bad else None)

    @property
    def _visible(self) -> list[pl.Expr]:
        return [pl.col(name).cast(dtype) for name, dtype in self._source.schema.items()]

    def _with_metadata(self, frame: pl.DataFrame, offsets: Sequence[int]) -> pl.DataFrame:
        """Where a test does not say them: records of partition 0, numbered as they come."""
        config = self._source.config
        if not isinstance(config, KafkaSourceSpec):
            return frame
        plain = {"partition": pl.lit(0), "offset": pl.Series(offsets, dtype=pl.Int64), "topic": pl.lit(config.topic)}
        return frame.with_columns(
            pl.col(name).fill_null(plain[kind]) for name, kind in config.metadata.items() if kind in plain
        )

    def _errors(self, values: Sequence[bytes], bad: Sequence[BadRecord], first: int) -> pl.DataFrame:
        now, name = datetime.now(UTC), self._source.name
        rows = [(now, name, SPLIT, first + each.at, None, values[each.at], name, each.message) for each in bad]
        return pl.DataFrame(rows, schema=ERRORS_SCHEMA, orient="row")

    def _wire(self, row: GivenRow) -> bytes:
        if isinstance(row, str):
            return row.encode()
        return json.dumps({name: row[name] for name in row if name in self._fields}, ensure_ascii=False).encode()


def _kind(row: GivenRow) -> int:
    return INSERT if isinstance(row, str) else OPS.index(row.get(OP, OPS[INSERT]))


@dataclass(frozen=True, slots=True)
class _Item:
    """Something that a source gives: rows, a watermark, or its end."""

    rows: Sequence[GivenRow] = ()
    watermark: EventTimeMs | None = None
    end: bool = False


@dataclass(slots=True)
class GivenSource:
    """One source of the pipeline under test. All of it is on one event loop."""

    source: LogicalSource
    decoder: GivenDecoder
    _readers: list[GivenReader] = field(default_factory=list)

    @property
    def bounded(self) -> bool:
        """Not by itself: it ends when the test says so."""
        return False

    @property
    def schema(self) -> Schema:
        """Visible columns."""
        return self.source.schema

    def reader(self, subtask: int, parallelism: int) -> GivenReader:
        """The first subtask reads the one split; the others have none. A new attempt begins with the first."""
        if subtask == 0:
            self._readers = []
        reader = GivenReader(self, owns_split=subtask == 0)
        self._readers.append(reader)
        return reader

    def give(self, rows: Sequence[GivenRow]) -> None:
        """Rows to be read next, as one piece."""
        self._readers[0].push(_Item(rows))

    def move_watermark(self, to: EventTimeMs) -> None:
        """Event time of the split comes to `to`, if it is not there yet."""
        self._readers[0].push(_Item(watermark=to))

    def end(self) -> None:
        """Nothing follows."""
        for reader in self._readers:
            reader.push(_Item(end=True))

    async def taken(self) -> None:
        """Until all that was given has been emitted by its subtask."""
        for reader in self._readers:
            await reader.idle.wait()


class GivenReader:
    """Reads what the test gives during one attempt."""

    def __init__(self, source: GivenSource, *, owns_split: bool) -> None:
        self._source = source
        self._owns_split = owns_split
        self._waiting: deque[_Item] = deque()
        self._arrived = asyncio.Event()
        self._records = 0
        self._ended = False
        self._gave = False
        self.idle = asyncio.Event()  # everything that was pushed has left: only then is more fetched

    def push(self, item: _Item) -> None:
        """To be read next."""
        self._waiting.append(item)
        self.idle.clear()
        self._arrived.set()

    async def open(self, restored: Mapping[SplitId, Position] | None) -> None:
        """Go on counting where the checkpoint was."""
        position = (restored or {}).get(SPLIT, {})
        self._records = int(position.get("records", 0))
        self._ended = bool(position.get("ended", False))

    def splits(self) -> Mapping[SplitId, Position]:
        """The one split, for its owner."""
        return {SPLIT: self._position()} if self._owns_split else {}

    async def fetch(self, max_rows: int, timeout_s: float) -> Sequence[Fetched]:
        """The next thing given."""
        if not self._waiting:
            self.idle.set()
            if self._ended or self._gave:
                self._gave = False  # said at once that there is nothing more: other sources may wait for that
                return []
            self._arrived.clear()
            try:
                async with asyncio.timeout(timeout_s):
                    await self._arrived.wait()
            except TimeoutError:
                return []
        item = self._waiting.popleft()
        self._gave = True
        first, count = self._records, len(item.rows)
        self._records += count
        self._ended = self._ended or item.end
        if not self._owns_split:
            return []
        decoder, rows = self._source.decoder, item.rows
        return [
            Fetched(
                SPLIT,
                self._position(),
                count,
                sum(len(str(row)) for row in rows),
                lambda: decoder.decode(rows, first),
                finished=item.end,
                watermark=item.watermark,
            )
        ]

    def exhausted(self) -> bool:
        """The test has said so."""
        if self._ended and not self._waiting:
            self.idle.set()  # nothing more is fetched, so this is the last that is heard of it
        return self._ended

    def lag_records(self) -> int | None:
        """Nothing is behind that was not given yet."""
        return 0

    def listening(self) -> bool:
        """Rows are given here."""
        return True

    async def close(self) -> None:
        """Nothing to release."""

    def _position(self) -> Position:
        return {"records": self._records, "ended": self._ended}
