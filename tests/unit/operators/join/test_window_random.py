"""Window joins against a nested loop over windows: disorder, late rows, batch cuts, tiny memory, rescaling."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.element import TIME, WATERMARK_MAX
from operators.join import pairs, window
from operators.join.shape import JoinKind, JoinShape, Side
from operators.join.window import WindowJoinSpec
from operators.slices import Window
from operators.window import WINDOW_TYPE
from tests.unit.operators.join.feeds import Arrival, arrivals, batches
from tests.unit.operators.join.joined import LEFT, RIGHT, JoinStep, Result, frame, results, shape


class Span(NamedTuple):
    start: int
    end: int


def spans_of(window: Window, time: int) -> list[Span]:
    """The windows that contain `time`, found by looking at all that could."""
    size, slide, offset = window.size_ms, window.slide_ms, window.offset_ms
    starts = range(time - size + 1, time + 1)
    if not window.cumulates:
        return [Span(start, start + size) for start in starts if (start - offset) % slide == 0]
    [start] = [start for start in starts if (start - offset) % size == 0]
    return [Span(start, end) for end in range(start + slide, start + size + 1, slide) if time < end]


class Model:
    """Every window with the rows that came in time for it."""

    def __init__(self, kind: JoinKind, *, residual: bool) -> None:
        self.kind, self.residual = kind, residual
        self.windows: dict[Span, tuple[list[Arrival], list[Arrival]]] = {}
        self.late = 0

    def take(self, arrival: Arrival, spans: Sequence[Span]) -> None:
        reached = [span for span in spans if arrival.watermark < span.end - 1]
        for span in reached:
            self.windows.setdefault(span, ([], []))[arrival.side].append(arrival)
        self.late += not reached

    def results(self) -> Iterable[tuple[Span, Result]]:
        for span, (left, right) in self.windows.items():
            met = [(one, other) for one in left for other in right if self._meet(one, other)]
            if self.kind not in ("semi", "anti"):
                for one, other in met:
                    yield span, Result(one.row[:2], other.row[:2], span.end - 1)
            for one in left:
                matched = any(one is pair[0] for pair in met)
                if matched if self.kind == "semi" else not matched and self.kind in ("left", "full", "anti"):
                    yield span, Result(one.row[:2], None, span.end - 1)
            for other in right:
                if self.kind in ("right", "full") and not any(other is pair[1] for pair in met):
                    yield span, Result(None, other.row[:2], span.end - 1)

    def _meet(self, one: Arrival, other: Arrival) -> bool:
        equal = one.row.key is not None and one.row.key == other.row.key
        return equal and (not self.residual or one.row.value <= other.row.value)


def emitted(frames: Sequence[pl.DataFrame]) -> list[tuple[Span, Result]]:
    spans = [
        Span(*bounds)
        for each in frames
        for bounds in each.select(pl.col("window_start", "window_end").cast(pl.Int64)).iter_rows()
    ]
    return list(zip(spans, results(frames), strict=True))


WINDOWS = [
    Window(10, 10),
    Window(10, 10, 3),
    Window(12, 4),
    Window(10, 4, 1),
    Window(12, 4, cumulates=True),
    Window(9, 3, 2, cumulates=True),
]


@pytest.mark.parametrize("kind", ["inner", "left", "right", "full", "semi", "anti"])
def test_agrees_with_the_model(kind: JoinKind) -> None:
    @settings(max_examples=20, deadline=None)
    @given(data=st.data(), arrived=arrivals(), residual=st.booleans(), tried=st.sampled_from(WINDOWS))
    def check(data: st.DataObject, arrived: list[Arrival], residual: bool, tried: Window) -> None:
        spec = WindowJoinSpec(shape(kind, residual=residual), tried)
        model = Model(kind, residual=residual)
        for arrival in arrived:
            model.take(arrival, spans_of(tried, arrival.row.time))
        run(data, spec, arrived, model, lambda side, batch: frame(side, [a.row for a in batch], marks(batch)))

    check()


@pytest.mark.parametrize("kind", ["inner", "full", "anti"])
def test_windows_that_rows_carry(kind: JoinKind) -> None:
    """The window itself is all of the key."""
    bounds = ("window_start", "window_end")
    left, right = ((f"{side}.window_start", f"{side}.window_end") for side in ("left", "right"))
    plain = shape(kind)
    carried = JoinShape(
        kind,
        Side({**LEFT, **dict.fromkeys(left, WINDOW_TYPE)}, (*left, "left.k")),
        Side({**RIGHT, **dict.fromkeys(right, WINDOW_TYPE)}, (*right, "right.k")),
        plain.output,
    )

    @settings(max_examples=20, deadline=None)
    @given(data=st.data(), arrived=arrivals())
    def check(data: st.DataObject, arrived: list[Arrival]) -> None:
        model = Model(kind, residual=False)
        window_of = {
            id(a): data.draw(st.sampled_from([Span(a.row.time - n, a.row.time + 1) for n in (0, 1)])) for a in arrived
        }
        for arrival in arrived:
            model.take(arrival, [window_of[id(arrival)]])

        def batch_of(side: int, batch: Sequence[Arrival]) -> pl.DataFrame:
            made = frame(side, [a.row for a in batch], marks(batch))
            names = ("left", "right")[side]
            return made.with_columns(
                pl.Series(f"{names}.{bound}", [window_of[id(a)][n] for a in batch]).cast(WINDOW_TYPE)
                for n, bound in enumerate(bounds)
            )

        keys = ((*left, "left.k"), (*right, "right.k"))
        run(data, WindowJoinSpec(carried, None, (left, right)), arrived, model, batch_of, keys=keys)

    check()


def test_without_a_key_every_row_of_a_window_meets_every_other() -> None:
    plain = shape("inner", residual=True)
    keyless = replace(plain, left=replace(plain.left, key=()), right=replace(plain.right, key=()))
    with tempfile.TemporaryDirectory() as folder:
        step = JoinStep(WindowJoinSpec(keyless, Window(10, 10)), Path(folder), keys=((), ()))
        step.process(0, pl.DataFrame({"left.k": ["a", "b"], "left.v": [1, 5], TIME: [3, 4]}), -5)
        step.process(1, pl.DataFrame({"right.k": ["x", None, "z"], "right.v": [2, 7, 9], TIME: [0, 9, 10]}), -5)
        step.on_watermark(9)
        pairs_found = [(r.left, r.right) for r in results(step.main())]
        assert pairs_found == [(("a", 1), ("x", 2)), (("a", 1), (None, 7)), (("b", 5), (None, 7))]
        step.close()


def marks(batch: Sequence[Arrival]) -> list[int]:
    return [arrival.watermark for arrival in batch]


def run(data, spec, arrived, model, batch_of, keys=(("left.k",), ("right.k",))) -> None:  # type: ignore[no-untyped-def]
    watermark = -(2**62)
    limits = {
        "BUCKET_ROWS": data.draw(st.sampled_from([1, 10**6])),
        "_TOGETHER_ROWS": data.draw(st.sampled_from([1, 10**6])),
    }
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.object(pairs, "PAIRS", data.draw(st.integers(1, 5))),
        patch.multiple(window, **limits),
    ):
        step = JoinStep(spec, Path(folder), keys=keys, memory_rows_max=data.draw(st.sampled_from([2, 10**6])))
        for batch in data.draw(batches(arrived), label="batches"):
            step.process(batch[0].side, batch_of(batch[0].side, batch), watermark)
            if batch[-1].watermark > watermark and data.draw(st.booleans(), label="watermark"):
                watermark = batch[-1].watermark
                step.on_watermark(watermark)
            if data.draw(st.integers(0, 4), label="restore") == 0:
                step.restore(data.draw(st.integers(1, 3), label="parallelism"))
        step.on_watermark(WATERMARK_MAX)
        assert all(not side.rows.slices for op in step.operators for side in (op._left, op._right))
        step.close()
        assert sorted(map(repr, emitted(step.main()))) == sorted(map(repr, model.results()))
        assert step.late == model.late
