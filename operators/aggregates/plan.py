"""The aggregates of one step as a plan in two phases: rows → partials, partials → partials, partials → results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import polars as pl

from operators.aggregates.accumulators import Accumulator, Array, Distinct, Edge, Sketch
from operators.aggregates.grouping import group
from operators.element import TIME, Schema
from operators.expression.compile import Scalar
from operators.hashing import hash_values


@dataclass(frozen=True, slots=True)
class Input:
    """What one accumulator reads: a column of the rows as it is, or an expression over them."""

    name: str
    text: str  # as SQL, with its filter
    expr: pl.Expr = field(compare=False, repr=False)
    computed: bool
    hashed: bool = False


@dataclass(frozen=True, slots=True)
class AggregatePlan:
    """Immutable. Two plans are equal when the user's texts and the types involved are.

    `partial_schema` are the columns of a partial beside `by`; `schema` those of the result.
    """

    inputs: list[str]
    outputs: tuple[Scalar, ...]
    names: tuple[str, ...]
    accumulators: tuple[Accumulator, ...]
    sources: tuple[Input, ...]

    @property
    def schema(self) -> Schema:
        return {name: output.dtype for name, output in zip(self.names, self.outputs, strict=True)}

    @property
    def partial_schema(self) -> Schema:
        return {
            name: dtype
            for accumulator in self.accumulators
            for name, dtype in zip(accumulator.names, accumulator.dtypes, strict=True)
        }

    def partial(self, frame: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame:
        """Rows → one partial per distinct `by`. Raises a PolarsError where a row's input cannot be computed.

        `frame` needs `by`, `inputs` and, where there is an event time, `__time`.
        """
        rows = self._rows(frame, by)
        null_counts = {source.name: rows.get_column(source.name).null_count() for source in self.sources}
        aggregations = [
            expr
            for accumulator in self.accumulators
            for expr in accumulator.partial(bool(null_counts.get(getattr(accumulator, "source", ""), 0)))
        ]
        return self._trimmed(group(rows, by, aggregations))

    def merge(self, frame: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame:
        """Concatenated partials, earlier arrivals first → one partial per distinct `by`."""
        return self._trimmed(group(frame, by, [expr for each in self.accumulators for expr in each.merge()]))

    def finish(self, frame: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame:
        """Merged partials → `by` and the results. The key columns must be among `by`."""
        counted = [each.counted() for each in self.accumulators if isinstance(each, Distinct)]
        return self.results(frame.with_columns(counted) if counted else frame, by)

    def results(self, frame: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame:
        """As `finish`, where distinct values have been counted."""
        results = [output.expr.alias(name) for name, output in zip(self.names, self.outputs, strict=True)]
        return frame.select(*by, *results)

    def weight(self, frame: pl.DataFrame) -> int:
        """About how many rows' worth of memory the partials take; the elements of lists count too."""
        lists = [name for name, dtype in self.partial_schema.items() if isinstance(dtype, pl.List)]
        if not lists:
            return frame.height
        elements = frame.select(pl.sum_horizontal(pl.col(name).list.len().sum() for name in lists)).item()
        return frame.height + int(elements or 0)

    def _rows(self, frame: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame:
        """The rows with every input as a column, in the order of event time where that matters."""
        if any(source.computed for source in self.sources):
            keep = [*by, *(name for name in self.inputs if name not in by)]
            if TIME in frame.columns and TIME not in keep:
                keep.append(TIME)
            computed = [source.expr.alias(source.name) for source in self.sources if source.computed]
            frame = frame.select(*keep, *computed)
        hashed = [_hashed(frame, source) for source in self.sources if source.hashed]
        frame = frame.with_columns(hashed) if hashed else frame
        if not any(isinstance(accumulator, (Edge, Array)) for accumulator in self.accumulators):
            return frame
        if TIME not in frame.columns:  # no event time: the order of arrival
            return frame.with_columns(pl.lit(0, dtype=pl.Int64).alias(TIME))
        time = frame.get_column(TIME)
        return frame if time.is_sorted() else frame.sort(TIME, maintain_order=True)

    def _trimmed(self, partials: pl.DataFrame) -> pl.DataFrame:
        for accumulator in self.accumulators:
            if isinstance(accumulator, Sketch) and accumulator.is_long(partials):
                partials = partials.with_columns(accumulator.trim())
        return partials


def _hashed(frame: pl.DataFrame, source: Input) -> pl.Series:
    values = frame.get_column(source.name)
    hashes = pl.Series(source.name, hash_values(values))
    if not values.null_count():
        return hashes
    return pl.select(pl.when(values.is_not_null()).then(hashes).alias(source.name)).to_series()
