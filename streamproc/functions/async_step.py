"""`python` in mode async: one awaited call a row, many at once, results in the order of the rows.

All calls of a batch have ended before `process` returns, so nothing is in flight at a barrier.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from operators.element import EventTimeMs
from operators.operator import OperatorContext, Output
from operators.row_errors import BadRow, RowErrors, RowRefused
from streamproc.functions.calls import CallLimits, Calls, CallTimedOut, NotAnswered
from streamproc.functions.columns import DeclaredColumns
from streamproc.functions.failures import told
from streamproc.functions.loading import check_callable
from streamproc.functions.python_step import FunctionSpec, Stateless, with_values

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class AsyncFunctionSpec(FunctionSpec):
    """`async def score(row: dict) -> dict | None`, at most `limits.in_flight` calls at once."""

    limits: CallLimits = field(kw_only=True)

    @property
    def how(self) -> str:
        return f"async, {self.limits.in_flight} in flight"

    @property
    def waits(self) -> bool:
        """It waits for the outside: its subtask runs on a thread of its own."""
        return True

    def create(self, context: OperatorContext) -> AsyncFunction:
        return AsyncFunction(self, context, self.load())

    def load(self) -> Callable[[Row], Awaitable[Mapping[str, Any] | None]]:
        """The function; raises LoadingFault."""
        return check_callable(self.code.load(), self.code, ["row"], awaited=True)


class AsyncFunction(Stateless):
    """One subtask, with an event loop of its own."""

    def __init__(
        self,
        spec: AsyncFunctionSpec,
        context: OperatorContext,
        function: Callable[[Row], Awaitable[Mapping[str, Any] | None]],
    ) -> None:
        self._spec = spec
        self._function = function
        self._columns = DeclaredColumns.of(spec.columns)
        self._counters = context.counters
        self._errors = RowErrors(context, spec.errors, lambda _: str(spec.code))
        self._order = list(spec.schema)
        self._calls = Calls(spec.limits)

    def process(self, frame: pl.DataFrame, watermark: EventTimeMs) -> Iterator[Output]:
        """Take one batch; raises `RecordFailed` where the policy says so."""
        rows = frame.select(*self._spec.input_schema).to_dicts()
        kept: list[int] = []
        values: list[list[Any]] = []
        bad: list[BadRow] = []
        left_out = 0
        for index, outcome in enumerate(self._calls.run(self._call, [dict(row) for row in rows])):
            try:
                if isinstance(outcome, NotAnswered):
                    raise self._told(outcome)
                if outcome.value is not None:
                    values.append(self._columns.values_of(outcome.value, rows[index]))
                    kept.append(index)
                else:
                    left_out += 1
            except RowRefused as error:
                bad.append(BadRow(frame.slice(index, 1), error))
        yield from self._errors.settle(bad)
        self._counters.filtered += left_out
        if kept:
            yield Output("main", with_values(frame, kept, self._columns.series(values), self._order))

    def close(self) -> None:
        """End the loop, and what calls have left running on it."""
        self._calls.close()

    async def _call(self, row: Row) -> Mapping[str, Any] | None:
        return await self._function(row)

    def _told(self, outcome: NotAnswered) -> RowRefused:
        tries = f" ({outcome.tries} tries)" if outcome.tries > 1 else ""
        if isinstance(outcome.error, CallTimedOut):
            return RowRefused(f"{outcome.error}{tries}; `timeout` and `retries` are fields of the step's `python`")
        return RowRefused(f"{told(outcome.error, self._spec.code)}{tries}")
