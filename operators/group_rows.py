"""The rows of every group, for aggregates that have to see all of them again when the group has changed."""

from __future__ import annotations

from typing import Final

import numpy as np
import polars as pl

from operators.aggregates import AggregatePlan
from operators.changes import Flags, taken_back, unique_keys
from operators.element import TIME, Schema
from operators.keyed_rows import KeyedRows
from operators.operator import OperatorContext

_SLOT: Final = "__slot"


class GroupRows:
    """What `plan` reads of each row (`inputs`), by the group's `keys`. `stamped`: rows have an event time."""

    def __init__(
        self, context: OperatorContext, plan: AggregatePlan, keys: Schema, inputs: Schema, *, stamped: bool
    ) -> None:
        self._plan = plan
        self._key = list(keys)
        self._columns = list({**keys, **inputs})
        time = {TIME: pl.Int64()} if stamped else {}
        self._rows = KeyedRows(context, "rows", {**keys, **inputs, **time}, self._key)

    def take(self, frame: pl.DataFrame, back: Flags) -> None:
        """Keep rows, and drop as many of each as are taken back."""
        if not back.any():
            self._rows.add(frame)
            return
        self._rows.add(frame.filter(pl.Series(~back)))
        gone = frame.filter(pl.Series(back))
        ids = np.sort(self._rows.find(unique_keys(gone, self._key), self._key).ids)
        held = self._rows.rows(ids).select(self._columns)
        self._rows.remove(ids[taken_back(held, gone.select(self._columns))])

    def partials(self, keys: pl.DataFrame) -> pl.DataFrame:
        """The aggregates' partials of these groups (unique), in their order; null where a group has no rows."""
        at, ids = self._rows.find(keys, self._key)
        rows = self._rows.rows(ids).with_columns(pl.Series(_SLOT, at, dtype=pl.Int64))
        partials = self._plan.partial(rows, [_SLOT])
        slots = keys.select(pl.int_range(pl.len(), dtype=pl.Int64).alias(_SLOT))
        return slots.join(partials, on=_SLOT, how="left", maintain_order="left").drop(_SLOT)

    def forget(self, keys: pl.DataFrame) -> None:
        """Drop the rows of these groups."""
        self._rows.remove(self._rows.find(keys, self._key).ids)

    def flush(self) -> None:
        """Write what changed."""
        self._rows.flush()

    def restore(self) -> None:
        """Read everything back."""
        self._rows.restore()
