"""A sink writer in a process of its own, to be stopped or killed by a test.

Reads commands from stdin (`write FIRST COUNT`, `prepare N`, `commit N`) and answers each with a line of
JSON: `{"ok": …}` or `{"failed": class, "text": …}`.
"""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import polars as pl
import structlog

from operators.element import Schema
from state.failure import Failure
from streamproc.connectors.kafka.sink import KafkaSink
from streamproc.pipeline.spec import KafkaConnectionSpec, KafkaSinkSpec

SCHEMA: Schema = {"id": pl.Int64()}


def sink(brokers: str, topic: str, pipeline: str = "pipe", **config: Any) -> KafkaSink:
    """The sink `out` of a pipeline, with rows of one column."""
    spec = KafkaSinkSpec.model_validate({"type": "kafka", "topic": topic, "input": "x"} | config)
    return KafkaSink(pipeline, "out", spec, KafkaConnectionSpec(brokers=[brokers]), SCHEMA)


def rows(first: int, count: int) -> pl.DataFrame:
    """`count` rows with ids from `first`."""
    return pl.DataFrame({"id": range(first, first + count)}, schema=SCHEMA)


class WriterProcess:
    """The child, seen from the test."""

    def __init__(self, brokers: str, topic: str, pipeline: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.kafka_writer", brokers, topic, pipeline],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._answer() == {"ok": "open"}

    def do(self, command: str) -> dict[str, Any]:
        """Run one command to its answer."""
        self.begin(command)
        return self._answer()

    def begin(self, command: str) -> None:
        """Give a command without waiting."""
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()

    def signal(self, number: signal.Signals) -> None:
        """Stop, continue or kill it."""
        self._process.send_signal(number)

    def close(self) -> None:
        """Kill it and release its pipes."""
        self._process.kill()
        self._process.communicate()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer


async def main(brokers: str, topic: str, pipeline: str) -> None:
    """Recover, open, then do what stdin says."""
    one = sink(brokers, topic, pipeline)
    await one.recover([], 1)
    writer = one.writer(0, 1)
    await writer.open()
    print(json.dumps({"ok": "open"}), flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        name, *numbers = line.split()
        arguments = [int(number) for number in numbers]
        result: Sequence[Any] | None = None
        try:
            if name == "write":
                await writer.write(rows(*arguments))
            elif name == "prepare":
                result = await writer.prepare(*arguments)
            else:
                await writer.commit(*arguments)
            print(json.dumps({"ok": result}), flush=True)
        except Failure as failure:
            print(json.dumps({"failed": type(failure).__name__, "text": str(failure)}), flush=True)


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    asyncio.run(main(*sys.argv[1:]))
