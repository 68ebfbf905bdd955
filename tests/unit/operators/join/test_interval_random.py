"""Interval joins against a nested loop: disorder, late rows, batch cuts, small pieces, rescaling."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.element import WATERMARK_MAX
from operators.join import pairs
from operators.join.interval import IntervalJoinSpec
from operators.join.shape import JoinKind
from tests.unit.operators.join.feeds import Arrival, arrivals, batches
from tests.unit.operators.join.joined import JoinStep, Result, frame, results, shape


def nested_loop(
    kind: JoinKind, lower: int, upper: int, arrived: Sequence[Arrival], *, residual: bool
) -> tuple[list[Result], int]:
    """All results and the number of late rows: every pair is looked at."""
    found: list[Result] = []
    matched: set[int] = set()
    for index, later in enumerate(arrived):
        for before, earlier in enumerate(arrived[:index]):
            if later.side == earlier.side or later.row.key is None or later.row.key != earlier.row.key:
                continue
            left, right = (earlier.row, later.row) if later.side else (later.row, earlier.row)
            reach = -lower if earlier.side else upper
            if (
                lower <= right.time - left.time <= upper
                and later.watermark < earlier.row.time + reach
                and earlier.watermark < earlier.row.time + reach
                and (not residual or left.value <= right.value)
            ):
                matched |= {index, before}
                if kind not in ("semi", "anti"):
                    time = max(left.time, right.time)
                    found.append(Result((left.key, left.value), (right.key, right.value), time))
    late = 0
    for index, (side, row, watermark) in enumerate(arrived):
        one = Result((row.key, row.value), None, row.time) if not side else Result(None, (row.key, row.value), row.time)
        padded = kind == "full" or kind == ("right" if side else "left") or (kind == "anti" and not side)
        if (padded and index not in matched) or (kind == "semi" and not side and index in matched):
            found.append(one)
        reach = -lower if side else upper
        if not padded and index not in matched and row.time <= watermark and watermark >= row.time + reach:
            late += 1
    return found, late


@pytest.mark.parametrize("kind", ["inner", "left", "right", "full", "semi", "anti"])
def test_agrees_with_a_nested_loop(kind: JoinKind) -> None:
    @settings(max_examples=20, deadline=None)
    @given(data=st.data(), arrived=arrivals(), residual=st.booleans())
    def check(data: st.DataObject, arrived: list[Arrival], residual: bool) -> None:
        lower = data.draw(st.integers(-15, 10), label="lower")
        upper = data.draw(st.integers(lower, lower + 20), label="upper")
        spec = IntervalJoinSpec(shape(kind, residual=residual), lower, upper)
        watermark = -(2**62)
        with tempfile.TemporaryDirectory() as folder, patch.object(pairs, "PAIRS", data.draw(st.integers(1, 5))):
            step = JoinStep(spec, Path(folder))
            for batch in data.draw(batches(arrived), label="batches"):
                rows = [arrival.row for arrival in batch]
                step.process(batch[0].side, frame(batch[0].side, rows, [a.watermark for a in batch]), watermark)
                if batch[-1].watermark > watermark and data.draw(st.booleans(), label="watermark"):
                    watermark = batch[-1].watermark
                    step.on_watermark(watermark)
                if data.draw(st.integers(0, 4), label="restore") == 0:
                    step.restore(data.draw(st.integers(1, 3), label="parallelism"))
            step.on_watermark(WATERMARK_MAX)
            assert all(len(side.rows) == 0 for op in step.operators for side in (op._left, op._right))
            step.close()
            expected, late = nested_loop(kind, lower, upper, arrived, residual=residual)
            assert sorted(map(repr, results(step.main()))) == sorted(map(repr, expected))
            assert step.late == late

    check()
