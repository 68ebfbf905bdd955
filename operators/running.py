"""How the aggregates of a group that never closes are kept: folded into one row, counted value by value, or collected.

What merges is *folded*: the group's partial is merged with each batch's. Where rows are taken back this only
holds for counts, sums and moments, whose partials have an inverse. Distinct values would make partials that grow
with the group and are rewritten with every batch, so they are *counted* in rows of their own. For all others the
group's rows are *collected*, and aggregated anew when the group has changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import polars as pl

from operators.aggregates import AggregatePlan
from operators.aggregates.accumulators import (
    Accumulator,
    Array,
    Collect,
    Count,
    CountRows,
    Distinct,
    Extreme,
    Moments,
    Sketch,
    Sum,
)
from operators.changes import Flags
from operators.element import TIME

ROWS: Final = "__rows"  # how many rows a group has


@dataclass(frozen=True, slots=True)
class RunningPlan:
    """The aggregates of `plan` by the way they are kept. Of `folded`, a distinct count is a plain count."""

    plan: AggregatePlan
    folded: AggregatePlan
    counted: tuple[Distinct, ...]
    collected: AggregatePlan | None

    def partials(self, frame: pl.DataFrame, back: Flags, key: Sequence[str]) -> list[pl.DataFrame]:
        """Folded partials of rows: one per key of those added, and of those taken back the inverse of one.

        They are to be merged together with what is held, at once: moments of as many values added as taken
        back say nothing alone. Distinct counts are 0, for they are not what a partial can tell.
        """
        zeros = [pl.lit(0, dtype=pl.Int64).alias(each.name) for each in self.counted]
        if not back.any():
            return [self.folded.partial(frame, key).with_columns(zeros)]
        inverse = [expr for accumulator in self.folded.accumulators for expr in _inverse(accumulator)]
        taken = self.folded.partial(frame.filter(pl.Series(back)), key).with_columns(inverse).with_columns(zeros)
        if back.all():
            return [taken]
        return [self.folded.partial(frame.filter(pl.Series(~back)), key).with_columns(zeros), taken]

    def merge(self, frame: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame:
        """Folded partials merged by `by`; a sum over no values is null, whatever was taken back."""
        merged = self.folded.merge(frame, by)
        return merged.with_columns(
            expr for accumulator in self.folded.accumulators for expr in _settled(accumulator, merged.columns)
        )

    def results(self, frame: pl.DataFrame, key: Sequence[str]) -> pl.DataFrame:
        """Key and results, from folded and collected partials together."""
        counted = [each.counted() for each in self.plan.accumulators if isinstance(each, Sketch)]
        return self.plan.results(frame.with_columns(counted) if counted else frame, key)


def running_plan(plan: AggregatePlan, *, retracting: bool, timed: bool) -> RunningPlan:
    """Decide how each aggregate is kept. `timed`: rows have `TIME`, whose newest is folded, too."""
    folded: list[Accumulator] = [CountRows(ROWS)]
    if timed:
        folded.append(Extreme(TIME, TIME, pl.Int64(), largest=True))
    counted: list[Distinct] = []
    collected: list[Accumulator] = []
    for accumulator in plan.accumulators:
        if type(accumulator) is Distinct:
            counted.append(accumulator)
            folded.append(CountRows(accumulator.name))
        elif isinstance(accumulator, CountRows | Sum | Moments):
            folded.append(accumulator)
            if retracting and isinstance(accumulator, Sum):
                folded.append(Count(_values_of(accumulator), accumulator.source))
        elif retracting or isinstance(accumulator, Array) or type(accumulator) is Collect:
            collected.append(accumulator)
        else:
            folded.append(accumulator)
    return RunningPlan(plan, _part(plan, folded), tuple(counted), _part(plan, collected) if collected else None)


def _part(plan: AggregatePlan, accumulators: Sequence[Accumulator]) -> AggregatePlan:
    """A plan of some accumulators, with the inputs that these read."""
    read = {getattr(each, name, None) for each in accumulators for name in ("source", "mask")}
    sources = tuple(source for source in plan.sources if source.name in read)
    return replace(plan, accumulators=tuple(accumulators), sources=sources)


def _values_of(total: Sum) -> str:
    """The column that counts what was summed."""
    return total.name + "_n"


def _inverse(accumulator: Accumulator) -> list[pl.Expr]:
    """The partial of rows that are taken back, from that of the same rows added."""
    match accumulator:
        case CountRows() | Sum():
            return [-pl.col(accumulator.name)]
        case Moments():
            n, _, m2 = accumulator.names
            return [-pl.col(n), -pl.col(m2)]
        case _:
            return []  # the newest event time: what is taken back touches the group, too


def _settled(accumulator: Accumulator, columns: Sequence[str]) -> list[pl.Expr]:
    """What rounding or taking back has left over no values."""
    match accumulator:
        case Sum() if _values_of(accumulator) in columns:
            return [pl.when(pl.col(_values_of(accumulator)) != 0).then(pl.col(accumulator.name))]
        case Moments():
            n, _, m2 = accumulator.names
            return [pl.when(pl.col(n) > 0).then(pl.max_horizontal(m2, 0.0)).otherwise(0.0).alias(m2)]
        case _:
            return []
