"""The commands of docker-compose.yml against a real broker: bids in, counts out, stopped as Docker stops them. What
the guide does with that runs in between."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml

import streamproc
from tests.broker import Broker
from tests.integration.test_docs import parts_of_the_guide, shell
from tests.serving import Service

ROOT = Path(streamproc.__file__).parent.parent
BIDS = 300_000
BIDS_IN_A_WINDOW = 92_000  # Nexmark has 9,200 a second
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
TOKEN = "a-token-that-nobody-guesses"
PACE = "rate: 9200"  # of the producer; the test has no time for it


class Producer:
    """The demo producer as compose runs it, but for its port and its folder."""

    def __init__(self, folder: Path, brokers: str) -> None:
        command = COMPOSE["producer"]["command"]
        file = ROOT / "deploy" / "pipelines" / Path(command[1]).name
        (folder / file.name).write_text(file.read_text().replace(PACE, f"rows: {BIDS}"))
        command = [*command[:1], file.name, *command[2:]]
        command[command.index("--metrics-port") + 1] = "0"
        self.log = folder / "producer.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "streamproc", *command],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(ROOT), "BROKERS": brokers},
                stdout=log,
                stderr=log,
            )


def test_bids_are_produced_and_counted(kafka: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for topic, partitions in {"bids": 4, "bids-per-bidder": 4, "highest-bids": 1}.items():
        kafka.create_topic(topic, partitions)
    monkeypatch.setenv("BROKERS", kafka.bootstrap)
    monkeypatch.setenv("STREAMPROC_TOKEN", TOKEN)
    config = (ROOT / "deploy" / "service.yaml").read_text().replace("/var/lib/streamproc", str(tmp_path))
    (tmp_path / "service.yaml").write_text(config)
    service = Service(tmp_path, *COMPOSE["streamproc"]["command"][1:-1], "service.yaml")
    producer = Producer(tmp_path, kafka.bootstrap)
    try:
        service.start()
        apply, file, *options = COMPOSE["pipelines"]["command"]
        service.do(apply, ROOT / "deploy" / "pipelines" / Path(file).name, *options)
        here = {"http://127.0.0.1:8080": service.url, "127.0.0.1:9092": kafka.bootstrap}
        with shell(tmp_path, here, STREAMPROC_URL=service.url) as guide:
            for block in parts_of_the_guide().compose:
                guide.do(block)
        assert producer.process.wait(60) == 0, producer.log.read_text()
        read = 'streamproc_records_in_total{pipeline="bids-per-bidder",step="bids",subtask="0"} '
        service.until(lambda: f"{read}{float(BIDS)}" in service.metrics())
        assert service.stop() == 0, service.log()
    finally:
        producer.process.kill()
        service.kill()

    counts = [json.loads(value) for value in kafka.values("bids-per-bidder")]
    bids: Counter[str] = Counter()
    for count in counts:
        bids[count["window_start"]] += count["bids"]
    assert len(bids) >= 2
    assert {json.loads(value)["bids"] for value in kafka.values("highest-bids")} == {BIDS_IN_A_WINDOW}
    assert set(bids.values()) == {BIDS_IN_A_WINDOW}
    assert len({(count["bidder"], count["window_start"]) for count in counts}) == len(counts)
