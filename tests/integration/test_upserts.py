"""Changelogs in a real topic: whoever keeps the newest record of each key has exactly the rows that are left."""

# ruff: noqa: E501 — a pipeline's line is a line

from __future__ import annotations

import json
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.broker import Broker
from tests.integration.job import Job

pytestmark = pytest.mark.kafka

PIPELINE = """
version: 1
pipeline: {topic}
job: {{checkpoint: {{every: 100ms, storage: "file:checkpoints"}}, batch: {{max_rows: 40}}, parallelism: {parallelism}}}
sources:
  moves:
    type: file
    path: moves.jsonl
    schema: {{id: int64, player: int64, room: string, at: timestamp_ms}}
    event_time: {{column: at}}
steps:
  whereabouts: {{input: moves, deduplicate: {{key: [player], keep: last}}}}
  rooms: {{input: whereabouts, key: [room], aggregate: {{players: count(*), last: max(id)}}, emit: on_update}}
sinks:
  players: {{type: kafka, brokers: ["{brokers}"], topic: {topic}-players, input: whereabouts, key: [player], delivery: {delivery}}}
  out: {{type: kafka, brokers: ["{brokers}"], topic: {topic}-rooms, input: rooms, key: [room], delivery: {delivery}}}
"""
MOVES = 3_000


def move(number: int) -> dict[str, Any]:
    """Players walk through ever new rooms, and leave the old ones empty."""
    player = number * 7 % 23
    return {"id": number, "player": player, "room": f"r{number // 400}-{player % 5}", "at": 1_767_225_600_000 + number}


def newest(kafka: Broker, topic: str) -> dict[str, Any]:
    """What a compacted topic would keep; keys whose last record is a tombstone are gone."""
    found: dict[str, Any] = {}
    for message in kafka.read(topic):
        key, value = message.key(), message.value()
        assert isinstance(key, bytes)
        found[key.decode()] = None if value is None else json.loads(value)
    return {key: value for key, value in found.items() if value is not None}


@pytest.mark.parametrize("delivery", ["exactly_once", "at_least_once"])
def test_updates_and_deletions(kafka: Broker, tmp_path: Path, delivery: str) -> None:
    topic = f"upserts-{delivery.replace('_', '-')}"
    kafka.create_topic(f"{topic}-players", 3)
    kafka.create_topic(f"{topic}-rooms", 3)
    rows = [move(number) for number in range(MOVES)]
    (tmp_path / "moves.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    file = tmp_path / "pipeline.yaml"

    def run(parallelism: int, crash: tuple[str, int] | None = None) -> Job:
        text = PIPELINE.format(topic=topic, brokers=kafka.bootstrap, delivery=delivery, parallelism=parallelism)
        file.write_text(text)
        return Job(tmp_path, file, crash=crash)

    code, _ = run(2, crash=("after-manifest", 2)).wait_any()
    assert code == -signal.SIGKILL
    run(3).wait()
    last = {row["player"]: row for row in rows}
    players = newest(kafka, f"{topic}-players")
    assert {key: row["id"] for key, row in players.items()} == {str(key): row["id"] for key, row in last.items()}
    rooms = newest(kafka, f"{topic}-rooms")
    count = Counter(row["room"] for row in last.values())
    assert rooms == {
        room: {
            "room": room,
            "players": players_there,
            "last": max(row["id"] for row in last.values() if row["room"] == room),
        }
        for room, players_there in count.items()
    }
    tombstones = [message for message in kafka.read(f"{topic}-rooms") if message.value() is None]
    assert tombstones, "rooms that nobody is in any more are deleted"
