"""Deduplication against a model that takes one row at a time, and its rules one by one."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.deduplicate import KeepFirstSpec, KeepLastSpec
from operators.element import KIND, WATERMARK_MAX, WATERMARK_MIN, Schema
from tests.unit.operators.changelogs import Arrival, KeyedSubtasks, arrivals, frame_of, run

SCHEMA: Schema = {"k": pl.String(), "v": pl.Int64(), "tags": pl.List(pl.String())}
ROWS = st.tuples(
    st.sampled_from(["a", "b", "c", None]), st.integers(0, 3) | st.none(), st.sampled_from([["x"], [], None])
)
TTL = st.sampled_from([None, 3, 10, 25])


def frozen(row: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(tuple(value) if isinstance(value, list) else value for value in row)


def last_rows(rows: list[Arrival], ttl: int | None) -> Counter[tuple[Any, ...]]:
    """What is there at the end; a key that was forgotten leaves its row behind."""
    kept: dict[Any, Arrival] = {}
    left: Counter[tuple[Any, ...]] = Counter()
    for row in rows:
        if ttl is not None and row.time + ttl <= row.watermark:
            continue
        key = row.values[0]
        before = kept.get(key)
        if before is not None and ttl is not None and max(row.time, row.watermark) >= before.time + ttl:
            left[frozen(before.values)] += 1
            before = None
        if before is None or row.time >= before.time:
            kept[key] = row
    left.update(frozen(row.values) for row in kept.values())
    return left


def first_rows(rows: list[Arrival], ttl: int | None) -> Counter[tuple[Any, ...]]:
    """In the order of event time; late ones do not count."""
    found: Counter[tuple[Any, ...]] = Counter()
    decided: dict[Any, int] = {}
    for row in sorted((row for row in rows if row.time > row.watermark), key=lambda row: row.time):
        key = row.values[0]
        if key not in decided or (ttl is not None and row.time >= decided[key] + ttl):
            decided[key] = row.time
            found[frozen(row.values)] += 1
    return found


@settings(max_examples=60, deadline=None)
@given(data=st.data(), rows=arrivals(ROWS), ttl=TTL)
def test_last_agrees_with_the_model(data: st.DataObject, rows: list[Arrival], ttl: int | None) -> None:
    spec = KeepLastSpec(("k",), SCHEMA, timed=True, ttl_ms=ttl)
    step = run(data, spec, ["k"], rows, schema=SCHEMA)
    assert step.current() == last_rows(rows, ttl)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), rows=arrivals(ROWS), ttl=TTL)
def test_first_agrees_with_the_model(data: st.DataObject, rows: list[Arrival], ttl: int | None) -> None:
    spec = KeepFirstSpec(("k",), SCHEMA, timed=True, ttl_ms=ttl)
    step = run(data, spec, ["k"], rows, schema=SCHEMA, last_watermark=WATERMARK_MAX)
    assert step.current() == first_rows(rows, ttl)
    assert all(KIND not in output.frame.columns for output in step.outputs)
    assert step.late_count == sum(row.time <= row.watermark for row in rows)


@settings(max_examples=30, deadline=None)
@given(data=st.data(), rows=arrivals(ROWS))
def test_without_event_time_arrival_decides(data: st.DataObject, rows: list[Arrival]) -> None:
    first: dict[Any, Any] = {}
    last: dict[Any, Any] = {}
    for row in rows:
        first.setdefault(row.values[0], frozen(row.values))
        last[row.values[0]] = frozen(row.values)
    kept = run(data, KeepFirstSpec(("k",), SCHEMA, timed=False), ["k"], rows, schema=SCHEMA, timed=False)
    assert kept.current() == Counter(first.values())
    kept = run(data, KeepLastSpec(("k",), SCHEMA, timed=False), ["k"], rows, schema=SCHEMA, timed=False)
    assert kept.current() == Counter(last.values())


@settings(max_examples=30, deadline=None)
@given(data=st.data(), rows=arrivals(ROWS))
def test_who_only_wants_the_newest_gets_no_old_rows(data: st.DataObject, rows: list[Arrival]) -> None:
    spec = KeepLastSpec(("k",), SCHEMA, timed=True, retracts=False)
    newest: dict[Any, Any] = {}
    step = run(data, spec, ["k"], rows, schema=SCHEMA, upserts=True)
    for row in step.rows():
        newest[row[0]] = frozen(row)
    assert Counter(newest.values()) == last_rows(rows, None)
    kinds = [kind for output in step.outputs for kind in output.frame.get_column(KIND)]
    assert set(kinds) <= {0, 2}


def test_without_event_time_keys_are_forgotten_by_the_clock(tmp_path: Path) -> None:
    row = frame_of([Arrival(("a", 1, None), 0, 0)], SCHEMA, timed=False)
    for number, keep in enumerate((KeepFirstSpec, KeepLastSpec)):
        step = KeyedSubtasks(keep(("k",), SCHEMA, timed=False, ttl_ms=10), ["k"], tmp_path / str(number))
        given = []
        for now_ms in (0, 9, 18, 19, 28, 40):
            step.on_processing_time(now_ms)
            step.process(row, WATERMARK_MIN)
            given.append([kind for output in step.outputs for kind in output.frame.columns].count("k"))
            step.restore(2)
        # the first counts from itself, the last from the newest row of its key; equal rows change nothing
        assert given == ([1, 1, 2, 2, 3, 4] if keep is KeepFirstSpec else [1, 1, 1, 1, 1, 2])
        step.close()


def test_a_late_row_is_neither_first_nor_does_it_change_the_last(tmp_path: Path) -> None:
    rows = frame_of([Arrival(("a", 1, None), 50, 0), Arrival(("a", 2, None), 7, 40)], SCHEMA)
    first = KeyedSubtasks(KeepFirstSpec(("k",), SCHEMA, timed=True), ["k"], tmp_path)
    first.process(rows, WATERMARK_MIN)
    assert first.rows() == [], "an earlier row may still come"
    first.on_watermark(49)
    assert first.rows() == []
    first.on_watermark(50)
    assert first.rows() == [("a", 1, None)]
    first.close()
    assert first.late_count == 1
    last = KeyedSubtasks(KeepLastSpec(("k",), SCHEMA, timed=True), ["k"], tmp_path)
    last.process(rows, WATERMARK_MIN)
    assert last.rows() == [("a", 1, None)]


def test_an_earlier_row_takes_the_place_of_one_that_waits(tmp_path: Path) -> None:
    step = KeyedSubtasks(KeepFirstSpec(("k",), SCHEMA, timed=True), ["k"], tmp_path)
    step.on_watermark(1)
    for number, time in enumerate((50, 30, 40)):
        step.process(frame_of([Arrival(("a", number, None), time, 1)], SCHEMA), 1)
    [(operator, _, context)] = step._subtasks
    assert (context.counters.filtered, context.counters.taken - context.counters.made) == (2, 1)
    assert len(operator._waiting) == 1
    step.on_watermark(60)
    assert step.rows() == [("a", 1, None)]
    step.close()


def test_a_row_that_gets_its_first_while_it_waits_hides_no_later_one(tmp_path: Path) -> None:
    first = KeyedSubtasks(KeepFirstSpec(("k",), SCHEMA, timed=True, ttl_ms=13), ["k"], tmp_path)
    first.process(frame_of([Arrival(("a", 1, None), 40, 0), Arrival(("a", 2, None), 50, 0)], SCHEMA), WATERMARK_MIN)
    first.on_watermark(45)  # 40 is the first row; 50, which it covers, still waits
    first.process(frame_of([Arrival(("a", 3, None), 55, 45)], SCHEMA), WATERMARK_MIN)
    first.on_watermark(WATERMARK_MAX)
    assert first.rows() == [("a", 1, None), ("a", 3, None)]
    first.close()


def test_rocksdb_holds_what_memory_does(tmp_path: Path) -> None:
    step = KeyedSubtasks(KeepLastSpec(("k",), SCHEMA, timed=True), ["k"], tmp_path, rocks=True)
    for number in range(6):
        key = "abc"[number % 3]
        step.process(frame_of([Arrival((key, number, [key]), number, number - 1)], SCHEMA), WATERMARK_MIN)
        step.restore(number % 3 + 1)
    assert step.current() == Counter({("a", 3, ("a",)): 1, ("b", 4, ("b",)): 1, ("c", 5, ("c",)): 1})
    step.close()
