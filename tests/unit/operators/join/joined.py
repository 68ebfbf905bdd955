"""A join step driven as the dataflow drives it: two inputs, exchanged by key, restored at any parallelism."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from operators.element import KIND, ROW_WATERMARK, TIME, EventTimeMs, Schema
from operators.expression import compile_predicate
from operators.hashing import key_groups
from operators.join.shape import JoinKind, JoinShape, Side
from operators.operator import HoldsWatermark, OperatorContext, Output, UsesProcessingTime
from state.backend import StateBackend
from state.key_group import KeyGroupRange, range_of_subtask
from state.memory import MemoryBackend
from tests.unit.operators.fates import Fates

MAX_PARALLELISM = 8
LEFT: Schema = {"left.k": pl.String(), "left.v": pl.Int64()}
RIGHT: Schema = {"right.k": pl.String(), "right.v": pl.Int64()}
OUTPUT = (*LEFT, *RIGHT)
RESIDUAL = "left.v <= right.v"


class Row(NamedTuple):
    key: str | None
    value: int
    time: int


class Result(NamedTuple):
    """A joined row; None for the side that is missing."""

    left: tuple[str | None, int] | None
    right: tuple[str | None, int] | None
    time: int


def shape(
    kind: JoinKind, *, residual: bool = False, changelogs: tuple[bool, bool] = (False, False), timed: bool = True
) -> JoinShape:
    return JoinShape(
        kind,
        Side(LEFT, ("left.k",), timed=timed, changelog=changelogs[0]),
        Side(RIGHT, ("right.k",), timed=timed, changelog=changelogs[1]),
        tuple(LEFT) if kind in ("semi", "anti") else OUTPUT,
        compile_predicate(RESIDUAL, {**LEFT, **RIGHT}) if residual else None,
        "left.k = right.k",
    )


def frame(
    side: int, rows: Sequence[Row], watermarks: Sequence[int] | None = None, kinds: Sequence[int] | None = None
) -> pl.DataFrame:
    """A batch for side 0 (left) or 1 (right)."""
    names = list((LEFT, RIGHT)[side])
    made = pl.DataFrame(rows, schema={names[0]: pl.String(), names[1]: pl.Int64(), TIME: pl.Int64()}, orient="row")
    if watermarks is not None:
        made = made.with_columns(pl.Series(ROW_WATERMARK, watermarks, dtype=pl.Int64))
    if kinds is not None:
        made = made.with_columns(pl.Series(KIND, kinds, dtype=pl.Int8))
    return made


class JoinStep:
    """All subtasks of one join. `restore(n)` takes a checkpoint and goes on from it with n subtasks."""

    def __init__(
        self,
        spec: Any,
        folder: Path,
        *,
        keys: Sequence[Sequence[str]] = (("left.k",), ("right.k",)),
        memory_rows_max: int = 10**6,
    ) -> None:
        self._spec = spec
        self._memory_rows_max = memory_rows_max
        self._folder = folder
        self._keys = keys
        self._checkpoints = 0
        self._now: int | None = None
        self._subtasks: list[tuple[Any, StateBackend, OperatorContext]] = []
        self._promised: dict[int, int] = {}
        self.outputs: list[Output] = []
        self._fates = Fates()
        self.late = 0
        self._start(1, lambda groups: MemoryBackend(groups))

    def process(self, side: int, batch: pl.DataFrame, watermark: int) -> None:
        groups = key_groups(batch, list(self._keys[side]), MAX_PARALLELISM)
        for index, (operator, backend, _) in enumerate(self._subtasks):
            part = batch.filter(groups.is_between(backend.groups.first, backend.groups.last))
            if part.height:
                self._fates.came(part)
                take = operator.process_right if side else operator.process
                self._collect(index, take(part, EventTimeMs(watermark)))

    def on_watermark(self, watermark: int) -> None:
        for index, (operator, _, _) in enumerate(self._subtasks):
            self._collect(index, operator.on_watermark(EventTimeMs(watermark)))
            holds = isinstance(operator, HoldsWatermark)
            self._promised[index] = operator.output_watermark(EventTimeMs(watermark)) if holds else watermark

    def on_processing_time(self, now_ms: int) -> None:
        self._now = now_ms
        for index, (operator, _, _) in enumerate(self._subtasks):
            if isinstance(operator, UsesProcessingTime):
                self._collect(index, operator.on_processing_time(now_ms))

    def restore(self, parallelism: int) -> None:
        self._checkpoints += 1
        old = []
        for index, (operator, backend, _) in enumerate(self._subtasks):
            snapshot = dict(operator.prepare_snapshot())
            directory = self._folder / f"chk-{self._checkpoints}-{index}"
            backend.snapshot(directory)
            old.append((backend.groups, directory, snapshot))
        self.close()
        self._start(parallelism, lambda groups: MemoryBackend.restore_clipped(groups, [part for _, part, _ in old]))
        for operator, backend, _ in self._subtasks:
            operator.restore([snapshot for groups, _, snapshot in old if groups.intersects(backend.groups)])
        if self._now is not None:
            self.on_processing_time(self._now)

    def close(self) -> None:
        for _, backend, context in self._subtasks:
            self._fates.end(context)
            self.late += context.counters.late
            backend.close()
        self._subtasks = []

    @property
    def operators(self) -> list[Any]:
        return [operator for operator, _, _ in self._subtasks]

    def main(self) -> list[pl.DataFrame]:
        return [output.frame for output in self.outputs if output.tag == "main"]

    def _start(self, parallelism: int, state: Callable[[KeyGroupRange], StateBackend]) -> None:
        self._promised = {}
        for index in range(parallelism):
            groups = range_of_subtask(index, parallelism, MAX_PARALLELISM)
            backend = state(groups)
            context = OperatorContext("step", index, MAX_PARALLELISM, groups, backend, self._memory_rows_max)
            self._subtasks.append((self._spec.create(context), backend, context))

    def _collect(self, index: int, outputs: Iterable[Output]) -> None:
        for output in self._fates.gave(outputs):
            assert output.frame.height, "an output is never empty"
            if TIME in output.frame.columns and ROW_WATERMARK not in output.frame.columns:
                earliest: Any = output.frame.get_column(TIME).min()
                assert earliest > self._promised.get(index, earliest - 1), "behind the promised watermark"
            self.outputs.append(output)
        self._fates.check(context for _, _, context in self._subtasks)


def results(frames: Iterable[pl.DataFrame]) -> list[Result]:
    """Joined rows as values, in order of emission."""
    found = []
    for each in frames:
        none = [None] * each.height
        columns = [each.get_column(name).to_list() if name in each.columns else none for name in OUTPUT]
        for left_key, left, right_key, right, time in zip(*columns, each.get_column(TIME), strict=True):
            found.append(
                Result(
                    None if left is None else (left_key, left),
                    None if right is None else (right_key, right),
                    time,
                )
            )
    return found
