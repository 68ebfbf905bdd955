"""A windowed step driven as the dataflow drives it, and a model of it that takes one row at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from operators.aggregates import AggregatePlan, compile_aggregates
from operators.element import (
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
from operators.operator import OperatorContext, Output
from operators.session import SessionAggregate, SessionAggregateSpec
from operators.slices import Window
from operators.window import WindowAggregate, WindowAggregateSpec
from state.backend import StateBackend
from state.key_group import KeyGroupRange, range_of_subtask
from state.memory import MemoryBackend
from state.rocksdb import RocksBackend
from tests.unit.operators.fates import Fates

MAX_PARALLELISM = 8
SCHEMA: Schema = {"k": pl.String(), "v": pl.Int64()}


class Row(NamedTuple):
    key: str | None
    value: int
    time: int


class Group(NamedTuple):
    """What identifies a result row."""

    start: int
    key: str | None
    end: int = 0  # 0 where windows are told apart by their starts


Values = list[int]


def windows_of(window: Window, time: int) -> list[tuple[int, int]]:
    """(start, end) of the windows that contain `time`, found by looking at all that could."""
    distance = window.size_ms if window.cumulates else window.slide_ms
    lengths = range(window.slide_ms, window.size_ms + 1, window.slide_ms) if window.cumulates else [window.size_ms]
    nearest = (time - window.offset_ms) // distance
    starts = [(nearest - back) * distance + window.offset_ms for back in range(window.size_ms // distance + 2)]
    found = [(start, start + length) for start in starts for length in lengths]
    return sorted(each for each in found if each[0] <= time < each[1])


@dataclass
class Model:
    """The semantics in the contract's words, row by row, with every value kept."""

    window: Window
    accept_for: int = 0
    watermark: int = WATERMARK_MIN
    values: dict[Group, Values] = field(default_factory=dict)
    late: list[Row] = field(default_factory=list)
    nowhere: int = 0

    def row(self, row: Row, watermark: int) -> None:
        now = max(self.watermark, watermark)
        windows = windows_of(self.window, row.time)
        reachable = [(start, end) for start, end in windows if now < end - 1 + self.accept_for]
        if not windows:
            self.nowhere += 1
        elif not reachable:
            self.late.append(row)
        for start, end in reachable:
            self.values.setdefault(Group(start, row.key, end), []).append(row.value)

    def all(self) -> dict[Group, Values]:
        """Sorted values of every group."""
        return {group: sorted(values) for group, values in self.values.items()}

    def closed(self) -> dict[Group, Values]:
        """Sorted values of every group whose window is closed."""
        return {group: sorted(values) for group, values in self.values.items() if self.watermark >= group.end - 1}


class Subtasks:
    """All subtasks of one step. `restore(n)` takes a checkpoint and goes on from it with n subtasks."""

    def __init__(
        self,
        spec: WindowAggregateSpec | SessionAggregateSpec,
        folder: Path,
        *,
        rocks: bool = False,
        memory_rows_max: int = 10**6,
    ):
        self._spec = spec
        self._folder = folder
        self._rocks = rocks
        self._memory_rows_max = memory_rows_max
        self._checkpoints = 0
        self._subtasks: list[tuple[WindowAggregate | SessionAggregate, StateBackend, OperatorContext]] = []
        self.outputs: list[Output] = []
        self._fates = Fates()
        self.late_count = self.filtered_count = 0
        self._start(1, lambda index, groups: self._empty(index, groups))

    def process(self, frame: pl.DataFrame, watermark: int) -> None:
        groups = key_groups(frame, list(self._spec.key), MAX_PARALLELISM)
        for operator, backend, _ in self._subtasks:
            part = frame.filter(groups.is_between(backend.groups.first, backend.groups.last))
            if part.height:
                self._collect(operator.process(self._fates.came(part), EventTimeMs(watermark)))

    def on_watermark(self, watermark: int) -> None:
        for operator, _, _ in self._subtasks:
            self._collect(operator.on_watermark(EventTimeMs(watermark)))

    def checkpoint(self) -> list[tuple[KeyGroupRange, Path, dict[str, Any]]]:
        """Every subtask's key groups, state files and snapshot; the subtasks go on."""
        self._checkpoints += 1
        taken = []
        for index, (operator, backend, _) in enumerate(self._subtasks):
            snapshot = dict(operator.prepare_snapshot())
            directory = self._folder / f"chk-{self._checkpoints}-{index}"
            backend.snapshot(directory)
            taken.append((backend.groups, directory, snapshot))
        return taken

    def restore(self, parallelism: int) -> None:
        old = self.checkpoint()
        self.close()
        self._start(parallelism, lambda index, groups: self._clipped(index, groups, [part for _, part, _ in old]))
        for operator, backend, _ in self._subtasks:
            operator.restore([snapshot for groups, _, snapshot in old if groups.intersects(backend.groups)])

    def close(self) -> None:
        for _, backend, context in self._subtasks:
            self._fates.end(context)
            self.late_count += context.counters.late
            self.filtered_count += context.counters.filtered
            backend.close()
        self._subtasks = []

    @property
    def held_rows(self) -> int:
        return sum(operator.held_rows for operator, _, _ in self._subtasks)

    def main(self) -> pl.DataFrame:
        """All result rows so far, in order."""
        frames = [output.frame for output in self.outputs if output.tag == "main"]
        return pl.concat(frames) if frames else pl.DataFrame(schema={**self._spec.schema, TIME: pl.Int64})

    def late(self) -> list[Row]:
        return [
            Row(*row)
            for output in self.outputs
            if output.tag == "late"
            for row in output.frame.select("k", "v", TIME).rows()
        ]

    def _start(self, parallelism: int, state: Callable[[int, KeyGroupRange], StateBackend]) -> None:
        for index in range(parallelism):
            groups = range_of_subtask(index, parallelism, MAX_PARALLELISM)
            backend = state(index, groups)
            context = OperatorContext("step", index, MAX_PARALLELISM, groups, backend, self._memory_rows_max)
            self._subtasks.append((self._spec.create(context), backend, context))

    def _empty(self, index: int, groups: KeyGroupRange) -> StateBackend:
        return RocksBackend.create(self._folder / f"db-0-{index}", groups) if self._rocks else MemoryBackend(groups)

    def _clipped(self, index: int, groups: KeyGroupRange, parts: Sequence[Path]) -> StateBackend:
        if self._rocks:
            return RocksBackend.restore_clipped(self._folder / f"db-{self._checkpoints}-{index}", groups, parts)
        return MemoryBackend.restore_clipped(groups, parts)

    def _collect(self, outputs: Any) -> None:
        for output in self._fates.gave(outputs):
            assert output.frame.height, "an output is never empty"
            self.outputs.append(output)
        self._fates.check(context for _, _, context in self._subtasks)


def spec(
    window: Window,
    plan: AggregatePlan,
    *,
    key: tuple[str, ...] = ("k",),
    accept_for: int = 0,
    update_every_ms: int | None = None,
) -> WindowAggregateSpec:
    return WindowAggregateSpec(key, window, plan, accept_for, True, SCHEMA, update_every_ms=update_every_ms)


def batch(rows: Sequence[Row], watermarks: Sequence[int] | None = None) -> pl.DataFrame:
    frame = pl.DataFrame(rows, schema={**SCHEMA, TIME: pl.Int64()}, orient="row")
    return frame if watermarks is None else frame.with_columns(pl.Series(ROW_WATERMARK, watermarks, dtype=pl.Int64))


def results(frame: pl.DataFrame) -> list[tuple[Group, Values]]:
    """Result rows as (group, sorted values), in order of emission; checks what every row must satisfy."""
    found = []
    starts = frame.get_column("window_start").cast(pl.Int64).to_list()
    ends = frame.get_column("window_end").cast(pl.Int64).to_list()
    for start, end, time, key, n, total, items in zip(
        starts, ends, *(frame.get_column(name).to_list() for name in (TIME, "k", "n", "total", "items")), strict=True
    ):
        assert time == end - 1
        assert (n, total) == (len(items), sum(items))
        found.append((Group(start, key, end), sorted(items)))
    return found


def plan(**aggregates: str) -> AggregatePlan:
    """The given aggregates, or those that `results` reads."""
    wanted = aggregates or {"n": "count(*)", "total": "sum(v)", "items": "array_agg(v)"}
    return compile_aggregates(wanted, SCHEMA, ["k"])


def folded(frame: pl.DataFrame) -> list[tuple[Group, Values]]:
    """What a changelog comes to; checks that only what is there is taken back, and that updates are pairs."""
    there: dict[tuple[Any, ...], int] = {}
    if not frame.height:
        return []
    kinds = frame.get_column(KIND).to_list()
    for kind, following in zip(kinds, [*kinds[1:], INSERT], strict=True):
        assert (kind == UPDATE_BEFORE) <= (following == UPDATE_AFTER)
    rows = frame.drop(KIND)
    for kind, row in zip(kinds, rows.with_columns(pl.col("items").list.sort()).rows(), strict=True):
        values = tuple(tuple(each) if isinstance(each, list) else each for each in row)
        there[values] = there.get(values, 0) + (1 if kind in (INSERT, UPDATE_AFTER) else -1)
        assert there[values] in (0, 1), "taken back what was not there, or given twice"
    left = [values for values, count in there.items() if count]
    plain = pl.DataFrame(left, schema=rows.schema, orient="row")
    return results(plain)
