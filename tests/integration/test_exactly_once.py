"""Kill -9 at random and at each step of the commit: nothing lost, nothing twice, no transaction left open."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.broker import Broker
from tests.integration.crashing import POINTS
from tests.integration.job import Job, Reader, duplicates

pytestmark = pytest.mark.kafka

PARTITIONS = 4
KEYS = 50
WINDOW_MS = 10_000
BASE_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z

PIPELINE = """
version: 1
pipeline: {name}
job:
  parallelism: {parallelism}
  checkpoint: {{every: 300ms, storage: "file:checkpoints"}}
  restart: {{strategy: none}}
connections:
  main: {{type: kafka, brokers: ["{brokers}"]}}
sources:
  orders:
    type: kafka
    connection: main
    topic: {name}-orders
    schema: {{id: int64, account: string, amount: int64, at: timestamp_ms}}
    event_time: {{column: at, out_of_order: 2s}}
steps:
  valid:
    input: orders
    where: amount >= 0
  sums:
    input: orders
    where: amount > 0
    key: [account]
    window: {{tumble: 10s}}
    aggregate: {{orders: count(*), amount: sum(amount), largest: max(amount)}}
sinks:
  copies: {{type: kafka, connection: main, input: valid, topic: {name}-copies, key: [account]}}
  totals: {{type: kafka, connection: main, input: sums, topic: {name}-totals}}
"""


class Scenario:
    """Topics, the pipeline file, and the orders produced so far."""

    def __init__(self, kafka: Broker, directory: Path, name: str, parallelism: int, seed: int) -> None:
        print(f"seed {seed}")
        self._random = random.Random(seed)
        self._kafka = kafka
        self.name = name
        for topic in ("orders", "copies", "totals"):
            kafka.create_topic(f"{name}-{topic}", PARTITIONS)
        self.file = directory / "pipeline.yaml"
        self.file.write_text(PIPELINE.format(name=name, parallelism=parallelism, brokers=kafka.bootstrap))
        self.orders: list[dict[str, object]] = []
        self.reader = Reader(kafka, f"{name}-copies", f"{name}-totals")

    def produce(self, count: int) -> None:
        """`count` orders, one per ms of event time, up to 2 s out of order, spread over the partitions by account."""
        per_partition: dict[int, list[bytes | None]] = defaultdict(list)
        for _ in range(count):
            number = len(self.orders)
            account = self._random.randrange(KEYS)
            order = {
                "id": number,
                "account": f"a{account}",
                "amount": self._random.randrange(0, 1000),
                "at": BASE_MS + number - self._random.randrange(0, 2_000),
            }
            self.orders.append(order)
            per_partition[account % PARTITIONS].append(json.dumps(order).encode())
        for partition, values in per_partition.items():
            self._kafka.produce(f"{self.name}-orders", values, partition=partition)

    def close_windows(self) -> None:
        """One far-future record per partition, filtered by `where`, moves every watermark past all windows."""
        for partition in range(PARTITIONS):
            order = {"id": -1, "account": "end", "amount": -1, "at": BASE_MS + 10_000_000}
            self._kafka.produce(f"{self.name}-orders", [json.dumps(order).encode()], partition=partition)

    def expected_totals(self) -> dict[tuple[str, int], tuple[int, int, int]]:
        """(account, window start) → orders, amount, largest."""
        totals: dict[tuple[str, int], list[int]] = defaultdict(list)
        for order in self.orders:
            amount, at = order["amount"], order["at"]
            assert isinstance(amount, int)
            assert isinstance(at, int)
            if amount > 0:
                totals[str(order["account"]), at // WINDOW_MS * WINDOW_MS].append(amount)
        return {key: (len(amounts), sum(amounts), max(amounts)) for key, amounts in totals.items()}

    def check(self) -> None:
        """What a read_committed reader has seen all along is exactly what it should have."""
        copies, totals = f"{self.name}-copies", f"{self.name}-totals"
        expected = self.expected_totals()
        self.reader.wait_count(copies, len(self.orders))
        self.reader.wait_count(totals, len(expected))
        for topic in (copies, totals):
            assert not duplicates([value for _, value in self.reader.values[topic]])
        seen: dict[str, list[int]] = defaultdict(list)
        for _, value in self.reader.values[copies]:
            order = json.loads(value)
            seen[order["account"]].append(order["id"])
        assert sorted(i for ids in seen.values() for i in ids) == list(range(len(self.orders))), "lost or duplicated"
        assert all(ids == sorted(ids) for ids in seen.values()), "order per key"
        windows = {}
        for _, value in self.reader.values[totals]:
            row = json.loads(value)
            start = row["window_start"]
            windows[row["account"], start] = (row["orders"], row["amount"], row["largest"])
        assert windows == {(account, iso(start)): total for (account, start), total in expected.items()}


def iso(time_ms: int) -> str:
    """As the JSON encoder writes timestamps."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time_ms // 1000)) + f".{time_ms % 1000:03d}Z"


Begin = Callable[[str, int, int], Scenario]


@pytest.fixture
def begin(kafka: Broker, tmp_path: Path) -> Iterator[Begin]:
    """Begins scenarios whose reader stops at the end, whatever happens."""
    begun: list[Scenario] = []

    def begin(name: str, parallelism: int, seed: int) -> Scenario:
        begun.append(Scenario(kafka, tmp_path, name, parallelism, seed))
        return begun[-1]

    yield begin
    for scenario in begun:
        scenario.reader.close()


@pytest.mark.slow
@pytest.mark.parametrize("parallelism", [1, 3])
def test_random_kills(begin: Begin, tmp_path: Path, parallelism: int) -> None:
    """100,000 orders arrive over about ten seconds while the job is killed three times and started again."""
    seed = random.randrange(2**32)
    scenario = begin(f"kills-{parallelism}", parallelism, seed)
    finished = threading.Event()

    def produce() -> None:
        for _ in range(50):
            scenario.produce(2_000)
            time.sleep(0.1)  # the load of a live topic, so that kills fall between checkpoints
        finished.set()

    producing = threading.Thread(target=produce)
    producing.start()
    kills = random.Random(seed)
    for _ in range(3):
        job = Job(tmp_path, scenario.file)
        time.sleep(kills.uniform(1.0, 3.5))  # any moment will do
        assert job.alive(), job.log()
        job.kill()
    producing.join()
    scenario.close_windows()
    Job(tmp_path, scenario.file, "--until-idle").wait()
    scenario.check()


@pytest.mark.parametrize("point", POINTS)
def test_kill_at_each_step_of_the_commit(begin: Begin, tmp_path: Path, point: str) -> None:
    """Two subtasks and two sinks, so four writers: the sixth passage falls into the middle of a commit."""
    seed = random.randrange(2**32)
    scenario = begin(f"step-{point}", 2, seed)
    scenario.produce(3_000)
    passage = {"mid-commit": 7, "before-prepare": 6, "after-prepare": 6, "before-commit": 5}.get(point, 2)
    job = Job(tmp_path, scenario.file, crash=(point, passage))
    produced = 0
    deadline = time.monotonic() + 60
    while job.alive():
        assert time.monotonic() < deadline, job.log()
        if produced < 20:
            scenario.produce(500)
            produced += 1
        time.sleep(0.05)
    code, _ = job.wait_any()
    assert code == -9, job.log()
    scenario.produce(500)
    scenario.close_windows()
    Job(tmp_path, scenario.file, "--until-idle").wait()
    scenario.check()
