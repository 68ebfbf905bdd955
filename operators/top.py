"""The best rows of each key so far, as a changelog: after every batch the net change.

Of append-only input only the best rows are held. Rows that can be taken back are all held, because any of them
may be among the best once others are gone. With ranks a row that moves up or down is an update of its rank's
row, so that (key, rank) tells rows apart; with ties it does not, and rows are known by their values only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl

from operators.changes import Flags, Indices, changes, first_of_runs, retracted, taken_back, unique_keys
from operators.element import TIME, WATERMARK_MIN, EventTimeMs, Schema
from operators.expiry import Expiry
from operators.explanation import Explanation, Late, best_rows, lifetime, of_each
from operators.keyed_rows import KeyedRows
from operators.operator import OperatorContext, Output
from operators.ranking import Ranking, Standing
from operators.types import columns_text

RANK_TYPE: Final = pl.Int64()


@dataclass(frozen=True, slots=True)
class TopSpec:
    """`input_schema`: all columns, those too that only `ranking` reads; `columns`: what leaves, before the rank.
    `retracting`: the input is a changelog. `ttl_ms` None: keys live for ever."""

    ranking: Ranking
    key: tuple[str, ...]
    input_schema: Schema
    columns: tuple[str, ...]
    timed: bool
    rank: str | None = None
    retracting: bool = False
    ttl_ms: int | None = None

    @property
    def schema(self) -> Schema:
        return with_rank({name: self.input_schema[name] for name in self.columns}, self.rank)

    @property
    def stateful(self) -> bool:
        return True

    def create(self, context: OperatorContext) -> Top:
        return Top(self, context)

    def describe(self) -> str:
        ttl = "" if self.ttl_ms is None else f", ttl {self.ttl_ms}ms"
        rank = "" if self.rank is None else f", rank as {self.rank}"
        holds = "all rows" if self.retracting else "the best"
        held = columns_text(self.input_schema)
        return f"top {self.ranking} of ({', '.join(self.key)}){rank}, holds {holds}{ttl}; of ({held})"

    def explained(self) -> Explanation:
        rank = "" if self.rank is None else f", rank as {self.rank}"
        held = f"all rows{of_each(self.key)}, since any may be among the best once others are taken back"
        if not self.retracting:
            held = f"{best_rows(self.ranking.n)}{of_each(self.key)}"
        return Explanation(
            f"top {self.ranking}{of_each(self.key)}{rank}, each change",
            keeps=f"{held}; a key {self._lifetime}",
            late=Late() if self.timed and self.ttl_ms is not None else None,
        )

    @property
    def _lifetime(self) -> str:
        return lifetime(self.ttl_ms, timed=self.timed, after="its last row")


def with_rank(schema: Schema, rank: str | None) -> Schema:
    """The columns of a top: the rank comes last."""
    return schema if rank is None else {**schema, rank: RANK_TYPE}


class Top:
    """One subtask."""

    def __init__(self, spec: TopSpec, context: OperatorContext) -> None:
        self._spec = spec
        self._ranking = spec.ranking
        self._key = list(spec.key)
        self._rows = KeyedRows(context, "top", spec.input_schema, spec.key)
        keys = {name: spec.input_schema[name] for name in spec.key}
        self._keys = KeyedRows(context, "keys", keys | {TIME: pl.Int64()}, spec.key, time=TIME)  # only with a ttl
        self._expiry = Expiry(context, self._keys, spec.key, spec.ttl_ms)
        self._counters = context.counters
        self._clock_ms: int = WATERMARK_MIN

    def process(self, frame: pl.DataFrame, watermark: EventTimeMs) -> Iterator[Output]:
        """Take one batch and give its net change."""
        now: int = watermark
        if not self._spec.timed and self._spec.ttl_ms is not None:
            now = self._clock_ms
            frame = frame.with_columns(pl.lit(now, dtype=pl.Int64).alias(TIME))
        for part, fresh in self._expiry.rounds(frame, now):
            if self._spec.ttl_ms is not None:
                self._touch(part, fresh=fresh)
            changed = self._take(part)
            if changed.height:
                yield self._counters.result(changed)

    def on_watermark(self, watermark: EventTimeMs) -> Iterator[Output]:
        """Forget keys; their rows stay where they were sent."""
        if self._spec.timed:
            self._forget(self._expiry.due(watermark))
        return iter(())

    def on_processing_time(self, now_ms: int) -> Iterator[Output]:
        """Without event time keys are forgotten by the clock."""
        self._clock_ms = now_ms
        if not self._spec.timed:
            self._forget(self._expiry.due(now_ms))
        return iter(())

    def prepare_snapshot(self) -> Mapping[str, Any]:
        """All state is in the backend."""
        self._rows.flush()
        self._keys.flush()
        return {}

    def restore(self, snapshots: list[Mapping[str, Any]]) -> None:
        """Read the rows back."""
        self._rows.restore()
        self._keys.restore()

    def _touch(self, frame: pl.DataFrame, *, fresh: bool) -> None:
        """Note when each key got its newest row."""
        newest = pl.col(TIME).max()
        keys = frame.group_by(self._key).agg(newest) if self._key else frame.select(newest)
        at, ids = self._keys.find(keys, self._key)
        if fresh:
            self._forget(keys)
        else:
            times = keys.get_column(TIME).to_numpy().copy()
            times[at] = np.maximum(times[at], self._keys.rows(ids).get_column(TIME).to_numpy())
            keys = keys.with_columns(pl.Series(TIME, times))
        self._keys.remove(ids)
        self._keys.add(keys)

    def _forget(self, keys: pl.DataFrame) -> None:
        if keys.height:
            self._rows.remove(self._rows.find(keys, self._key).ids)

    def _take(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Bring the rows held up to date; returns the change."""
        columns = list(self._spec.input_schema)
        gone = retracted(frame)
        added = frame.filter(pl.Series(~gone)) if gone.any() else frame
        back = frame.filter(pl.Series(gone)) if gone.any() else frame.clear()
        self._counters.taken += added.height + back.height
        if not self._spec.retracting:
            added = self._ranking.best(added, self._key)
        caused = pl.concat([added, back]) if back.height else added
        ids = np.sort(self._rows.find(unique_keys(caused, self._key), self._key).ids)
        together = pl.concat([self._rows.rows(ids), caused.select(columns)])
        was = np.arange(together.height) < len(ids)
        present = np.arange(together.height) < len(ids) + added.height
        if back.height:
            there = len(ids) + added.height
            present[:there] = ~taken_back(together.head(there), back.select(columns))
        standing = self._ranking.sorted(together, self._key)
        before = self._ranks(standing, was)
        after = self._ranks(standing, present)
        stays = present
        if not self._spec.retracting:
            stays = np.zeros(together.height, dtype=np.bool_)
            stays[standing.rows[after > 0]] = True
        self._rows.remove(ids[~stays[: len(ids)]])
        self._rows.add(together.filter(pl.Series(stays & ~was)))
        times = self._times(caused, standing, len(ids)) if self._spec.timed else None
        return self._changes(together, standing, before, after, times)

    def _ranks(self, standing: Standing, among: Flags) -> Indices:
        """The rank of each of `standing`'s rows, of those that are `among`; 0 for what is not one of the best."""
        counted = among[standing.rows]
        ranks = self._ranking.ranks(standing, counted)
        return np.where(counted & (ranks <= self._ranking.n), ranks, 0)

    def _times(self, caused: pl.DataFrame, standing: Standing, held: int) -> Indices:
        """For each of `standing`'s rows the newest event time among the rows of its group that came."""
        of_row = np.full(len(standing.rows), np.int64(WATERMARK_MIN))
        of_row[held:] = caused.get_column(TIME).to_numpy()
        of_group = np.full(len(standing.rows), np.int64(WATERMARK_MIN))
        np.maximum.at(of_group, standing.groups, of_row[standing.rows])
        return of_group[standing.groups]

    def _changes(
        self, together: pl.DataFrame, standing: Standing, before: Indices, after: Indices, times: Indices | None
    ) -> pl.DataFrame:
        """From the rows with a rank before to those with one after."""
        rank = self._spec.rank
        moved = before != after if rank is not None else (before > 0) != (after > 0)
        old, new = np.flatnonzero(moved & (before > 0)), np.flatnonzero(moved & (after > 0))
        if self._ranking.ties:
            old_slots, new_slots = old, new  # known by its values: a row is its own slot
        elif rank is not None or self._ranking.n == 1:  # the slot of a row is its rank
            first = first_of_runs(standing.groups)
            old_slots, new_slots = first[old] + before[old] - 1, first[new] + after[new] - 1
        else:  # what goes comes first
            old_slots, new_slots = old, new + len(before)
            times = None if times is None else np.concatenate((times, times))
        old_rows, new_rows = together[standing.rows[old]], together[standing.rows[new]]
        if rank is not None:
            old_rows = old_rows.with_columns(pl.Series(rank, before[old], dtype=RANK_TYPE))
            new_rows = new_rows.with_columns(pl.Series(rank, after[new], dtype=RANK_TYPE))
        return changes(list(self._spec.schema), old_rows, old_slots, new_rows, new_slots, times)
