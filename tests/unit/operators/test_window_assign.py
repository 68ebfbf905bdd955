"""Rows with the windows they are in, against the definition."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.element import KIND, ROW_WATERMARK, TIME, WATERMARK_MIN
from operators.operator import OperatorContext
from operators.slices import Window
from operators.window import MissingEventTime
from operators.window_assign import WindowAssignSpec
from state.key_group import KeyGroupRange
from tests.unit.operators.test_window_random import WINDOWS
from tests.unit.operators.windowed import SCHEMA, Row, batch, windows_of


def context() -> OperatorContext:
    return OperatorContext("step", 0, 8, KeyGroupRange(0, 7), None)


@settings(max_examples=60, deadline=None)
@given(window=st.sampled_from(WINDOWS), times=st.lists(st.integers(-100, 100), min_size=1, max_size=20))
def test_each_row_is_there_once_for_each_of_its_windows(window: Window, times: list[int]) -> None:
    frame = batch([Row(str(at), at, time) for at, time in enumerate(times)], list(range(len(times))))
    frame = frame.with_columns(pl.lit(0, dtype=pl.Int8).alias(KIND))
    tried, given_to = WindowAssignSpec(window, SCHEMA), context()
    outputs = list(tried.create(given_to).process(frame, WATERMARK_MIN))
    bounds = [pl.col(name).cast(pl.Int64) for name in ("window_start", "window_end")]
    found = [row for _, out in outputs for row in out.select("v", TIME, ROW_WATERMARK, *bounds).rows()]
    assert found == [(at, time, at, *bound) for at, time in enumerate(times) for bound in windows_of(window, time)]
    for _, out in outputs:
        assert out.columns == [*tried.schema, TIME, ROW_WATERMARK, KIND]
        assert dict(out.select(list(tried.schema)).schema) == tried.schema
    assert given_to.counters.filtered == sum(not windows_of(window, time) for time in times)


def test_many_windows_leave_in_pieces() -> None:
    frame = batch([Row("a", 1, time) for time in range(300)])
    outputs = list(WindowAssignSpec(Window(1000, 1), SCHEMA).create(context()).process(frame, WATERMARK_MIN))
    assert sum(out.height for _, out in outputs) == 300_000
    assert max(out.height for _, out in outputs) < 70_000


def test_a_row_without_event_time_is_a_defect() -> None:
    frame = batch([Row("a", 1, 0)]).with_columns(pl.lit(None, dtype=pl.Int64).alias(TIME))
    with pytest.raises(MissingEventTime):
        list(WindowAssignSpec(Window(10, 10), SCHEMA).create(context()).process(frame, WATERMARK_MIN))
