"""Windows against a model that takes one row at a time: disorder, batch cuts, tiny memory, rescaling."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators import partials
from operators.element import WATERMARK_MAX, WATERMARK_MIN
from operators.operator import OperatorContext
from operators.slices import Window
from operators.window import CARRIED, WindowAggregateSpec
from operators.window_assign import WindowAssignSpec
from state.key_group import KeyGroupRange
from tests.unit.operators.windowed import (
    SCHEMA,
    Group,
    Model,
    Row,
    Subtasks,
    Values,
    batch,
    folded,
    plan,
    results,
    spec,
)

WINDOWS = [
    Window(10, 10),
    Window(10, 10, 3),
    Window(12, 4),
    Window(10, 4, 1),  # slices of 2, windows that do not tile
    Window(7, 3),
    Window(3, 5),  # gaps
    Window(1, 1),
    Window(12, 4, cumulates=True),
    Window(15, 3, 7, cumulates=True),
    Window(40, 2),  # many slices
    Window(36, 3, cumulates=True),
]

TINY = {
    "BUCKET_ROWS": 1,
    "BLOCK_ROWS": 1,
    "BLOCK_ROWS_MIN": 1,
    "MERGE_ROWS": 70,
    "REWRITE_WEIGHT": 130,
}  # two keys are many
USUAL = {name: getattr(partials, name) for name in TINY}


@dataclass(frozen=True)
class Feed:
    """Rows as they arrive, and the watermark just before each."""

    rows: list[Row]
    watermarks: list[int]


@st.composite
def feeds(draw: st.DrawFn) -> Feed:
    """Event times that move on, jump, and fall behind the watermark now and then."""
    bound = draw(st.integers(0, 12))
    time, highest = draw(st.integers(-50, 50)), int(WATERMARK_MIN)
    rows: list[Row] = []
    watermarks: list[int] = []
    for step, back, key, value in draw(
        st.lists(
            st.tuples(
                st.integers(0, 6) | st.integers(0, 60),
                st.just(0) | st.integers(0, 30),
                st.sampled_from(["a", "b", "c", "d", "e", "f", None]),
                st.integers(-9, 9),
            ),
            max_size=60,
        )
    ):
        time += step
        rows.append(Row(key, value, time - back))
        watermarks.append(highest)
        highest = max(highest, time - back - bound)
    return Feed(rows, watermarks)


@st.composite
def cuts(draw: st.DrawFn, length: int) -> list[tuple[int, int]]:
    """Ranges of rows that make the batches."""
    inner = draw(st.sets(st.integers(1, max(1, length - 1)), max_size=12)) if length > 1 else set()
    return list(pairwise(sorted({0, length} | inner)))


def the_last(emitted: list[tuple[Group, Values]]) -> dict[Group, Values]:
    return dict(emitted)


@pytest.mark.parametrize("rocks", [False, True], ids=["memory", "rocksdb"])
@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_agrees_with_the_model_however_cut_spilled_and_rescaled(window: Window, rocks: bool) -> None:
    @settings(max_examples=4 if rocks else 25, deadline=None)
    @given(data=st.data(), feed=feeds(), accept_for=st.sampled_from([0, 0, 1, 7, 40]))
    def check(data: st.DataObject, feed: Feed, accept_for: int) -> None:
        memory = data.draw(st.sampled_from([1, 100, 500, 10**6]), label="memory_rows_max")
        limits = data.draw(st.sampled_from([USUAL, TINY]), label="limits")
        # Not every watermark reaches the step before the next batch does; each row carries its own.
        model = Model(window, accept_for)
        with tempfile.TemporaryDirectory() as folder, patch.multiple(partials, **limits):
            tried = spec(window, plan(), accept_for=accept_for)
            step = Subtasks(tried, Path(folder), rocks=rocks, memory_rows_max=memory)
            for first, end in data.draw(cuts(len(feed.rows)), label="batches"):
                rows, watermarks = feed.rows[first:end], feed.watermarks[first:end]
                if rows:
                    step.process(batch(rows, watermarks), model.watermark)
                for row, watermark in zip(rows, watermarks, strict=True):
                    model.row(row, watermark)
                if watermarks and watermarks[-1] > model.watermark and data.draw(st.booleans(), label="watermark"):
                    model.watermark = watermarks[-1]
                    step.on_watermark(model.watermark)
                    emitted = results(step.main())
                    assert the_last(emitted) == model.closed()
                    if not accept_for:
                        assert len(emitted) == len(the_last(emitted))
                match data.draw(st.sampled_from(["go on", "go on", "checkpoint", "restore"]), label="then"):
                    case "checkpoint":
                        step.checkpoint()
                    case "restore":
                        step.restore(data.draw(st.integers(1, 4), label="parallelism"))
            model.watermark = WATERMARK_MAX
            step.on_watermark(WATERMARK_MAX)
            emitted = results(step.main())
            assert the_last(emitted) == model.all()
            if not accept_for:
                assert len(emitted) == len(model.values), "a group was emitted twice"
            assert sorted(map(repr, step.late())) == sorted(map(repr, model.late))
            assert step.held_rows == 0
            step.close()
            assert step.late_count == len(model.late)
            assert step.filtered_count == model.nowhere

    check()


@settings(max_examples=30, deadline=None)
@given(data=st.data(), feed=feeds(), window=st.sampled_from(WINDOWS))
def test_rows_without_their_own_watermark_take_the_step_s(data: st.DataObject, feed: Feed, window: Window) -> None:
    model = Model(window)
    with tempfile.TemporaryDirectory() as folder:
        step = Subtasks(spec(window, plan()), Path(folder))
        for first, end in data.draw(cuts(len(feed.rows)), label="batches"):
            if rows := feed.rows[first:end]:
                step.process(batch(rows), model.watermark)
                for row in rows:
                    model.row(row, model.watermark)
                if feed.watermarks[end - 1] > model.watermark:
                    model.watermark = feed.watermarks[end - 1]
                    step.on_watermark(model.watermark)
                    assert dict(results(step.main())) == model.closed()
        step.on_watermark(WATERMARK_MAX)
        assert dict(results(step.main())) == model.all()
        assert sorted(map(repr, step.late())) == sorted(map(repr, model.late))


@settings(max_examples=30, deadline=None)
@given(
    data=st.data(),
    feed=feeds(),
    window=st.sampled_from(WINDOWS),
    accept_for=st.sampled_from([0, 7, 40]),
    period=st.sampled_from([0, 5, 20]),
)
def test_updates_come_to_what_the_model_has(
    data: st.DataObject, feed: Feed, window: Window, accept_for: int, period: int
) -> None:
    model = Model(window, accept_for)
    memory = data.draw(st.sampled_from([1, 100, 10**6]), label="memory_rows_max")
    with tempfile.TemporaryDirectory() as folder:
        tried = spec(window, plan(), accept_for=accept_for, update_every_ms=period)
        step = Subtasks(tried, Path(folder), memory_rows_max=memory)
        for first, end in data.draw(cuts(len(feed.rows)), label="batches"):
            rows, watermarks = feed.rows[first:end], feed.watermarks[first:end]
            if rows:
                step.process(batch(rows, watermarks), model.watermark)
            for row, watermark in zip(rows, watermarks, strict=True):
                model.row(row, watermark)
            if watermarks and watermarks[-1] > model.watermark and data.draw(st.booleans(), label="watermark"):
                model.watermark = watermarks[-1]
                step.on_watermark(model.watermark)
                shown = dict(folded(step.main()))
                assert model.closed().items() <= shown.items()
                if not period:
                    assert shown == model.all()
            if data.draw(st.booleans(), label="restore"):
                step.restore(data.draw(st.integers(1, 4), label="parallelism"))
        model.watermark = WATERMARK_MAX
        step.on_watermark(WATERMARK_MAX)
        assert dict(folded(step.main())) == model.all()
        assert sorted(map(repr, step.late())) == sorted(map(repr, model.late))
        assert step.held_rows == 0
        step.close()


@settings(max_examples=40, deadline=None)
@given(data=st.data(), feed=feeds(), accept_for=st.sampled_from([0, 7]), period=st.sampled_from([None, None, 0, 20]))
def test_windows_that_rows_carry_close_as_they_do(
    data: st.DataObject, feed: Feed, accept_for: int, period: int | None
) -> None:
    """Hopping windows assigned ahead, then aggregated as input: as if aggregated at once."""
    window = data.draw(st.sampled_from([each for each in WINDOWS if not each.has_gaps]), label="window")
    assign = WindowAssignSpec(window, SCHEMA)
    model = Model(window, accept_for)
    tried = WindowAggregateSpec(
        ("k",), CARRIED, plan(), accept_for, True, assign.schema, carried=True, update_every_ms=period
    )
    with tempfile.TemporaryDirectory() as folder:
        step = Subtasks(tried, Path(folder))
        assigned = assign.create(OperatorContext("assign", 0, 1, KeyGroupRange(0, 0), None))
        for first, end in data.draw(cuts(len(feed.rows)), label="batches"):
            rows, watermarks = feed.rows[first:end], feed.watermarks[first:end]
            if rows:
                for _, frame in assigned.process(batch(rows, watermarks), WATERMARK_MIN):
                    step.process(frame, model.watermark)
            for row, watermark in zip(rows, watermarks, strict=True):
                model.row(row, watermark)
            if watermarks and watermarks[-1] > model.watermark and data.draw(st.booleans(), label="watermark"):
                model.watermark = watermarks[-1]
                step.on_watermark(model.watermark)
            if data.draw(st.booleans(), label="restore"):
                step.restore(data.draw(st.integers(1, 4), label="parallelism"))
        step.on_watermark(WATERMARK_MAX)
        emitted = results(step.main()) if period is None else folded(step.main())
        assert dict(emitted) == model.all()
        assert step.held_rows == 0
        step.close()
