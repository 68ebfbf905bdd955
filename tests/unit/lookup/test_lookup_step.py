"""A look-up join in a running pipeline, by the pipeline's own test."""

from __future__ import annotations

import asyncio
from pathlib import Path

from streamproc.testing.pipeline_tests import load_tests, run_tests

PIPELINE = """
version: 1
pipeline: named
sources:
  orders: {type: kafka, brokers: [a:1], topic: orders, schema: {id: int64, country: string}}
steps:
  named:
    join: {left: orders, kind: left, match: left.country = right.country, lookup: {file: c.csv, format: csv,
      refresh: 10s, schema: {country: string, name: string}}}
sinks: {out: {type: blackhole, input: named}}
tests:
  - name: looks up, also after a crash
    given: {orders: [{id: 1, country: FR}]}
    then: [{processing_time: 20s}, {given: {orders: [{id: 2, country: XX}]}}, crash, end]
    expect: {named: [{id: 1, country: FR, name: France}, {id: 2, country: XX, name: null}]}
"""


def test_a_pipeline_looks_up_in_a_file_beside_it(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("country,name\nFR,France\n")
    file = tmp_path / "named.yaml"
    file.write_text(PIPELINE)
    loaded, faults = load_tests(file, environment={})
    assert loaded is not None, faults

    async def collect() -> list[bool]:
        return [result.passed async for result in run_tests(loaded)]

    assert asyncio.run(collect()) == [True]
