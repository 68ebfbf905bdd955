"""Nexmark's queries as steps, from a real Kafka to nowhere: CPU per record read, beside Flink's.

Flink's figures: 2.2.1, warm, RocksDB, one core, the same queries over the same kind of data on a machine like
the one of the last figures in the README.
"""

from __future__ import annotations

from typing import Any, Final

from tests.benchmarks.pipelines import Measured, run_file
from tests.broker import Broker
from tests.oracle.pipelines import Query, known_queries, pipeline

FLINK_US: Final = {
    "q0": "2.4–4.7",
    "q1": "2.4",
    "q2": "1.8",
    "q5": "15",
    "q7": "57",
    "q8": "23",
    "q11": "24",
    "q12": "3.3–5.4",
    "q18": "20",
}
_SHARES: Final = {"bid": 46, "auction": 3, "person": 1}  # of 50 events

_LOAD = """
version: 1
pipeline: load-{table}
sources:
  generated: {{type: datagen, table: {table}, rows: {rows}, event_time: {{column: dateTime}}}}
sinks:
  out:
    type: kafka
    brokers: ["{brokers}"]
    input: generated
    topic: q_{table}
    delivery: at_least_once
    format: {{type: json, timestamps: epoch_ms}}
"""


def load(kafka: Broker, events: int) -> None:
    """Fill the three topics with what `events` Nexmark events are."""
    for table, share in _SHARES.items():
        kafka.create_topic(f"q_{table}", 4)
        rows = events * share // 50
        run_file(f"load-{table}", _LOAD.format(table=table, rows=rows, brokers=kafka.bootstrap))


def queries() -> list[Query]:
    """Every query that is there as steps."""
    return known_queries("steps")


def measure(kafka: Broker, query: Query) -> Measured:
    """One run of one query over all that the topics hold."""
    job: dict[str, Any] = {"checkpoint": {"every": "10s", "storage": "file:checkpoints"}}
    return run_file(query.name, pipeline(query, brokers=kafka.bootstrap, prefix="q_", topic=None, job=job))
