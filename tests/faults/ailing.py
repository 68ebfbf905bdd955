"""Pipelines side by side in one service, each with what its fault needs, and the live orders that all of them read."""

from __future__ import annotations

import contextlib
import json
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from confluent_kafka import Producer

from tests.broker import SASL_USER, Broker

HEALTHY, STALLED, PUT_ASIDE, FAILING, SLOW_SINK, OVERWORKED, UNSAVED = PIPELINES = (
    "healthy",
    "stalled",
    "put-aside",
    "failing",
    "slow-sink",
    "overworked",
    "unsaved",
)
SINK_BYTES_PER_S: Final = 20_000  # of the slow sink's user, about a tenth of what comes
_UNCOMPLETED: Final = {"every": "1s", "timeout": "1s", "tolerate_failures": 100}
_ROUND_S: Final = 0.05
_ORDERS_A_ROUND: Final = 10
_NOTE: Final = 500  # characters of each order, which do not compress well

_CODE: Final = """
import time
import polars as pl

def overworked(frame: pl.DataFrame) -> pl.DataFrame:
    time.sleep(0.02 * frame.height)
    return frame.with_columns(seen=True)

def endless(frame: pl.DataFrame) -> pl.DataFrame:
    time.sleep(300)
    return frame.with_columns(seen=True)
"""


class Orders:
    """Writes live orders for as long as it runs: to topics `orders` and `poisoned`, and to partition 0 of `halves`; to
    its partition 1 only while `both`."""

    def __init__(self, broker: Broker) -> None:
        self.both = False
        self._bootstrap = broker.bootstrap
        self._random = random.Random(5)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @contextlib.contextmanager
    def flowing(self) -> Iterator[None]:
        """Within the block."""
        self._thread.start()
        try:
            yield
        finally:
            self._stopped.set()
            self._thread.join()

    def _run(self) -> None:
        # While the broker is away orders are lost: nobody counts them.
        producer = Producer({"bootstrap.servers": self._bootstrap, "message.timeout.ms": 3000, "log_level": 0})
        while not self._stopped.wait(_ROUND_S):
            for _ in range(_ORDERS_A_ROUND):
                order = self._order()
                for topic, partition in self._places():
                    with contextlib.suppress(BufferError):
                        producer.produce(topic, order, partition=partition)
            producer.poll(0)
        producer.purge()

    def _places(self) -> Iterator[tuple[str, int]]:
        yield from (("orders", 0), ("poisoned", 0), ("halves", 0))
        if self.both:
            yield "halves", 1

    def _order(self) -> bytes:
        note = self._random.randbytes(_NOTE // 2).hex()
        return json.dumps({"id": self._random.randrange(100), "at": int(time.time() * 1000), "note": note}).encode()


def write_pipelines(folder: Path, broker: Broker) -> None:
    """Topics, the service's configuration (`service.yaml`) and one file for each pipeline."""
    for topic, partitions in (
        ("orders", 1),
        ("poisoned", 1),
        ("halves", 2),
        ("counts", 1),
        ("halves-counts", 1),
        ("rejected", 1),
    ):
        broker.create_topic(topic, partitions)
    broker.create_topic("slow", 1, {"max.message.bytes": "65536"})  # small batches: none takes long by itself
    (folder / "code").mkdir()
    (folder / "code" / "shop.py").write_text(_CODE)
    (folder / "service.yaml").write_text("functions: code\n")
    plain = {"type": "kafka", "brokers": [broker.bootstrap]}
    user, password = SASL_USER
    sasl = {"mechanism": "PLAIN", "username": user, "password": password, "allow_without_tls": True}
    limited = {"type": "kafka", "brokers": [broker.sasl_bootstrap], "security": {"sasl": sasl}}
    counts = {
        "input": "orders",
        "key": ["id"],
        "window": {"tumble": "1s"},
        "aggregate": {"orders": "count(*)"},
    }
    aside = plain | {"input": "*.errors", "topic": "rejected"}
    nowhere = {"type": "blackhole", "input": "orders"}
    for name, source, steps, sinks in (
        (HEALTHY, _orders("orders"), {"counts": counts}, {"out": plain | {"input": "counts", "topic": "counts"}}),
        (
            STALLED,
            _orders("halves"),
            {"counts": counts},
            {"out": plain | {"input": "counts", "topic": "halves-counts"}},
        ),
        (PUT_ASIDE, _orders("poisoned") | {"errors": "dlq"}, {}, {"out": nowhere, "rejected": aside}),
        (FAILING, _orders("poisoned"), {}, {"out": nowhere}),
        (SLOW_SINK, _orders("orders"), {}, {"out": limited | {"input": "orders", "topic": "slow"}}),
        (OVERWORKED, _orders("orders"), {"scored": _python("overworked")}, {"out": nowhere | {"input": "scored"}}),
        (UNSAVED, _orders("orders"), {"scored": _python("endless")}, {"out": nowhere | {"input": "scored"}}),
    ):
        pipeline = {
            "version": 1,
            "pipeline": name,
            "job": {"checkpoint": _UNCOMPLETED if name == UNSAVED else {"every": "1s"}},
            "sources": {"orders": plain | source},
            "sinks": sinks,
        }
        (folder / f"{name}.yaml").write_text(json.dumps(pipeline | ({"steps": steps} if steps else {})))


def _orders(topic: str) -> dict[str, Any]:
    return {
        "topic": topic,
        "start": "latest",
        "schema": {"id": "int64", "at": "timestamp_ms", "note": "string"},
        "event_time": {"column": "at", "out_of_order": "500ms"},
    }


def _python(function: str) -> dict[str, Any]:
    return {"input": "orders", "python": {"call": f"shop.py:{function}", "columns": {"seen": "boolean"}}}
