"""Kill -9 at random and at each step of the commit: nothing lost, nothing twice, no transaction left open."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.broker import Broker
from tests.integration.crashing import POINTS
from tests.integration.job import Job
from tests.integration.orders import Orders

pytestmark = pytest.mark.kafka

Begin = Callable[[str, int], Orders]


@pytest.fixture
def begin(kafka: Broker, tmp_path: Path) -> Iterator[Begin]:
    """Begins scenarios whose readers stop at the end, whatever happens."""
    begun: list[Orders] = []

    def begin(name: str, parallelism: int) -> Orders:
        begun.append(Orders(kafka, tmp_path, name, parallelism))
        return begun[-1]

    yield begin
    for orders in begun:
        orders.close()


@pytest.mark.slow
@pytest.mark.parametrize("parallelism", [1, 3])
def test_random_kills(begin: Begin, tmp_path: Path, parallelism: int) -> None:
    """100,000 orders arrive over about ten seconds while the job is killed three times and started again."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    orders = begin(f"kills-{parallelism}", parallelism)

    def produce() -> None:
        for _ in range(50):
            orders.produce(2_000)
            time.sleep(0.1)  # the load of a live topic, so that kills fall between checkpoints

    producing = threading.Thread(target=produce)
    producing.start()
    kills = random.Random(seed)
    for _ in range(3):
        job = Job(tmp_path, orders.file)
        time.sleep(kills.uniform(1.0, 3.5))  # any moment will do
        assert job.alive(), job.log()
        job.kill()
    producing.join()
    orders.close_windows()
    Job(tmp_path, orders.file, "--until-idle").wait()
    orders.check()


@pytest.mark.parametrize("point", POINTS)
def test_kill_at_each_step_of_the_commit(begin: Begin, tmp_path: Path, point: str) -> None:
    """Two subtasks and two sinks, so four writers: the sixth passage falls into the middle of a commit."""
    orders = begin(f"step-{point}", 2)
    orders.produce(3_000)
    passage = {"mid-commit": 7, "before-prepare": 6, "after-prepare": 6, "before-commit": 5}.get(point, 2)
    job = Job(tmp_path, orders.file, crash=(point, passage))
    produced = 0
    deadline = time.monotonic() + 60
    while job.alive():
        assert time.monotonic() < deadline, job.log()
        if produced < 20:
            orders.produce(500)
            produced += 1
        time.sleep(0.05)
    code, _ = job.wait_any()
    assert code == -9, job.log()
    orders.produce(500)
    orders.close_windows()
    Job(tmp_path, orders.file, "--until-idle").wait()
    orders.check()
