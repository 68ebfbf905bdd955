"""A call that does not return holds up nobody but its own subtask."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest
from polars.exceptions import PanicException

from streamproc.dataflow.compute import Compute, Panicked
from tests.eventually import eventually


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Set at the end at the latest: no thread outlives its test."""
    opened = threading.Event()
    yield opened
    opened.set()


async def test_calls_of_users_take_no_thread_from_others(gate: threading.Event) -> None:
    stuck = [Compute(user_code="score") for _ in range(8)]
    calls = [asyncio.create_task(compute(gate.wait)) for compute in stuck]
    await eventually(lambda: all(compute.under_way for compute in stuck))

    assert await Compute()(lambda: 7) == 7
    gate.set()
    assert await asyncio.gather(*calls) == [True] * 8
    for compute in stuck:
        compute.close()


async def test_a_cancelled_call_is_waited_for(gate: threading.Event) -> None:
    compute = Compute()
    call = asyncio.create_task(compute(gate.wait))
    await eventually(lambda: compute.under_way)
    call.cancel()
    await asyncio.sleep(0)
    assert not call.done(), "what it uses must not be closed under it"
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await compute.settled()


async def test_a_users_call_that_never_returns_is_left_behind_and_named(gate: threading.Event) -> None:
    compute = Compute(user_code="score", give_up_s=0.05)
    call = asyncio.create_task(compute(gate.wait))
    await eventually(lambda: compute.under_way)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call

    assert not await compute.settled()
    failure = compute.stuck()
    assert str(failure).startswith("step score: its function has not returned for ")
    assert failure.acts == "user"
    assert not failure.retry_helps

    released = threading.Event()
    compute.close(released.set)
    assert not released.is_set(), "never under a call that may still use it"
    gate.set()
    await eventually(released.is_set)


async def test_a_panic_of_native_code_is_a_failure() -> None:
    def panics() -> None:
        raise PanicException("out of range")

    with pytest.raises(Panicked, match="PanicException: out of range") as failed:
        await Compute()(panics)
    assert failed.value.retry_helps


async def test_what_a_call_raises_comes_back() -> None:
    compute = Compute(own_thread=True)
    with pytest.raises(ZeroDivisionError):
        await compute(lambda: 1 // 0)
    assert await compute(lambda: 3) == 3
    compute.close()
