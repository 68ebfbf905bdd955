"""A pipeline from Kafka to Kafka under an endless stream of orders, each a function of its number.

So what must come out follows from how many went in, and a run may last for hours: the reader keeps one byte
for an order and one entry for a window, and checks every record when it comes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import polars as pl
from confluent_kafka import Message, Producer

from tests.broker import Broker
from tests.integration.job import Reader

PARTITIONS: Final = 4
ACCOUNTS: Final = 50
WINDOW_MS: Final = 10_000
OUT_OF_ORDER_MS: Final = 2_000
BASE_MS: Final = 1_767_225_600_000  # 2026-01-01T00:00:00Z
_FAR_MS: Final = 10**10  # more than any run makes

_PIPELINE = """
version: 1
pipeline: {name}
job:
  parallelism: {parallelism}
  checkpoint: {{every: {every}, storage: "file:checkpoints"}}
  restart: {restart}
connections:
  main: {{type: kafka, brokers: ["{brokers}"]}}
sources:
  orders:
    type: kafka
    connection: main
    topic: {name}-orders
    schema: {{id: int64, account: string, amount: int64, at: timestamp_ms}}
    event_time: {{column: at, out_of_order: {out_of_order}ms}}
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
  items:
    input: orders
    where: amount >= 0
    select: {{item: id % 20000}}
  held:  # a window that stays open
    input: items
    key: [item]
    window: {{tumble: 365d}}
    aggregate: {{orders: count(*)}}
sinks:
  copies: {{type: kafka, connection: main, input: valid, topic: {name}-copies, key: [account]}}
  totals: {{type: kafka, connection: main, input: sums, topic: {name}-totals}}
  nowhere: {{type: blackhole, input: held}}
"""


def order(number: int) -> dict[str, Any]:
    """A millisecond of event time after the one before, and up to two seconds out of order."""
    return {
        "id": number,
        "account": f"a{number * 7 % 101 % ACCOUNTS}",
        "amount": number * 7919 % 1000,
        "at": BASE_MS + number - number * 313 % OUT_OF_ORDER_MS,
    }


Totals = Mapping[tuple[str, str], tuple[int, int, int]]


def expected_totals(count: int) -> Totals:
    """(account, window start) → orders, amount, largest; of the first `count` orders."""
    parts = []
    for first in range(0, count, 1_000_000):
        number = pl.int_range(first, min(count, first + 1_000_000), eager=True).alias("id")
        orders = pl.DataFrame(number).select(
            account=pl.format("a{}", pl.col("id") * 7 % 101 % ACCOUNTS),
            amount=pl.col("id") * 7919 % 1000,
            start=(BASE_MS + pl.col("id") - pl.col("id") * 313 % OUT_OF_ORDER_MS) // WINDOW_MS * WINDOW_MS,
        )
        groups = orders.filter(pl.col("amount") > 0).group_by("account", "start")
        parts.append(groups.agg(orders=pl.len(), total=pl.sum("amount"), largest=pl.max("amount")))
    merged = pl.concat(parts).group_by("account", "start").agg(pl.sum("orders", "total"), pl.max("largest"))
    return {(account, iso(start)): (orders, total, largest) for account, start, orders, total, largest in merged.rows()}


class Ledger:
    """What came out so far. `faults` says what should not have."""

    def __init__(self, name: str) -> None:
        self._copies, self._totals = f"{name}-copies", f"{name}-totals"
        self._seen = bytearray()
        self._latest: dict[str, int] = {}  # by account
        self.copied = 0
        self.totals: dict[tuple[str, str], tuple[int, int, int]] = {}
        self.faults: list[str] = []

    def take(self, topic: str, value: bytes) -> None:
        """A record that a reader was given."""
        row = json.loads(value)
        if topic == self._totals:
            window = row["account"], row["window_start"]
            if window in self.totals:
                self.faults.append(f"twice: {row}")
            self.totals[window] = row["orders"], row["amount"], row["largest"]
            return
        number, account = row["id"], row["account"]
        if number >= len(self._seen):
            self._seen.extend(bytes(number - len(self._seen) + 100_000))
        if self._seen[number]:
            self.faults.append(f"twice: {row}")
        elif number <= self._latest.get(account, -1):
            self.faults.append(f"out of order, after {self._latest[account]}: {row}")
        self._seen[number] = 1
        self._latest[account] = number
        self.copied += 1

    def missing(self, count: int) -> list[int]:
        """The first few of `count` orders that did not come."""
        return [number for number in range(count) if not (number < len(self._seen) and self._seen[number])][:10]


class Orders:
    """Topics, the pipeline file, the producer, and a read_committed reader that runs all along."""

    def __init__(
        self,
        kafka: Broker,
        directory: Path,
        name: str,
        parallelism: int,
        *,
        every: str = "300ms",
        restart: str = "{strategy: none}",
    ) -> None:
        self._kafka = kafka
        self._settings = {"every": every, "restart": restart}
        self.name = name
        self.file = directory / "pipeline.yaml"
        self.count = 0
        for topic in ("orders", "copies", "totals"):
            kafka.create_topic(f"{name}-{topic}", PARTITIONS)
        self.write(parallelism)
        self.ledger = Ledger(name)
        self._reader = Reader(kafka, self.ledger.take, f"{name}-copies", f"{name}-totals")
        self._refused: list[object] = []
        self._producer = Producer(
            {
                "bootstrap.servers": kafka.bootstrap,
                "enable.idempotence": True,  # each order once and in its place, also over a broker that dies
                "linger.ms": 5,
                "message.timeout.ms": 900_000,
                "reconnect.backoff.max.ms": 1_000,
                "queue.buffering.max.messages": 1_000_000,
                "log_level": 0,
            }
        )

    def write(self, parallelism: int) -> None:
        """The pipeline file."""
        self.file.write_text(
            _PIPELINE.format(
                name=self.name,
                parallelism=parallelism,
                brokers=self._kafka.bootstrap,
                out_of_order=OUT_OF_ORDER_MS,
                **self._settings,
            )
        )

    def produce(self, count: int) -> None:
        """The next orders, spread over the partitions by account; does not wait for the broker."""
        for number in range(self.count, self.count + count):
            made = order(number)
            self._send(int(made["account"][1:]) % PARTITIONS, made)
        self.count += count
        self._producer.poll(0)

    def close_windows(self) -> None:
        """One far-future record per partition, filtered by `where`, moves every watermark past the windows."""
        for partition in range(PARTITIONS):
            self._send(partition, {"id": -1, "account": "end", "amount": -1, "at": BASE_MS + _FAR_MS})
        self.settle()

    def settle(self, timeout_s: float = 120) -> None:
        """Until the broker has everything that was produced."""
        assert self._producer.flush(timeout_s) == 0, f"not acknowledged within {timeout_s} s"
        assert not self._refused, self._refused

    def check(self, timeout_s: float = 60) -> None:
        """What the reader has seen is exactly what it should have."""
        expected = expected_totals(self.count)
        deadline = time.monotonic() + timeout_s
        while self.ledger.copied < self.count or len(self.ledger.totals) < len(expected):
            self.check_so_far()
            if time.monotonic() > deadline:
                raise AssertionError(
                    f"after {timeout_s:.0f} s: {self.ledger.copied} of {self.count} orders, missing "
                    f"{self.ledger.missing(self.count)}…; {len(self.ledger.totals)} of {len(expected)} windows"
                )
            time.sleep(0.05)
        self.check_so_far()
        assert not self.ledger.missing(self.count)
        assert self.ledger.totals == expected

    def check_so_far(self) -> None:
        """Nothing came twice or out of order."""
        assert not self.ledger.faults, self.ledger.faults[:10]
        assert not self._refused, self._refused

    def close(self) -> None:
        """Stop reading."""
        self._reader.close()

    def _send(self, partition: int, made: Mapping[str, Any]) -> None:
        value = json.dumps(made).encode()
        while True:
            try:
                return self._producer.produce(
                    f"{self.name}-orders", value, partition=partition, on_delivery=self._delivered
                )
            except BufferError:
                self._producer.poll(0.1)

    def _delivered(self, error: object, _: Message) -> None:
        if error is not None:
            self._refused.append(error)


def iso(time_ms: int) -> str:
    """As the JSON encoder writes timestamps."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time_ms // 1000)) + f".{time_ms % 1000:03d}Z"
