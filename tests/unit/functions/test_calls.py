"""Bounded calls: order, how many at once, how long, how often."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator

import pytest

from state.failure import StateError
from streamproc.functions.calls import Answered, CallLimits, Calls, CallTimedOut, NotAnswered


@pytest.fixture
def calls() -> Iterator[Calls]:
    made = Calls(CallLimits(in_flight=3, timeout_ms=50))
    yield made
    made.close()


def test_answers_come_in_the_order_asked_however_long_each_took(calls: Calls) -> None:
    async def slow_first(n: int) -> int:
        await asyncio.sleep(0.01 if n == 0 else 0)
        return n * n

    assert calls.run(slow_first, [0, 1, 2, 3, 4]) == [Answered(n * n) for n in range(5)]
    assert calls.run(slow_first, []) == []


def test_no_more_than_in_flight_are_called_at_once(calls: Calls) -> None:
    under_way = most = 0

    async def call(_: int) -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0)
        under_way -= 1

    calls.run(call, range(20))
    assert (most, under_way) == (3, 0)


def test_a_call_that_hangs_costs_its_own_answer_only(calls: Calls) -> None:
    async def call(n: int) -> int:
        if n == 1:
            await asyncio.Event().wait()
        return n

    first, second, third = calls.run(call, [0, 1, 2])
    assert (first, third) == (Answered(0), Answered(2))
    assert isinstance(second, NotAnswered)
    assert isinstance(second.error, CallTimedOut)
    assert str(second.error) == "no answer within 50 ms"


def test_a_timeout_of_the_function_itself_is_not_taken_for_ours(calls: Calls) -> None:
    async def call(_: int) -> None:
        raise TimeoutError("theirs")

    [outcome] = calls.run(call, [0])
    assert isinstance(outcome, NotAnswered)
    assert str(outcome.error) == "theirs"


def test_a_call_that_cancels_itself_has_failed_like_any_other(calls: Calls) -> None:
    async def call(n: int) -> int:
        if n == 1:
            raise asyncio.CancelledError
        return n

    first, second, third = calls.run(call, [0, 1, 2])
    assert (first, third) == (Answered(0), Answered(2))
    assert isinstance(second, NotAnswered)
    assert str(second.error) == "the call was cancelled"


def test_a_call_is_tried_again_with_growing_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[float] = []
    monkeypatch.setattr("streamproc.functions.calls._PAUSE_FIRST_SECONDS", 0.002)
    calls = Calls(CallLimits(in_flight=1, timeout_ms=50, retries=3))

    async def call(succeeds_at: int) -> int:
        tried.append(asyncio.get_running_loop().time())
        if len(tried) < succeeds_at:
            raise ConnectionError("refused")
        return len(tried)

    assert calls.run(call, [4]) == [Answered(4)]
    pauses = [b - a for a, b in itertools.pairwise(tried)]
    assert all(pause >= least for pause, least in zip(pauses, [0.002, 0.004, 0.008], strict=True))
    tried.clear()
    [outcome] = calls.run(call, [9])
    assert isinstance(outcome, NotAnswered)
    assert outcome.tries == 4
    calls.close()


def test_pauses_are_bounded() -> None:
    limits = CallLimits(1, 1, 100)
    assert [limits.pause_seconds(n) for n in (1, 2, 3, 8, 100)] == [0.1, 0.2, 0.4, 10.0, 10.0]


def test_what_cannot_pass_is_not_tried_again() -> None:
    calls = Calls(CallLimits(1, 50, retries=5), may_pass=lambda error: not isinstance(error, ValueError))

    async def call(_: int) -> None:
        raise ValueError("wrong for good")

    [outcome] = calls.run(call, [0])
    assert isinstance(outcome, NotAnswered)
    assert outcome.tries == 1
    calls.close()


def test_a_failure_of_the_product_ends_all_calls(calls: Calls) -> None:
    ended: list[int] = []

    async def call(n: int) -> None:
        if n == 1:
            raise StateError("disk")
        try:
            await asyncio.sleep(10)
        finally:
            ended.append(n)

    with pytest.raises(StateError, match="disk"):
        calls.run(call, [0, 1, 2])
    assert sorted(ended) == [0, 2]


def test_closing_ends_what_calls_left_running(calls: Calls) -> None:
    ended: list[str] = []

    async def linger() -> None:
        try:
            await asyncio.sleep(10)
        finally:
            ended.append("lingering task")

    tasks: list[asyncio.Task[None]] = []

    async def call(_: int) -> None:
        tasks.append(asyncio.create_task(linger()))
        await asyncio.sleep(0)

    calls.run(call, [0])
    calls.close()
    calls.close()
    assert ended == ["lingering task"]
