"""Candidate pairs → joined rows: expanded in bounded pieces, judged by the residual condition, put together.

One hot key can give more pairs than memory has room for: no more than `PAIRS` of them exist at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from operators.element import KIND, ROW_WATERMARK, TIME, WATERMARK_MIN, EventTimeMs
from operators.join.shape import JoinShape, Side
from operators.keyed_rows import Ids, KeyedRows
from operators.operator import Counters, OperatorContext, Output
from operators.row_errors import ROW_ERRORS, RowErrors

PAIRS: Final = 65_536  # pairs, and rows of an output frame, at a time
LEFT_TIME: Final = "__left_time"
RIGHT_TIME: Final = "__right_time"
_AT: Final = "__at"
_ID: Final = "__id"

Flags = npt.NDArray[np.bool_]
Times = npt.NDArray[np.int64]


class Candidates(NamedTuple):
    """Pairs of positions, ordered by the first, then the second; equal lengths."""

    at: Ids
    of: Ids


class Matches(NamedTuple):
    """Pairs that meet the condition: positions, ids, and the rows put together (see `Pairing.match`)."""

    at: Ids
    ids: Ids
    rows: pl.DataFrame


def find_pieces(frame: pl.DataFrame, key: Sequence[str], held: KeyedRows) -> Iterator[Candidates]:
    """All pairs (row of `frame`, id in `held`) with equal keys, in bounded pieces. `held` may be marked between
    two pieces, not added to or removed from."""
    if len(held):
        yield from map(Candidates._make, held.find_pieces(frame, key, PAIRS))


def equal_keys(
    left: pl.DataFrame, left_key: Sequence[str], right: pl.DataFrame, right_key: Sequence[str]
) -> Iterator[Candidates]:
    """All pairs (row of `left`, row of `right`) with equal keys, none of them null, in bounded pieces. Without a
    key every row meets every other."""
    if not left_key:
        counts = np.array([right.height])
        yield from map(Candidates._make, _expanded(np.zeros(left.height, dtype=np.int64), counts))
        return
    keys, code = numbered(left, left_key)
    named = dict(zip(right_key, left_key, strict=True))
    wanted = _grouped(right.select(right_key).rename(named), left_key).rename({_AT: _ID})
    partners = keys.join(wanted, on=list(left_key), how="left", maintain_order="left").get_column(_ID)
    counts = partners.list.len().fill_null(0).to_numpy().astype(np.int64)
    if counts.any():
        rows = partners.drop_nulls().explode().to_numpy().astype(np.int64)
        for at, position in _expanded(code, counts):
            yield Candidates(at, rows[position])


def numbered(frame: pl.DataFrame, key: Sequence[str]) -> tuple[pl.DataFrame, Ids]:
    """The distinct keys without a null, and for each row the place of its own among them; −1 for a null."""
    keys = _grouped(frame, key)
    lists = keys.get_column(_AT)
    code = np.full(frame.height, -1, dtype=np.int64)
    if keys.height:
        code[lists.explode().to_numpy()] = np.repeat(np.arange(keys.height), lists.list.len().to_numpy())
    return keys, code


def _grouped(frame: pl.DataFrame, key: Sequence[str]) -> pl.DataFrame:
    """The distinct keys without a null, and in `_AT` the positions of their rows."""
    keys = frame.select(key).with_row_index(_AT)
    if any(keys.get_column(name).null_count() for name in key):
        keys = keys.drop_nulls(list(key))
    return keys.group_by(list(key), maintain_order=True).agg(_AT)


def _expanded(codes: Ids, counts: Ids) -> Iterator[tuple[Ids, Ids]]:
    """Each row with all places of its key's partners, which stand one key after the other."""
    firsts = np.cumsum(counts) - counts
    per_row = np.where(codes >= 0, counts[codes], 0)
    rows = np.flatnonzero(per_row)
    ends = np.cumsum(per_row[rows])
    starts = ends - per_row[rows]
    total = int(ends[-1]) if len(ends) else 0
    for begin in range(0, total, PAIRS):
        end = min(begin + PAIRS, total)
        concerned = slice(np.searchsorted(ends, begin, side="right"), np.searchsorted(starts, end))
        here = np.minimum(ends[concerned], end) - np.maximum(starts[concerned], begin)
        nth = np.arange(begin, end) - np.repeat(starts[concerned], here)
        yield np.repeat(rows[concerned], here), np.repeat(firsts[codes[rows[concerned]]], here) + nth


class Pairing:
    """The condition and the result columns of one join subtask."""

    def __init__(self, shape: JoinShape, context: OperatorContext) -> None:
        self._shape = shape
        self._errors = RowErrors(context, shape.errors, lambda _: f"join on {shape.text}")
        self._counters = context.counters
        self._bad: list[Output] = []

    def match(
        self, candidates: Candidates, left: pl.DataFrame, right: pl.DataFrame, eligible: Flags | None = None
    ) -> Matches:
        """The pairs for which the condition holds. `left`, `right`: the rows of each pair side by side, `eligible`:
        which of them may meet at all. What fails on the condition follows the error policy: see `errors`."""
        at, ids = candidates
        if eligible is not None and not eligible.all():
            kept = np.flatnonzero(eligible)
            at, ids, left, right = at[kept], ids[kept], left[kept], right[kept]
        rows = _side_by_side(left, right)
        residual = self._shape.residual
        if residual is None or not len(at):
            return Matches(at, ids, rows)
        rows = rows.with_columns(pl.Series(_AT, at), pl.Series(_ID, ids))
        try:
            rows = rows.filter(residual.expr)
        except ROW_ERRORS as error:
            good, outputs, bad_rows = self._errors.isolate(rows, lambda frame: frame.filter(residual.expr), error)
            self._counters.made += bad_rows  # it is a pair that fails: its rows have a fate of their own
            self._bad += outputs
            rows = pl.concat(good) if good else rows.clear()
        at, ids = rows.get_column(_AT).to_numpy(), rows.get_column(_ID).to_numpy()
        return Matches(at, ids, rows.drop(_AT, _ID))

    def errors(self) -> Iterator[Output]:
        """Pairs for the dead letter queue since the last call."""
        bad, self._bad = self._bad, []
        return iter(bad)

    def joined(self, rows: pl.DataFrame, *more: pl.Series) -> pl.DataFrame:
        """Results of pairs; their time is the later of both."""
        times = [name for name in (LEFT_TIME, RIGHT_TIME) if name in rows.columns]
        time = [pl.max_horizontal(times).alias(TIME)] if self._shape.timed and times else []
        return rows.select(*self._shape.output, *time).with_columns(*more)

    def alone(self, side: Side, rows: pl.DataFrame, *more: pl.Series) -> pl.DataFrame:
        """Results of rows of one side, nulls for the other's columns; their own time."""
        schema = self._shape.schema
        columns = [
            pl.col(name) if name in side.schema else pl.lit(None, dtype=dtype).alias(name)
            for name, dtype in schema.items()
        ]
        time = [pl.col(TIME)] if self._shape.timed and TIME in rows.columns else []
        return rows.select(*columns, *time).with_columns(*more)


def _side_by_side(left: pl.DataFrame, right: pl.DataFrame) -> pl.DataFrame:
    """One frame of both; times under names of their own, no other hidden column twice."""
    columns: list[pl.Series] = []
    for frame, time in ((left, LEFT_TIME), (right, RIGHT_TIME)):
        for column in frame.get_columns():
            if column.name == TIME:
                columns.append(column.alias(time))
            elif column.name not in (KIND, ROW_WATERMARK):
                columns.append(column)
    return pl.DataFrame(columns)


def row_watermarks(frame: pl.DataFrame, watermark: int) -> Times:
    """The watermark just before each row, never behind `watermark`, which the subtask has seen."""
    if ROW_WATERMARK not in frame.columns:
        return np.full(frame.height, watermark, dtype=np.int64)
    rows: Times = frame.get_column(ROW_WATERMARK).fill_null(watermark).to_numpy()
    return np.maximum(rows, np.int64(watermark))


def has_key(frame: pl.DataFrame, key: Sequence[str]) -> Flags | None:
    """Which rows can have a partner at all: those without a null in their key; None: every one."""
    if not any(frame.get_column(name).null_count() for name in key):
        return None
    return frame.select(pl.all_horizontal(pl.col(*key).is_not_null())).to_series().to_numpy()


def held_back(watermark: int, by: int) -> EventTimeMs:
    """The watermark that may be promised when results can be `by` ms behind it."""
    return EventTimeMs(max(watermark - by, WATERMARK_MIN))


def in_pieces(frame: pl.DataFrame, counters: Counters) -> Iterator[Output]:
    """Results in outputs of bounded size; none for no rows."""
    for piece in frame.iter_slices(PAIRS):
        if piece.height:
            yield counters.result(piece)
