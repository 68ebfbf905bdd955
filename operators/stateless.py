"""Filter and project: one expression pass per batch, hidden columns always carried through."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl

from operators.connector import ErrorPolicy
from operators.element import HIDDEN, EventTimeMs, Schema
from operators.explanation import Explanation
from operators.expression import Scalar
from operators.operator import OperatorContext, Output
from operators.row_errors import ROW_ERRORS, RowErrors, Transform


@dataclass(frozen=True, slots=True)
class FilterSpec:
    """Keep rows for which `predicate` is true; null is not. `word` is what the file calls it."""

    predicate: Scalar
    schema: Schema
    errors: ErrorPolicy = "fail"
    word: Literal["where", "having"] = "where"

    @property
    def stateful(self) -> bool:
        return False

    def create(self, context: OperatorContext) -> Stateless:
        predicate = self.predicate.expr
        errors = RowErrors(context, self.errors, lambda _: self.describe())
        return Stateless(context, lambda frame: frame.filter(predicate), errors, filters=True)

    def describe(self) -> str:
        return f"{self.word} {self.predicate.text}"

    def explained(self) -> Explanation:
        return Explanation(self.describe())


@dataclass(frozen=True, slots=True)
class ProjectSpec:
    """Compute the visible columns anew, in the order of `columns`."""

    columns: Mapping[str, Scalar]
    schema: Schema
    errors: ErrorPolicy = "fail"

    @property
    def stateful(self) -> bool:
        return False

    def create(self, context: OperatorContext) -> Stateless:
        exprs = [scalar.expr.alias(name) for name, scalar in self.columns.items()]
        bare = {name: scalar.expr.meta.undo_aliases() for name, scalar in self.columns.items()}
        taken = {name: expr.meta.output_name() for name, expr in bare.items() if expr.meta.is_column()}

        def project(frame: pl.DataFrame) -> pl.DataFrame:
            return frame.select(*exprs, *_hidden(frame))

        def take(frame: pl.DataFrame) -> pl.DataFrame:
            """The same where nothing is computed: an expression costs more than a small batch."""
            columns = [frame.get_column(column).alias(name) for name, column in taken.items()]
            return pl.DataFrame([*columns, *map(frame.get_column, _hidden(frame))])

        transform = take if len(taken) == len(self.columns) else project
        return Stateless(context, transform, RowErrors(context, self.errors, self._failing_on), filters=False)

    def describe(self) -> str:
        columns = (name if scalar.text == name else f"{scalar.text} as {name}" for name, scalar in self.columns.items())
        return f"select {', '.join(columns)}"

    def explained(self) -> Explanation:
        return Explanation("select", {name: " ".join(scalar.text.split()) for name, scalar in self.columns.items()})

    def _failing_on(self, row: pl.DataFrame) -> str:
        for name, scalar in self.columns.items():
            try:
                row.select(scalar.expr)
            except ROW_ERRORS:
                return f"{name}: {scalar.text}"
        return self.describe()


@dataclass(frozen=True, slots=True)
class PassSpec:
    """All rows as they come: what a step does that only brings streams together."""

    schema: Schema

    @property
    def stateful(self) -> bool:
        return False

    def create(self, context: OperatorContext) -> Stateless:
        return Stateless(context, lambda frame: frame, RowErrors(context, "fail", lambda _: "pass"), filters=False)

    def describe(self) -> str:
        return "pass"

    def explained(self) -> Explanation:
        return Explanation(self.describe())


class Stateless:
    """One subtask that evaluates `transform` on each batch. `filters`: rows it leaves out are counted."""

    def __init__(self, context: OperatorContext, transform: Transform, errors: RowErrors, *, filters: bool) -> None:
        self._counters = context.counters
        self._transform = transform
        self._errors = errors
        self._filters = filters

    def process(self, frame: pl.DataFrame, watermark: EventTimeMs) -> Iterator[Output]:
        """Take one batch; raises `RecordFailed` where the policy says so."""
        bad_rows = 0
        try:
            result = self._transform(frame)
        except ROW_ERRORS as error:
            good, outputs, bad_rows = self._errors.isolate(frame, self._transform, error)
            yield from outputs
            result = pl.concat(good) if good else frame.clear()
        if self._filters:
            self._counters.filtered += frame.height - bad_rows - result.height
        if result.height:
            yield Output("main", result)

    def on_watermark(self, watermark: EventTimeMs) -> Iterator[Output]:
        """Nothing waits for event time."""
        return iter(())

    def prepare_snapshot(self) -> Mapping[str, Any]:
        """There is no state."""
        return {}

    def restore(self, snapshots: list[Mapping[str, Any]]) -> None:
        """There is no state."""


def _hidden(frame: pl.DataFrame) -> list[str]:
    return [name for name in HIDDEN if name in frame.columns]
