"""`python` in modes batch and row: user functions that add columns, on frames or on one row at a time.

A batch that raises is cut in halves until the rows to blame are alone, so a function is called again with
rows it has seen: it should not act on the outside. Hidden columns never reach user code and go past it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from operators.connector import ErrorPolicy
from operators.element import HIDDEN, EventTimeMs, Schema
from operators.explanation import Explanation
from operators.operator import OperatorContext, Output
from operators.row_errors import ROW_ERRORS, BadRow, RowErrors, RowRefused
from streamproc.functions.columns import DeclaredColumns, Fields, extended, taken_as, unfit
from streamproc.functions.failures import UserCodeFailed, rows_to_blame, told
from streamproc.functions.loading import UserCode, check_callable
from streamproc.functions.values import shown


@dataclass(frozen=True, slots=True)
class FunctionSpec(ABC):
    """What the modes have in common: `code` adds `columns` to rows, and nothing is kept."""

    code: UserCode
    columns: Fields
    input_schema: Schema
    errors: ErrorPolicy = "fail"

    @property
    @abstractmethod
    def how(self) -> str:
        """The mode, and what belongs to it."""

    @property
    def schema(self) -> Schema:
        return extended(self.input_schema, self.columns)

    @property
    def stateful(self) -> bool:
        return False

    def describe(self) -> str:
        """`python shop.py:score (row) → risk: float64`."""
        return f"python {self.code} ({self.how}) → {', '.join(f'{name}: {field}' for name, field in self.columns)}"

    def explained(self) -> Explanation:
        return Explanation(self.describe())


@dataclass(frozen=True, slots=True)
class BatchFunctionSpec(FunctionSpec):
    """`def score(frame: pl.DataFrame) -> pl.DataFrame`: as many rows, in the same order, with the declared columns."""

    @property
    def how(self) -> str:
        return "batch"

    def create(self, context: OperatorContext) -> BatchFunction:
        return BatchFunction(self, context, self.load())

    def load(self) -> Callable[[pl.DataFrame], pl.DataFrame]:
        """The function; raises LoadingFault."""
        return check_callable(self.code.load(), self.code, ["frame"], awaited=False)


@dataclass(frozen=True, slots=True)
class RowFunctionSpec(FunctionSpec):
    """`def score(row: dict) -> dict | None`: the declared columns of the row; None leaves the row out."""

    @property
    def how(self) -> str:
        return "row"

    def create(self, context: OperatorContext) -> RowFunction:
        return RowFunction(self, context, self.load())

    def load(self) -> Callable[[dict[str, Any]], Mapping[str, Any] | None]:
        """The function; raises LoadingFault."""
        return check_callable(self.code.load(), self.code, ["row"], awaited=False)


class Stateless:
    """What does not wait for event time, and keeps nothing."""

    def on_watermark(self, watermark: EventTimeMs) -> Iterator[Output]:
        """Nothing waits for event time."""
        return iter(())

    def prepare_snapshot(self) -> Mapping[str, Any]:
        """There is no state."""
        return {}

    def restore(self, snapshots: list[Mapping[str, Any]]) -> None:
        """There is no state."""


class BatchFunction(Stateless):
    """One subtask of `mode: batch`."""

    def __init__(
        self, spec: BatchFunctionSpec, context: OperatorContext, function: Callable[[pl.DataFrame], pl.DataFrame]
    ) -> None:
        self._spec = spec
        self._step = context.step
        self._function = function
        self._errors = RowErrors(context, spec.errors, lambda _: str(spec.code))
        self._order = list(spec.schema)

    def process(self, frame: pl.DataFrame, watermark: EventTimeMs) -> Iterator[Output]:
        """Take one batch; raises `RecordFailed` where the policy says so, `UserCodeFailed` where no row is to blame."""
        try:
            result = self._transform(frame)
        except ROW_ERRORS as error:
            good, outputs, _ = self._errors.isolate(frame, self._transform, error)
            yield from outputs
            result = pl.concat(good) if good else frame.clear()
        if result.height:
            yield Output("main", result)

    def _transform(self, frame: pl.DataFrame) -> pl.DataFrame:
        given = frame.select(*self._spec.input_schema)
        with rows_to_blame(self._spec.code):
            returned = self._function(given)
        if not isinstance(returned, pl.DataFrame):
            raise self._failed(f"it returned {shown(returned)}, not a polars DataFrame")
        if returned.height != given.height:
            said = f"it returned {returned.height} rows for {given.height}: give one for each, or use `mode: row`"
            raise self._failed(f"{said}, where None leaves a row out")
        added = [self._column(returned, name) for name, _ in self._spec.columns]
        self._check_others(given, returned)
        hidden = [name for name in HIDDEN if name in frame.columns]
        return frame.with_columns(added).select(*self._order, *hidden)

    def _column(self, returned: pl.DataFrame, name: str) -> pl.Series:
        declared = dict(self._spec.columns)[name]
        if name not in returned.columns:
            raise self._failed(f"it returned no column '{name}', which `columns` declares")
        series = returned.get_column(name)
        taken = taken_as(series, name, declared)
        if taken is None:
            raise self._failed(unfit(series, name, declared))
        return taken

    def _check_others(self, given: pl.DataFrame, returned: pl.DataFrame) -> None:
        """Columns that are given back must be as they were: that tells a changed order of rows, too."""
        declared = dict(self._spec.columns)
        for name in returned.columns:
            if name in declared:
                continue
            if name not in given.columns:
                raise self._failed(f"it returned a column '{name}' that `columns` does not declare")
            if not returned.get_column(name).equals(given.get_column(name), check_dtypes=True, null_equal=True):
                said = f"it changed column '{name}', or the order of rows"
                raise self._failed(f"{said}: keep the order, and declare in `columns` what is to be replaced")

    def _failed(self, message: str) -> UserCodeFailed:
        return UserCodeFailed(self._step, self._spec.code, message)


class RowFunction(Stateless):
    """One subtask of `mode: row`."""

    def __init__(
        self,
        spec: RowFunctionSpec,
        context: OperatorContext,
        function: Callable[[dict[str, Any]], Mapping[str, Any] | None],
    ) -> None:
        self._spec = spec
        self._function = function
        self._columns = DeclaredColumns.of(spec.columns)
        self._counters = context.counters
        self._errors = RowErrors(context, spec.errors, lambda _: str(spec.code))
        self._order = list(spec.schema)

    def process(self, frame: pl.DataFrame, watermark: EventTimeMs) -> Iterator[Output]:
        """Take one batch; raises `RecordFailed` where the policy says so."""
        kept: list[int] = []
        values: list[list[Any]] = []
        bad: list[BadRow] = []
        left_out = 0
        for index, row in enumerate(frame.select(*self._spec.input_schema).iter_rows(named=True)):
            try:
                returned = self._function(dict(row))
                if returned is not None:
                    values.append(self._columns.values_of(returned, row))
                    kept.append(index)
                else:
                    left_out += 1
            except Exception as error:
                bad.append(BadRow(frame.slice(index, 1), self._told(error)))
                if self._spec.errors == "fail":
                    break
        yield from self._errors.settle(bad)
        self._counters.filtered += left_out
        if kept:
            yield Output("main", with_values(frame, kept, self._columns.series(values), self._order))

    def _told(self, error: Exception) -> RowRefused:
        return told(error, self._spec.code)


def with_values(frame: pl.DataFrame, kept: list[int], added: list[pl.Series], order: list[str]) -> pl.DataFrame:
    """The rows at `kept` with new columns, visible ones in `order`, then the hidden ones."""
    rows = frame if len(kept) == frame.height else frame[kept]
    return rows.with_columns(added).select(*order, *(name for name in HIDDEN if name in frame.columns))
