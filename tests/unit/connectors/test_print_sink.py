from __future__ import annotations

import subprocess
import sys

import polars as pl
import pytest

from operators.element import KIND
from streamproc.connectors.blackhole import BlackholeSink
from streamproc.connectors.print_sink import PrintSink
from streamproc.formats.protocol import FormatError
from streamproc.pipeline.spec import PrintSinkSpec

SCHEMA = {"id": pl.Int64(), "name": pl.String()}
ROWS = pl.DataFrame({"id": [1, 2], "name": ["é", None], "__time": [0, 0]})


def spec(form: object = "json") -> PrintSinkSpec:
    return PrintSinkSpec.model_validate({"type": "print", "input": "x", "format": form})


async def test_rows_are_printed_as_json_lines_at_once(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    writer = PrintSink("out", spec(), SCHEMA).writer(0, 1)
    await writer.open()
    await writer.write(ROWS)
    assert capfdbinary.readouterr().out == '{"id":1,"name":"é"}\n{"id":2,"name":null}\n'.encode()
    assert await writer.prepare(1) == ()
    await writer.commit(1)
    await writer.close()


async def test_csv_has_its_header_once(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    printed = PrintSink("out", spec("csv"), SCHEMA)
    for subtask in (0, 1):
        writer = printed.writer(subtask, 2)
        await writer.write(ROWS)
        await writer.write(ROWS.head(1))
    assert capfdbinary.readouterr().out.count(b"id,name") == 1


async def test_changelogs_say_what_happens_to_a_row(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    rows = pl.DataFrame({"id": [1, 1, 2, 2], "name": ["a", "b", "c", "c"], KIND: [1, 2, 0, 3]})
    await PrintSink("out", spec(), SCHEMA, changelog=True).writer(0, 1).write(rows)
    assert capfdbinary.readouterr().out.splitlines() == [
        b'{"op":"-U","id":1,"name":"a"}',
        b'{"op":"+U","id":1,"name":"b"}',
        b'{"op":"+I","id":2,"name":"c"}',
        b'{"op":"-D","id":2,"name":"c"}',
    ]
    await PrintSink("out", spec("csv"), SCHEMA, changelog=True).writer(0, 1).write(rows.head(1))
    assert capfdbinary.readouterr().out == b"op,id,name\n-U,1,a\n"


def test_parquet_cannot_be_printed() -> None:
    with pytest.raises(FormatError, match="sink out: parquet cannot be printed"):
        PrintSink("out", spec("parquet"), SCHEMA)


def test_a_reader_that_goes_away_is_a_failure_and_not_a_traceback_at_exit() -> None:
    program = """
import asyncio, sys, polars as pl
from streamproc.connectors.print_sink import OutputClosed, PrintSink
from streamproc.pipeline.spec import PrintSinkSpec
writer = PrintSink("out", PrintSinkSpec(type="print", input="x"), {"id": pl.Int64()}).writer(0, 1)
try:
    for _ in range(1000):
        asyncio.run(writer.write(pl.DataFrame({"id": range(10_000)})))
except OutputClosed:
    sys.exit(7)
"""
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert (process.wait(60), errors) == (7, b"")


async def test_the_blackhole_takes_everything() -> None:
    writer = BlackholeSink().writer(0, 1)
    await writer.write(ROWS)
    assert (writer.rows, await writer.prepare(1)) == (2, ())
