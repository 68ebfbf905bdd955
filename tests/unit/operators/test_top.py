"""The best rows of each key against a sort, continuous and in windows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.element import INSERT, KIND, UPDATE_AFTER, WATERMARK_MAX, Schema
from operators.ranking import Order, Ranking
from operators.slices import Window
from operators.top import TopSpec
from operators.windowed_top import WindowedTopSpec
from tests.unit.operators.changelogs import Arrival, KeyedSubtasks, arrivals, revisions, run

SCHEMA: Schema = {"k": pl.String(), "price": pl.Int64(), "name": pl.String()}
ROWS = st.tuples(st.sampled_from(["a", "b", None]), st.integers(0, 4) | st.none(), st.sampled_from(["x", "y", None]))
ORDERS: list[tuple[Order, ...]] = [
    (Order("price", True),),
    (Order("price"), Order("name", True)),
    (Order("name"), Order("price", True)),
]
RANKINGS = st.builds(Ranking, st.integers(1, 3), st.sampled_from(ORDERS), st.booleans())
RANKS = st.sampled_from([None, "rank"])
Values = tuple[Any, ...]


def position(value: Any, descending: bool) -> tuple[int, Any]:
    """Where a value sorts: nulls are the lowest."""
    number = -1 if value is None else value if isinstance(value, int) else ord(value)
    return (0, -number if descending else number)


def best(rows: Sequence[Values], ranking: Ranking, key: Sequence[str], rank: str | None) -> list[Values]:
    """Sorted, cut, counted, one key at a time; `rows` in the order of arrival."""
    names = list(SCHEMA)
    groups: dict[Values, list[Values]] = {}
    for row in rows:
        groups.setdefault(tuple(row[names.index(name)] for name in key), []).append(row)

    def place(row: Values) -> list[Any]:
        return [position(row[names.index(column)], descending) for column, descending in ranking.order]

    found = []
    for group in groups.values():
        ordered = sorted(group, key=place)
        for index, row in enumerate(ordered):
            number = sum(place(other) < place(row) for other in group) + 1 if ranking.ties else index + 1
            if number <= ranking.n:
                found.append(row if rank is None else (*row, number))
    return found


def present(rows: Sequence[Arrival]) -> list[Values]:
    """What is there after all changes, in the order of arrival."""
    left: list[Values] = []
    for row in rows:
        if row.kind in (INSERT, UPDATE_AFTER):
            left.append(row.values)
        else:
            left.remove(row.values)
    return left


@settings(max_examples=30, deadline=None)
@given(
    data=st.data(),
    rows=arrivals(ROWS),
    ranking=RANKINGS,
    rank=RANKS,
    key=st.sampled_from([("k",), (), ("k", "name")]),
)
def test_the_best_so_far(
    data: st.DataObject, rows: list[Arrival], ranking: Ranking, rank: str | None, key: tuple[str, ...]
) -> None:
    spec = TopSpec(ranking, key, SCHEMA, tuple(SCHEMA), timed=True, rank=rank)
    seen: list[Values] = []

    def look(step: KeyedSubtasks, batch: Sequence[Arrival]) -> None:
        seen.extend(row.values for row in batch)
        assert step.current() == Counter(best(seen, ranking, key, rank))

    run(data, spec, key, rows, look, schema=SCHEMA)


@settings(max_examples=30, deadline=None)
@given(data=st.data(), rows=revisions(ROWS), ranking=RANKINGS, rank=RANKS, key=st.sampled_from([("k",), ()]))
def test_the_best_of_what_is_left(
    data: st.DataObject, rows: list[Arrival], ranking: Ranking, rank: str | None, key: tuple[str, ...]
) -> None:
    spec = TopSpec(ranking, key, SCHEMA, tuple(SCHEMA), timed=True, rank=rank, retracting=True)
    seen: list[Arrival] = []

    def look(step: KeyedSubtasks, batch: Sequence[Arrival]) -> None:
        seen.extend(batch)
        assert step.current() == Counter(best(present(seen), ranking, key, rank))

    run(data, spec, key, rows, look, schema=SCHEMA, kinds=True)


@settings(max_examples=30, deadline=None)
@given(data=st.data(), rows=arrivals(ROWS), rank=RANKS, ttl=st.sampled_from([3, 10, 25]))
def test_a_key_without_rows_for_its_time_to_live_begins_anew(
    data: st.DataObject, rows: list[Arrival], rank: str | None, ttl: int
) -> None:
    ranking = Ranking(2, ORDERS[0])
    spec = TopSpec(ranking, ("k",), SCHEMA, tuple(SCHEMA), timed=True, rank=rank, ttl_ms=ttl)
    newest: dict[Any, int] = {}
    lives: dict[Any, list[list[Values]]] = {}
    late = 0
    for row in rows:
        key = row.values[0]
        if row.time + ttl <= row.watermark:
            late += 1
            continue
        if key not in newest or max(row.time, row.watermark) >= newest[key] + ttl:
            lives.setdefault(key, []).append([])
        newest[key] = max(newest.get(key, row.time), row.time)
        lives[key][-1].append(row.values)
    step = run(data, spec, ["k"], rows, schema=SCHEMA)
    expected = [row for of_key in lives.values() for life in of_key for row in best(life, ranking, ["k"], rank)]
    assert step.current() == Counter(expected)
    assert step.late_count == late


@pytest.mark.parametrize("window", [Window(10, 10), Window(12, 4), Window(12, 4, 1, cumulates=True)], ids=str)
def test_the_best_of_each_window(window: Window) -> None:
    @settings(max_examples=25, deadline=None)
    @given(data=st.data(), rows=arrivals(ROWS), ranking=RANKINGS, rank=RANKS, key=st.sampled_from([("k",), ()]))
    def check(
        data: st.DataObject, rows: list[Arrival], ranking: Ranking, rank: str | None, key: tuple[str, ...]
    ) -> None:
        spec = WindowedTopSpec(ranking, key, window, SCHEMA, tuple(SCHEMA), rank, late_output=True)
        step = run(data, spec, key, rows, schema=SCHEMA, last_watermark=WATERMARK_MAX)
        inside: dict[int, list[Values]] = {}
        late = []
        for row in rows:
            ends = [
                end
                for end in range(row.time + 1, row.time + window.size_ms + 1)
                if (end - window.offset_ms) % window.slide_ms == 0 and window.start_of(end) <= row.time
            ]
            open_ends = [end for end in ends if row.watermark < end - 1]
            for end in open_ends:
                inside.setdefault(end, []).append(row.values)
            if not open_ends:
                late.append(row.values)
        found: Counter[Values] = Counter()
        for result in step.rows():
            start, end = (int(value.timestamp() * 1000) for value in result[3:5])
            assert start == window.start_of(end)
            found[(end, *result[:3], *result[5:])] += 1
        assert found == Counter((end, *row) for end in inside for row in best(inside[end], ranking, key, rank))
        assert Counter(step.rows("late")) == Counter(late)
        assert all(KIND not in output.frame.columns for output in step.outputs)

    check()


@settings(max_examples=25, deadline=None)
@given(data=st.data(), rows=arrivals(ROWS), ranking=RANKINGS)
def test_windows_that_rows_carry(data: st.DataObject, rows: list[Arrival], ranking: Ranking) -> None:
    schema: Schema = {**SCHEMA, "window_start": pl.Datetime("ms", "UTC"), "window_end": pl.Datetime("ms", "UTC")}
    carried = []
    for row in rows:
        start = row.time // 10 * 10
        values = (*row.values, start, start + 10)
        carried.append(Arrival(values, start + 9, row.watermark))
    spec = WindowedTopSpec(ranking, (), None, schema, tuple(schema))
    step = run(data, spec, (), carried, schema=schema, last_watermark=WATERMARK_MAX)
    inside: dict[int, list[Values]] = {}
    for row in carried:
        if row.watermark < row.time:
            inside.setdefault(row.time, []).append(row.values[:3])
    found = Counter((int(row[4].timestamp() * 1000) - 1, *row[:3]) for row in step.rows())
    assert found == Counter((end, *row) for end in inside for row in best(inside[end], ranking, (), None))
