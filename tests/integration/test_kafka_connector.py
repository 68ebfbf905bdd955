"""The Kafka source against a real broker: every committed record once, from exactly where it was told to begin."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import polars as pl
import pytest
import structlog
from confluent_kafka import Producer

from operators.connector import Fetched, Position, SplitId
from operators.types import parse_type
from streamproc.connectors.kafka.failure import (
    KafkaRefused,
    OffsetUnavailable,
    TopicMissing,
    TopicRecreated,
)
from streamproc.connectors.kafka.fetcher import PARTITION_BYTES_MAX
from streamproc.connectors.kafka.source import KafkaReader, KafkaSource
from streamproc.pipeline.spec import KafkaConnectionSpec, KafkaSourceSpec
from tests.broker import SASL_USER, Broker
from tests.eventually import eventually

pytestmark = pytest.mark.kafka
_numbers = itertools.count()


@pytest.fixture
def topic(kafka: Broker) -> str:
    """A new topic of two partitions."""
    return kafka.create_topic(f"source-{next(_numbers)}", 2)


def values(*ids: int) -> list[bytes | None]:
    return [b'{"id":%d}' % number for number in ids]


def source(
    kafka: Broker, topic: str, *, discovery_s: float = 10.0, connection: dict[str, Any] | None = None, **config: Any
) -> KafkaSource:
    spec = KafkaSourceSpec.model_validate(
        {"type": "kafka", "topic": topic, "schema": {"id": "int64"}, "stop": "latest"} | config
    )
    where = KafkaConnectionSpec.model_validate({"brokers": [kafka.bootstrap]} | (connection or {}))
    return KafkaSource("src", spec, where, {"id": parse_type("int64")}, discovery_s=discovery_s)


@asynccontextmanager
async def opened(
    source: KafkaSource, restored: Mapping[SplitId, Position] | None = None, subtask: int = 0, parallelism: int = 1
) -> AsyncIterator[KafkaReader]:
    reader = source.reader(subtask, parallelism)
    try:
        await reader.open(restored)
        yield reader
    finally:
        await reader.close()


async def read(
    reader: KafkaReader, until: Callable[[list[int]], bool] | None = None, *, max_rows: int = 1000, within_s: float = 20
) -> list[int]:
    """Ids in the order they came: up to the end of input, or until `until` holds."""
    seen: list[int] = []
    deadline = time.monotonic() + within_s
    while not (until(seen) if until else reader.exhausted()):
        assert time.monotonic() < deadline, f"after {within_s} s only {len(seen)} records came"
        for piece in await reader.fetch(max_rows, 0.2):
            frame = piece.decode().frame
            assert frame.height <= piece.rows
            seen += frame["id"].to_list()
    return seen


async def read_all(source: KafkaSource, restored: Mapping[SplitId, Position] | None = None) -> list[int]:
    async with opened(source, restored) as reader:
        return await read(reader)


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
async def test_every_codec_from_another_client(kafka: Broker, topic: str, codec: str) -> None:
    kafka.produce(topic, values(*range(500)), config={"compression.type": codec})
    kafka.produce(topic, values(*range(500, 600)), partition=1, keys=[b"k"] * 100, config={"compression.type": codec})
    assert sorted(await read_all(source(kafka, topic))) == list(range(600))


async def test_bounded_input_ends_at_what_was_there_at_the_start(kafka: Broker, topic: str) -> None:
    kafka.produce(topic, values(1, 2, 3))
    async with opened(source(kafka, topic)) as reader:
        kafka.produce(topic, values(4))
        pieces: list[Fetched] = []
        while not reader.exhausted():
            pieces += await reader.fetch(100, 0.2)
        assert {piece.split for piece in pieces if piece.finished} == {f"{topic}-0", f"{topic}-1"}
        assert sum(piece.rows for piece in pieces) == 3
        assert reader.lag_records() == 0


async def test_a_restored_reader_goes_on_inside_a_batch(kafka: Broker, topic: str) -> None:
    kafka.produce(topic, values(*range(100)))
    async with opened(source(kafka, topic)) as reader:
        await read(reader)
        positions = dict(reader.splits())
    middle = {split: {**position, "offset": 37 if split.endswith("-0") else 0} for split, position in positions.items()}
    kafka.produce(topic, values(*range(100, 110)))
    assert await read_all(source(kafka, topic), middle) == list(range(37, 100))  # the end stays where it was
    unbounded = source(kafka, topic, stop="never")
    async with opened(unbounded, middle) as reader:
        assert await read(reader, lambda seen: len(seen) == 73) == list(range(37, 110))


async def test_positions_let_any_number_of_rows_be_read_at_a_time(kafka: Broker, topic: str) -> None:
    for start in range(0, 100, 10):
        kafka.produce(topic, values(*range(start, start + 10)))
    restored: dict[SplitId, Position] | None = None
    seen: list[int] = []
    for _ in range(20):
        async with opened(source(kafka, topic), restored) as reader:
            while True:
                pieces = [piece for piece in await reader.fetch(25, 0.5) if piece.rows]
                if pieces or reader.exhausted():
                    break
            for piece in pieces:
                assert piece.rows <= 25
                seen += piece.decode().frame["id"].to_list()
            restored = dict(reader.splits())
            if reader.exhausted():
                break
    assert seen == list(range(100))


async def test_aborted_transactions_do_not_exist_and_markers_count_as_read(kafka: Broker, topic: str) -> None:
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "transactional.id": f"other-{topic}", "linger.ms": 0})
    await asyncio.to_thread(producer.init_transactions)
    for start, commit in ((0, True), (10, False), (20, True), (30, False)):
        producer.begin_transaction()
        for number in range(start, start + 10):
            producer.produce(topic, b'{"id":%d}' % number, partition=0)
        await asyncio.to_thread(producer.flush)  # an abort would drop what is still here
        await asyncio.to_thread(producer.commit_transaction if commit else producer.abort_transaction)
    committed = [*range(10), *range(20, 30)]
    assert await read_all(source(kafka, topic)) == committed
    for _ in range(100):  # the broker writes the last marker a moment after it has answered
        async with opened(source(kafka, topic)) as reader:
            await read(reader)
            (position,) = [p for split, p in reader.splits().items() if split.endswith("-0")]
        if position["stop"] == 44:
            break
    assert position["offset"] == position["stop"] == 44


async def test_an_open_transaction_is_not_read_past(kafka: Broker, topic: str) -> None:
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "transactional.id": f"open-{topic}"})
    await asyncio.to_thread(producer.init_transactions)
    producer.begin_transaction()
    producer.produce(topic, b'{"id":1}', partition=0)
    await asyncio.to_thread(producer.flush)
    kafka.produce(topic, values(2))
    assert await read_all(source(kafka, topic)) == []
    async with opened(source(kafka, topic, stop="never")) as reader:
        assert await reader.fetch(100, 0.1) == []
        await asyncio.to_thread(producer.commit_transaction)
        assert await read(reader, lambda seen: len(seen) == 2) == [1, 2]


async def test_where_reading_starts(kafka: Broker, topic: str) -> None:
    kafka.produce(topic, values(1, 2))
    (_, second) = kafka.read(topic)
    kafka.produce(topic, values(3))
    third = kafka.read(topic)[-1]
    stamp = third.timestamp()[1]
    assert second.timestamp()[1] < stamp
    at = f"{pl.Series([stamp]).cast(pl.Datetime('ms', 'UTC')).dt.strftime('%Y-%m-%dT%H:%M:%S%.3fZ')[0]}"
    assert await read_all(source(kafka, topic, start={"timestamp": at})) == [3]
    assert await read_all(source(kafka, topic, start={"timestamp": "2999-01-01T00:00:00Z"})) == []
    assert await read_all(source(kafka, topic, start="latest")) == []
    async with opened(source(kafka, topic, start="latest", stop="never")) as reader:
        kafka.produce(topic, values(4))
        assert await read(reader, bool) == [4]


async def test_partitions_are_shared_out_exactly(kafka: Broker) -> None:
    name = kafka.create_topic(f"shared-{next(_numbers)}", 7)
    for partition in range(7):
        kafka.produce(name, values(partition), partition=partition)
    for parallelism in (1, 3, 8):
        seen: list[int] = []
        for subtask in range(parallelism):
            async with opened(source(kafka, name), subtask=subtask, parallelism=parallelism) as reader:
                seen += await read(reader)
        assert sorted(seen) == list(range(7))


async def test_a_new_partition_is_found_and_read_from_its_start(kafka: Broker, topic: str) -> None:
    unbounded = source(kafka, topic, stop="never", start="latest", discovery_s=0.2)
    async with opened(unbounded) as reader:
        before = dict(reader.splits())
        kafka.add_partitions(topic, 3)
        kafka.produce(topic, values(1, 2), partition=2)
        assert await read(reader, lambda seen: len(seen) == 2) == [1, 2]
        assert f"{topic}-2" in reader.splits()
    async with opened(unbounded, before) as reader:  # it came while nobody read
        assert await read(reader, lambda seen: len(seen) == 2) == [1, 2]


async def test_deleted_records_are_never_skipped_silently(kafka: Broker, topic: str) -> None:
    kafka.produce(topic, values(*range(20)))
    async with opened(source(kafka, topic, stop="never")) as reader:
        positions = {split: {**position, "offset": 0} for split, position in reader.splits().items()}
    kafka.delete_records(topic, 0, before=15)
    async with opened(source(kafka, topic, stop="never"), positions) as reader:
        with pytest.raises(OffsetUnavailable, match=rf"{topic}-0: offset 0 is not available, .* holds 15 to 20"):
            await read(reader)
    assert await read_all(source(kafka, topic)) == list(range(15, 20))  # without a position, from the start there is


async def test_a_topic_that_is_not_there_and_one_created_just_in_time(
    kafka: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamproc.connectors.kafka.client.TOPIC_WAIT_S", 2.0)
    missing = f"orders-{next(_numbers)}"
    kafka.create_topic(missing + "x")
    with pytest.raises(TopicMissing, match=rf"'{missing}' of source src does not exist.*'{missing}x'"):
        await read_all(source(kafka, missing))
    waiting = asyncio.create_task(read_all(source(kafka, missing)))
    await asyncio.to_thread(kafka.create_topic, missing)
    assert await waiting == []


async def test_a_topic_deleted_while_it_is_read(kafka: Broker, topic: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamproc.connectors.kafka.source._TOPIC_GONE_S", 1.0)
    async with opened(source(kafka, topic, stop="never")) as reader:
        kafka.produce(topic, values(1))
        assert await read(reader, bool) == [1]
        kafka.delete_topic(topic)
        with pytest.raises(TopicMissing, match=f"topic '{topic}' was deleted"):
            await read(reader, lambda _: False)


async def test_a_topic_created_again_is_another_one(kafka: Broker, topic: str) -> None:
    kafka.produce(topic, values(1, 2))
    async with opened(source(kafka, topic, stop="never", discovery_s=0.2)) as reader:
        assert await read(reader, lambda seen: len(seen) == 2) == [1, 2]
        positions = dict(reader.splits())
        kafka.delete_topic(topic)
        kafka.create_topic(topic, 2)
        kafka.produce(topic, values(3, 4, 5))
        with pytest.raises(TopicRecreated, match="created again"):
            await read(reader, lambda _: False)
    with pytest.raises(TopicRecreated, match="created again"):
        await read_all(source(kafka, topic), positions)


async def test_poison_from_the_wire(kafka: Broker, topic: str) -> None:
    big = b'{"id":1,"pad":"' + b"x" * 990_000
    poison: list[bytes | None] = [None, b"", b"{", b"\xff\xfe\x00", b'{"id":"text"}', b"[1]", big]
    kafka.produce(topic, [*values(1), *poison, *values(2)], keys=[b"k"] * 9)
    async with opened(source(kafka, topic, metadata={"o": "offset"})) as reader:
        decoded = []
        while not reader.exhausted():
            decoded += [piece.decode() for piece in await reader.fetch(1000, 0.2) if piece.rows]
    assert pl.concat([one.frame for one in decoded]).rows() == [(1, 0), (2, 8)]
    errors = pl.concat([one.errors for one in decoded if one.errors is not None])
    assert errors["offset"].to_list() == list(range(1, 8))
    assert errors["value"].to_list() == poison


async def test_what_waits_here_is_bounded(kafka: Broker, topic: str) -> None:
    kafka.produce(topic, [b'{"id":1,"pad":"%s"}' % (b"x" * 10_000)] * 2_500)  # 25 MB
    async with opened(source(kafka, topic)) as reader:
        assert reader._fetcher is not None
        feed = reader._fetcher.feeds[0]
        await eventually(lambda: feed.waiting_bytes > PARTITION_BYTES_MAX // 2)
        await asyncio.sleep(0.3)  # more would come now
        assert feed.waiting_bytes <= 2 * PARTITION_BYTES_MAX
        assert len(await read(reader)) == 2_500


async def test_a_broker_that_hangs_or_dies_is_waited_for(kafka: Broker, topic: str) -> None:
    async with opened(source(kafka, topic, stop="never")) as reader:
        kafka.produce(topic, values(1))
        assert await read(reader, bool) == [1]
        kafka.pause()
        try:
            assert await reader.fetch(10, 1.0) == []
        finally:
            kafka.resume()
        kafka.produce(topic, values(2))
        assert await read(reader, bool) == [2]
        with structlog.testing.capture_logs() as logs:
            await asyncio.to_thread(kafka.kill)
            assert await reader.fetch(10, 1.5) == []
            await asyncio.to_thread(kafka.start)
            kafka.produce(topic, values(3))
            assert await read(reader, bool) == [3]
        unreachable = [entry for entry in logs if entry["event"] == "broker unreachable, trying again"]
        assert 1 <= len(unreachable) <= 20
        assert unreachable[0]["brokers"] == [kafka.bootstrap]
        attempts = [entry["attempt"] for entry in unreachable]
        assert attempts == sorted(set(attempts))  # one line for each


async def test_no_broker_at_the_start_is_waited_for_with_a_log_line(kafka: Broker, topic: str) -> None:
    nobody = source(kafka, topic, connection={"brokers": ["127.0.0.1:1"]})
    with structlog.testing.capture_logs() as logs:
        waiting = asyncio.create_task(read_all(nobody))
        await eventually(lambda: len(logs) >= 2)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert {entry["event"] for entry in logs} == {"broker unreachable, trying again"}


async def test_sasl_accepts_the_right_secret_and_refuses_another_at_once(kafka: Broker, topic: str) -> None:
    kafka.produce(topic, values(1))

    def with_password(password: str) -> KafkaSource:
        sasl = {"mechanism": "PLAIN", "username": SASL_USER[0], "password": password, "allow_without_tls": True}
        where = {"brokers": [kafka.sasl_bootstrap], "security": {"sasl": sasl}}
        return source(kafka, topic, connection=where)

    assert await read_all(with_password(SASL_USER[1])) == [1]
    with pytest.raises(KafkaRefused, match="SaslAuthenticationFailed") as refused:
        await asyncio.wait_for(read_all(with_password("wr0ng")), 10)
    assert "wr0ng" not in str(refused.value)


async def test_tls_checks_the_certificate_and_the_host_name(kafka: Broker, topic: str) -> None:
    kafka.produce(topic, values(1))

    def over_tls(address: str, ca: str | None) -> KafkaSource:
        return source(kafka, topic, connection={"brokers": [address], "security": {"tls": {"ca": ca}}})

    trusted = str(kafka.certificate)
    assert await read_all(over_tls(kafka.tls_bootstrap, trusted)) == [1]
    with pytest.raises(KafkaRefused, match="self-signed certificate"):
        await asyncio.wait_for(read_all(over_tls(kafka.tls_bootstrap, None)), 10)
    with pytest.raises(KafkaRefused, match=r"not valid for '127\.0\.0\.1'"):
        await asyncio.wait_for(read_all(over_tls(kafka.tls_bootstrap.replace("localhost", "127.0.0.1"), trusted)), 10)
