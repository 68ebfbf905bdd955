"""How far rows came behind, counted by bounds, against a loop that takes one row at a time."""

from __future__ import annotations

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.connector import SplitId
from streamproc.dataflow.event_time import SourceClock
from streamproc.dataflow.lateness import BOUNDS_MS
from streamproc.pipeline.logical import EventTime

BATCHES = st.lists(
    st.tuples(st.sampled_from("ab"), st.lists(st.integers(0, 400) | st.integers(0, 10**9), min_size=1)), max_size=8
)


def counted(batches: list[tuple[str, list[int]]], bounds: tuple[int, ...]) -> list[int]:
    counts = [0] * (len(bounds) + 1)
    highest: dict[str, int] = {}
    for split, times in batches:
        for time in times:
            behind = max(0, highest.get(split, time) - time)
            highest[split] = max(time, highest.get(split, time))
            place = next((i for i, bound in enumerate(bounds) if behind <= bound), len(bounds))
            counts[place] += 1
    return counts


@settings(max_examples=60, deadline=None)
@given(BATCHES, st.sampled_from([0, 7, 10_000]))
def test_counts_are_those_of_a_plain_loop(batches: list[tuple[str, list[int]]], out_of_order: int) -> None:
    clock = SourceClock(EventTime("at", out_of_order, None))
    for split in "ab":
        clock.add(SplitId(split), None, 0.0)
    for split, times in batches:
        column = pl.Series(times, dtype=pl.Int64).cast(pl.Datetime("ms", "UTC"))
        clock.stamp(SplitId(split), pl.DataFrame({"at": column}), 0.0)

    lateness = clock.lateness()
    assert lateness is not None
    assert lateness.bounds_ms == tuple(sorted({*BOUNDS_MS, out_of_order}))
    assert list(lateness.counts) == counted(batches, lateness.bounds_ms)
    assert lateness.rows == sum(len(times) for _, times in batches)


def test_a_source_without_event_time_counts_nothing() -> None:
    assert SourceClock(None).lateness() is None


def test_what_a_checkpoint_knows_of_a_split_counts_as_seen() -> None:
    clock = SourceClock(EventTime("at", 0, None))
    split = SplitId("a")
    clock.add(split, None, 0.0)
    clock.advance(split, 5_000)  # type: ignore[arg-type]
    clock.stamp(split, pl.DataFrame({"at": pl.Series([4_000]).cast(pl.Datetime("ms", "UTC"))}), 0.0)
    lateness = clock.lateness()
    assert lateness is not None
    assert lateness.counts[lateness.bounds_ms.index(1_000)] == 1


def test_the_skew_of_splits_is_what_the_fastest_is_ahead() -> None:
    clock = SourceClock(EventTime("at", 0, 60_000))
    for name in "abc":
        clock.add(SplitId(name), None, 0.0)

    def bring(name: str, at: int, now_s: float) -> None:
        clock.stamp(SplitId(name), pl.DataFrame({"at": pl.Series([at]).cast(pl.Datetime("ms", "UTC"))}), now_s)

    assert clock.skew(1.0) == (0.0, 1.0), "none has had a row"
    bring("a", 10_000, 2.0)
    bring("b", 90_000, 5.0)
    assert clock.skew(6.0) == (float("inf"), 6.0), "c has had no row, and holds the others back"
    clock.finish(SplitId("c"))
    assert clock.skew(6.0) == (80.0, 4.0)
    assert clock.skew(62.0) == (0.0, 57.0), "a is idle by now"
