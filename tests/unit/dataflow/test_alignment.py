"""Several channels: one watermark, one barrier."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.element import WATERMARK_MAX, WATERMARK_MIN, CheckpointId, EventTimeMs, Watermark
from streamproc.dataflow.alignment import Aligned, BarrierAligner, WatermarkValve


def at(time: int, *, idle: bool = False) -> Watermark:
    return Watermark(EventTimeMs(time), idle)


def test_the_watermark_is_the_slowest_channels() -> None:
    valve = WatermarkValve(2)
    assert valve.advance(0, at(100)) is None
    assert valve.advance(1, at(50)) == at(50)
    assert valve.advance(1, at(200)) == at(100)


def test_an_idle_channel_holds_nobody_back_and_never_pulls_back() -> None:
    valve = WatermarkValve(2)
    valve.advance(0, at(100))
    assert valve.advance(1, at(WATERMARK_MIN, idle=True)) == at(100)
    assert valve.advance(1, at(20)) is None, "it woke up behind: the watermark stays"
    assert valve.current == at(100)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_all_idle_is_idle_at_the_furthest_in_whatever_order_they_fell_silent(order: tuple[int, int]) -> None:
    valve = WatermarkValve(2)
    times = (100, 70)
    for channel in (0, 1):
        valve.advance(channel, at(times[channel]))
    for channel in order:
        valve.advance(channel, at(times[channel], idle=True))
    assert valve.current == at(100, idle=True)


def test_others_leaves_the_asking_channel_out() -> None:
    valve = WatermarkValve(3)
    for channel, time in enumerate((10, 20, 30)):
        valve.advance(channel, at(time))
    assert [valve.others(channel) for channel in range(3)] == [20, 10, 10]
    assert WatermarkValve(1).others(0) == WATERMARK_MAX


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 50), st.booleans()), max_size=40))
def test_the_watermark_never_goes_back(moves: list[tuple[int, int, bool]]) -> None:
    valve = WatermarkValve(3)
    reached = WATERMARK_MIN
    for channel, time, idle in moves:
        valve.advance(channel, at(time, idle=idle))
        assert valve.current.time >= reached
        reached = valve.current.time


def test_a_channel_ahead_is_held_back_until_all_have_the_barrier() -> None:
    aligner = BarrierAligner(3)
    assert aligner.on_barrier(1, CheckpointId(7)) is None
    assert aligner.held_back == {1}
    assert aligner.on_barrier(0, CheckpointId(7)) is None
    assert aligner.on_barrier(2, CheckpointId(7)) == Aligned(CheckpointId(7))
    assert aligner.held_back == frozenset()


def test_a_barrier_that_overtakes_another_is_a_defect_not_a_checkpoint() -> None:
    aligner = BarrierAligner(2)
    aligner.on_barrier(0, CheckpointId(7))
    with pytest.raises(AssertionError, match="overtook"):
        aligner.on_barrier(1, CheckpointId(8))
