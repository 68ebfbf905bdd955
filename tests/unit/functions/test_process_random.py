"""A process function that does random things with state and timers, against plain dictionaries: batches cut at
random, checkpoints and crashes at other parallelism in between, memory so small that everything is written back."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.element import TIME, EventTimeMs, Schema
from operators.hashing import key_groups
from operators.operator import OperatorContext
from operators.types import FieldType, parse_type
from state.backend import StateBackend
from state.key_group import KeyGroupRange, range_of_subtask
from state.memory import MemoryBackend
from state.rocksdb import RocksBackend
from streamproc import Context, ListState, MapState, ProcessFunction, ValueState
from streamproc.functions import keyed_store, timers
from streamproc.functions.loading import UserCode
from streamproc.functions.process_step import KeyedProcess, ProcessFunctionSpec

MAX_PARALLELISM = 8
TTL_MS = 20
KEYS = ["a", "b", None, "ä\0"]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Act:
    """One row: what to do with the state of its key at a time."""

    key: str | None
    what: str
    number: int
    time: int


class Doing(ProcessFunction):
    """Does what each row says, and gives out all that it then knows."""

    value = ValueState("int64", ttl=f"{TTL_MS}ms")
    items = ListState("int64", ttl=f"{TTL_MS}ms")
    pairs = MapState("int64", "int64", ttl=f"{TTL_MS}ms")

    def process(self, row: dict[str, Any], ctx: Context) -> Iterator[dict[str, Any]]:
        number, at = row["number"], EPOCH + timedelta(milliseconds=row["at"] + row["number"])
        match row["what"]:
            case "set":
                self.value.set(number)
            case "add":
                self.items.add(number)
            case "put":
                self.pairs.set(number % 3, number)
            case "remove":
                self.pairs.delete(number % 3)
            case "clear":
                self.value.clear()
                self.items.clear()
                self.pairs.clear()
            case "timer":
                ctx.timer(at)
            case "delete":
                ctx.delete_timer(at)
            case "fail":
                self.value.set(-number)
                self.items.add(-number)
                self.pairs.clear()
                ctx.timer(at)
                raise ValueError("on purpose")
        yield self.seen(ctx, "row")

    def on_timer(self, time: datetime, ctx: Context) -> Iterator[dict[str, Any]]:
        yield self.seen(ctx, f"timer {(time - EPOCH) // timedelta(milliseconds=1)}")
        self.items.add(7)
        if (value := self.value.get()) is not None and value > 5:
            self.value.set(value // 2)
            ctx.timer(time + timedelta(milliseconds=value))

    def seen(self, ctx: Context, what: str) -> dict[str, Any]:
        pairs = [{"k": k, "v": v} for k, v in self.pairs.items()]
        return {"key": ctx.key, "what": what, "value": self.value.get(), "items": self.items.get(), "pairs": pairs}


INPUT: Schema = {"key": pl.String(), "what": pl.String(), "number": pl.Int64(), "at": pl.Int64()}
COLUMNS: dict[str, Any] = {
    "key": "string",
    "what": "string",
    "value": "int64",
    "items": "list[int64]",
}
PAIRS = FieldType("list", item=parse_type({"k": "int64", "v": "int64"}))
SPEC = ProcessFunctionSpec(
    UserCode(Path(__file__).parent, Path(__file__).name, "Doing"),
    ("key",),
    (*((name, parse_type(kind)) for name, kind in COLUMNS.items()), ("pairs", PAIRS)),
    (),
    INPUT,
    True,
    "skip",
)


@dataclass
class Model:
    """State of one key: (value, written at); what a timer of a key does is that of `Doing`."""

    value: tuple[int, int] | None = None
    items: list[tuple[int, int]] = field(default_factory=list)
    pairs: dict[int, tuple[int, int]] = field(default_factory=dict)

    def seen(self, key: str | None, what: str, now: int) -> dict[str, Any]:
        return {
            "key": key,
            "what": what,
            "value": self.value[0] if self.value and now < self.value[1] + TTL_MS else None,
            "items": [item for item, written in self.items if now < written + TTL_MS],
            "pairs": [{"k": k, "v": v} for k, (v, written) in sorted(self.pairs.items()) if now < written + TTL_MS],
        }


class World:
    """Every key's model, and the timers."""

    def __init__(self) -> None:
        self.keys: dict[str | None, Model] = defaultdict(Model)
        self.timers: set[tuple[int, int]] = set()
        self.results: dict[str | None, list[dict[str, Any]]] = defaultdict(list)

    def row(self, act: Act) -> None:
        model, timer = self.keys[act.key], (act.time + act.number, KEYS.index(act.key))
        match act.what:
            case "set":
                model.value = (act.number, act.time)
            case "add":
                model.items.append((act.number, act.time))
            case "put":
                model.pairs[act.number % 3] = (act.number, act.time)
            case "remove":
                model.pairs.pop(act.number % 3, None)
            case "clear":
                model.value, model.items, model.pairs = None, [], {}
            case "timer":
                self.timers.add(timer)
            case "delete":
                self.timers.discard(timer)
            case "fail":
                return
        self.results[act.key].append(model.seen(act.key, "row", act.time))

    def watermark(self, before: int, watermark: int) -> None:
        while due := [timer for timer in self.timers if timer[0] <= watermark]:
            time, index = min(due)
            self.timers.remove((time, index))
            key, now = KEYS[index], max(time, before)
            model = self.keys[key]
            seen = model.seen(key, f"timer {time}", now)
            self.results[key].append(seen)
            model.items.append((7, now))
            if seen["value"] is not None and seen["value"] > 5:
                model.value = (seen["value"] // 2, now)
                self.timers.add((time + seen["value"], index))


class Subtasks:
    """The step, as the dataflow drives it."""

    def __init__(self, folder: Path, *, rocks: bool) -> None:
        self._folder, self._rocks, self._made = folder, rocks, 0
        self.results: dict[str | None, list[dict[str, Any]]] = defaultdict(list)
        self.subtasks: list[tuple[KeyedProcess, StateBackend]] = []
        self._start(1, [])

    def process(self, acts: Sequence[Act], watermark: int) -> None:
        frame = pl.DataFrame(
            [(act.key, act.what, act.number, act.time, act.time) for act in acts],
            schema={**INPUT, TIME: pl.Int64()},
            orient="row",
        )
        groups = key_groups(frame, ["key"], MAX_PARALLELISM)
        for operator, backend in self.subtasks:
            part = frame.filter(groups.is_between(backend.groups.first, backend.groups.last))
            if part.height:
                self._collect(operator.process(part, EventTimeMs(watermark)))

    def watermark(self, watermark: int) -> None:
        for operator, _ in self.subtasks:
            self._collect(operator.on_watermark(EventTimeMs(watermark)))

    def checkpoint(self) -> list[tuple[KeyGroupRange, Path, dict[str, Any]]]:
        taken = []
        for operator, backend in self.subtasks:
            snapshot = dict(operator.prepare_snapshot())
            taken.append((backend.groups, backend.snapshot(self._next()).directory, snapshot))
        return taken

    def crash(self, parallelism: int) -> None:
        old = self.checkpoint()
        self.close()
        self._start(parallelism, old)

    def close(self) -> None:
        for _, backend in self.subtasks:
            backend.close()
        self.subtasks = []

    def entries(self) -> int:
        first, end = keyed_store._place("", keyed_store.KeyPlace(0, b"")), timers.Timer(1, 0, b"")
        return sum(len(backend.points("elements").scan(first, end, 10**6)) for _, backend in self.subtasks)

    def _start(self, parallelism: int, old: Sequence[tuple[KeyGroupRange, Path, dict[str, Any]]]) -> None:
        for index in range(parallelism):
            groups = range_of_subtask(index, parallelism, MAX_PARALLELISM)
            parts = [(part, snapshot) for owned, part, snapshot in old if owned.intersects(groups)]
            folders = [part for part, _ in parts]
            backend: StateBackend = (
                RocksBackend.restore_clipped(self._next(), groups, folders)
                if self._rocks
                else MemoryBackend.restore_clipped(groups, folders)
            )
            operator = KeyedProcess(SPEC, OperatorContext("step", index, MAX_PARALLELISM, groups, backend), Doing)
            if parts:
                operator.restore([snapshot for _, snapshot in parts])
            self.subtasks.append((operator, backend))

    def _next(self) -> Path:
        self._made += 1
        return self._folder / str(self._made)

    def _collect(self, outputs: Any) -> None:
        for _, frame in outputs:
            for row in frame.drop(TIME).to_dicts():
                self.results[row["key"]].append(row)


@st.composite
def programs(draw: st.DrawFn) -> list[Act | int | str]:
    """Rows in order of time, watermarks (an int: how far behind the newest row), checkpoints and crashes."""
    time, program = 0, list[Act | int | str]()
    acts = st.tuples(
        st.sampled_from(KEYS),
        st.sampled_from(["set", "add", "add", "put", "put", "remove", "clear", "timer", "timer", "delete", "fail"]),
        st.integers(0, 15),
        st.integers(0, 4) | st.just(25),
    )
    events = acts | acts | acts | st.integers(0, 5) | st.sampled_from(["cut", "cut", "checkpoint", "1", "2", "3"])
    for event in draw(st.lists(events, max_size=60)):
        if isinstance(event, tuple):
            key, what, number, step = event
            time += step
            program.append(Act(key, what, number, time))
        else:
            program.append(event)
    return program


@pytest.mark.parametrize("rocks", [False, True], ids=["memory", "rocksdb"])
def test_agrees_with_the_model_however_cut_written_back_and_rescaled(rocks: bool) -> None:
    @settings(max_examples=8 if rocks else 60, deadline=None)
    @given(program=programs(), tiny=st.booleans())
    def check(program: list[Act | int | str], tiny: bool) -> None:
        with (
            tempfile.TemporaryDirectory() as folder,
            patch.object(keyed_store, "CACHED_ENTRIES_MAX", 0 if tiny else 1000),
            patch.object(timers, "_PIECE", 2 if tiny else 1024),
            patch.object(timers, "_MEMORY_MAX", 0 if tiny else 1000),
        ):
            subtasks, world = Subtasks(Path(folder), rocks=rocks), World()
            run(program, subtasks, world)
            subtasks.close()
            assert subtasks.results == world.results

    check()


def run(program: Sequence[Act | int | str], subtasks: Subtasks, world: World) -> None:
    watermark, newest, batch = -1, 0, list[Act]()
    for event in [*program, "cut", 0]:
        if isinstance(event, Act):
            batch.append(event)
            world.row(event)
            newest = event.time
            continue
        if batch:
            subtasks.process(batch, watermark)
            batch = []
        if event == "checkpoint":
            subtasks.checkpoint()
        elif isinstance(event, str) and event != "cut":
            subtasks.crash(int(event))
        elif isinstance(event, int) and (coming := newest - 1 - event) > watermark:
            subtasks.watermark(coming)
            world.watermark(watermark, coming)
            watermark = coming


def test_expired_entries_leave_the_disk() -> None:
    with tempfile.TemporaryDirectory() as folder, patch.object(keyed_store, "_SWEPT_MIN", 1):
        subtasks = Subtasks(Path(folder), rocks=True)
        most = 0
        for second in range(60):
            acts = [Act(f"key {second} {n}", "add", n, second * 10) for n in range(50)]
            subtasks.process(acts, second * 10 - 1)
            subtasks.watermark(second * 10 - 1)
            subtasks.checkpoint()
            most = max(most, subtasks.entries())
        subtasks.close()
        assert most <= 50 * 5  # alive are those of 20 ms: two batches, and the one that came
