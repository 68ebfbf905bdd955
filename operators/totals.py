"""Aggregates of each key over everything so far: a changelog of every change or of one in a while, or the end result.

Each group is one row of state: its folded partials, and its results as they were last given, which are what a
change takes back. A group whose last row is taken back is deleted.
"""

from __future__ import annotations

import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl

from operators.aggregates import AggregatePlan
from operators.changes import Indices, changes, retracted, unique_keys
from operators.connector import ErrorPolicy
from operators.distinct_values import DistinctValues
from operators.element import TIME, WATERMARK_MAX, WATERMARK_MIN, EventTimeMs, Schema
from operators.expiry import Expiry
from operators.explanation import Explanation, Late, by_key, changes_text, lifetime, of_each
from operators.group_rows import GroupRows
from operators.keyed_rows import KeyedRows
from operators.operator import OperatorContext, Output
from operators.row_errors import ROW_ERRORS, RowErrors, reason
from operators.running import ROWS, running_plan
from operators.types import columns_text
from operators.window_results import ResultFailed, computed_text

_SLOT: Final = "__slot"
_SHOWN: Final = "__shown"


@dataclass(frozen=True, slots=True)
class TotalsSpec:
    """`aggregate` without a window; the empty key is one global group.

    `update_every_ms`: 0 gives each change as it comes, more gives changes once event time (of input without it, the
    clock) passes a multiple; None gives the results at the end of input, append-only and without event time.
    `retracting`: the input is a changelog. `ttl_ms` None: groups live for ever.
    """

    key: tuple[str, ...]
    plan: AggregatePlan
    input_schema: Schema
    timed: bool
    update_every_ms: int | None = 0
    retracting: bool = False
    ttl_ms: int | None = None
    errors: ErrorPolicy = "fail"

    @property
    def schema(self) -> Schema:
        return {name: self.input_schema[name] for name in self.key} | self.plan.schema

    @property
    def stateful(self) -> bool:
        return True

    def create(self, context: OperatorContext) -> Totals:
        return Totals(self, context)

    def describe(self) -> str:
        """Everything that the state depends on."""
        by = columns_text({name: self.input_schema[name] for name in self.key})
        aggregates = ", ".join(
            f"{name} = {' '.join(output.text.split())}"
            for name, output in zip(self.plan.names, self.plan.outputs, strict=True)
        )
        reads = columns_text({name: self.input_schema[name] for name in self.plan.inputs})
        when = "each update" if self.update_every_ms == 0 else f"updates every {self.update_every_ms}ms"
        when = "at the end of input" if self.update_every_ms is None else when
        changelog = " of a changelog" if self.retracting else ""
        ttl = "" if self.ttl_ms is None else f", ttl {self.ttl_ms}ms"
        return f"totals{changelog} by ({by}): {aggregates}; of ({reads}), {when}{ttl}"

    def explained(self) -> Explanation:
        when = ", at the end of input" if self.update_every_ms is None else changes_text(self.update_every_ms)
        return Explanation(
            f"aggregate{by_key(self.key)}{when}",
            computed_text(self.plan),
            f"aggregates{of_each(self.key)}; a key {self._lifetime}",
            Late() if self.timed and self.ttl_ms is not None else None,
        )

    @property
    def _lifetime(self) -> str:
        return lifetime(self.ttl_ms, timed=self.timed, after="its last row")


class Totals:
    """One subtask. A generator of outputs has to be run to its end before the next call."""

    def __init__(self, spec: TotalsSpec, context: OperatorContext) -> None:
        self._spec = spec
        self._context = context
        self._key = list(spec.key)
        self._columns = list(spec.schema)
        stamped = spec.timed or spec.ttl_ms is not None
        self._running = running_plan(spec.plan, retracting=spec.retracting, timed=stamped)
        self._errors = RowErrors(context, spec.errors, lambda _: f"aggregate {', '.join(spec.plan.schema)}")
        self._partial_columns = list(self._running.folded.partial_schema)
        keys = {name: spec.input_schema[name] for name in spec.key}
        held = keys | self._running.folded.partial_schema
        if spec.update_every_ms is not None:
            held |= spec.plan.schema | {_SHOWN: pl.Boolean()}
        self._groups = KeyedRows(context, "groups", held, spec.key, time=TIME if stamped else None)
        self._unshown = KeyedRows(context, "unshown", keys | {ROWS: pl.Int64()}, spec.key)  # what has changed since
        self._distinct = [
            DistinctValues(
                context,
                _state_name(index),
                accumulator,
                spec.plan,
                keys,
                retracting=spec.retracting,
                expires=spec.ttl_ms is not None,
            )
            for index, accumulator in enumerate(self._running.counted)
        ]
        read_by_others = {accumulator.source for accumulator in self._running.counted}
        self._rows: GroupRows | None = None
        if self._running.collected is not None:
            inputs = {name: spec.input_schema[name] for name in self._running.collected.inputs}
            read_by_others |= {source.name for source in self._running.collected.sources}
            self._rows = GroupRows(context, self._running.collected, keys, inputs, stamped=stamped)
        self._others = [s.expr.alias(s.name) for s in spec.plan.sources if s.computed and s.name in read_by_others]
        self._expiry = Expiry(context, self._groups, spec.key, spec.ttl_ms)
        self._counters = context.counters
        self._clock_ms: int = WATERMARK_MIN
        self._passed: int = WATERMARK_MIN  # the last multiple of `update_every_ms` that the time has passed

    def process(self, frame: pl.DataFrame, watermark: EventTimeMs) -> Iterator[Output]:
        """Take one batch; raises `RecordFailed`, `ResultFailed`."""
        now: int = watermark
        if not self._spec.timed and self._spec.ttl_ms is not None:
            now = self._clock_ms
            frame = frame.with_columns(pl.lit(now, dtype=pl.Int64).alias(TIME))
        for part, fresh in self._expiry.rounds(frame, now):
            if fresh:
                yield from self._show()  # what is not said before a group is forgotten never is
                self._forget(unique_keys(part, self._key))
            yield from self._take(part)

    def on_watermark(self, watermark: EventTimeMs) -> Iterator[Output]:
        """Give what has waited for this time, then forget groups."""
        if watermark >= WATERMARK_MAX:
            yield from self._finish() if self._spec.update_every_ms is None else self._show()
        if self._spec.timed:
            yield from self._pass(watermark)

    def on_processing_time(self, now_ms: int) -> Iterator[Output]:
        """Without event time the clock decides."""
        self._clock_ms = now_ms
        if not self._spec.timed:
            yield from self._pass(now_ms)

    def output_watermark(self, watermark: EventTimeMs) -> EventTimeMs:
        """Changes that wait may be older than the watermark."""
        if not self._spec.update_every_ms or watermark >= WATERMARK_MAX:
            return watermark
        return EventTimeMs(min(watermark, max(self._passed - 1, WATERMARK_MIN)))

    def prepare_snapshot(self) -> Mapping[str, Any]:
        """All state is in the backend, but for the time."""
        for state in self._states():
            state.flush()
        return {"passed": int(self._passed)}

    def restore(self, snapshots: list[Mapping[str, Any]]) -> None:
        """Read the groups back."""
        self._passed = min((int(snapshot["passed"]) for snapshot in snapshots), default=WATERMARK_MIN)
        for state in self._states():
            state.restore()

    def _states(self) -> Sequence[KeyedRows | DistinctValues | GroupRows]:
        return [self._groups, self._unshown, *self._distinct, *([self._rows] if self._rows else [])]

    def _pass(self, now: int) -> Iterator[Output]:
        """The time that counts has come to `now`."""
        every = self._spec.update_every_ms
        if every and now < WATERMARK_MAX and (now + 1) // every * every > self._passed:
            self._passed = (now + 1) // every * every
            yield from self._show()
        if self._expiry.is_due(now):
            yield from self._show()
            self._forget(self._expiry.due(now))

    def _forget(self, keys: pl.DataFrame) -> None:
        """Drop everything held of these groups; what was said of them stays where it was sent."""
        if keys.height:
            self._groups.remove(self._groups.find(keys, self._key).ids)
            for distinct in self._distinct:
                distinct.forget(keys)
            if self._rows is not None:
                self._rows.forget(keys)

    def _take(self, frame: pl.DataFrame) -> Iterator[Output]:
        try:
            partials = self._partials(frame)
        except ROW_ERRORS as error:
            good, outputs, bad_rows = self._errors.isolate(frame, self._computable, error)
            yield from outputs
            if not bad_rows:  # no single row is to blame
                raise ResultFailed(self._context.step, reason(error)) from error
            if not good:
                return
            frame = pl.concat(good)
            partials = self._partials(frame)
        yield from self._merge(frame, partials)

    def _partials(self, frame: pl.DataFrame) -> list[pl.DataFrame]:
        """Folded partials, and a look at the inputs that only others read."""
        if self._others:
            frame.select(self._others)
        return self._running.partials(frame, retracted(frame), self._key)

    def _computable(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The frame itself, if its partials can be computed."""
        self._partials(frame)
        return frame

    def _merge(self, frame: pl.DataFrame, partials: Sequence[pl.DataFrame]) -> Iterator[Output]:
        """Bring the groups of a batch up to date; give their changes, or note that there are some."""
        keys, placed = self._placed(partials)
        at, ids = self._groups.find(keys, self._key)
        old = self._groups.rows(ids)
        together = list(placed)
        if len(at):
            together.insert(0, old.select(*self._partial_columns, pl.Series(_SLOT, at, dtype=pl.Int64)))
        try:
            merged = self._running.merge(pl.concat(together), [_SLOT]) if len(together) > 1 else together[0]
        except ROW_ERRORS as error:
            raise ResultFailed(self._context.step, reason(error)) from error
        back = retracted(frame)
        new = merged.sort(_SLOT).drop(_SLOT).with_columns(keys.select(self._key).get_columns())
        for distinct in self._distinct:
            new = new.with_columns(pl.col(distinct.name) + pl.Series(distinct.take(frame, back, keys)))
        if self._rows is not None:
            self._rows.take(frame, back)
        self._groups.remove(ids)
        self._counters.taken += frame.height
        if self._spec.update_every_ms is None:
            self._groups.add(new.filter(pl.col(ROWS) > 0))
        elif self._spec.update_every_ms:
            shown = self._with_shown(old, at, new)
            self._groups.add(shown.filter((pl.col(ROWS) > 0) | pl.col(_SHOWN)))
            self._unshown.remove(self._unshown.find(keys, self._key).ids)
            self._unshown.add(keys)
        else:
            yield from self._give(old, at, new, _newest(placed, keys.height) if self._spec.timed else None)

    def _placed(self, partials: Sequence[pl.DataFrame]) -> tuple[pl.DataFrame, list[pl.DataFrame]]:
        """The distinct keys, and the partials with the row of theirs as `_SLOT`."""
        first = partials[0].select(*self._key, ROWS)
        if len(partials) == 1:
            slots = pl.int_range(first.height, dtype=pl.Int64, eager=True).alias(_SLOT)
            return first, [partials[0].select(*self._partial_columns, slots)]
        if not self._key:
            slot = pl.lit(0, dtype=pl.Int64).alias(_SLOT)
            return first, [partial.select(*self._partial_columns, slot) for partial in partials]
        keys = pl.concat([partial.select(*self._key, ROWS) for partial in partials])
        keys = keys.unique(self._key, keep="first", maintain_order=True)
        slots_of = keys.select(*self._key, pl.int_range(pl.len(), dtype=pl.Int64).alias(_SLOT))
        placed = [partial.join(slots_of, on=self._key, how="left", nulls_equal=True) for partial in partials]
        return keys, [partial.select(*self._partial_columns, _SLOT) for partial in placed]

    def _with_shown(self, old: pl.DataFrame, at: Indices, new: pl.DataFrame) -> pl.DataFrame:
        """New partials beside the results that were last given."""
        names = [*self._spec.plan.schema, _SHOWN]
        nothing = pl.DataFrame(schema=old.select(names).schema).clear(1)
        row = np.full(new.height, old.height)
        row[at] = np.arange(len(at))
        shown = pl.concat([old.select(names), nothing])[row]
        return new.with_columns(shown.get_columns()).with_columns(pl.col(_SHOWN).fill_null(value=False))

    def _show(self) -> Iterator[Output]:
        """Give the changes that have waited."""
        for ids, keys in list(self._unshown.scan()):
            held = self._groups.find(keys, self._key).ids
            groups = self._groups.rows(held)
            self._groups.remove(held)
            self._unshown.remove(ids)
            times = groups.get_column(TIME).to_numpy() if self._spec.timed else None
            new = groups.select(*self._key, *self._partial_columns)
            yield from self._give(groups, np.arange(groups.height), new, times)

    def _give(self, old: pl.DataFrame, at: Indices, new: pl.DataFrame, times: Indices | None) -> Iterator[Output]:
        """The change from what was given of `old` groups to what `new` ones come to; the latter are kept."""
        results = self._results(new).drop(self._key)
        present = new.get_column(ROWS).to_numpy() > 0
        given = old.get_column(_SHOWN).to_numpy()
        new = new.with_columns(results.get_columns()).with_columns(pl.lit(value=True).alias(_SHOWN))
        new = new.filter(pl.Series(present))
        self._groups.add(new)
        changed = changes(self._columns, old.filter(pl.Series(given)), at[given], new, np.flatnonzero(present), times)
        if changed.height:
            yield self._counters.result(changed)

    def _finish(self) -> Iterator[Output]:
        """The results at the end of input."""
        for _, groups in self._groups.scan():
            yield self._counters.result(self._results(groups).select(self._columns))

    def _results(self, groups: pl.DataFrame) -> pl.DataFrame:
        """Key and results of groups."""
        try:
            if self._rows is not None:
                groups = groups.with_columns(self._rows.partials(groups).get_columns())
            return self._running.results(groups, self._key)
        except ROW_ERRORS as error:
            raise ResultFailed(self._context.step, reason(error)) from error


def _newest(placed: Sequence[pl.DataFrame], keys: int) -> Indices:
    """The newest event time among what came of each key."""
    times = np.full(keys, np.int64(WATERMARK_MIN))
    for partial in placed:
        np.maximum.at(times, partial.get_column(_SLOT).to_numpy(), partial.get_column(TIME).to_numpy())
    return times


def _state_name(index: int) -> str:
    """Of the values of the index-th distinct count: names of states have letters only."""
    letters = string.ascii_lowercase
    return f"distinct_{letters[index // len(letters)]}{letters[index % len(letters)]}"
