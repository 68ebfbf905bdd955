"""Between prepared and committed: checkpoints that fail, requests that fail, and two jobs at once."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from streamproc.checkpoint.recovery import Superseded
from streamproc.connectors.kafka import client
from streamproc.connectors.kafka.aiokafka_private import Client
from streamproc.connectors.kafka.broker_errors import Unreachable
from streamproc.connectors.kafka.failure import Fenced
from tests.broker import Broker
from tests.eventually import eventually
from tests.faults.folder import fail_stores
from tests.faults.kafka_orders import KafkaOrders
from tests.faults.running import Run, running
from tests.faults.transactions import transaction_states

pytestmark = pytest.mark.kafka


@pytest.fixture
def orders(kafka: Broker, tmp_path: Path) -> KafkaOrders:
    return KafkaOrders(kafka, tmp_path)


async def finish(orders: KafkaOrders, run: Run) -> None:
    """Everything made so far is through, once, when the job is stopped."""
    await asyncio.to_thread(orders.close_windows)
    await run.until_seen(lambda: orders.sums() == orders.expected_sums())
    assert (await run.stop()).status == "stopped"
    await asyncio.to_thread(orders.check)


async def nothing_is_open(orders: KafkaOrders) -> bool:
    """No transaction of the pipeline lingers."""
    states = await transaction_states(orders.broker, orders.name)
    return set(states.values()) <= {"Empty", "CompleteCommit", "CompleteAbort"}


async def test_transactions_of_aborted_checkpoints_are_committed_with_the_next(
    orders: KafkaOrders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More of them than were fenced in advance. Then again, and a crash: a later run fences them all."""
    failing = False
    fail_stores(
        monkeypatch,
        lambda verb, name, done: ConnectionError("gone") if failing and verb == "create" and "chk" in name else None,
    )
    orders.pipeline["job"]["checkpoint"] |= {"every": "100ms", "tolerate_failures": 100}
    orders.write()

    async def aborted(run: Run, count: int) -> None:
        """So many more checkpoints are aborted, with results in each."""
        nonlocal failing
        failing = True
        for _ in range(count):
            before = len(run.told("checkpoint aborted"))
            await asyncio.to_thread(orders.produce, 50)
            await run.until(lambda before=before: len(run.told("checkpoint aborted")) >= before + 2)  # type: ignore[misc]

    async with running(orders.file) as run:
        await run.checkpoints(1)
        await aborted(run, 6)
        assert not orders.copied()
        failing = False
        await run.until_seen(lambda: len(orders.copied()) == 300)
        await aborted(run, 6)
        assert run.status.restarts == 0
        assert len(orders.copied()) == 300
    states = await transaction_states(orders.broker, orders.name)
    assert list(states.values()).count("Ongoing") > 3
    failing = False
    orders.pipeline["job"]["parallelism"] = 2
    orders.write()
    async with running(orders.file) as run:
        await finish(orders, run)
    assert await nothing_is_open(orders)


async def test_requests_that_fail(orders: KafkaOrders, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every fifth request of ours to a broker fails, before it was sent or with its answer lost."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    send = Client.send

    async def failing(self: Client, *args: Any, **kwargs: Any) -> Any:
        if chance.random() < 0.1:
            raise Unreachable("as the test wants it")
        answer = await send(self, *args, **kwargs)
        if chance.random() < 0.1:
            raise Unreachable("as the test wants it, after the fact")
        return answer

    monkeypatch.setattr(client, "BACKOFF_FIRST_S", 0.01)
    monkeypatch.setattr(client, "BACKOFF_MAX_S", 0.05)
    orders.pipeline["job"]["parallelism"] = 2
    orders.write()
    await asyncio.to_thread(orders.produce, 200)
    with monkeypatch.context() as patch:
        patch.setattr(Client, "send", failing)
        for _ in range(3):
            async with running(orders.file) as run:
                await asyncio.to_thread(orders.produce, 200)
                await run.until(lambda: run.status.records_in >= 150)
                await run.checkpoints(1)
                await asyncio.to_thread(orders.produce, 100)
                assert run.status.restarts == 0
        async with running(orders.file) as run:
            await finish(orders, run)
    assert await nothing_is_open(orders)


async def test_two_jobs_begin_at_once(orders: KafkaOrders) -> None:
    """One gives way, before it has written anything that counts."""
    await asyncio.to_thread(orders.produce, 300)
    async with running(orders.file) as one, running(orders.file) as other:
        runs = [one, other]
        await eventually(lambda: not all(run.going_on for run in runs), 30)
        (loser,) = [run for run in runs if not run.going_on]
        failure = (await loser.result()).failure
        assert isinstance(failure, Superseded | Fenced)
        assert "taken over" in str(failure)
        (winner,) = [run for run in runs if run.going_on]
        await finish(orders, winner)
