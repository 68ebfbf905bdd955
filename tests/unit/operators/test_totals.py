"""Aggregates of everything so far against Python's own arithmetic, over rows that may be taken back."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.aggregates import AggregatePlan, compile_aggregates
from operators.element import (
    DELETE,
    INSERT,
    KIND,
    TIME,
    UPDATE_AFTER,
    UPDATE_BEFORE,
    WATERMARK_MAX,
    WATERMARK_MIN,
    EventTimeMs,
    Schema,
)
from operators.totals import TotalsSpec
from tests.unit.operators.changelogs import Arrival, KeyedSubtasks, arrivals, frame_of, revisions, run

SCHEMA: Schema = {"k": pl.String(), "v": pl.Int64(), "name": pl.String(), "price": pl.Decimal(10, 2)}
ROWS = st.tuples(
    st.sampled_from(["a", "b", None]),
    st.integers(-5, 5) | st.none(),
    st.sampled_from(["x", "y", None]),
    st.sampled_from([Decimal("1.50"), Decimal("-0.25"), None]),
)
AGGREGATES = {
    "n": "count(*)",
    "vs": "count(v)",
    "total": "sum(v)",
    "price": "sum(price)",
    "mean": "avg(v)",
    "spread": "variance(v)",
    "lowest": "min(v)",
    "highest": "max(v + 1)",
    "names": "count(distinct name)",
    "big": "count(distinct name || '!') filter (where v > 0)",
    "middle": "median(v)",
    "approx": "approx_count_distinct(name)",
    "named": "count(*) filter (where name = 'x') + 1",
}
Values = tuple[Any, ...]


def results(key: Any, group: Sequence[Values]) -> Values:
    """One row, to ten digits."""
    v = [row[1] for row in group if row[1] is not None]
    prices = [row[3] for row in group if row[3] is not None]
    names = {row[2] for row in group if row[2] is not None}
    return rounded(
        (
            key,
            len(group),
            len(v),
            sum(v) if v else None,
            sum(prices) if prices else None,
            sum(v) / len(v) if v else None,
            statistics.variance(v) if len(v) > 1 else None,
            min(v) if v else None,
            max(v) + 1 if v else None,
            len(names),
            len({row[2] for row in group if row[2] is not None and row[1] is not None and row[1] > 0}),
            statistics.median(v) if v else None,
            len(names),
            sum(row[2] == "x" for row in group) + 1,
        )
    )


def rounded(row: Values) -> Values:
    return tuple(round(value, 8) + 0.0 if isinstance(value, float) else value for value in row)


def expected(rows: Sequence[Values], *, by_key: bool = True) -> list[Values]:
    groups: dict[Any, list[Values]] = {}
    for row in rows:
        groups.setdefault(row[0] if by_key else "all", []).append(row)
    found = [results(key, group) for key, group in groups.items()]
    return sorted(found if by_key else [row[1:] for row in found], key=repr)


def current(step: KeyedSubtasks) -> list[Values]:
    counted = step.current()
    assert set(counted.values()) <= {1}
    return sorted(map(rounded, counted), key=repr)


def spec(**changed: Any) -> TotalsSpec:
    key = changed.pop("key", ("k",))
    plan = compiled(key) if "aggregates" not in changed else compile_aggregates(changed.pop("aggregates"), SCHEMA, key)
    return TotalsSpec(key, plan, SCHEMA, timed=changed.pop("timed", True), **changed)


@cache
def compiled(key: tuple[str, ...]) -> AggregatePlan:
    return compile_aggregates(AGGREGATES, SCHEMA, key)


@settings(max_examples=25, deadline=None)
@given(data=st.data(), rows=arrivals(ROWS), key=st.sampled_from([("k",), ()]), retracting=st.booleans())
def test_every_change_so_far(data: st.DataObject, rows: list[Arrival], key: tuple[str, ...], retracting: bool) -> None:
    seen: list[Values] = []

    def look(step: KeyedSubtasks, batch: Sequence[Arrival]) -> None:
        seen.extend(row.values for row in batch)
        assert current(step) == expected(seen, by_key=bool(key))

    run(data, spec(key=key, retracting=retracting), key, rows, look, schema=SCHEMA, kinds=retracting)


@settings(max_examples=25, deadline=None)
@given(data=st.data(), rows=revisions(ROWS, 25), key=st.sampled_from([("k",), ()]))
def test_of_a_changelog(data: st.DataObject, rows: list[Arrival], key: tuple[str, ...]) -> None:
    present: list[Values] = []

    def look(step: KeyedSubtasks, batch: Sequence[Arrival]) -> None:
        for row in batch:
            if row.kind in (INSERT, UPDATE_AFTER):
                present.append(row.values)
            else:
                present.remove(row.values)
        assert current(step) == expected(present, by_key=bool(key))

    run(data, spec(key=key, retracting=True), key, rows, look, schema=SCHEMA, kinds=True)


@settings(max_examples=20, deadline=None)
@given(data=st.data(), rows=arrivals(ROWS), timed=st.booleans())
def test_at_the_end_of_input(data: st.DataObject, rows: list[Arrival], timed: bool) -> None:
    tried = spec(update_every_ms=None, timed=timed)
    step = run(data, tried, ["k"], rows, schema=SCHEMA, timed=timed, last_watermark=WATERMARK_MAX)
    assert current(step) == expected([row.values for row in rows])
    assert all({KIND, TIME}.isdisjoint(output.frame.columns) for output in step.outputs)


@settings(max_examples=20, deadline=None)
@given(data=st.data(), rows=revisions(ROWS, 25), every=st.sampled_from([3, 20]))
def test_every_once_in_a_while(data: st.DataObject, rows: list[Arrival], every: int) -> None:
    tried = spec(update_every_ms=every, retracting=True)
    step = run(data, tried, ["k"], rows, schema=SCHEMA, kinds=True, last_watermark=WATERMARK_MAX)
    present: list[Values] = []
    for row in rows:
        if row.kind in (INSERT, UPDATE_AFTER):
            present.append(row.values)
        else:
            present.remove(row.values)
    assert current(step) == expected(present)


@settings(max_examples=25, deadline=None)
@given(data=st.data(), rows=arrivals(ROWS), ttl=st.sampled_from([3, 10, 25]), every=st.sampled_from([0, 5]))
def test_a_group_without_rows_for_its_time_to_live_begins_anew(
    data: st.DataObject, rows: list[Arrival], ttl: int, every: int
) -> None:
    newest: dict[Any, int] = {}
    lives: dict[Any, list[list[Values]]] = {}
    for row in rows:
        key = row.values[0]
        if row.time + ttl <= row.watermark:
            continue
        if key not in newest or max(row.time, row.watermark) >= newest[key] + ttl:
            lives.setdefault(key, []).append([])
        newest[key] = max(newest.get(key, row.time), row.time)
        lives[key][-1].append(row.values)
    tried = spec(ttl_ms=ttl, update_every_ms=every)
    step = run(data, tried, ["k"], rows, schema=SCHEMA, last_watermark=WATERMARK_MAX)
    found = sorted(map(rounded, step.current().elements()), key=repr)
    assert found == sorted((results(key, life) for key in lives for life in lives[key]), key=repr)


def frame(*rows: Arrival) -> pl.DataFrame:
    return frame_of(rows, SCHEMA, kinds=True)


def at(time: int, key: str, v: int, kind: int = INSERT) -> Arrival:
    return Arrival((key, v, None, None), time, time - 1, kind)


def test_changes_wait_for_event_time_to_pass_a_multiple(tmp_path: Path) -> None:
    tried = spec(aggregates={"total": "sum(v)"}, update_every_ms=10, retracting=True)
    step = KeyedSubtasks(tried, ["k"], tmp_path)
    step.on_watermark(0)
    step.process(frame(at(3, "a", 1), at(4, "b", 2)), 0)
    step.process(frame(at(5, "a", 1), at(6, "b", 2, DELETE)), 4)
    step.on_watermark(8)
    assert step.rows() == []
    step.restore(2)
    step.on_watermark(9)
    assert step.rows() == [("a", 2)], "what came and went meanwhile was never there"
    [operator, *_] = [operator for operator, *_ in step._subtasks]
    assert [operator.output_watermark(EventTimeMs(w)) for w in (9, 15)] == [9, 9]
    step.process(frame(at(12, "a", 2, UPDATE_BEFORE), at(12, "a", 3, UPDATE_AFTER)), 9)
    step.on_watermark(WATERMARK_MAX)
    assert step.rows() == [("a", 2), ("a", 2), ("a", 3)]
    assert [output.frame.get_column(TIME).to_list() for output in step.outputs] == [[5], [12, 12]]
    step.close()


def test_a_group_without_rows_is_deleted_and_may_come_back(tmp_path: Path) -> None:
    step = KeyedSubtasks(spec(aggregates={"mean": "avg(v)"}, retracting=True), ["k"], tmp_path)
    step.process(frame(at(1, "a", 4), at(2, "a", 8)), WATERMARK_MIN)
    step.process(frame(at(3, "a", 4, DELETE), at(4, "a", 8, DELETE)), 0)
    step.process(frame(at(5, "a", 9, DELETE)), 0)  # of a row that nobody knows: there is nothing to take back
    step.process(frame(at(6, "a", 1)), 0)
    kinds = [kind for output in step.outputs for kind in output.frame.get_column(KIND)]
    assert list(zip(kinds, step.rows(), strict=True)) == [
        (INSERT, ("a", 6.0)),
        (DELETE, ("a", 6.0)),
        (INSERT, ("a", 1.0)),
    ]
    step.close()


def test_a_row_on_which_an_input_fails_follows_the_error_policy(tmp_path: Path) -> None:
    for name, aggregate in enumerate(
        ("sum(cast(name as int64))", "count(distinct cast(name as int64))", "median(cast(name as int64))")
    ):
        tried = spec(aggregates={"x": aggregate, "n": "count(*)"}, errors="dlq")
        step = KeyedSubtasks(tried, ["k"], tmp_path / str(name))
        rows = [Arrival(("a", 1, text, None), time, time - 1) for time, text in enumerate(["5", "five", "7"])]
        step.process(frame(*rows), WATERMARK_MIN)
        [row] = step.current()
        assert row[-1] == 2
        assert len(step.rows("errors")) == 1
        step.close()
