"""Whole pipelines on a real Kafka, as users run them: a process each, measured from outside by its CPU time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.usage import ended
from tests.broker import Broker

_HEAD = """
version: 1
pipeline: {name}
job: {{parallelism: {parallelism}, checkpoint: {{every: 10s, storage: "file:checkpoints"}}}}
connections:
  main: {{type: kafka, brokers: ["{brokers}"]}}
"""

_BIDS = """
sources:
  bids:
    type: kafka
    connection: main
    topic: bids
    stop: latest
    schema: {schema}
    event_time: {{column: dateTime, out_of_order: 4s}}
"""

_ALL = "{auction: int64, bidder: int64, price: int64, channel: string, url: string, dateTime: timestamp, extra: string}"
_BIDDER = "{bidder: int64, dateTime: timestamp}"
_KAFKA_SINK = "{{type: kafka, connection: main, input: {input}, topic: {topic}}}"

_LOAD = """
sources:
  generated: {{type: datagen, table: bid, rows: {rows}, event_time: {{column: dateTime}}}}
sinks:
  bids: {{type: kafka, connection: main, input: generated, topic: bids, delivery: at_least_once}}
"""

_START = """
sources:
  generated: {type: datagen, table: bid, rows: 1}
sinks:
  out: {type: blackhole, input: generated}
"""

_Q12 = """
steps:
  counts:
    input: bids
    key: [bidder]
    window: {{tumble: 10s}}
    aggregate: {{bids: count(*)}}
sinks:
  out: {sink}
"""

_Q5_COUNTS = """
steps:
  counts:
    input: bids
    key: [auction]
    window: {{hop: {{size: 10s, every: 2s}}}}
    aggregate: {{bids: count(*)}}
sinks:
  out: {sink}
"""

_Q2 = """
steps:
  some:
    input: bids
    where: auction % 123 = 0
    select: [auction, price]
sinks:
  out: {sink}
"""

_Q0 = """
sinks:
  out: {sink}
"""

_BLACKHOLE = "{type: blackhole, input: %s}"
_KAFKA = "{type: kafka, connection: main, input: %s, topic: out}"


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One pipeline over the topic of bids."""

    name: str
    body: str
    schema: str
    reads: str
    kafka_sink: bool = False
    parallelism: int = 1

    def text(self) -> str:
        """The pipeline file's part behind the head."""
        sink = (_KAFKA if self.kafka_sink else _BLACKHOLE) % self.reads
        return _BIDS.format(schema=self.schema) + self.body.format(sink=sink)


BENCHMARKS = (
    Benchmark("q12, to nowhere", _Q12, _BIDDER, "counts"),
    Benchmark("q12, to Kafka exactly-once", _Q12, _BIDDER, "counts", kafka_sink=True),
    Benchmark("q12, all seven columns decoded", _Q12, _ALL, "counts"),
    Benchmark("q12, parallelism 2", _Q12, _BIDDER, "counts", parallelism=2),
    Benchmark("hop 10 s by 2 s, counts per auction", _Q5_COUNTS, "{auction: int64, dateTime: timestamp}", "counts"),
    Benchmark("q2, filter, to nowhere", _Q2, _ALL, "some"),
    Benchmark("q0, all columns, to nowhere", _Q0, _ALL, "bids"),
    Benchmark("q0, all columns, to Kafka exactly-once", _Q0, _ALL, "bids", kafka_sink=True),
)


@dataclass(frozen=True, slots=True)
class Measured:
    """CPU is user + system time of the whole process, its start included; wall is the run without the start."""

    cpu_s: float
    wall_s: float
    records_in: int
    rss_mb: int


def run(kafka: Broker, name: str, body: str, parallelism: int = 1) -> Measured:
    """Run one pipeline to its end."""
    return run_file(name, _HEAD.format(name=name, parallelism=parallelism, brokers=kafka.bootstrap) + body)


def run_file(name: str, text: str) -> Measured:
    """Run a pipeline file of this text to its end, in a fresh directory and process."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "pipeline.yaml"
        file.write_text(text)
        process = subprocess.Popen(
            [sys.executable, "-m", "streamproc", "run", str(file), "--json", "--log-level", "warning"],
            cwd=directory,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            stdout=subprocess.PIPE,
        )
        usage = ended(process)
        assert process.stdout is not None
        with process.stdout as stdout:
            printed = stdout.read()
        if usage.status != 0:
            raise SystemExit(f"{name} ended with {usage.status}: {printed.decode()}")
        result: Mapping[str, object] = json.loads(printed.splitlines()[-1])
        wall, records = result["seconds"], result["records_in"]
        assert isinstance(wall, float)
        assert isinstance(records, int)
        return Measured(usage.cpu_s, wall, records, usage.rss_mb)


def load(kafka: Broker, rows: int) -> Measured:
    """Fill the topic `bids`; this too is a pipeline."""
    kafka.create_topic("bids", 4)
    return run(kafka, "load", _LOAD.format(rows=rows))


def start_up(kafka: Broker) -> Measured:
    """What a run costs that has next to nothing to do: start, checkpoints, end."""
    return run(kafka, "start", _START)


def measure(kafka: Broker, benchmark: Benchmark) -> Measured:
    """One benchmark; its output topic is made anew."""
    if benchmark.kafka_sink:
        kafka.create_topic("out", 4)
    try:
        return run(kafka, "bench", benchmark.text(), benchmark.parallelism)
    finally:
        if benchmark.kafka_sink:
            kafka.delete_topic("out")
