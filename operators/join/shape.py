"""What every join knows: its two sides as they arrive, its kind, its condition and the columns it gives.

Columns are called `left.x` and `right.x` from before the exchange on. An equality of the condition is a pair of
key columns, one of each side, of one type; what else the condition says is the residual, over a pair of rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import polars as pl

from operators.connector import ErrorPolicy
from operators.element import TIME, Schema
from operators.expression import Scalar
from operators.types import columns_text

JoinKind = Literal["inner", "left", "right", "full", "semi", "anti"]


@dataclass(frozen=True, slots=True)
class Side:
    """One input. `schema`: the columns that arrive, hidden key columns too, but not time and kind."""

    schema: Schema
    key: tuple[str, ...]
    timed: bool = True
    changelog: bool = False

    @property
    def stored(self) -> Schema:
        """The columns of a row that waits for partners."""
        return {**self.schema, TIME: pl.Int64()} if self.timed else dict(self.schema)


@dataclass(frozen=True, slots=True)
class JoinShape:
    """A join but for the question which rows may meet at which time. `output`: of the columns of both sides,
    those that something later reads; `text`: the condition as written."""

    kind: JoinKind
    left: Side
    right: Side
    output: tuple[str, ...]
    residual: Scalar | None = None
    text: str = ""
    errors: ErrorPolicy = "fail"

    @property
    def schema(self) -> Schema:
        """Visible columns of the result."""
        both = {**self.left.schema, **self.right.schema}
        return {name: both[name] for name in self.output}

    @property
    def pairs(self) -> bool:
        """Whether results are rows of both sides, not of the left alone."""
        return self.kind not in ("semi", "anti")

    @property
    def pads_left(self) -> bool:
        """Whether left rows without a partner are results, padded with nulls."""
        return self.kind in ("left", "full")

    @property
    def pads_right(self) -> bool:
        """Whether right rows without a partner are results, padded with nulls."""
        return self.kind in ("right", "full")

    @property
    def timed(self) -> bool:
        """Whether every result has an event time."""
        match self.kind:
            case "inner":
                return self.left.timed or self.right.timed
            case "right":
                return self.right.timed
            case "full":
                return self.left.timed and self.right.timed
            case _:
                return self.left.timed

    def describe(self) -> str:
        """What is joined, in one line."""
        return f"{self.kind} join on {' '.join(self.text.split())}"

    def holds(self) -> str:
        """The rows of both sides as they are stored: what a stored row depends on, for `describe` of an operator."""
        sides = (self.left, self.right)
        held = [f"({columns_text(side.stored)}{', changes' if side.changelog else ''})" for side in sides]
        return f"of {' and '.join(held)}"
