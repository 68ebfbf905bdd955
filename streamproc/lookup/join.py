"""Rows joined with what is known outside, as it is known now: a file's rows, or the answers of a server.

Stateless: a row that is replayed is looked up again. Output columns are `left.x` and `right.x`, time is the left
row's, and rows keep their order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Literal

import polars as pl

from operators.connector import ErrorPolicy
from operators.element import HIDDEN, EventTimeMs, Schema
from operators.explanation import Explanation, duration_text
from operators.expression import Scalar
from operators.operator import OperatorContext, Output
from operators.row_errors import ROW_ERRORS, BadRow, RowErrors
from operators.types import FieldType
from streamproc.formats.json import JsonDecoder
from streamproc.functions.calls import Answered
from streamproc.lookup.cache import AnswerCache, Key
from streamproc.lookup.file_table import FileTable, TableFile
from streamproc.lookup.http_client import HttpEndpoint, HttpLookup, LookupRefused
from streamproc.pipeline.spec import CacheSpec

LEFT: Final = "left."
RIGHT: Final = "right."
_ROW: Final = "__row"
_ASKED: Final = "__asked"


@dataclass(frozen=True, slots=True)
class KeyPair:
    """An equality of `match`: an expression over each side, and the type both are compared in."""

    left: Scalar
    right: Scalar
    dtype: pl.DataType


@dataclass(frozen=True, slots=True)
class LookupJoinSpec:
    """A look-up join. `keys` are joined by; `condition` is what else has to hold for a pair of rows."""

    kind: Literal["inner", "left"]
    left: Schema  # columns as they arrive
    fields: Mapping[str, FieldType]  # of what is looked up
    keys: tuple[KeyPair, ...]
    condition: Scalar | None
    text: str  # `match` as written
    table: TableFile | HttpEndpoint
    cache: CacheSpec
    errors: ErrorPolicy = "fail"
    waits: ClassVar[bool] = True

    @property
    def schema(self) -> Schema:
        return {LEFT + name: dtype for name, dtype in self.left.items()} | self.right

    @property
    def right(self) -> Schema:
        """The columns that are added."""
        return {RIGHT + name: field.dtype for name, field in self.fields.items()}

    @property
    def stateful(self) -> bool:
        return False

    def create(self, context: OperatorContext) -> LookupJoin:
        return FileLookupJoin(self, context) if isinstance(self.table, TableFile) else HttpLookupJoin(self, context)

    def describe(self) -> str:
        if isinstance(self.table, TableFile):
            refresh = f", read again every {duration_text(self.table.refresh_ms)}" if self.table.refresh_ms else ""
            where = f"file {self.table.config.path}{refresh}"
        else:
            cache = f"{self.cache.rows} answers kept for {duration_text(self.cache.ttl)}"
            where = f"{self.table.url}, {self.table.limits.in_flight} in flight, {cache}"
        return f"{self.kind} look-up join on {' '.join(self.text.split())} in {where}"

    def explained(self) -> Explanation:
        return Explanation(self.describe())


class LookupJoin:
    """One subtask; what differs is where the right rows come from."""

    def __init__(self, spec: LookupJoinSpec, context: OperatorContext) -> None:
        self._spec = spec
        self._context = context
        self._errors = RowErrors(context, spec.errors, lambda _: f"the look-up on {spec.text}")
        self._now_ms = 0

    def process(self, frame: pl.DataFrame, watermark: EventTimeMs) -> Iterator[Output]:
        """Take one batch; waits for what outside has to say."""
        visible = {name: LEFT + name for name in frame.columns if name not in HIDDEN}
        left = frame.rename(visible).with_row_index(_ROW)
        left, pairs, outputs = self._pairs(left, frame)
        yield from outputs
        condition = self._spec.condition
        if condition is not None and pairs.height:
            try:
                pairs = pairs.filter(condition.expr)
            except ROW_ERRORS as error:
                good, outputs, bad_rows = self._errors.isolate(pairs, lambda rows: rows.filter(condition.expr), error)
                self._context.counters.made += bad_rows  # it is a pair that fails: its left row has a fate of its own
                yield from outputs
                pairs = pl.concat(good) if good else pairs.clear()
        hidden = [name for name in HIDDEN if name in frame.columns]
        columns = [*self._spec.schema, *hidden]
        matched = _runs(pairs.get_column(_ROW))
        if self._spec.kind == "left":
            alone = left.join(pairs.select(_ROW).unique(), on=_ROW, how="anti")
            pairs = pl.concat([pairs.select(_ROW, *columns), alone], how="diagonal")
            matched += alone.height
        else:
            self._context.counters.filtered += left.height - matched
        self._context.counters.taken += matched
        result = pairs.sort(_ROW, maintain_order=True).select(columns)
        if result.height:
            yield self._context.counters.result(result)

    def on_watermark(self, watermark: EventTimeMs) -> Iterator[Output]:
        """Nothing waits for event time."""
        return iter(())

    def prepare_snapshot(self) -> Mapping[str, Any]:
        """There is no state."""
        return {}

    def restore(self, snapshots: list[Mapping[str, Any]]) -> None:
        """There is no state."""

    def on_processing_time(self, now_ms: int) -> Iterator[Output]:
        """For the age of what was looked up."""
        self._now_ms = now_ms
        return iter(())

    def close(self) -> None:
        """Nothing to release."""

    def _pairs(self, left: pl.DataFrame, frame: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame, Sequence[Output]]:
        """The left rows without those that have failed, pairs of them with right rows, and those for the dead
        letter queue. `left` is `frame` by other names, numbered in `_ROW`."""
        raise NotImplementedError


class FileLookupJoin(LookupJoin):
    """Joins with the rows of a file."""

    def __init__(self, spec: LookupJoinSpec, context: OperatorContext) -> None:
        super().__init__(spec, context)
        assert isinstance(spec.table, TableFile)
        self._table = FileTable(spec.table, context.step)
        self._by = [f"__key{at}" for at in range(len(spec.keys))]
        self._keyed: tuple[pl.DataFrame, pl.DataFrame] | None = None  # the file's rows, and they with their keys

    def on_processing_time(self, now_ms: int) -> Iterator[Output]:
        """Read the file, or read it again."""
        self._table.rows(now_ms)
        self._table.refresh(now_ms)
        return super().on_processing_time(now_ms)

    def _pairs(self, left: pl.DataFrame, frame: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame, Sequence[Output]]:
        keys = [
            pair.left.expr.cast(pair.dtype).alias(name) for pair, name in zip(self._spec.keys, self._by, strict=True)
        ]
        outputs: Sequence[Output] = ()
        try:
            keyed = left.with_columns(keys)
        except ROW_ERRORS as error:
            good, outputs, _ = self._errors.isolate(left, lambda rows: rows.with_columns(keys), error)
            keyed = pl.concat(good) if good else left.clear().with_columns(keys)
        pairs = keyed.join(self._right(), on=self._by, how="inner", maintain_order="left_right").drop(self._by)
        return keyed.drop(self._by), pairs, outputs

    def _right(self) -> pl.DataFrame:
        rows = self._table.rows(self._now_ms)
        if self._keyed is None or self._keyed[0] is not rows:
            named = rows.rename({name: RIGHT + name for name in rows.columns})
            pairs = zip(self._spec.keys, self._by, strict=True)
            self._keyed = rows, named.with_columns(pair.right.expr.cast(pair.dtype).alias(by) for pair, by in pairs)
        return self._keyed[1]


@dataclass(slots=True)
class _Answers:
    """What a batch was told: rows with the place of their key in `_ASKED`, and the places that got no answer."""

    rows: list[pl.DataFrame]
    failed: dict[int, Exception] = field(default_factory=dict)


class HttpLookupJoin(LookupJoin):
    """Joins with the answers of a server: one question for each distinct key that is not in the cache."""

    def __init__(self, spec: LookupJoinSpec, context: OperatorContext) -> None:
        super().__init__(spec, context)
        assert isinstance(spec.table, HttpEndpoint)
        self._places = [LEFT + name for name in spec.table.places]
        self._client = HttpLookup(spec.table)
        self._decoder = JsonDecoder(spec.fields)
        self._cache = AnswerCache(self._decoder.schema, spec.cache.rows, spec.cache.ttl)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _pairs(self, left: pl.DataFrame, frame: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame, Sequence[Output]]:
        distinct = left.select(self._places).drop_nulls().unique(maintain_order=True)
        answers = self._answers([tuple(map(_text, row)) for row in distinct.iter_rows()])
        asked = distinct.with_row_index(_ASKED)
        left = left.join(asked, on=self._places, how="left", maintain_order="left")
        bad: list[BadRow] = []
        if answers.failed:
            failing = left.filter(pl.col(_ASKED).is_in(list(answers.failed)))
            bad = [BadRow(frame[row], answers.failed[at]) for row, at in failing.select(_ROW, _ASKED).iter_rows()]
            left = left.join(failing.select(_ROW), on=_ROW, how="anti", maintain_order="left")
        right = pl.concat(answers.rows)
        right = right.rename({name: RIGHT + name for name in right.columns if name != _ASKED})
        pairs = left.join(right, on=_ASKED, how="inner", maintain_order="left_right")
        return left.drop(_ASKED), pairs.drop(_ASKED), self._errors.settle(bad)

    def _answers(self, keys: Sequence[Key]) -> _Answers:
        known, places, unknown = self._cache.find(keys, self._now_ms)
        answers = _Answers([_placed(known, places)])
        if not unknown:
            return answers
        records: list[bytes] = []
        of: list[int] = []  # place of each record's key
        for place, outcome in zip(unknown, self._client.ask([keys[place] for place in unknown]), strict=True):
            if isinstance(outcome, Answered):
                records += outcome.value
                of += [place] * len(outcome.value)
            else:
                answers.failed[place] = outcome.error
        frame, refused = self._decoder.decode_each(records)
        bad_records = {each.at for each in refused}
        for each in refused:
            answers.failed.setdefault(of[each.at], LookupRefused(f"the answer does not fit its schema: {each.message}"))
        of = [place for at, place in enumerate(of) if at not in bad_records]
        whole = [place not in answers.failed for place in of]
        frame, of = (
            frame.filter(pl.Series(whole, dtype=pl.Boolean)),
            [p for p, kept in zip(of, whole, strict=True) if kept],
        )
        counts = dict.fromkeys((place for place in unknown if place not in answers.failed), 0)
        for place in of:
            counts[place] += 1
        self._cache.put([keys[place] for place in counts], frame, list(counts.values()), self._now_ms)
        answers.rows.append(_placed(frame, of))
        return answers


def _runs(rows: pl.Series) -> int:
    """How many different ones there are; equal ones stand together."""
    numbers = rows.to_numpy()
    return int((numbers[1:] != numbers[:-1]).sum()) + min(1, len(numbers))


def _placed(rows: pl.DataFrame, places: Sequence[int]) -> pl.DataFrame:
    return rows.with_columns(pl.Series(_ASKED, places, dtype=pl.UInt32))


def _text(value: Any) -> str:
    """A value as it stands in a URL, before it is encoded."""
    return str(value).lower() if isinstance(value, bool) else str(value)
