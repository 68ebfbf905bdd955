"""CPU time of each stage a record passes, on one thread and in memory: where an end-to-end figure comes from."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from operators.aggregates import compile_aggregates
from operators.connector import SplitId
from operators.element import TIME, EventTimeMs
from operators.expression import compile_predicate
from operators.hashing import key_groups
from operators.operator import OperatorContext
from operators.slices import Window
from operators.stateless import FilterSpec
from operators.types import parse_type
from operators.window import WindowAggregateSpec
from state.key_group import KeyGroupRange
from state.memory import MemoryBackend
from streamproc.connectors.kafka.encoding import RowEncoder
from streamproc.connectors.kafka.record_batch import HEADER_SIZE, OutgoingBatch, split_batches
from streamproc.connectors.nexmark import generator
from streamproc.dataflow.event_time import SourceClock
from streamproc.dataflow.partitioner import HashByKey
from streamproc.formats.json import JsonDecoder
from streamproc.pipeline.logical import EventTime
from streamproc.pipeline.spec import KafkaSinkSpec
from streamproc.process_settings import set_memory

ROWS = 16_384
_SECONDS = 0.2  # CPU time each measurement repeats a stage for
_BID = {
    "auction": "int64",
    "bidder": "int64",
    "price": "int64",
    "channel": "string",
    "url": "string",
    "dateTime": "timestamp",
    "extra": "string",
}


@dataclass(frozen=True, slots=True)
class Stage:
    """`work` handles `ROWS` records."""

    name: str
    work: Callable[[], object]


def measure() -> Iterator[tuple[str, float]]:
    """(stage, µs of CPU per record), each the best of three."""
    set_memory()
    for stage in _stages():
        stage.work()
        yield stage.name, min(_cpu_per_record(stage.work) for _ in range(3))


def _cpu_per_record(work: Callable[[], object]) -> float:
    rounds = 0
    began = time.process_time()
    while time.process_time() - began < _SECONDS:
        work()
        rounds += 1
    return (time.process_time() - began) / (rounds * ROWS) * 1e6


def _stages() -> Iterator[Stage]:
    bids = generator("bid", 1)(np.arange(ROWS))
    schema = dict(bids.schema)
    every = {name: parse_type(text) for name, text in _BID.items()}
    some = {name: every[name] for name in ("bidder", "dateTime")}

    sink = KafkaSinkSpec.model_validate({"type": "kafka", "input": "x", "topic": "t", "brokers": ["b"]})
    encoder = RowEncoder(sink, schema, transactional=True, batch_bytes_max=1 << 20)
    outgoing = [batch for _, batch in encoder.encode(bids, [0, 1, 2, 3])]
    response = b"".join(_built(batch) for batch in outgoing)

    def unframe() -> list[bytes | None]:
        return [value for batch in split_batches(response) for value in batch.values(0, 1 << 62)]

    values = unframe()
    payload = b"\n".join(value for value in values if value is not None)
    yield Stage("read: record batches to values (lz4)", unframe)
    yield Stage("decode JSON, 2 of 7 columns", lambda: JsonDecoder(some).decode_lines(payload, ROWS))
    yield Stage("decode JSON, all 7 columns", lambda: JsonDecoder(every).decode_lines(payload, ROWS))

    clock = SourceClock(EventTime("dateTime", 4_000))
    clock.add(SplitId("a"), None, 0.0)
    stamped = clock.stamp(SplitId("a"), bids, 0.0)
    yield Stage("stamp event time", lambda: clock.stamp(SplitId("a"), bids, 0.0))

    predicate = compile_predicate("auction % 123 = 0", schema)
    where = FilterSpec(predicate, schema).create(_context())
    yield Stage("where auction % 123 = 0", lambda: list(where.process(stamped, EventTimeMs(0))))

    narrow = stamped.select("bidder", "auction", TIME)
    yield Stage("key groups of an int64 key", lambda: key_groups(narrow, ["bidder"], 128))
    partitioner = HashByKey(["bidder"], 4, 128)
    yield Stage("hash exchange to 4", lambda: list(partitioner.partition(narrow)))

    plan = compile_aggregates({"bids": "count(*)"}, schema, key=["bidder"])
    yield Stage("tumble 10 s, count per bidder", _window(Window(10_000, 10_000, 0), plan, schema, narrow))
    plan = compile_aggregates({"bids": "count(*)"}, schema, key=["auction"])
    spec_key = ("auction",)
    yield Stage("hop 10 s by 2 s, count per auction", _window(Window(10_000, 2_000, 0), plan, schema, narrow, spec_key))

    yield Stage("encode JSON, 7 columns", lambda: encoder._values(bids))
    yield Stage("encode, frame and compress for Kafka", lambda: encoder.encode(bids, [0, 1, 2, 3]))
    yield Stage("checksum", lambda: [_built(batch) for batch in outgoing])


def _built(batch: OutgoingBatch) -> bytes:
    batch._set_producer_state(1, 0, 0)
    built = batch._build()
    assert len(built) > HEADER_SIZE
    return built


def _context() -> OperatorContext:
    groups = KeyGroupRange(0, 127)
    return OperatorContext("bench", 0, 128, groups, MemoryBackend(groups))


def _window(
    window: Window,
    plan: object,
    schema: dict[str, pl.DataType],
    frame: pl.DataFrame,
    key: tuple[str, ...] = ("bidder",),
) -> Callable[[], object]:
    spec = WindowAggregateSpec(key, window, plan, 0, False, schema)  # type: ignore[arg-type]
    operator = spec.create(_context())
    latest = frame.get_column(TIME).max()
    assert isinstance(latest, int)
    passed = 0

    def work() -> object:
        # Each round is later by what the batch spans, so that windows close at the rate they would.
        nonlocal passed
        shift = passed * (ROWS * 1000 // 9200)
        passed += 1
        moved = frame.with_columns(pl.col(TIME) + shift)
        out = list(operator.process(moved, EventTimeMs(0)))
        return out + list(operator.on_watermark(EventTimeMs(latest + shift - 4_000)))

    return work
