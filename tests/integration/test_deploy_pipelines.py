"""The commands of docker-compose.yml against a real broker: bids in, counts out, stopped as Docker stops them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from pathlib import Path

import yaml

import streamproc
from tests.broker import Broker

ROOT = Path(streamproc.__file__).parent.parent
BIDS = 300_000
BIDS_IN_A_WINDOW = 92_000  # Nexmark has 9,200 a second
PACE = "rate: 9200"  # of the producer; the test has no time for it


class Service:
    """A service of ours as compose runs it, but for its port and its folder."""

    def __init__(self, name: str, folder: Path, brokers: str) -> None:
        service = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"][name]
        file = ROOT / "deploy" / "pipelines" / Path(service["command"][1]).name
        (folder / file.name).write_text(file.read_text().replace(PACE, f"rows: {BIDS}"))
        command = [*service["command"][:1], file.name, *service["command"][2:]]
        command[command.index("--metrics-port") + 1] = "0"
        self.log = folder / f"{name}.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "streamproc", *command],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(ROOT), "BROKERS": brokers},
                stdout=log,
                stderr=log,
            )

    def metric(self, series: str) -> float:
        """The value of a series; 0 while it is not there."""
        served = re.search(r"http://0\.0\.0\.0:(\d+)/metrics", self.log.read_text())
        if served is None:
            return 0.0
        with urllib.request.urlopen(f"http://127.0.0.1:{served[1]}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(series))

    def ends_with_0(self) -> None:
        assert self.process.wait(60) == 0, self.log.read_text()


def test_bids_are_produced_and_counted(kafka: Broker, tmp_path: Path) -> None:
    for topic in ("bids", "bids-per-bidder"):
        kafka.create_topic(topic, 4)
    producer = Service("producer", tmp_path, kafka.bootstrap)
    counter = Service("streamproc", tmp_path, kafka.bootstrap)
    try:
        producer.ends_with_0()
        deadline = time.monotonic() + 60
        while counter.metric('streamproc_records_in_total{pipeline="bids-per-bidder",step="bids"') < BIDS:
            assert counter.process.poll() is None, counter.log.read_text()
            assert time.monotonic() < deadline, counter.log.read_text()
            time.sleep(0.1)
        counter.process.send_signal(signal.SIGTERM)
        counter.ends_with_0()
    finally:
        producer.process.kill()
        counter.process.kill()

    counts = [json.loads(value) for value in kafka.values("bids-per-bidder")]
    bids: Counter[str] = Counter()
    for count in counts:
        bids[count["window_start"]] += count["bids"]
    assert len(bids) >= 2
    assert set(bids.values()) == {BIDS_IN_A_WINDOW}
    assert len({(count["bidder"], count["window_start"]) for count in counts}) == len(counts)
