"""A condition behind a step that gives updates: what no longer passes is taken back, what newly passes is there."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import polars as pl
import pytest

from operators.element import INSERT, KIND, UPDATE_AFTER, UPDATE_BEFORE
from streamproc.connectors.print_sink import PrintSink
from streamproc.pipeline.spec import PrintSinkSpec
from streamproc.testing.pipeline_tests import CaseResult, load_tests, run_tests
from tests.unit.connectors.kafka.test_encoding import encoder, read

BALANCES = """\
version: 1
pipeline: balances
sources:
  moves:
    type: kafka
    brokers: ["k:1"]
    topic: moves
    schema: {id: int64, account: string, amount: int64}
steps:
  rich:
    input: moves
    key: [account]
    aggregate: {balance: sum(amount)}
    ttl: forever
    having: balance >= 100
  poor: {input: rich, where: balance < 200}
  count: {input: rich, aggregate: {accounts: count(*)}, ttl: forever}
sinks:
  upserts: {type: kafka, brokers: ["k:1"], topic: rich, input: rich, key: [account]}
  seen: {type: blackhole, input: poor}
  counted: {type: blackhole, input: count}
tests:
  - name: changes
    given: {moves: [{id: 1, account: a, amount: 100}, {id: 2, account: b, amount: 10}]}
    then:
      - given: {moves: [{id: 3, account: a, amount: -1}]}
      - checkpoint
      - given: {moves: [{id: 4, account: a, amount: 101}, {id: 5, account: b, amount: 95}]}
      - crash
      - given: {moves: [{id: 6, account: a, amount: 1}]}
    expect:
      rich:
        - {op: "+I", account: a, balance: 100}
        - {op: "-U", account: a, balance: 100}
        - {op: "+U", account: a, balance: 200}
        - {op: "+U", account: b, balance: 105}
        - {op: "-U", account: a, balance: 200}
        - {op: "+U", account: a, balance: 201}
      poor:
        - {op: "+I", account: a, balance: 100}
        - {op: "-U", account: a, balance: 100}
        - {op: "+U", account: b, balance: 105}
  - name: what is left
    given: {moves: [{id: 1, account: a, amount: 100}, {id: 2, account: b, amount: 100}]}
    then:
      - given: {moves: [{id: 3, account: a, amount: -1}]}
    expect:
      rich: [{account: b, balance: 100}]
      count: [{accounts: 1}]
"""


def test_rows_that_leave_and_rows_that_come(tmp_path: Path) -> None:
    (tmp_path / "balances.yaml").write_text(BALANCES)
    loaded, faults = load_tests(tmp_path / "balances.yaml", environment={})
    assert loaded is not None, "\n".join(map(str, faults))

    async def collect() -> list[CaseResult]:
        return [result async for result in run_tests(loaded)]

    for result in asyncio.run(collect()):
        assert result.passed, result


LONE = pl.DataFrame(
    [(INSERT, "a", 1), (UPDATE_BEFORE, "b", 1), (UPDATE_AFTER, "c", 2)],
    schema={KIND: pl.Int8(), "name": pl.String(), "n": pl.Int64()},
    orient="row",
)


def test_half_an_update_in_a_topic() -> None:
    records = read(encoder(LONE.clear().drop(KIND), key=["name"]).encode(LONE, [0]))[0]
    assert {record.key: record.value and json.loads(record.value) for record in records} == {
        b"a": {"name": "a", "n": 1},
        b"b": None,
        b"c": {"name": "c", "n": 2},
    }


def test_half_an_update_on_the_terminal(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    columns = {"name": pl.String(), "n": pl.Int64()}
    sink = PrintSink("out", PrintSinkSpec(type="print", input="rich"), columns, changelog=True)
    asyncio.run(sink.writer(0, 1).write(LONE))
    printed = [json.loads(line) for line in capfdbinary.readouterr().out.splitlines()]
    assert [row["op"] for row in printed] == ["+I", "-U", "+U"]
