"""Avro and Protobuf with a schema registry, through real Kafka: what one pipeline writes the next one reads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.broker import Broker
from tests.registry import Registry, serve_registry

pytestmark = pytest.mark.kafka
SCHEMA = (
    "{id: int64, name: string, price: 'decimal(10,2)', day: date, at: timestamp_ms, "
    "who: {name: string, tags: 'list[string]'}, raw: bytes, small: int8}"
)
ROWS: list[dict[str, Any]] = [
    {
        "id": 1, "name": "é", "price": "1.25", "day": "2026-01-01", "at": 1767225600123,
        "who": {"name": "a", "tags": ["x", "y"]}, "raw": "AP8=", "small": -5,
    },
    {"id": 2, "name": None, "price": None, "day": None, "at": None, "who": None, "raw": None, "small": None},
]  # fmt: skip


@pytest.fixture(scope="module")
def registry() -> Iterator[Registry]:
    with serve_registry() as served:
        served.credentials = ("svc", "swordfish")
        yield served


def run(folder: Path, name: str, source: str, sink: str, registry: Registry) -> subprocess.CompletedProcess[str]:
    """Run a pipeline from its one source to its one sink, to the end of its input."""
    head = f"version: 1\npipeline: {name}\njob: {{restart: {{strategy: none}}}}\n"
    text = head + f"sources: {{rows: {source}}}\nsinks: {{out: {sink}}}\n"
    (folder / f"{name}.yaml").write_text(text)
    return subprocess.run(
        [sys.executable, "-m", "streamproc", "run", f"{name}.yaml", "--checkpoints", f"file:{folder}/chk-{name}"],
        cwd=folder,
        env=os.environ | {"REGISTRY_PASSWORD": "swordfish"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def place(registry: Registry, kind: str, **more: str) -> str:
    options = "".join(f", {name}: {value}" for name, value in more.items())
    login = f'{{url: "{registry.url}", username: svc, password: "${{env:REGISTRY_PASSWORD}}"}}'
    return f"{{type: {kind}, registry: {login}{options}}}"


def test_rows_come_through_avro_and_protobuf(kafka: Broker, registry: Registry, tmp_path: Path) -> None:
    brokers = f'brokers: ["{kafka.bootstrap}"]'
    kafka.create_topic("orders-avro", 2)
    kafka.create_topic("orders-proto", 2)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    avro, protobuf = place(registry, "avro"), place(registry, "protobuf", message="shop.Order")
    read = f"type: kafka, {brokers}, stop: latest, schema: {SCHEMA}"
    legs = [
        ("a", f"{{type: file, path: rows.jsonl, schema: {SCHEMA}}}",
         f"{{type: kafka, input: rows, {brokers}, topic: orders-avro, format: {avro}}}"),
        ("b", f"{{{read}, topic: orders-avro, format: {avro}}}",
         f"{{type: kafka, input: rows, {brokers}, topic: orders-proto, format: {protobuf}}}"),
        ("c", f"{{{read}, topic: orders-proto, format: {protobuf}, metadata: {{part: partition}}}}",
         "{type: file, input: rows, path: out}"),
    ]  # fmt: skip
    for name, source, sink in legs:
        done = run(tmp_path, name, source, sink, registry)
        assert done.returncode == 0, done.stderr
        assert "swordfish" not in done.stdout + done.stderr
    written = [
        json.loads(line) for file in (tmp_path / "out").glob("*.jsonl") for line in file.read_text().splitlines()
    ]
    rows = sorted(written, key=lambda row: row["id"])
    assert [row | {"part": 0} for row in rows] == [
        {**ROWS[0], "at": "2026-01-01T00:00:00.123Z", "part": 0},
        {**ROWS[1], "part": 0},
    ]
    assert {value[0] for value in kafka.values("orders-avro")} == {0}
    assert registry.latest("orders-proto-value")["schemaType"] == "PROTOBUF"


def test_a_schema_that_is_not_compatible_ends_the_job(kafka: Broker, registry: Registry, tmp_path: Path) -> None:
    kafka.create_topic("narrow")
    registry.register("narrow-value", '{"type":"record","name":"Row","fields":[{"name":"id","type":"string"}]}')
    (tmp_path / "rows.jsonl").write_text('{"id": 1}\n')
    avro = place(registry, "avro")
    sink = f'{{type: kafka, input: rows, brokers: ["{kafka.bootstrap}"], topic: narrow, format: {avro}}}'
    done = run(tmp_path, "narrow", "{type: file, path: rows.jsonl, schema: {id: int64}}", sink, registry)
    assert done.returncode == 1
    assert "not compatible with what is registered under subject 'narrow-value'" in done.stderr
    assert kafka.values("narrow") == []
