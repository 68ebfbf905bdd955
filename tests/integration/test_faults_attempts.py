"""A process that was stopped and wakes up later: fenced by its successor, never silent about what has expired."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.broker import Broker
from tests.faults.kafka_orders import KafkaOrders
from tests.faults.transactions import transaction_states
from tests.integration.job import Job

pytestmark = pytest.mark.kafka

Start = Callable[..., Job]


@pytest.fixture
def orders(kafka: Broker, tmp_path: Path) -> KafkaOrders:
    orders = KafkaOrders(kafka, tmp_path)
    orders.pipeline["job"]["checkpoint"]["every"] = "300ms"
    return orders


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts jobs; none is left behind, not even a stopped one."""
    jobs: list[Job] = []

    def start(file: Path, *options: str, stop_at: tuple[str, int] | None = None) -> Job:
        jobs.append(Job(tmp_path, file, *options, crash=stop_at, crash_signal=signal.SIGSTOP))
        return jobs[-1]

    yield start
    for job in jobs:
        job.kill()


def all_copied(orders: KafkaOrders) -> bool:
    return len(orders.copied()) >= len(orders.made)


def finish(orders: KafkaOrders, job: Job) -> None:
    """Everything made so far is through, once, when the job is stopped."""
    orders.close_windows()
    job.until(lambda: orders.sums() == orders.expected_sums())
    assert job.stop() == 0, job.log()
    orders.check()


@pytest.mark.parametrize("stop_at", [None, ("before-manifest", 3), ("before-commit", 5)], ids=str)
def test_zombie(orders: KafkaOrders, start: Start, stop_at: tuple[str, int] | None) -> None:
    """Stopped anywhere, before its manifest, or between that and its commit; another attempt starts; it wakes up."""
    orders.write()
    zombie = start(orders.file, stop_at=stop_at)
    orders.produce(500)
    if stop_at is None:
        zombie.until(lambda: orders.copied("read_uncommitted"))
        zombie.pause()
    zombie.until(lambda: zombie.paused)
    orders.produce(300)
    successor = start(orders.file)
    successor.until(lambda: all_copied(orders))
    zombie.resume()
    code, _ = zombie.wait_any(30)
    assert code == 1, zombie.log()
    assert "taken over" in zombie.log()
    assert "Traceback" not in zombie.log()
    orders.produce(200)
    finish(orders, successor)


def expiring(orders: KafkaOrders) -> None:
    """Have transactions expire after four seconds."""
    orders.pipeline["job"]["checkpoint"]["timeout"] = "3s"
    for sink in orders.pipeline["sinks"].values():
        sink["transaction_timeout"] = "4s"
    orders.write()


def aborted(orders: KafkaOrders) -> bool:
    """Whether the broker has aborted a transaction, and no other is open."""
    states = asyncio.run(transaction_states(orders.broker, orders.name)).values()
    return "CompleteAbort" in states and "Ongoing" not in states


def test_a_transaction_that_expires_before_its_checkpoint_is_written_again(orders: KafkaOrders, start: Start) -> None:
    expiring(orders)
    orders.produce(500)
    job = start(orders.file, stop_at=("before-prepare", 3))
    job.until(lambda: job.paused)
    job.until(partial(aborted, orders))
    job.resume()
    finish(orders, job)
    assert "was aborted by the broker" in job.log()
    assert "starting again" in job.log()


def test_a_transaction_that_expires_before_its_commit_is_a_loss_and_said_to_be_one(
    orders: KafkaOrders, start: Start
) -> None:
    expiring(orders)
    orders.produce(500)
    job = start(orders.file, stop_at=("after-manifest", 2))
    job.until(lambda: job.paused)
    job.until(partial(aborted, orders))
    job.resume()
    checkpoint = lost_checkpoint(job)
    assert lost_checkpoint(start(orders.file)) == checkpoint, "as long as it is not mended"
    finish(orders, start(orders.file, "--from", str(checkpoint - 1)))  # what the message advises


def lost_checkpoint(job: Job) -> int:
    """The checkpoint that a job says it failed for."""
    code, _ = job.wait_any(30)
    assert code == 1, job.log()
    said = re.search(r"results of checkpoint (\d+) written to topic .* are lost", job.log())
    assert said, job.log()
    return int(said[1])
