"""Runs the tests of a pipeline that a test writes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from textwrap import dedent, indent

from streamproc.testing.pipeline_tests import CaseResult, load_tests, run_tests

PIPELINE = """
version: 1
pipeline: orders
job: {parallelism: PARALLELISM}
connections:
  main:
    type: kafka
    brokers: ["${env:NOT_SET}"]
    security: {sasl: {mechanism: PLAIN, username: a, password: "${env:NOT_SET}"}, tls: true}
sources:
  orders:
    type: kafka
    connection: main
    topic: orders
    schema: {id: int64, country: string, amount: float64, price: "decimal(10,2)", created_at: timestamp}
    event_time: {column: created_at, out_of_order: 10s}
    errors: dlq
    metadata: {at: offset, from_topic: topic}
steps:
  revenue:
    input: orders
    key: [country]
    window: {tumble: 1m}
    aggregate: {orders: count(*), eur: sum(amount)}
    late: {then: side_output}
  unread:
    input: revenue
    where: eur > 15
  doubled:
    input: orders
    select: {id: id * 2}
sinks:
  out: {type: kafka, connection: main, input: revenue, topic: revenue}
  late: {type: blackhole, input: revenue.late}
  dead: {type: blackhole, input: "*.errors"}
tests:
"""


def write(folder: Path, tests: str, *, parallelism: int = 1) -> Path:
    file = folder / "orders.yaml"
    file.write_text(PIPELINE.replace("PARALLELISM", str(parallelism)) + indent(dedent(tests), "  "))
    return file


def play(folder: Path, tests: str, *, parallelism: int = 1, only: str = "") -> list[CaseResult]:
    loaded, faults = load_tests(write(folder, tests, parallelism=parallelism), environment={})
    assert loaded is not None, "\n".join(map(str, faults))

    async def collect() -> list[CaseResult]:
        return [result async for result in run_tests(loaded, only=only)]

    return asyncio.run(collect())


def faults(folder: Path, tests: str) -> list[str]:
    """What is wrong, without the file's name."""
    _, found = load_tests(write(folder, tests), environment={})
    return [
        f"{fault.path}: {fault.message}" + (f"; {fault.hint}" if fault.hint else "")
        for fault in found
        if fault.severity == "error"
    ]
