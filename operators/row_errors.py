"""A row on which an expression fails does not take its batch with it: bad rows are found by bisection and
follow the step's error policy, the good ones go on."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import ClassVar, Final, NamedTuple

import polars as pl

from operators.connector import ERRORS_SCHEMA, ErrorPolicy
from operators.element import TIME
from operators.operator import OperatorContext, Output
from state.failure import Actor, Failure


class RowRefused(Exception):
    """What an operator raises itself where the values of rows are to blame."""


# What a value can cause. Others (an unknown column, a wrong type) would fail on every row: they are defects.
ROW_ERRORS: Final = (
    pl.exceptions.ComputeError,
    pl.exceptions.InvalidOperationError,
    pl.exceptions.OutOfBoundsError,
    RowRefused,
)
_SHOWN_CHARACTERS: Final = 300

Transform = Callable[[pl.DataFrame], pl.DataFrame]


class RecordFailed(Failure):
    """An expression failed on a record, and the step's error policy is to fail."""

    acts: ClassVar[Actor] = "user"

    def __init__(self, step: str, expression: str, row: str, error: str) -> None:
        super().__init__(f"step {step}: {expression} failed on {_shortened(row)}: {error}")
        self.step = step
        self.expression = expression
        self.row = row
        self.error = error


class BadRow(NamedTuple):
    """A frame of one row, and what evaluating it raised."""

    row: pl.DataFrame
    error: Exception


class RowErrors:
    """The error policy of one operator subtask. `blame` names the expression that fails on a row."""

    def __init__(self, context: OperatorContext, policy: ErrorPolicy, blame: Callable[[pl.DataFrame], str]) -> None:
        self._context = context
        self._policy = policy
        self._blame = blame

    def isolate(
        self, frame: pl.DataFrame, transform: Transform, error: Exception
    ) -> tuple[list[pl.DataFrame], list[Output], int]:
        """After `transform(frame)` raised `error`: its results for the good rows in order, the rows for the
        dead letter queue, and how many were bad. Raises `RecordFailed` where the policy is to fail."""
        good: list[pl.DataFrame] = []
        bad: list[BadRow] = []
        self._bisect(frame, transform, error, good, bad)
        return good, self.settle(bad), len(bad)

    def settle(self, bad: Sequence[BadRow]) -> list[Output]:
        """Of rows known to be bad, those for the dead letter queue; raises `RecordFailed` where the policy says so."""
        if bad and self._policy == "fail":
            row, error = bad[0]
            raise RecordFailed(self._context.step, self._blame(row), row_json(row), reason(error)) from error
        if bad:
            self._context.counters.last_error = reason(bad[0].error)
        self._context.counters.errors += len(bad)
        return [Output("errors", self._as_errors(bad))] if bad and self._policy == "dlq" else []

    def _bisect(
        self, frame: pl.DataFrame, transform: Transform, error: Exception, good: list[pl.DataFrame], bad: list[BadRow]
    ) -> None:
        """Halve a frame that failed until each bad row is alone: O(bad · log rows) evaluations."""
        if frame.height == 1:
            bad.append(BadRow(frame, error))
            if self._policy == "fail":
                self.settle(bad)
            return
        middle = frame.height // 2
        for half in (frame.head(middle), frame.slice(middle)):
            try:
                good.append(transform(half))
            except ROW_ERRORS as nearer:
                self._bisect(half, transform, nearer, good, bad)

    def _as_errors(self, bad: Sequence[BadRow]) -> pl.DataFrame:
        known = pl.DataFrame(
            {
                "time": [row.item(0, TIME) if TIME in row.columns else None for row, _ in bad],
                "value": [row_json(row).encode() for row, _ in bad],
                "step": [self._context.step] * len(bad),
                "error": [reason(error) for _, error in bad],
            },
            schema_overrides={"time": pl.Int64()},
        )
        return known.select(
            pl.col(name).cast(dtype) if name in known.columns else pl.lit(None, dtype=dtype).alias(name)
            for name, dtype in ERRORS_SCHEMA.items()
        )


def reason(error: Exception) -> str:
    """The first line: what follows is advice on calling polars."""
    return _shortened(str(error).strip().partition("\n")[0]) or type(error).__name__


def row_json(row: pl.DataFrame) -> str:
    """The visible columns of a one-row frame, as the JSON format writes them."""
    [values] = row.select(name for name in row.columns if not name.startswith("__")).to_dicts()
    return json.dumps(_plain(values), ensure_ascii=False)


def _plain(value: object) -> object:
    """Out of what JSON has; the way of writing the rest is the contract's."""
    match value:
        case dict():
            return {name: _plain(item) for name, item in value.items()}
        case list():
            return [_plain(item) for item in value]
        case float():
            return value if math.isfinite(value) else None
        case datetime():
            in_utc = value.astimezone(UTC) if value.tzinfo else value
            return in_utc.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"
        case date() | time():
            return value.isoformat()
        case bytes():
            return base64.b64encode(value).decode()
        case Decimal() | timedelta():
            return str(value)
        case _:
            return value


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"
