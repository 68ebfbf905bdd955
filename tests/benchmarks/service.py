"""What many small pipelines in one service take, and how fast it answers meanwhile.

    python -m tests.benchmarks.service [--pipelines 50] [--seconds 30] [--kafka]

Each: ten rows a second to a window, a checkpoint every 10 s; generated and to nowhere, or from a topic to a topic,
exactly once (all read the same topic). CPU is user and system time of the service as a share of one core; memory the
resident peak; the answers are those of `GET /v1/pipelines`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from confluent_kafka import Producer

from tests.broker import Broker
from tests.serving import Service

_PIPELINE = """\
version: 1
pipeline: {name}
job: {{checkpoint: {{every: 10s}}}}
sources:
  numbers: {{{source}, event_time: {{column: at}}}}
steps:
  counts: {{input: numbers, key: [id], window: {{tumble: 10s}}, aggregate: {{rows: count(*)}}}}
sinks:
  out: {{{sink}, input: counts}}
"""
_GENERATED = """\
type: datagen, rate: 10, \
columns: {id: {sequence: {start: 0}}, at: {time: {start: "2026-01-01T00:00:00Z", step: 100ms}}}"""
_TOPIC = 'type: kafka, brokers: ["{broker}"], topic: numbers, schema: {{id: int64, at: timestamp_ms}}'
_ROW_EVERY_S = 0.1
_ASKED_EVERY_S = 0.25


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory_mb(pid: int, field: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) // 1024


def _put(url: str, name: str, source: str, sink: str) -> None:
    content = _PIPELINE.format(name=name, source=source, sink=sink).encode()
    headers = {"Content-Type": "application/yaml"}
    request = urllib.request.Request(f"{url}/v1/pipelines/{name}", content, headers, method="PUT")
    with urllib.request.urlopen(request, timeout=120) as answer:
        assert answer.status in (200, 201), answer.status


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pipelines", type=int, default=50)
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--kafka", action="store_true")
    options = parser.parse_args()
    source, sink = _GENERATED, "type: blackhole"
    with ExitStack() as around:
        if options.kafka:
            broker = around.enter_context(_rows_coming(Path(around.enter_context(tempfile.TemporaryDirectory()))))
            source, sink = _TOPIC.format(broker=broker), f'type: kafka, brokers: ["{broker}"], topic: counts'
        service = Service(Path(around.enter_context(tempfile.TemporaryDirectory())))
        service.start()
        around.callback(service.kill)
        _measure(service, options.pipelines, options.seconds, source, sink)


@contextmanager
def _rows_coming(folder: Path) -> Iterator[str]:
    """The address of a broker that has both topics; a row comes to the first every tenth of a second."""
    broker, ended = Broker(folder), threading.Event()
    broker.start()

    def produce() -> None:
        producer = Producer({"bootstrap.servers": broker.bootstrap})
        for number in itertools.count():
            if ended.wait(_ROW_EVERY_S):
                break
            producer.produce("numbers", json.dumps({"id": number, "at": int(time.time() * 1000)}).encode())
            producer.poll(0)
        producer.flush(10)

    producing = threading.Thread(target=produce)
    try:
        for topic in ("numbers", "counts"):
            broker.create_topic(topic, 1)
        producing.start()
        yield broker.bootstrap
        ended.set()
        producing.join()
    finally:
        ended.set()
        broker.stop()


def _measure(service: Service, pipelines: int, seconds: int, source: str, sink: str) -> None:
    empty_mb = _memory_mb(service.pid, "VmRSS:")
    began = time.monotonic()
    for number in range(pipelines):
        _put(service.url, f"small-{number:02d}", source, sink)
    print(f"{pipelines} pipelines put in {time.monotonic() - began:.1f} s")
    began, cpu_s = time.monotonic(), _cpu_s(service.pid)
    answers_ms = []
    while time.monotonic() - began < seconds:
        asked = time.monotonic()
        found = service.get("/v1/pipelines")["pipelines"]
        answers_ms.append((time.monotonic() - asked) * 1000)
        time.sleep(_ASKED_EVERY_S)
    cores = (_cpu_s(service.pid) - cpu_s) / (time.monotonic() - began)
    running = sum(line["state"] == "running" for line in found)
    checkpointing = sum((line["checkpoint"] or 0) > 1 for line in found)
    peak_mb, threads = _memory_mb(service.pid, "VmHWM:"), len(list(Path(f"/proc/{service.pid}/task").iterdir()))
    worst = sorted(answers_ms)[int(len(answers_ms) * 0.99)]
    print(f"{running} running, {checkpointing} checkpointing, {cores:.0%} of a core, {threads} threads")
    print(f"memory {empty_mb} MB empty, {peak_mb} MB at most; answers {statistics.median(answers_ms):.0f} ms", end="")
    print(f" in the middle, {worst:.0f} ms at the 99th percentile, {max(answers_ms):.0f} ms at most")


if __name__ == "__main__":
    main()
