"""What windowed aggregates have in common: how merged partials of a window become result rows.

A row is the key columns, `window_start`, `window_end`, the aggregates, and as its event time the last
instant of the window, so that the window of a step behind it which holds the whole window holds the row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

import polars as pl

from operators.aggregates import AggregatePlan
from operators.element import TIME, Schema
from operators.explanation import duration_text
from operators.row_errors import ROW_ERRORS, reason
from operators.types import name_of
from state.failure import Actor, Failure

WINDOW_TYPE: Final = pl.Datetime("ms", "UTC")
WINDOW_COLUMNS: Final = ("window_start", "window_end")
EMIT_ROWS: Final = 65_536  # rows of an output frame, about
START: Final = "__start"
END: Final = "__end"


class MissingEventTime(Failure):
    """A row without event time reached a window; sources are to refuse such rows."""

    def __init__(self, step: str) -> None:
        super().__init__(f"step {step}: a row without event time reached its window")


class ResultFailed(Failure):
    """An aggregate failed on rows together, or an expression over aggregates on a result."""

    acts: ClassVar[Actor] = "user"

    def __init__(self, step: str, error: str) -> None:
        super().__init__(f"step {step}: aggregates could not be computed: {error}")


@dataclass(frozen=True, slots=True)
class WindowResults:
    """The result rows of aggregates by `key`."""

    step: str
    plan: AggregatePlan
    key: tuple[str, ...]

    @property
    def identity(self) -> list[str]:
        """The columns that tell one result from another."""
        return [*self.key, *WINDOW_COLUMNS]

    @property
    def columns(self) -> list[str]:
        """The visible columns."""
        return [*self.identity, *self.plan.schema]

    def rows(self, merged: pl.DataFrame, start: pl.Expr, end: pl.Expr, by: Sequence[str] = ()) -> pl.DataFrame:
        """One row per merged partial. `start`, `end`: ms, over the columns `by` and the key. Raises `ResultFailed`."""
        try:
            finished = self.plan.finish(merged, [*by, *self.key])
        except ROW_ERRORS as error:
            raise ResultFailed(self.step, reason(error)) from error
        return finished.select(
            *self.key,
            start.cast(WINDOW_TYPE).alias("window_start"),
            end.cast(WINDOW_TYPE).alias("window_end"),
            *self.plan.schema,
            (end - 1).cast(pl.Int64()).alias(TIME),
        )


def result_schema(plan: AggregatePlan, key: Sequence[str], input_schema: Schema) -> Schema:
    """Visible columns of the results."""
    keys = {name: input_schema[name] for name in key}
    return keys | dict.fromkeys(WINDOW_COLUMNS, WINDOW_TYPE) | dict(plan.schema)


def described(window: str, plan: AggregatePlan, key: Sequence[str], input_schema: Schema, accept_for_ms: int) -> str:
    """Everything that stored partials depend on."""
    by = ", ".join(f"{name} {name_of(input_schema[name])}" for name in key)
    aggregates = ", ".join(
        f"{name} = {' '.join(output.text.split())}" for name, output in zip(plan.names, plan.outputs, strict=True)
    )
    reads = ", ".join(f"{name} {name_of(input_schema[name])}" for name in plan.inputs)
    late = f", late accepted for {accept_for_ms}ms" if accept_for_ms else ""
    return f"{window} by ({by}): {aggregates}; of ({reads}){late}"


def computed_text(plan: AggregatePlan) -> dict[str, str]:
    """Each aggregate and its expression, for `explain`."""
    return {name: " ".join(output.text.split()) for name, output in zip(plan.names, plan.outputs, strict=True)}


def partials_text(per: str, accept_for_ms: int) -> str:
    """What a windowed aggregate holds, for `explain`. `per`: what there is a partial for."""
    longer = f", kept {duration_text(accept_for_ms)} longer for late rows" if accept_for_ms else ""
    return f"partial aggregates per {per}{longer}"
