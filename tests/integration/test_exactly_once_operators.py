"""Every stateful operator under kill -9, at random and in the middle of commits: all results once, and right."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.broker import Broker
from tests.integration.job import Job
from tests.integration.operators_job import Operators

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(900)]

# A kill at some moment, or at the n-th passage of a step of the commit; each subtask has two writers.
Ends = list[tuple[str, int] | None]


@pytest.mark.parametrize(
    ("parallelism", "ends"),
    [(1, [None, ("mid-commit", 2), None]), (3, [("after-prepare", 4), None, ("after-manifest", 2)])],
)
def test_kills(kafka: Broker, tmp_path: Path, parallelism: int, ends: Ends) -> None:
    """16,000 rows arrive over some seconds while the job is killed three times and started again."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    operators = Operators(kafka, tmp_path, f"operators-{parallelism}")
    operators.write(parallelism, max_rows=chance.choice([500, 5_000]))
    with producing(operators):
        for end in chance.sample(ends, len(ends)):
            job = Job(tmp_path, operators.file, crash=end)
            if end is None:
                time.sleep(chance.uniform(1.5, 4))  # any moment will do
                assert job.alive(), job.log()
                job.kill()
            else:
                code, _ = job.wait_any(180)
                assert code == -9, job.log()
    operators.close_windows()
    Job(tmp_path, operators.file, "--until-idle").wait(240)
    operators.check()


@contextmanager
def producing(operators: Operators) -> Iterator[None]:
    """While it lasts, the load of a live topic, so that kills fall between checkpoints; at least 8,000 of each."""
    enough = threading.Event()

    def produce() -> None:
        while not enough.wait(0.2) or operators.count < 8_000:
            operators.produce(120)

    thread = threading.Thread(target=produce)
    thread.start()
    try:
        yield
    finally:
        enough.set()
        thread.join()
