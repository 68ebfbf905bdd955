"""What a job takes that has nothing to do, and how fast it is with a single record.

    python -m tests.benchmarks.idle [--seconds 30] [--parallelism 1 4] [--records 30]

Idle: Kafka to a window to Kafka, exactly-once, a checkpoint every 10 s, no input. CPU is user and system time
of the process as a share of one core. Latency: from before a record is produced to when a consumer of the
output topic has it, one record at a time, `max_delay: 50ms`, at-least-once.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import Consumer, Producer, TopicPartition

from tests.broker import Broker, running
from tests.integration.job import Job

_IDLE = """
version: 1
pipeline: idle-{parallelism}
job: {{parallelism: {parallelism}, checkpoint: {{every: 10s, storage: "file:checkpoints"}}}}
connections: {{main: {{type: kafka, brokers: ["{brokers}"]}}}}
sources:
  orders:
    type: kafka
    connection: main
    topic: idle-in
    schema: {{id: int64, at: timestamp_ms}}
    event_time: {{column: at, out_of_order: 2s}}
steps:
  sums: {{input: orders, key: [id], window: {{tumble: 10s}}, aggregate: {{orders: count(*)}}}}
sinks:
  out: {{type: kafka, connection: main, input: sums, topic: idle-out}}
"""

_SINGLE = """
version: 1
pipeline: single
job: {{batch: {{max_delay: 50ms}}, checkpoint: {{every: 10s, storage: "file:checkpoints"}}}}
connections: {{main: {{type: kafka, brokers: ["{brokers}"]}}}}
sources:
  orders: {{type: kafka, connection: main, topic: single-in, schema: {{id: int64}}}}
steps:
  doubled: {{input: orders, where: id >= 0, add: {{twice: id * 2}}}}
sinks:
  out: {{type: kafka, connection: main, input: doubled, topic: single-out, delivery: at_least_once}}
"""


@dataclass(frozen=True, slots=True)
class Idle:
    """CPU as a share of one core; what it took to start."""

    cpu: float
    rss_mb: int
    start_cpu_s: float


@contextmanager
def _job(text: str) -> Iterator[Job]:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        file = directory / "pipeline.yaml"
        file.write_text(text)
        job = Job(directory, file)
        try:
            # The first checkpoint is taken as soon as everything is connected.
            job.until(lambda: list((directory / "checkpoints").glob("*/chk-*/manifest.json")))
            yield job
        finally:
            job.kill()


def idle(kafka: Broker, parallelism: int, seconds: float) -> Idle:
    """Topics `idle-in` and `idle-out` must exist."""
    with _job(_IDLE.format(parallelism=parallelism, brokers=kafka.bootstrap)) as job:
        time.sleep(2)  # what belongs to the start is over then
        began_cpu_s = _cpu_s(job.pid)
        time.sleep(seconds)
        cpu = (_cpu_s(job.pid) - began_cpu_s) / seconds
        status = dict(line.split(":", 1) for line in Path(f"/proc/{job.pid}/status").read_text().splitlines())
        return Idle(cpu, int(status["VmRSS"].split()[0]) // 1024, began_cpu_s)


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def latencies_ms(kafka: Broker, records: int) -> list[float]:
    """Topics `single-in` and `single-out` must exist, of one partition."""
    consumer = Consumer(
        {"bootstrap.servers": kafka.bootstrap, "group.id": "single", "auto.offset.reset": "earliest"},
    )
    consumer.assign([TopicPartition("single-out", 0, 0)])
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "linger.ms": 0})
    try:
        with _job(_SINGLE.format(brokers=kafka.bootstrap)):
            return [_round(producer, consumer, number) for number in range(records + 2)][2:]  # two to warm up
    finally:
        consumer.close()


def _round(producer: Producer, consumer: Consumer, number: int) -> float:
    time.sleep(0.2)  # idle again
    began_s = time.perf_counter()
    producer.produce("single-in", b'{"id": %d}' % number)
    producer.flush()
    message = consumer.poll(30)
    assert message is not None, "the record did not come"
    assert message.error() is None, message.error()
    return (time.perf_counter() - began_s) * 1000


def create_topics(kafka: Broker) -> None:
    """What both measurements use."""
    for topic, partitions in (("idle-in", 4), ("idle-out", 4), ("single-in", 1), ("single-out", 1)):
        kafka.create_topic(topic, partitions)


def main() -> None:
    """Print a line for each measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--parallelism", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--records", type=int, default=30)
    options = parser.parse_args()
    with running() as kafka:
        create_topics(kafka)
        for parallelism in options.parallelism:
            found = idle(kafka, parallelism, options.seconds)
            print(
                f"idle for {options.seconds:.0f} s at parallelism {parallelism}: {found.cpu:.2%} of a core, "
                f"{found.rss_mb} MB; {found.start_cpu_s:.2f} s CPU to start",
                flush=True,
            )
        passed = latencies_ms(kafka, options.records)
        print(f"a single record: median {statistics.median(passed):.0f} ms, slowest {max(passed):.0f} ms")


if __name__ == "__main__":
    main()
