"""Slice arithmetic against the definition: a window [start, start + size) is at offset + n · slide."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.slices import Window
from tests.unit.operators.windowed import starts_of

windows = st.builds(Window, st.integers(1, 40), st.integers(1, 40), st.integers(0, 50))
times = st.integers(-(10**13), 10**13)


@given(window=windows, time=times)
def test_first_and_last_window_are_those_around_a_time(window: Window, time: int) -> None:
    starts = starts_of(window, time)
    first, last = window.first_window(time), window.last_window(time)
    assert list(range(first, last + 1, window.slide_ms)) == starts
    if not starts:
        assert window.has_gaps


@given(window=windows, time=times)
def test_all_times_of_a_slice_are_in_the_same_windows(window: Window, time: int) -> None:
    start = window.slice_of(time)
    assert start <= time < start + window.slice_ms
    assert starts_of(window, start) == starts_of(window, time) == starts_of(window, start + window.slice_ms - 1)


@given(window=windows, several=st.lists(times, min_size=1))
def test_columns_agree_with_single_times(window: Window, several: list[int]) -> None:
    frame = pl.DataFrame({"t": several}, schema={"t": pl.Int64})
    assert frame.select(window.slice_expr(pl.col("t"))).to_series().to_list() == [window.slice_of(t) for t in several]
    array = np.array(several, dtype=np.int64)
    assert window.first_ends(array).tolist() == [window.first_window(t) + window.size_ms for t in several]
    assert window.last_ends(array).tolist() == [window.last_window(t) + window.size_ms for t in several]


@pytest.mark.parametrize(("size", "slide"), [(0, 1), (1, 0), (-5, 5)])
def test_a_window_has_a_length_and_a_slide(size: int, slide: int) -> None:
    with pytest.raises(ValueError, match="more than zero"):
        Window(size, slide)
