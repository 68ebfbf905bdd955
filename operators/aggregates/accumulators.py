"""What each aggregate keeps per group: partial columns, how two of them merge, and what they come to.

Merging is associative, so rows may be cut into partials and partials merged in any grouping. Order
matters only to first, last and array_agg: by event time, ties by the order in which frames are
concatenated, which callers keep as the order of arrival.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Final, Protocol

import polars as pl

from operators.element import TIME

INT64: Final = pl.Int64()
FLOAT64: Final = pl.Float64()
SKETCH_SIZE: Final = 1024  # smallest hashes kept by approx_count_distinct: a standard error of 3 %


class Accumulator(Protocol):
    """One or more partial columns; `names` and `dtypes` run in parallel."""

    @property
    def names(self) -> tuple[str, ...]: ...

    @property
    def dtypes(self) -> tuple[pl.DataType, ...]: ...

    @property
    def result(self) -> pl.DataType:
        """The type of `finish`."""

    def partial(self, nulls: bool) -> list[pl.Expr]:
        """Aggregations over the rows of a group; `nulls`: whether the input holds any."""

    def merge(self) -> list[pl.Expr]:
        """Aggregations over a group's partial rows."""

    def finish(self) -> pl.Expr:
        """The result, from one merged row."""


@dataclass(frozen=True, slots=True)
class OneColumn(ABC):
    """The usual accumulator: its partial is its result so far."""

    name: str

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name,)

    @property
    def dtypes(self) -> tuple[pl.DataType, ...]:
        return (self.result,)

    @property
    @abstractmethod
    def result(self) -> pl.DataType:
        """Type of the result."""

    def finish(self) -> pl.Expr:
        return pl.col(self.name)


@dataclass(frozen=True, slots=True)
class CountRows(OneColumn):
    """`count(*)`."""

    @property
    def result(self) -> pl.DataType:
        return INT64

    def partial(self, nulls: bool) -> list[pl.Expr]:
        return [pl.len().cast(INT64).alias(self.name)]

    def merge(self) -> list[pl.Expr]:
        return [pl.col(self.name).sum()]


@dataclass(frozen=True, slots=True)
class Count(CountRows):
    """`count(x)`: rows where it is not null."""

    source: str

    def partial(self, nulls: bool) -> list[pl.Expr]:
        counted = pl.col(self.source).count() if nulls else pl.len()
        return [counted.cast(INT64).alias(self.name)]


@dataclass(frozen=True, slots=True)
class Sum(OneColumn):
    """Null over no values. Integers are summed to int64 and raise when that overflows."""

    source: str
    input: pl.DataType

    @property
    def result(self) -> pl.DataType:
        if isinstance(self.input, pl.Decimal):
            return pl.Decimal(38, self.input.scale)
        return INT64 if self.input.is_integer() else FLOAT64

    def partial(self, nulls: bool) -> list[pl.Expr]:
        return [self._sum(pl.col(self.source), self.input, nulls).alias(self.name)]

    def merge(self) -> list[pl.Expr]:
        return [self._sum(pl.col(self.name), self.result, True).alias(self.name)]

    def _sum(self, values: pl.Expr, dtype: pl.DataType, nulls: bool) -> pl.Expr:
        wide = pl.Int128() if dtype == INT64 else self.result
        total = (values if dtype == wide else values.cast(wide)).sum()
        if wide != self.result:
            total = total.cast(self.result)
        return pl.when(values.count() > 0).then(total) if nulls else total


@dataclass(frozen=True, slots=True)
class Extreme(OneColumn):
    """`min` and `max` of anything that has an order; a NaN counts only where there is nothing else."""

    source: str
    input: pl.DataType
    largest: bool

    @property
    def result(self) -> pl.DataType:
        return self.input

    def partial(self, nulls: bool) -> list[pl.Expr]:
        return [self._extreme(pl.col(self.source)).alias(self.name)]

    def merge(self) -> list[pl.Expr]:
        return [self._extreme(pl.col(self.name))]

    def _extreme(self, values: pl.Expr) -> pl.Expr:
        return values.max() if self.largest else values.min()


@dataclass(frozen=True, slots=True)
class Moments:
    """Count, mean and sum of squared deviations: merged without the cancellation of Σx² − (Σx)²/n."""

    name: str
    source: str

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name + "_n", self.name + "_mean", self.name + "_m2")

    @property
    def dtypes(self) -> tuple[pl.DataType, ...]:
        return (INT64, FLOAT64, FLOAT64)

    @property
    def result(self) -> pl.DataType:
        return FLOAT64

    def partial(self, nulls: bool) -> list[pl.Expr]:
        x = pl.col(self.source)
        n, mean, m2 = self.names
        return [
            x.count().cast(INT64).alias(n),
            x.mean().alias(mean),
            (x.var(ddof=0) * x.count()).alias(m2),
        ]

    def merge(self) -> list[pl.Expr]:
        n, mean, m2 = (pl.col(name) for name in self.names)
        merged_mean = pl.when(n.sum() > 0).then((n * mean).sum() / n.sum())  # 0 ÷ 0 would poison later merges
        between = (n * (mean - merged_mean).pow(2)).sum()
        return [
            n.sum(),
            merged_mean.alias(self.names[1]),
            (m2.sum() + between).alias(self.names[2]),
        ]

    def finish(self) -> pl.Expr:
        return self.variance(1)

    def variance(self, ddof: int) -> pl.Expr:
        """Null for fewer than `ddof` + 1 values."""
        n, _, m2 = (pl.col(name) for name in self.names)
        return pl.when(n > ddof).then(m2 / (n - ddof))


@dataclass(frozen=True, slots=True)
class Edge:
    """`first_value` and `last_value` by event time, of the values that are not null."""

    name: str
    source: str
    input: pl.DataType
    last: bool

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name, self.name + "_time")

    @property
    def dtypes(self) -> tuple[pl.DataType, ...]:
        return (self.input, INT64)

    @property
    def result(self) -> pl.DataType:
        return self.input

    def partial(self, nulls: bool) -> list[pl.Expr]:
        """Of rows already in the order of event time."""
        present = pl.col(self.source).is_not_null()
        value, time = pl.col(self.source), pl.col(TIME)
        if nulls:
            value, time = value.filter(present), time.filter(present)
        return [self._edge(value).alias(self.name), self._edge(time).alias(self.name + "_time")]

    def merge(self) -> list[pl.Expr]:
        """No value has no time either, so it is chosen only where there is nothing else.

        Not by `arg_min` and `arg_max`: which of equals they take depends on whether polars believes the
        column to be sorted, and inside a group it goes on believing so of a column reversed.
        """
        value, time = pl.col(self.name), pl.col(self.name + "_time")
        extreme = time.max() if self.last else time.min()
        return [self._edge(value.filter(time == extreme)), extreme]

    def finish(self) -> pl.Expr:
        return pl.col(self.name)

    def _edge(self, values: pl.Expr) -> pl.Expr:
        return values.last() if self.last else values.first()


@dataclass(frozen=True, slots=True)
class Collect(OneColumn):
    """All values as a list: for `median` and `quantile_cont`, which need no order and no nulls."""

    source: str
    input: pl.DataType

    @property
    def result(self) -> pl.DataType:
        return pl.List(self.input)

    def partial(self, nulls: bool) -> list[pl.Expr]:
        values = pl.col(self.source)
        return [(values.drop_nulls() if nulls else values).alias(self.name)]

    def merge(self) -> list[pl.Expr]:
        return [_elements(self.name)]


@dataclass(frozen=True, slots=True)
class Distinct(Collect):
    """The distinct values as a list: exact `count(distinct x)`."""

    def partial(self, nulls: bool) -> list[pl.Expr]:
        values = pl.col(self.source)
        return [(values.drop_nulls() if nulls else values).unique().alias(self.name)]

    def merge(self) -> list[pl.Expr]:
        return [_elements(self.name).unique()]

    def counted(self) -> pl.Expr:
        """The number of values, under the same name: what `finish` reads."""
        return pl.col(self.name).list.len().cast(INT64)

    def finish(self) -> pl.Expr:
        return pl.col(self.name)

    @property
    def dtypes(self) -> tuple[pl.DataType, ...]:
        return (pl.List(self.input),)

    @property
    def result(self) -> pl.DataType:
        return INT64


@dataclass(frozen=True, slots=True)
class Sketch(Distinct):
    """`approx_count_distinct`: the SKETCH_SIZE smallest hashes; the k-th smallest tells how dense they lie.

    Exact below SKETCH_SIZE values. The smallest hashes of a union are among the smallest of its parts,
    so merging loses nothing.
    """

    def is_long(self, partials: pl.DataFrame) -> bool:
        """Whether some list is longer than needed."""
        longest = partials.get_column(self.name).list.len().max()
        return isinstance(longest, int) and longest > SKETCH_SIZE

    def trim(self) -> pl.Expr:
        return pl.col(self.name).list.sort().list.head(SKETCH_SIZE)

    def counted(self) -> pl.Expr:
        """The estimate."""
        kept = pl.col(self.name)
        density = kept.list.max().cast(FLOAT64) / 2.0**64
        estimate = ((SKETCH_SIZE - 1) / density).round().cast(INT64, strict=False)
        exact = kept.list.len().cast(INT64)
        return pl.when(kept.list.len() < SKETCH_SIZE).then(exact).otherwise(estimate).alias(self.name)


@dataclass(frozen=True, slots=True)
class Array:
    """`array_agg`: all values, nulls too, in the order of event time; null over no rows."""

    name: str
    source: str
    input: pl.DataType
    mask: str | None  # boolean column of the rows that count

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name, self.name + "_time")

    @property
    def dtypes(self) -> tuple[pl.DataType, ...]:
        return (pl.List(self.input), pl.List(INT64))

    @property
    def result(self) -> pl.DataType:
        return pl.List(self.input)

    def partial(self, nulls: bool) -> list[pl.Expr]:
        """Of rows already in the order of event time."""
        value, time = pl.col(self.source), pl.col(TIME)
        if self.mask is not None:
            value, time = value.filter(pl.col(self.mask)), time.filter(pl.col(self.mask))
        return [value.alias(self.name), time.alias(self.name + "_time")]

    def merge(self) -> list[pl.Expr]:
        time = _elements(self.name + "_time")
        return [
            _elements(self.name).sort_by(time, maintain_order=True),
            time.sort(),
        ]

    def finish(self) -> pl.Expr:
        values = pl.col(self.name)
        return pl.when(values.list.len() > 0).then(values)


def quantile(collected: Collect, q: float) -> pl.Expr:
    """Interpolated between the two nearest values; null over none."""
    return pl.col(collected.name).list.agg(pl.element().quantile(q, "linear")).cast(FLOAT64)


def _elements(name: str) -> pl.Expr:
    return pl.col(name).explode(empty_as_null=False, keep_nulls=False)
