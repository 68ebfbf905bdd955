"""The Kafka sink against a real broker: what a checkpoint prepared becomes visible exactly once, or fails loudly."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest

from operators.connector import ERRORS_SCHEMA, Committable
from streamproc.connectors.kafka.client import connect
from streamproc.connectors.kafka.failure import (
    CommitLost,
    KafkaRefused,
    RecordTooLarge,
    TopicMissing,
    TransactionExpired,
)
from streamproc.connectors.kafka.sink import IdempotentWriter, KafkaSink, TransactionalWriter
from streamproc.connectors.kafka.transactions import Prepared, TransactionClient, id_prefix
from streamproc.pipeline.spec import KafkaConnectionSpec, KafkaSinkSpec
from tests.broker import Broker
from tests.eventually import eventually
from tests.integration.kafka_writer import WriterProcess, rows, sink

pytestmark = pytest.mark.kafka
_numbers = itertools.count()


@pytest.fixture
def topic(kafka: Broker) -> str:
    """A new topic of two partitions; its name is also its pipeline's."""
    return kafka.create_topic(f"sink-{next(_numbers)}", 2)


@pytest.fixture
def process(kafka: Broker, topic: str) -> Iterator[WriterProcess]:
    """A writer in another process."""
    child = WriterProcess(kafka.bootstrap, topic, topic)
    yield child
    child.close()


@asynccontextmanager
async def opened(
    kafka: Broker, topic: str, *, recovered: KafkaSink | None = None, **config: Any
) -> AsyncIterator[TransactionalWriter | IdempotentWriter]:
    """A writer of a sink that has recovered from nothing."""
    one = recovered or sink(kafka.bootstrap, topic, topic, **config)
    if recovered is None:
        await one.recover([], 1)
    writer = one.writer(0, 1)
    try:
        await writer.open()
        yield writer
    finally:
        await writer.close()


async def write_and_prepare(writer: TransactionalWriter | IdempotentWriter, frame: pl.DataFrame, number: int) -> None:
    """What fails may do so in either."""
    await writer.write(frame)
    await writer.prepare(number)


async def visible(kafka: Broker, topic: str, expected: list[int]) -> None:
    """Wait for the commit markers, which the broker writes behind its answer; then all is there, and no more."""
    await eventually(lambda: len(ids(kafka, topic)) >= len(expected))
    assert ids(kafka, topic) == expected


def ids(kafka: Broker, topic: str, isolation: str = "read_committed") -> list[int]:
    return sorted(json.loads(value)["id"] for value in kafka.values(topic, isolation))


async def test_records_appear_with_their_checkpoint_and_not_before(kafka: Broker, topic: str) -> None:
    async with opened(kafka, topic) as writer:
        await writer.write(rows(0, 3_000))
        (committable,) = await writer.prepare(1)
        json.dumps(committable)
        await writer.write(rows(3_000, 100))  # the next epoch goes on at once
        assert ids(kafka, topic) == []
        assert len(ids(kafka, topic, "read_uncommitted")) >= 3_000
        await writer.commit(1)
        await visible(kafka, topic, list(range(3_000)))
        await writer.commit(1)
        await writer.prepare(2)
        await writer.commit(2)
    await visible(kafka, topic, list(range(3_100)))


async def test_epochs_without_records_have_no_transaction(kafka: Broker, topic: str) -> None:
    async with opened(kafka, topic) as writer:
        for checkpoint in (1, 2, 3):
            assert await writer.prepare(checkpoint) == []
            await writer.commit(checkpoint)
        await writer.write(rows(0, 1))
        assert len(await writer.prepare(4)) == 1
        await writer.commit(4)
    await visible(kafka, topic, [0])


async def test_an_aborted_checkpoint_is_committed_with_a_later_one(kafka: Broker, topic: str) -> None:
    async with opened(kafka, topic) as writer:
        for checkpoint in range(1, 6):  # more than the slots there are at first
            await writer.write(rows(checkpoint, 1))
            assert len(await writer.prepare(checkpoint)) == checkpoint
        assert ids(kafka, topic) == []
        await writer.commit(5)
        await visible(kafka, topic, [1, 2, 3, 4, 5])
        assert await writer.prepare(6) == []


async def test_killed_after_prepare_and_recovered_twice(kafka: Broker, topic: str, process: WriterProcess) -> None:
    process.do("write 0 1000")
    prepared = process.do("prepare 1")["ok"]
    process.do("write 1000 500")
    process.signal(signal.SIGKILL)
    assert ids(kafka, topic) == []
    for _ in range(2):
        await sink(kafka.bootstrap, topic, topic).recover(prepared, 1)
        await visible(kafka, topic, list(range(1000)))


async def test_an_old_committable_never_ends_a_newer_transaction(kafka: Broker, topic: str) -> None:
    async with opened(kafka, topic) as writer:
        old: list[Committable] = []
        for checkpoint in range(1, 8):  # every transactional id is used again
            await writer.write(rows(checkpoint, 1))
            old = [*await writer.prepare(checkpoint), *old]
            await writer.commit(checkpoint)
        await writer.write(rows(100, 1))
        await writer.prepare(8)
        client = await connect(KafkaConnectionSpec(brokers=[kafka.bootstrap]), why="test")
        transactions = TransactionClient(client, 900_000, why="test")
        for committable in old:  # what their manifests still hold; the log proves each commit
            await transactions.commit(Prepared.from_json(committable))
        await client.close()
        await visible(kafka, topic, list(range(1, 8)))
        await writer.commit(8)
    await visible(kafka, topic, [*range(1, 8), 100])


async def test_a_zombie_is_fenced_and_harms_nobody(kafka: Broker, topic: str, process: WriterProcess) -> None:
    process.do("write 0 10")
    prepared = process.do("prepare 1")["ok"]
    process.do("write 500 10")  # an epoch that no checkpoint will cover
    process.signal(signal.SIGSTOP)
    successor = sink(kafka.bootstrap, topic, topic)
    await successor.recover(prepared, 1)
    async with opened(kafka, topic, recovered=successor) as writer:
        for checkpoint in (2, 3, 4, 5):
            await writer.write(rows(checkpoint * 10, 10))
            await writer.prepare(checkpoint)
        process.signal(signal.SIGCONT)
        assert process.do("commit 1") == {"ok": None}  # it is committed
        process.do("write 600 10")
        answer = process.do("prepare 2")
        assert answer["failed"] == "Fenced"
        assert "another attempt" in answer["text"]
        await writer.commit(5)
    await visible(kafka, topic, [*range(10), *range(20, 60)])


async def test_an_idle_zombie_that_begins_a_transaction_is_refused(
    kafka: Broker, topic: str, process: WriterProcess
) -> None:
    for checkpoint in (1, 2, 3):
        process.do(f"write {checkpoint} 1")
        process.do(f"prepare {checkpoint}")
        process.do(f"commit {checkpoint}")
    successor = sink(kafka.bootstrap, topic, topic)
    await successor.recover([], 1)
    async with opened(kafka, topic, recovered=successor) as writer:
        await writer.write(rows(10, 1))
        await writer.prepare(4)
        assert process.do("write 99 1")["failed"] == "Fenced"
        await writer.commit(4)
    await visible(kafka, topic, [1, 2, 3, 10])


async def test_ids_of_another_parallelism_are_fenced_too(kafka: Broker, topic: str) -> None:
    one = sink(kafka.bootstrap, topic, topic)
    await one.recover([], 8)
    wide = one.writer(7, 8)
    await wide.open()
    try:
        await wide.write(rows(0, 5))
        await wide.prepare(1)
        await sink(kafka.bootstrap, topic, topic).recover([], 1)  # from before checkpoint 1, with one subtask
        kafka.produce(topic, [b'{"id":7}'], partition=0)
        kafka.produce(topic, [b'{"id":7}'], partition=1)
        await eventually(lambda: ids(kafka, topic) == [7, 7])  # no open transaction holds readers back
        with pytest.raises(CommitLost):
            await wide.commit(1)
    finally:
        await wide.close()


async def test_a_transaction_past_its_timeout_is_a_loud_loss(kafka: Broker, topic: str) -> None:
    async with opened(kafka, topic, transaction_timeout="1s") as writer:
        await writer.write(rows(0, 10))
        prepared = await writer.prepare(1)
        await writer.write(rows(10, 10))
        await eventually(lambda: len(ids(kafka, topic, "read_uncommitted")) == 20)
        for partition in (0, 1):
            kafka.produce(topic, [b'{"id":-1}'], partition=partition)
        await eventually(lambda: ids(kafka, topic) == [-1, -1], 20)  # readers get past what was open: it is aborted
        with pytest.raises(CommitLost, match=rf"checkpoint 1 written to topic '{topic}' are lost"):
            await writer.commit(1)
        with pytest.raises(TransactionExpired, match="transaction_timeout"):
            await write_and_prepare(writer, rows(20, 10), 2)
    with pytest.raises(CommitLost, match="Start from an older checkpoint"):
        await sink(kafka.bootstrap, topic, topic).recover(prepared, 1)
    assert ids(kafka, topic) == [-1, -1]


async def test_results_that_wait_in_another_cluster_are_not_taken_for_lost_or_done(kafka: Broker, topic: str) -> None:
    async with opened(kafka, topic) as writer:
        await write_and_prepare(writer, rows(0, 3), 1)
        (prepared,) = await writer.prepare(2)
    assert prepared["cluster"]
    with pytest.raises(KafkaRefused, match=r"checkpoint 1 wait to be committed in the cluster another, but"):
        await sink(kafka.bootstrap, topic, topic).recover([{**prepared, "cluster": "another"}], 1)
    earlier = {name: kept for name, kept in prepared.items() if name != "cluster"}  # an earlier release did not know it
    await sink(kafka.bootstrap, topic, topic).recover([earlier], 1)
    await visible(kafka, topic, [0, 1, 2])


async def test_a_timeout_beyond_what_brokers_allow(kafka: Broker, topic: str) -> None:
    with pytest.raises(KafkaRefused, match=r"transaction_timeout of 7200000 ms.*transaction\.max\.timeout\.ms"):
        await sink(kafka.bootstrap, topic, topic, transaction_timeout="2h").recover([], 1)


@pytest.mark.parametrize("delivery", ["exactly_once", "at_least_once"])
async def test_a_record_the_topic_does_not_take(kafka: Broker, delivery: str) -> None:
    name = kafka.create_topic(f"small-{next(_numbers)}", 1, {"max.message.bytes": "2000"})
    schema = {"id": pl.Int64(), "text": pl.String()}
    spec = KafkaSinkSpec.model_validate({"type": "kafka", "topic": name, "input": "x", "delivery": delivery})
    one = KafkaSink("small", "out", spec, KafkaConnectionSpec(brokers=[kafka.bootstrap]), schema)
    await one.recover([], 1)
    writer = one.writer(0, 1)
    await writer.open()
    try:
        fine = pl.DataFrame({"id": range(300), "text": [f"{number:030d}" for number in range(300)]})
        await writer.write(fine)  # together far more than the limit
        await writer.prepare(1)
        await writer.commit(1)
        assert ids(kafka, name) == list(range(300))
        noise = random.Random(1).randbytes(5_000).hex()
        await writer.write(pl.DataFrame({"id": [-1], "text": [noise]}))
        with pytest.raises(RecordTooLarge, match=rf"topic '{name}' does not take a record of \d+ bytes"):
            await writer.prepare(2)
    finally:
        await writer.close()
    assert ids(kafka, name) == list(range(300))


async def test_at_least_once_appears_at_once(kafka: Broker, topic: str) -> None:
    async with opened(kafka, topic, delivery="at_least_once") as writer:
        await writer.write(rows(0, 5_000))
        assert await writer.prepare(1) == []
        assert ids(kafka, topic) == list(range(5_000))


async def test_a_missing_topic_is_named_with_the_command_that_creates_it(
    kafka: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamproc.connectors.kafka.client.TOPIC_WAIT_S", 0.0)
    with pytest.raises(TopicMissing, match="--create --topic no-such-topic"):
        async with opened(kafka, "no-such-topic"):
            pass


async def test_a_topic_deleted_while_it_is_written(kafka: Broker, topic: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamproc.connectors.kafka.sink._TOPIC_GONE_POLL_S", 0.2)
    async with opened(kafka, topic) as writer:
        await writer.write(rows(0, 10))
        await writer.prepare(1)
        kafka.delete_topic(topic)
        with pytest.raises(TopicMissing, match=topic):
            await write_and_prepare(writer, rows(10, 10), 2)


async def test_keys_and_null_keys(kafka: Broker, topic: str) -> None:
    async with opened(kafka, topic, key=["id"]) as writer:
        await writer.write(pl.DataFrame({"id": [1, None, 3]}, schema={"id": pl.Int64()}))
        await writer.prepare(1)
        await writer.commit(1)
    await eventually(lambda: {message.key() for message in kafka.read(topic)} == {b"1", None, b"3"})


async def test_error_records_keep_their_bytes_and_say_where_from(kafka: Broker, topic: str) -> None:
    spec = KafkaSinkSpec.model_validate({"type": "kafka", "topic": topic, "input": "x"})
    where = KafkaConnectionSpec(brokers=[kafka.bootstrap])
    one = KafkaSink(topic, "dead", spec, where, dict(ERRORS_SCHEMA), carries_errors=True)
    await one.recover([], 1)
    writer = one.writer(0, 1)
    await writer.open()
    try:
        now = datetime.now(UTC)
        bad = [
            (now, "orders", "orders-0", 5, b"\xffk", b"{", "orders", "broken"),
            (now, "f", "x", 6, None, None, None, "e"),
        ]
        await writer.write(pl.DataFrame(bad, schema=ERRORS_SCHEMA, orient="row"))
        await writer.prepare(1)
        assert kafka.read(topic) == []
        await writer.commit(1)
    finally:
        await writer.close()
    await eventually(lambda: len(kafka.read(topic)) == 2)
    messages = {message.key(): message for message in kafka.read(topic)}
    assert messages[b"\xffk"].value() == b"{"
    assert dict(messages[b"\xffk"].headers() or [])["offset"] == b"5"
    assert messages[None].value() is None


async def test_a_broker_that_hangs_holds_writing_back_and_one_restarted_commits(kafka: Broker, topic: str) -> None:
    async with opened(kafka, topic) as writer:
        await writer.write(rows(0, 10))
        await writer.prepare(1)
        kafka.pause()

        async def write_much() -> None:
            for start in range(10, 100_010, 10_000):
                await writer.write(rows(start, 10_000))

        try:
            writing = asyncio.create_task(write_much())
            await asyncio.sleep(0.5)
            assert not writing.done()
        finally:
            kafka.resume()
        await writing
        await writer.prepare(2)
        await asyncio.to_thread(kafka.kill)
        committing = asyncio.create_task(writer.commit(2))
        await asyncio.to_thread(kafka.start)
        await committing
    await visible(kafka, topic, list(range(100_010)))


async def test_every_id_of_a_sink_can_be_found(kafka: Broker, topic: str) -> None:
    await sink(kafka.bootstrap, topic, topic).recover([], 2)
    client = await connect(KafkaConnectionSpec(brokers=[kafka.bootstrap]), why="test")
    try:
        found = await TransactionClient(client, 900_000, why="test").ids(id_prefix(topic, "out"))
    finally:
        await client.close()
    assert found == {f"streamproc.{topic}.out.{subtask}.{slot}" for subtask in (0, 1) for slot in (0, 1, 2)}
