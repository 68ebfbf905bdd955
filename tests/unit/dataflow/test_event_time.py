"""Split clocks: the watermark follows the slowest live split, and lateness does not depend on batches."""

from __future__ import annotations

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.connector import SplitId
from operators.element import ROW_WATERMARK, TIME, WATERMARK_MIN, EventTimeMs, Watermark
from streamproc.dataflow.event_time import SourceClock
from streamproc.pipeline.logical import EventTime

A, B = SplitId("a"), SplitId("b")


def frame(*times: int) -> pl.DataFrame:
    return pl.DataFrame({"at": pl.Series(times, dtype=pl.Int64).cast(pl.Datetime("ms", "UTC"))})


def clock(*splits: SplitId, out_of_order: int = 0, idle_after: int | None = None) -> SourceClock:
    made = SourceClock(EventTime("at", out_of_order, idle_after))
    for split in splits:
        made.add(split, None, 0.0)
    return made


def test_a_split_without_rows_holds_the_watermark_back() -> None:
    source = clock(A, B)
    source.stamp(A, frame(1000), 0.0)
    assert source.watermark(0.0) == Watermark(WATERMARK_MIN)
    source.stamp(B, frame(400), 0.0)
    assert source.watermark(0.0) == Watermark(EventTimeMs(400))


def test_a_silent_split_stops_holding_back_after_idle_after() -> None:
    source = clock(A, B, idle_after=5_000)
    source.stamp(A, frame(1000), 4.0)
    assert source.watermark(4.9) == Watermark(WATERMARK_MIN)
    assert source.watermark(5.0) == Watermark(EventTimeMs(1000))
    assert source.watermark(9.5) == Watermark(EventTimeMs(1000), idle=True)


def test_splits_that_fall_silent_together_hold_each_other_back_no_more() -> None:
    source = clock(A, B, idle_after=5_000)
    source.stamp(A, frame(1000), 0.1)
    assert source.watermark(4.9) == Watermark(WATERMARK_MIN)
    assert source.watermark(5.2) == Watermark(EventTimeMs(1000), idle=True), "nobody looked while only B was silent"


def test_a_finished_split_holds_nobody_back() -> None:
    source = clock(A, B)
    source.stamp(A, frame(1000), 0.0)
    source.finish(B)
    assert source.watermark(0.0) == Watermark(EventTimeMs(1000))


def test_out_of_order_is_subtracted() -> None:
    source = clock(A, out_of_order=300)
    source.stamp(A, frame(1000, 900), 0.0)
    assert source.watermark(0.0) == Watermark(EventTimeMs(700))


def test_rows_in_order_carry_no_watermark_of_their_own() -> None:
    stamped = clock(A, out_of_order=100).stamp(A, frame(1000, 950, 1001), 0.0)
    assert stamped.columns == ["at", TIME]


def test_a_row_behind_its_split_brings_the_watermark_just_before_each_row() -> None:
    stamped = clock(A, out_of_order=10).stamp(A, frame(1000, 1050, 900), 0.0)
    assert stamped[ROW_WATERMARK].to_list() == [WATERMARK_MIN - 10, 990, 1040]


@settings(deadline=None, max_examples=80)
@given(
    st.lists(st.integers(0, 1000), min_size=1, max_size=30),
    st.lists(st.integers(1, 29), max_size=5),
    st.integers(0, 50),
)
def test_what_a_row_is_told_does_not_depend_on_where_batches_are_cut(
    times: list[int], cuts: list[int], out_of_order: int
) -> None:
    def told(bounds: list[int]) -> list[tuple[int, bool]]:
        source = clock(A, out_of_order=out_of_order)
        result = []
        for start, end in zip([0, *bounds], [*bounds, len(times)], strict=True):
            if start == end:
                continue
            arrival = source.watermark(0.0).time
            stamped = source.stamp(A, frame(*times[start:end]), 0.0)
            marks = stamped[ROW_WATERMARK] if ROW_WATERMARK in stamped.columns else [arrival] * (end - start)
            result += [(time, time <= mark) for time, mark in zip(times[start:end], marks, strict=True)]
        return result

    assert told(sorted({cut for cut in cuts if cut < len(times)})) == told([])
