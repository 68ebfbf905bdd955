"""Where the time of a subtask goes: every moment is counted once, the one that is still going on included."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamproc.dataflow.activity import Activity, TimeSpent
from streamproc.observability.facts import Doing

DOINGS: list[Doing] = ["waiting for input", "computing", "waiting for room", "writing", "waiting for peers"]


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s

    def advance(self) -> None:
        self.now_s += 1


def test_what_is_going_on_counts_while_it_does() -> None:
    clock = Clock()
    activity = Activity(clock)
    activity.now("waiting for room", "slow")
    clock.now_s += 300

    assert activity.spent() == TimeSpent(0.0, 300.0, 0.0)
    assert activity.shares() == TimeSpent(0.0, 1.0, 0.0)
    assert (activity.doing, activity.toward, activity.for_s) == ("waiting for room", "slow", 300.0)


def test_shares_forget_what_is_long_past() -> None:
    clock = Clock()
    activity = Activity(clock)
    activity.now("writing")
    for second in range(60):
        if second == 40:
            activity.now("waiting for input")
        activity.sample()
        clock.now_s += 1

    assert activity.shares() == TimeSpent(0.0, 0.0, 1.0)
    assert activity.spent() == TimeSpent(0.0, 40.0, 20.0)


def test_busy_is_the_call_itself_and_not_the_wait_for_a_thread_or_for_the_loop() -> None:
    clock = Clock()
    activity = Activity(clock)

    def call() -> TimeSpent:
        clock.now_s += 3
        return activity.spent()

    activity.now("computing")
    clock.now_s += 10
    assert activity.spent() == TimeSpent(0.0, 0.0, 10.0)
    assert activity.timed(call) == TimeSpent(3.0, 0.0, 10.0)
    clock.now_s += 5
    assert activity.spent() == TimeSpent(3.0, 0.0, 15.0)
    activity.now("waiting for room", "slow")
    clock.now_s += 1
    assert activity.spent() == TimeSpent(3.0, 1.0, 15.0)


def test_a_call_that_fails_was_work_too() -> None:
    clock = Clock()
    activity = Activity(clock)

    def call() -> None:
        clock.now_s += 2
        raise OSError

    activity.now("computing")
    with pytest.raises(OSError):
        activity.timed(call)
    activity.now("computing")  # the next call has not begun
    clock.now_s += 4
    assert activity.spent() == TimeSpent(2.0, 0.0, 4.0)


def test_nothing_is_counted_before_it_runs() -> None:
    clock = Clock()
    activity = Activity(clock)
    clock.now_s += 10
    activity.sample()
    assert activity.spent() == activity.shares() == TimeSpent(0.0, 0.0, 0.0)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(DOINGS), st.integers(0, 4), st.booleans())))
def test_the_three_are_all_the_time_there_was_and_never_shrink(steps: list[tuple[Doing, int, bool]]) -> None:
    clock = Clock()
    activity = Activity(clock)
    seen = TimeSpent()
    began: float | None = None
    for doing, seconds, sampled in steps:
        activity.now(doing)
        began = clock.now_s if began is None else began
        clock.now_s += seconds
        if sampled:
            activity.sample()
            if doing == "computing":
                activity.timed(clock.advance)
        spent = activity.spent()
        assert sum(spent) == clock.now_s - began
        assert all(now >= then for now, then in zip(spent, seen, strict=True))
        assert sum(activity.shares()) == pytest.approx(1) or sum(activity.shares()) == 0
        seen = spent
