"""The distinct values of every group, a row each: counting one more costs the same however many there are."""

from __future__ import annotations

from typing import Final

import numpy as np
import polars as pl

from operators.aggregates import AggregatePlan
from operators.aggregates.accumulators import Distinct
from operators.changes import Flags, Indices
from operators.element import Schema
from operators.keyed_rows import KeyedRows
from operators.operator import OperatorContext

_VALUE: Final = "__value"
_ROWS: Final = "__rows"
_SLOT: Final = "__slot"


class DistinctValues:
    """Of one accumulator. `retracting`: rows are taken back; then each value knows how many rows have it.
    `expires`: groups are forgotten; then values are found by their group, too."""

    def __init__(
        self,
        context: OperatorContext,
        name: str,
        accumulator: Distinct,
        plan: AggregatePlan,
        keys: Schema,
        *,
        retracting: bool,
        expires: bool,
    ) -> None:
        self.name = accumulator.name
        self._key = list(keys)
        self._by = [*keys, _VALUE]
        self._retracting = retracting
        [source] = [source for source in plan.sources if source.name == accumulator.source]
        self._value = source.expr.alias(_VALUE)
        schema: Schema = {**keys, _VALUE: accumulator.input}
        self._values = KeyedRows(
            context, name, {**schema, _ROWS: pl.Int64()} if retracting else schema, self._by, exchange=self._key
        )
        self._of_group = KeyedRows(context, name + "_group", schema, self._key) if expires else None

    def take(self, frame: pl.DataFrame, back: Flags, keys: pl.DataFrame) -> Indices:
        """By how many distinct values each of `keys` (unique) has grown with these rows; `back`: those taken back."""
        rows = frame.select(*self._key, self._value)
        if self._retracting:
            signs = pl.Series(_ROWS, np.where(back, -1, 1), dtype=pl.Int64)
            rows = rows.with_columns(signs).drop_nulls(_VALUE).group_by(self._by).agg(pl.col(_ROWS).sum())
            changed, by = self._take_signed(rows)
        else:
            rows = rows.drop_nulls(_VALUE).unique()
            new = np.ones(rows.height, dtype=np.bool_)
            new[self._values.find(rows).at] = False
            changed = rows.filter(pl.Series(new))
            self._values.add(changed)
            by = np.ones(changed.height, dtype=np.int64)
        if self._of_group is not None:
            self._of_group.add(changed.filter(pl.Series(by > 0)))
        grown = np.zeros(keys.height, dtype=np.int64)
        if changed.height:
            np.add.at(grown, self._slots(changed, keys), by)
        return grown

    def forget(self, keys: pl.DataFrame) -> None:
        """Drop the values of these groups."""
        assert self._of_group is not None
        ids = self._of_group.find(keys, self._key).ids
        self._values.remove(self._values.find(self._of_group.rows(ids)).ids)
        self._of_group.remove(ids)

    def flush(self) -> None:
        """Write what changed."""
        self._values.flush()
        if self._of_group is not None:
            self._of_group.flush()

    def restore(self) -> None:
        """Read everything back."""
        self._values.restore()
        if self._of_group is not None:
            self._of_group.restore()

    def _take_signed(self, rows: pl.DataFrame) -> tuple[pl.DataFrame, Indices]:
        """The values that came or went, and +1 or −1 for each."""
        at, ids = self._values.find(rows)
        before = np.zeros(rows.height, dtype=np.int64)
        before[at] = self._values.rows(ids).get_column(_ROWS).to_numpy()
        after = np.maximum(before + rows.get_column(_ROWS).to_numpy(), 0)
        self._values.remove(ids)
        self._values.add(rows.with_columns(pl.Series(_ROWS, after)).filter(pl.Series(after > 0)))
        by = (after > 0).astype(np.int64) - (before > 0).astype(np.int64)
        return rows.filter(pl.Series(by != 0)), by[by != 0]

    def _slots(self, rows: pl.DataFrame, keys: pl.DataFrame) -> Indices:
        """The row of `keys` that each row belongs to."""
        if not self._key:
            return np.zeros(rows.height, dtype=np.int64)
        slots = keys.select(*self._key, pl.int_range(pl.len(), dtype=pl.Int64).alias(_SLOT))
        joined = rows.select(self._key).join(slots, on=self._key, how="left", nulls_equal=True, maintain_order="left")
        return joined.get_column(_SLOT).to_numpy()
