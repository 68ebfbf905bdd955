"""A pipeline from Kafka to Kafka whose results can be reckoned: orders copied, and summed per account and window."""

from __future__ import annotations

import copy
import itertools
import json
import random
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.broker import Broker

BASE_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z
WINDOW_MS = 1_000
FAR_MS = 10_000_000
_names: Iterator[int] = itertools.count()

_PIPELINE: Mapping[str, Any] = {
    "version": 1,
    "job": {
        "checkpoint": {"every": "200ms"},
        "restart": {"strategy": "backoff", "initial": "100ms", "max": "1s"},
    },
    "sources": {
        "orders": {
            "type": "kafka",
            "schema": {"id": "int64", "account": "string", "amount": "int64", "at": "timestamp_ms"},
            "event_time": {"column": "at", "out_of_order": "500ms"},
        },
    },
    "steps": {
        "valid": {"input": "orders", "where": "id >= 0"},
        "sums": {
            "input": "orders",
            "where": "id >= 0",
            "key": ["account"],
            "window": {"tumble": f"{WINDOW_MS}ms"},
            "aggregate": {"orders": "count(*)", "amount": "sum(amount)"},
        },
    },
    "sinks": {
        "copies": {"type": "kafka", "input": "valid", "key": ["account"]},
        "totals": {"type": "kafka", "input": "sums"},
    },
}


class KafkaOrders:
    """Topics, the pipeline file, and the orders produced so far. Change `pipeline`, then `write` it."""

    def __init__(self, broker: Broker, folder: Path, *, partitions: int = 2, seed: int | None = None) -> None:
        seed = random.randrange(2**32) if seed is None else seed
        print(f"seed {seed}")
        self.random = random.Random(seed)
        self.broker = broker
        self.partitions = partitions
        self.file = folder / "pipeline.yaml"
        self.name = f"faults-{next(_names)}-{seed}"
        self.topics = {role: f"{self.name}-{role}" for role in ("orders", "copies", "totals")}
        for topic in self.topics.values():
            broker.create_topic(topic, partitions)
        self.made: list[dict[str, Any]] = []
        self.pipeline: dict[str, Any] = copy.deepcopy(dict(_PIPELINE)) | {"pipeline": self.name}
        self.pipeline["job"]["checkpoint"]["storage"] = f"file:{folder / 'checkpoints'}"
        for kind in ("sources", "sinks"):
            for role, connector in self.pipeline[kind].items():
                connector |= {"brokers": [broker.bootstrap], "topic": self.topics[role]}
        self.write()

    def write(self) -> None:
        """The pipeline file as `pipeline` is now."""
        self.file.write_text(yaml.safe_dump(self.pipeline, sort_keys=False))

    # -- input

    def produce(self, count: int, accounts: int = 20) -> None:
        """So many orders, a millisecond of event time apart and up to 500 ms out of order."""
        per_partition: dict[int, list[bytes | None]] = defaultdict(list)
        for _ in range(count):
            order = self.order(self.random.randrange(accounts))
            per_partition[int(order["account"][1:]) % self.partitions].append(json.dumps(order).encode())
        for partition, values in per_partition.items():
            self.broker.produce(self.topics["orders"], values, partition=partition)

    def order(self, account: int) -> dict[str, Any]:
        """The next order, counted as made."""
        number = len(self.made)
        at = BASE_MS + number - self.random.randrange(500)
        self.made.append({"id": number, "account": f"a{account}", "amount": self.random.randrange(1000), "at": at})
        return self.made[-1]

    def close_windows(self) -> None:
        """A far later record in each partition, which `where` drops, moves watermarks past all windows."""
        order = {"id": -1, "account": "end", "amount": 0, "at": BASE_MS + FAR_MS}
        for partition in range(self.partitions):
            self.broker.produce(self.topics["orders"], [json.dumps(order).encode()], partition=partition)

    # -- output

    def copied(self, isolation: str = "read_committed") -> list[int]:
        """Ids in `copies`, as they lie there."""
        return [json.loads(value)["id"] for value in self.broker.values(self.topics["copies"], isolation)]

    def sums(self) -> Counter[tuple[str, str, int, int]]:
        """Rows of `totals`: account, window start, orders, amount."""
        rows = map(json.loads, self.broker.values(self.topics["totals"]))
        return Counter((row["account"], row["window_start"], row["orders"], row["amount"]) for row in rows)

    def expected_sums(self) -> Counter[tuple[str, str, int, int]]:
        """What `sums` must be once all windows are closed."""
        amounts: dict[tuple[str, int], list[int]] = defaultdict(list)
        for order in self.made:
            amounts[order["account"], order["at"] // WINDOW_MS * WINDOW_MS].append(order["amount"])
        return Counter((account, iso(start), len(them), sum(them)) for (account, start), them in amounts.items())

    def check(self) -> None:
        """Every order copied once, in the order of its account; every window there once, and right."""
        copied = self.copied()
        assert sorted(copied) == list(range(len(self.made))), "lost or duplicated"
        by_account: dict[str, list[int]] = defaultdict(list)
        for number in copied:
            by_account[self.made[number]["account"]].append(number)
        assert all(numbers == sorted(numbers) for numbers in by_account.values()), "order of an account"
        assert self.sums() == self.expected_sums()


def iso(time_ms: int) -> str:
    """As the JSON encoder writes timestamps."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time_ms // 1000)) + f".{time_ms % 1000:03d}Z"
