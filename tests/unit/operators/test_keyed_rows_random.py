"""Rows kept by key against a plain list of rows: any type of key, forced collisions, rescaling, both backends."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators import keyed_rows, row_journal, row_slots
from operators.hashing import hash_rows, key_groups
from operators.keyed_rows import KeyedRows
from operators.operator import OperatorContext
from state.backend import StateBackend
from state.key_group import KeyGroupRange, range_of_subtask
from state.memory import MemoryBackend
from state.rocksdb import RocksBackend

MAX_PARALLELISM = 8


@dataclass(frozen=True)
class Keys:
    """Key columns and a few values of each."""

    types: dict[str, pl.DataType]
    values: Sequence[tuple[Any, ...]]


MOMENTS = [datetime(2026, 1, day, 12, tzinfo=UTC) for day in (1, 2, 3)]
KEYS = {
    "integer": Keys({"k": pl.Int64()}, [(0,), (1,), (-1,), (2**63 - 1,), (7,), (None,)]),
    "short": Keys({"k": pl.Int32()}, [(0,), (1,), (-1,), (5,)]),
    "text": Keys({"k": pl.String()}, [("",), ("a",), ("b",), ("a longer text than is kept inline",), (None,)]),
    "bytes": Keys({"k": pl.Binary()}, [(b"",), (b"a",), (b"\xff" * 20,), (None,)]),
    "flag": Keys({"k": pl.Boolean()}, [(True,), (False,), (None,)]),
    "float": Keys({"k": pl.Float64()}, [(0.0,), (-0.0,), (1.5,), (float("nan"),), (None,)]),
    "date": Keys({"k": pl.Date()}, [(date(2026, 1, 1),), (date(1969, 1, 1),), (None,)]),
    "moment": Keys({"k": pl.Datetime("ms", "UTC")}, [(MOMENTS[0],), (MOMENTS[1],), (None,)]),
    "decimal": Keys({"k": pl.Decimal(10, 2)}, [(Decimal("1.50"),), (Decimal("-2.00"),), (None,)]),
    "list": Keys({"k": pl.List(pl.Int64())}, [([],), ([1],), ([1, None],), (None,)]),
    "struct": Keys(
        {"k": pl.Struct({"a": pl.Int64(), "b": pl.String()})}, [({"a": 1, "b": "x"},), ({"a": 1, "b": None},)]
    ),
    "composite": Keys(
        {"k": pl.Int64(), "l": pl.String(), "m": pl.Datetime("us", "UTC")},
        [(a, b, c) for a in (1, 2, None) for b in ("x", None) for c in MOMENTS[:2]],
    ),
    "empty": Keys({}, [()]),
}
VALUES: dict[str, pl.DataType] = {"n": pl.Int64(), "t": pl.Int64(), "text": pl.String()}


class Held:
    """One row of the model."""

    def __init__(self, key: tuple[Any, ...], number: int, time: int) -> None:
        self.key, self.number, self.time = key, number, time
        self.mark = False

    def __repr__(self) -> str:
        return f"{self.key} {self.number} at {self.time}{' marked' * self.mark}"


def with_disk(backend: MemoryBackend, folder: Path) -> MemoryBackend:
    """State stays in memory, rows beyond the budget do not."""
    backend.spill_folder = lambda: folder  # type: ignore[method-assign]
    return backend


class Subtasks:
    """Rows of one name, spread over the subtasks of a step."""

    def __init__(
        self, keys: Keys, folder: Path, *, rocks: bool, nulls_match: bool, timed: bool, memory_rows_max: int
    ) -> None:
        self.keys, self._folder, self._rocks, self._memory_rows_max = keys, folder, rocks, memory_rows_max
        self._nulls_match, self._timed = nulls_match, timed
        self._restores = self._checkpoints = 0
        self.parts: list[KeyedRows] = []
        self._backends: list[StateBackend] = []
        self._start([self._backend(0, groups, None) for groups in self._ranges(2)])

    @property
    def schema(self) -> dict[str, pl.DataType]:
        return {**self.keys.types, **VALUES}

    def frame(self, rows: Sequence[Held]) -> pl.DataFrame:
        plain = [(*row.key, row.number, row.time, "x" * (row.number % 20)) for row in rows]
        return pl.DataFrame(plain, schema=self.schema, orient="row")

    def split(self, frame: pl.DataFrame) -> Iterator[tuple[KeyedRows, pl.DataFrame]]:
        groups = key_groups(frame, list(self.keys.types), MAX_PARALLELISM)
        for part, backend in zip(self.parts, self._backends, strict=True):
            own = frame.filter(groups.is_between(backend.groups.first, backend.groups.last))
            yield part, own

    def checkpoint(self) -> list[Path]:
        for part in self.parts:
            part.flush()
        self._checkpoints += 1
        folders = [self._folder / f"chk-{self._checkpoints}-{index}" for index in range(len(self.parts))]
        for backend, folder in zip(self._backends, folders, strict=True):
            backend.snapshot(folder)
        return folders

    def restore(self, parallelism: int) -> None:
        old = self.checkpoint()
        self.close()
        self._restores += 1
        self._start([self._backend(index, groups, old) for index, groups in enumerate(self._ranges(parallelism))])
        for part in self.parts:
            part.restore()

    def close(self) -> None:
        for backend in self._backends:
            backend.close()

    def _start(self, backends: list[StateBackend]) -> None:
        self._backends = backends
        self.parts = [
            KeyedRows(
                OperatorContext(
                    "step", index, MAX_PARALLELISM, backend.groups, backend, memory_rows_max=self._memory_rows_max
                ),
                "rows",
                self.schema,
                list(self.keys.types),
                time="t" if self._timed else None,
                nulls_match=self._nulls_match,
            )
            for index, backend in enumerate(backends)
        ]

    def _backend(self, index: int, groups: KeyGroupRange, old: list[Path] | None) -> StateBackend:
        path = self._folder / f"db-{self._restores}-{groups.first}"
        if old is None:
            return RocksBackend.create(path, groups) if self._rocks else with_disk(MemoryBackend(groups), path)
        if self._rocks:
            return RocksBackend.restore_clipped(path, groups, old)
        return with_disk(MemoryBackend.restore_clipped(groups, old), path)

    def _ranges(self, parallelism: int) -> list[KeyGroupRange]:
        return [range_of_subtask(index, parallelism, MAX_PARALLELISM) for index in range(parallelism)]


def same(left: tuple[Any, ...], right: tuple[Any, ...]) -> bool:
    """Equal as keys: null equals null, nan equals nan."""
    return all(a == b or (a is None and b is None) or (a != a and b != b) for a, b in zip(left, right, strict=True))


@contextmanager
def few_hashes(bits: int | None) -> Iterator[None]:
    """Leave only the first bits of each hash, three for the key group, and believe in none."""
    if bits is None:
        yield
        return

    def short(frame: pl.DataFrame, key: Sequence[str]) -> Any:
        return hash_rows(frame, key) & np.uint64((1 << bits) - 1 << (64 - bits))

    with patch.object(keyed_rows, "hash_rows", short), patch.object(keyed_rows, "hash_decides", lambda *_: False):
        yield


def check_all(step: Subtasks, model: list[Held]) -> None:
    """Everything held is what the model holds, per key in order of arrival."""
    assert sum(len(part) for part in step.parts) == len(model)
    found: list[int] = []
    for part in step.parts:
        marks: dict[int, bool] = {}
        last = -1
        for ids, frame in part.scan():
            assert frame.columns == list(step.schema)
            assert len(ids) == frame.height
            assert np.all(np.diff(ids) > 0)
            assert ids[0] > last
            last = int(ids[-1])
            assert part.rows(ids).equals(frame)
            found += frame.get_column("n").to_list()
            marks |= dict(zip(frame.get_column("n").to_list(), part.marked(ids).tolist(), strict=True))
        assert {row.number: row.mark for row in model if row.number in marks} == marks
    assert sorted(found) == sorted(row.number for row in model)


@pytest.mark.parametrize("rocks", [False, True], ids=["memory", "rocksdb"])
def test_agrees_with_a_list_of_rows(rocks: bool) -> None:
    @settings(max_examples=10 if rocks else 60, deadline=None)
    @given(data=st.data(), kind=st.sampled_from(list(KEYS)), bits=st.sampled_from([None, None, 3, 4]))
    def check(data: st.DataObject, kind: str, bits: int | None) -> None:
        keys = KEYS[kind]
        nulls_match, timed = data.draw(st.booleans(), label="nulls_match"), data.draw(st.booleans(), label="timed")
        tiny = data.draw(st.booleans(), label="tiny")
        with tempfile.TemporaryDirectory() as folder, few_hashes(bits), limits(tiny=tiny):
            step = Subtasks(
                keys,
                Path(folder),
                rocks=rocks,
                nulls_match=nulls_match,
                timed=timed,
                memory_rows_max=data.draw(st.sampled_from([0, 20, 10**6]), label="memory_rows_max"),
            )
            scenario(data, step, nulls_match=nulls_match, timed=timed)
            step.close()

    check()


TINY = {
    keyed_rows: {"SCAN_ROWS": 3, "SWEEP_ROWS": 2, "STALE_ROWS": 1},
    row_journal: {"BLOCK_ROWS": 3, "SLACK_ROWS": 2, "SMALL_ROWS": 20, "FAN_IN": 3, "CHANGE_BLOCKS": 2},
    row_slots: {"PAGE": 4},
}


@contextmanager
def limits(*, tiny: bool) -> Iterator[None]:
    with ExitStack() as stack:
        for module, values in TINY.items() if tiny else ():
            for name, value in values.items():
                stack.enter_context(patch.object(module, name, value))
        yield


def scenario(data: st.DataObject, step: Subtasks, *, nulls_match: bool, timed: bool) -> None:
    model: list[Held] = []
    numbers = 0
    ids_of: dict[int, tuple[KeyedRows, int]] = {}  # of a row's number, since the last restore

    def chosen(label: str) -> list[Held]:
        wanted = data.draw(st.sets(st.integers(0, max(0, len(model) - 1)), max_size=8), label=label)
        return [model[index] for index in sorted(wanted) if index < len(model)]

    def by_part(rows: list[Held]) -> Iterator[tuple[KeyedRows, np.ndarray[Any, Any]]]:
        for part in step.parts:
            yield part, np.array([ids_of[r.number][1] for r in rows if ids_of[r.number][0] is part], dtype=np.int64)

    operations = ["add", "add", "find", "find", "remove", "replace", "mark", "expire", "scan", "flush", "restore"]
    for operation in data.draw(st.lists(st.sampled_from(operations), max_size=25), label="operations"):
        match operation:
            case "add" | "replace":
                picked = data.draw(st.lists(st.sampled_from(step.keys.values), max_size=12), label="keys")
                times = data.draw(st.lists(st.integers(0, 30), min_size=len(picked), max_size=len(picked)), label="t")
                rows = [Held(key, numbers + at, time) for at, (key, time) in enumerate(zip(picked, times, strict=True))]
                numbers += len(rows)
                for part, own in step.split(step.frame(rows)):
                    gone = np.empty(0, dtype=np.int64)
                    if operation == "replace":
                        gone = part.find(own).ids
                        dead = set(part.rows(gone).get_column("n").to_list())
                        model[:] = [row for row in model if row.number not in dead]
                    shuffled = own.select(own.columns[::-1]).with_columns(extra=0)
                    ids = part.add(shuffled)
                    part.remove(gone)  # ids are still good after `add`
                    assert part.rows(ids).equals(own)
                    ids_of |= {n: (part, i) for n, i in zip(own.get_column("n").to_list(), ids.tolist(), strict=True)}
                model += rows
            case "find":
                asked = data.draw(st.lists(st.sampled_from(step.keys.values), max_size=6), label="asked")
                frame = step.frame([Held(key, at, 0) for at, key in enumerate(asked)])
                renamed = {name: f"other_{name}" for name in step.keys.types}
                for part, own in step.split(frame):
                    found = part.find(own.rename(renamed), on=list(renamed.values()))
                    pieces = list(part.find_pieces(own.rename(renamed), on=list(renamed.values()), size=5))
                    assert all(0 < len(piece.at) <= 5 for piece in pieces)
                    assert [pair for piece in pieces for pair in zip(*piece, strict=True)] == [
                        *zip(*found, strict=True)
                    ]
                    pairs = list(zip(found.at.tolist(), found.ids.tolist(), strict=True))
                    assert pairs == sorted(set(pairs))
                    numbers_found = part.rows(found.ids).get_column("n").to_list()
                    for at, number in enumerate(own.get_column("n").to_list()):
                        key = asked[number]
                        matches = nulls_match or None not in key
                        assert [n for (i, _), n in zip(pairs, numbers_found, strict=True) if i == at] == [
                            row.number for row in model if matches and same(row.key, key)
                        ]
            case "remove":
                rows = chosen("removed")
                for part, ids in by_part(rows):
                    part.remove(np.concatenate((ids, ids[:1])))
                    part.remove(ids)
                model[:] = [row for row in model if row not in rows]
            case "mark":
                rows = chosen("marked")
                for part, ids in by_part(rows):
                    part.mark(ids)
                for row in rows:
                    row.mark = True
            case "expire" if timed:
                time = data.draw(st.integers(0, 31), label="before")
                expired = [row.number for row in model if row.time < time]
                removed = data.draw(st.booleans(), label="removed")
                numbers_found = []
                for part in step.parts:
                    ids = part.before(time)
                    assert np.all(np.diff(ids) > 0)
                    numbers_found += part.rows(ids).get_column("n").to_list()
                    if removed:
                        part.remove(ids)
                assert sorted(numbers_found) == sorted(expired)
                if removed:
                    model[:] = [row for row in model if row.time >= time]
            case "scan":
                check_all(step, model)
            case "flush":
                step.checkpoint()
            case "restore":
                step.restore(data.draw(st.integers(1, 4), label="parallelism"))
                ids_of = {}
                for part in step.parts:
                    for ids, frame in part.scan():
                        every = zip(frame.get_column("n").to_list(), ids.tolist(), strict=True)
                        ids_of |= {number: (part, row) for number, row in every}
    check_all(step, model)
