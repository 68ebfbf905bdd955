"""Merged ranges against merging every slice, while slices come, change and go; and how little is merged for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.merged_ranges import MergedRanges


class Slices:
    """A number per slice; merging adds."""

    def __init__(self) -> None:
        self.held: dict[int, int] = {}
        self.merges = 0

    def leaf(self, start: int) -> list[pl.DataFrame]:
        return [pl.DataFrame({"n": [self.held[start]]})]

    def merge(self, frames: Sequence[pl.DataFrame]) -> Iterator[pl.DataFrame]:
        self.merges += 1
        yield pl.concat(frames).sum()


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["add", "drop", "ask", "ask", "clear"]), st.integers(-40, 40), st.integers(0, 60)),
        max_size=40,
    )
)
def test_a_range_is_what_its_slices_come_to(steps: list[tuple[str, int, int]]) -> None:
    slices = Slices()
    ranges = MergedRanges(5, slices.leaf, slices.merge)
    for what, number, length in steps:
        start = 5 * number + 3
        match what:
            case "add":
                for each in range(start, start + 5 * length, 5):
                    slices.held[each] = slices.held.get(each, 0) + 1 + each % 7
                    ranges.forget(each)
            case "drop":
                slices.held.pop(start, None)
                ranges.forget(start)
            case "clear":
                ranges.clear()
            case "ask":
                starts = sorted(each for each in slices.held if start <= each < start + 5 * length)
                if starts:
                    total = sum(frame.item() for frame in ranges.frames(starts))
                    assert total == sum(slices.held[each] for each in starts)
    for each in list(slices.held):
        ranges.forget(each)
    assert ranges.rows == 0


def test_a_window_that_moves_on_merges_few_slices() -> None:
    slices = Slices()
    ranges = MergedRanges(1, slices.leaf, slices.merge)
    for first in range(2_000):
        slices.held[first + 999] = 1
        frames = ranges.frames(range(max(999, first), first + 1_000))
        assert len(frames) <= 20
        if first in slices.held:
            del slices.held[first]
            ranges.forget(first)
    assert slices.merges <= 3_000, "each range is merged once"
    assert ranges.rows < 1_100
