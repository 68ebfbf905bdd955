"""A keyed step driven as the dataflow drives it, and a changelog applied to a multiset of rows."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
from hypothesis import strategies as st

from operators.element import (
    DELETE,
    INSERT,
    KIND,
    ROW_WATERMARK,
    TIME,
    UPDATE_AFTER,
    UPDATE_BEFORE,
    WATERMARK_MIN,
    EventTimeMs,
    Schema,
)
from operators.hashing import key_groups
from operators.operator import OperatorContext, OperatorSpec, Output, UsesProcessingTime
from state.backend import StateBackend
from state.key_group import KeyGroupRange, range_of_subtask
from state.memory import MemoryBackend
from state.rocksdb import RocksBackend
from tests.unit.operators.fates import Fates

MAX_PARALLELISM = 8


@dataclass
class Changelog:
    """Applies the rows of a changelog, in order; fails where one is taken back that is not there."""

    columns: Sequence[str]
    rows: Counter[tuple[Any, ...]] = field(default_factory=Counter)
    changes: int = 0

    def apply(self, frame: pl.DataFrame) -> None:
        kinds = frame.get_column(KIND).to_list() if KIND in frame.columns else [INSERT] * frame.height
        awaited = False
        for kind, row in zip(kinds, frame.select(self.columns).iter_rows(), strict=True):
            assert awaited == (kind == UPDATE_AFTER), "an update's rows are next to each other"
            awaited = kind == UPDATE_BEFORE
            self.changes += 1
            frozen = tuple(tuple(value) if isinstance(value, list) else value for value in row)
            if kind in (UPDATE_BEFORE, DELETE):
                assert self.rows[frozen] > 0, f"{frozen} is taken back and was never given"
                self.rows[frozen] -= 1
            else:
                self.rows[frozen] += 1
        assert not awaited

    def current(self) -> Counter[tuple[Any, ...]]:
        return +self.rows


class KeyedSubtasks:
    """All subtasks of one step. `restore(n)` takes a checkpoint and goes on from it with n subtasks."""

    def __init__(
        self, spec: OperatorSpec, key: Sequence[str], folder: Path, *, rocks: bool = False, upserts: bool = False
    ) -> None:
        self._spec = spec
        self._key = list(key)
        self._folder = folder
        self._rocks = rocks
        self._checkpoints = 0
        self._subtasks: list[tuple[Any, StateBackend, OperatorContext]] = []
        self.outputs: list[Output] = []
        self._fates = Fates()
        self._changelog = None if upserts else Changelog(list(spec.schema))
        self.late_count = 0
        self._now_ms = 0
        self._start(1, self._empty)

    def process(self, frame: pl.DataFrame, watermark: int) -> None:
        groups = key_groups(frame, self._key, MAX_PARALLELISM)
        for operator, backend, _ in self._subtasks:
            part = frame.filter(groups.is_between(backend.groups.first, backend.groups.last))
            if part.height:
                self._collect(operator.process(self._fates.came(part), EventTimeMs(watermark)))

    def on_watermark(self, watermark: int) -> None:
        for operator, _, _ in self._subtasks:
            self._collect(operator.on_watermark(EventTimeMs(watermark)))

    def on_processing_time(self, now_ms: int) -> None:
        self._now_ms = now_ms
        for operator, _, _ in self._subtasks:
            if isinstance(operator, UsesProcessingTime):
                self._collect(operator.on_processing_time(now_ms))

    def restore(self, parallelism: int) -> None:
        self._checkpoints += 1
        taken = []
        for index, (operator, backend, context) in enumerate(self._subtasks):
            snapshot = dict(operator.prepare_snapshot())
            directory = self._folder / f"chk-{self._checkpoints}-{index}"
            backend.snapshot(directory)
            taken.append((backend.groups, directory, snapshot))
            self._fates.end(context)
            self.late_count += context.counters.late
            backend.close()
        self._subtasks = []
        parts = [directory for _, directory, _ in taken]
        self._start(parallelism if self._key else 1, lambda index, groups: self._clipped(index, groups, parts))
        for operator, backend, _ in self._subtasks:
            operator.restore([snapshot for groups, _, snapshot in taken if groups.intersects(backend.groups)])
        self.on_processing_time(self._now_ms)

    def close(self) -> None:
        for _, backend, context in self._subtasks:
            self._fates.end(context)
            self.late_count += context.counters.late
            backend.close()
        self._subtasks = []

    def current(self) -> Counter[tuple[Any, ...]]:
        """What all changes come to."""
        assert self._changelog is not None
        return self._changelog.current()

    def rows(self, tag: str = "main") -> list[tuple[Any, ...]]:
        """Visible rows of an output, in order."""
        return [
            row
            for output in self.outputs
            if output.tag == tag
            for row in output.frame.select(c for c in output.frame.columns if not c.startswith("__")).iter_rows()
        ]

    def _start(self, parallelism: int, state: Callable[[int, KeyGroupRange], StateBackend]) -> None:
        for index in range(parallelism):
            groups = range_of_subtask(index, parallelism, MAX_PARALLELISM)
            backend = state(index, groups)
            context = OperatorContext("step", index, MAX_PARALLELISM, groups, backend)
            self._subtasks.append((self._spec.create(context), backend, context))

    def _empty(self, index: int, groups: KeyGroupRange) -> StateBackend:
        return RocksBackend.create(self._folder / f"db-0-{index}", groups) if self._rocks else MemoryBackend(groups)

    def _clipped(self, index: int, groups: KeyGroupRange, parts: Sequence[Path]) -> StateBackend:
        if self._rocks:
            return RocksBackend.restore_clipped(self._folder / f"db-{self._checkpoints}-{index}", groups, parts)
        return MemoryBackend.restore_clipped(groups, parts)

    def _collect(self, outputs: Iterable[Output]) -> None:
        for output in self._fates.gave(outputs):
            assert output.frame.height, "an output is never empty"
            self.outputs.append(output)
            if output.tag == "main" and self._changelog is not None:
                self._changelog.apply(output.frame)
        self._fates.check(context for _, _, context in self._subtasks)


@dataclass(frozen=True)
class Arrival:
    """A row, its event time, and the watermark just before it."""

    values: tuple[Any, ...]
    time: int
    watermark: int
    kind: int = INSERT


def frame_of(arrivals: Sequence[Arrival], schema: Schema, *, timed: bool = True, kinds: bool = False) -> pl.DataFrame:
    frame = pl.DataFrame([arrival.values for arrival in arrivals], schema=schema, orient="row")
    hidden = []
    if timed:
        hidden.append(pl.Series(TIME, [arrival.time for arrival in arrivals], dtype=pl.Int64))
        hidden.append(pl.Series(ROW_WATERMARK, [arrival.watermark for arrival in arrivals], dtype=pl.Int64))
    if kinds:
        hidden.append(pl.Series(KIND, [arrival.kind for arrival in arrivals], dtype=pl.Int8))
    return frame.with_columns(hidden)


@st.composite
def arrivals(
    draw: st.DrawFn, values: st.SearchStrategy[tuple[Any, ...]], max_size: int = 50, max_step: int = 6
) -> list[Arrival]:
    """Rows whose event times move on, jump, and fall behind the watermark now and then."""
    bound = draw(st.integers(0, 8))
    time, watermark = draw(st.integers(-20, 20)), int(WATERMARK_MIN)
    found = []
    steps = st.tuples(st.integers(0, max_step) | st.integers(0, 40), st.just(0) | st.integers(0, 15), values)
    for step, back, row in draw(st.lists(steps, max_size=max_size)):
        time += step
        found.append(Arrival(row, time - back, watermark))
        watermark = max(watermark, time - back - bound - 1)
    return found


@st.composite
def revisions(draw: st.DrawFn, values: st.SearchStrategy[tuple[Any, ...]], max_size: int = 40) -> list[Arrival]:
    """A changelog: rows are added, and some of those there are taken back, alone or as an update."""
    present: list[tuple[Any, ...]] = []
    found = []
    time = 0
    for _ in range(draw(st.integers(0, max_size))):
        time += draw(st.integers(0, 5))
        row = draw(values)
        what = draw(st.sampled_from(["insert", "insert", "update", "delete"])) if present else "insert"
        if what != "insert":
            old = present.pop(draw(st.integers(0, len(present) - 1)))
            found.append(Arrival(old, time, time - 1, DELETE if what == "delete" else UPDATE_BEFORE))
        if what != "delete":
            present.append(row)
            found.append(Arrival(row, time, time - 1, INSERT if what == "insert" else UPDATE_AFTER))
    return found


def in_batches(data: st.DataObject, rows: Sequence[Arrival]) -> list[Sequence[Arrival]]:
    """The rows cut at random."""
    inner = data.draw(st.sets(st.integers(1, max(1, len(rows) - 1)), max_size=8), label="cuts")
    edges = sorted({0, len(rows)} | {cut for cut in inner if cut < len(rows)})
    return [rows[first:end] for first, end in pairwise(edges)]


def run(
    data: st.DataObject,
    spec: OperatorSpec,
    key: Sequence[str],
    rows: Sequence[Arrival],
    after_batch: Callable[[KeyedSubtasks, Sequence[Arrival]], None] = lambda step, rows: None,
    *,
    schema: Schema,
    kinds: bool = False,
    timed: bool = True,
    rocks: bool = False,
    upserts: bool = False,
    last_watermark: int | None = None,
) -> KeyedSubtasks:
    """Give the rows in batches, with watermarks now and then, restoring at random; `after_batch` may look."""
    with tempfile.TemporaryDirectory() as folder:
        step = KeyedSubtasks(spec, key, Path(folder), rocks=rocks, upserts=upserts)
        watermark = int(WATERMARK_MIN)
        for batch in in_batches(data, rows):
            step.process(frame_of(batch, schema, timed=timed, kinds=kinds), watermark)
            after_batch(step, batch)
            if timed and batch[-1].watermark > watermark and data.draw(st.booleans(), label="watermark"):
                watermark = batch[-1].watermark
                step.on_watermark(watermark)
            if data.draw(st.integers(0, 3), label="restore") == 0:
                step.restore(data.draw(st.integers(1, 3), label="parallelism"))
        if last_watermark is not None:
            step.on_watermark(last_watermark)
        step.close()
        return step
