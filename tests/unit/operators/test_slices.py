"""Slice arithmetic against the definition: the windows around a time, found by looking at all that could be."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.slices import Window
from tests.unit.operators.windowed import windows_of

hopping = st.builds(Window, st.integers(1, 40), st.integers(1, 40), st.integers(0, 50))
cumulating = st.builds(
    lambda steps, every, offset: Window(steps * every, every, offset, cumulates=True),
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(0, 50),
)
windows = hopping | cumulating
times = st.integers(-(10**13), 10**13)


@given(window=windows, time=times)
def test_windows_of_a_time_are_those_from_the_first_end_to_the_last(window: Window, time: int) -> None:
    ends = range(window.first_end(time), window.last_end(time) + 1, window.slide_ms)
    assert [(window.start_of(end), end) for end in ends] == windows_of(window, time)
    assert len(ends) or window.has_gaps


@given(window=windows, time=times)
def test_all_times_of_a_slice_are_in_the_same_windows(window: Window, time: int) -> None:
    start = window.slice_of(time)
    assert start <= time < start + window.slice_ms
    assert windows_of(window, start) == windows_of(window, time) == windows_of(window, start + window.slice_ms - 1)


@given(window=windows, several=st.lists(times, min_size=1))
def test_columns_agree_with_single_times(window: Window, several: list[int]) -> None:
    frame = pl.DataFrame({"t": several}, schema={"t": pl.Int64})
    assert frame.select(window.slice_expr(pl.col("t"))).to_series().to_list() == [window.slice_of(t) for t in several]
    assert frame.select(window.start_expr(pl.col("t"))).to_series().to_list() == [window.start_of(t) for t in several]
    array = np.array(several, dtype=np.int64)
    assert window.first_ends(array).tolist() == [window.first_end(t) for t in several]
    assert window.last_ends(array).tolist() == [window.last_end(t) for t in several]


@pytest.mark.parametrize(("size", "slide"), [(0, 1), (1, 0), (-5, 5)])
def test_a_window_has_a_length_and_a_slide(size: int, slide: int) -> None:
    with pytest.raises(ValueError, match="more than zero"):
        Window(size, slide)


def test_cumulating_windows_grow_by_whole_steps() -> None:
    with pytest.raises(ValueError, match="not a whole number of 4 ms"):
        Window(10, 4, cumulates=True)
