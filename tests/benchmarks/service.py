"""What many small pipelines in one service take, and how fast it answers meanwhile.

    python -m tests.benchmarks.service [--pipelines 50] [--seconds 30]

Each: ten generated rows a second to a window to nowhere, a checkpoint every 10 s. CPU is user and system time of the
service as a share of one core; memory the resident peak; the answers are those of `GET /v1/pipelines`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
import urllib.request
from pathlib import Path

from tests.serving import Service

_PIPELINE = """\
version: 1
pipeline: {name}
job: {{checkpoint: {{every: 10s}}}}
sources:
  numbers:
    type: datagen
    rate: 10
    columns: {{id: {{sequence: {{start: 0}}}}, at: {{time: {{start: "2026-01-01T00:00:00Z", step: 100ms}}}}}}
    event_time: {{column: at}}
steps:
  counts: {{input: numbers, key: [id], window: {{tumble: 10s}}, aggregate: {{rows: count(*)}}}}
sinks:
  out: {{type: blackhole, input: counts}}
"""
_ASKED_EVERY_S = 0.25


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory_mb(pid: int, field: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) // 1024


def _put(url: str, name: str) -> None:
    content = _PIPELINE.format(name=name).encode()
    headers = {"Content-Type": "application/yaml"}
    request = urllib.request.Request(f"{url}/v1/pipelines/{name}", content, headers, method="PUT")
    with urllib.request.urlopen(request, timeout=120) as answer:
        assert answer.status in (200, 201), answer.status


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pipelines", type=int, default=50)
    parser.add_argument("--seconds", type=int, default=30)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        service = Service(Path(folder))
        service.start()
        try:
            _measure(service, options.pipelines, options.seconds)
        finally:
            service.kill()


def _measure(service: Service, pipelines: int, seconds: int) -> None:
    empty_mb = _memory_mb(service.pid, "VmRSS:")
    began = time.monotonic()
    for number in range(pipelines):
        _put(service.url, f"small-{number:02d}")
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
