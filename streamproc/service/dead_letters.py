"""Dead letters in a Kafka topic: looking at them, and sending them again, each once.

A replay sends the original keys and values to the topic and partition they came from, and commits which letters
those were as offsets of a consumer group: in one Kafka transaction. So a service that is killed in between has sent
and recorded a letter, or done neither. One transactional id for each sink: a second replay ends the first, and only
then reads what has been recorded; no two can send the same letter.

Brokers forget a group's offsets after `offsets.retention.minutes` (seven days, counted from the last replay): a
topic of dead letters that keeps them for longer than that would have letters shown as waiting again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from itertools import islice
from typing import Any, Final

import aiokafka.errors as kafka_errors
import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.structs import OffsetAndMetadata, TopicPartition

from streamproc.connectors.kafka.aiokafka_private import Client
from streamproc.connectors.kafka.broker_errors import NoConnection, Unreachable, translated
from streamproc.connectors.kafka.client import client_options, find_topic
from streamproc.connectors.kafka.fetcher import Fetcher, PartitionFeed
from streamproc.connectors.kafka.group_offsets import committed_offsets
from streamproc.connectors.kafka.offsets import EARLIEST, LATEST, list_offsets
from streamproc.pipeline.logical import LogicalGraph
from streamproc.service.api import Conflict, ServiceFault
from streamproc.service.letter import DeadLetterSink, Letter, dead_letter_sink, view_of
from streamproc.service.replayed import METADATA_CHARS_MAX, Replayed
from streamproc.service.views import DeadLetterList

log = structlog.get_logger("streamproc.service")

OFFSETS_LOOKED_AT: Final = 20_000  # of one topic, at most, at a time
LETTERS_AT_ONCE: Final = 10_000  # of one replay
LETTERS_OF_A_TRANSACTION: Final = 500
CONNECTING_S: Final = 5.0
LOOKING_S: Final = 20.0
REPLAYING_S: Final = 60.0
_TRANSACTION_MS: Final = 60_000
_ABORT_S: Final = 5.0
_CLOSE_S: Final = 20.0
_REQUEST_BYTES_MAX: Final = 32 << 20
_new_producer: Any = AIOKafkaProducer  # untyped


async def list_letters(graph: LogicalGraph, sink: str, limit: int) -> DeadLetterList:
    """The newest `limit` letters, and how many of the newest `OFFSETS_LOOKED_AT` records wait. Raises ServiceFault."""
    letters_of = dead_letter_sink(graph, sink)
    with _refusals("Look again later"):
        async with asyncio.timeout(LOOKING_S), _connected(letters_of) as client:
            partitions = (await find_topic(client, letters_of.topic, why=letters_of.why)).partitions
            done = await _replayed(client, letters_of, partitions)
            bounds = await _bounds(client, letters_of, partitions)
            share = max(1, OFFSETS_LOOKED_AT // len(partitions))
            newest = {partition: (max(first, end - share), end) for partition, (first, end) in bounds.items()}
            waiting, kept = 0, list[Letter]()
            async for letter in _read(client, letters_of, newest):
                waiting += letter.target is not None and letter.offset not in done[letter.partition]
                kept.append(letter)
                if len(kept) > 2 * limit + LETTERS_OF_A_TRANSACTION:
                    kept = _newest(kept, limit)
    views = tuple(view_of(letter, replayed=letter.offset in done[letter.partition]) for letter in _newest(kept, limit))
    return DeadLetterList(sink=sink, topic=letters_of.topic, waiting=waiting, letters=views)


async def replay_letters(graph: LogicalGraph, sink: str, ids: Sequence[str] | None) -> int:
    """Send letters back to where their records came from: those with these ids, or (None) all that wait, at most
    `LETTERS_AT_ONCE`, oldest first. Those sent before are left out. How many were sent. Raises ServiceFault."""
    letters_of = dead_letter_sink(graph, sink)
    wanted = None if ids is None else _offsets(ids)
    sent = 0
    with _refusals("What was sent was recorded with it: look again, then go on"):
        async with asyncio.timeout(REPLAYING_S), _connected(letters_of) as client:
            partitions = (await find_topic(client, letters_of.topic, why=letters_of.why)).partitions
            async with _producer(letters_of) as producer:  # from here on no other replay can commit
                done = await _replayed(client, letters_of, partitions)
                bounds = await _bounds(client, letters_of, partitions)
                known = _to_read(bounds, done, wanted)
                letters = [
                    letter
                    async for letter in _read(client, letters_of, known)
                    if letter.offset not in done[letter.partition]
                ]
                chosen = _chosen(letters, wanted, done)
                waiting = {p: [one.offset for one in letters if one.partition == p and one.target] for p in known}
                todo = iter(chosen)
                while batch := list(islice(todo, LETTERS_OF_A_TRANSACTION)):
                    await _send(producer, letters_of, batch, done, waiting, known)
                    sent += len(batch)
    log.info("dead letters replayed", pipeline=graph.pipeline, sink=sink, letters=sent)
    return sent


def _offsets(ids: Sequence[str]) -> dict[int, set[int]]:
    """Offsets by partition."""
    wanted: dict[int, set[int]] = defaultdict(set)
    for one in ids:
        partition, colon, offset = one.partition(":")
        if not colon or not all(
            part.isascii() and part.isdecimal() and len(part) <= 18 for part in (partition, offset)
        ):
            raise ServiceFault(422, "invalid-request", "There is no such letter", f"{one[:40]!r} is no id of a letter")
        wanted[int(partition)].add(int(offset))
    return wanted


def _to_read(
    bounds: Mapping[int, tuple[int, int]], done: Mapping[int, Replayed], wanted: Mapping[int, set[int]] | None
) -> dict[int, tuple[int, int]]:
    """Ranges that hold what is wanted, and all that waits before it: so that what is recorded stays short."""
    share = max(1, OFFSETS_LOOKED_AT // len(bounds))
    known_from = {p: max(first, done[p].below) for p, (first, _) in bounds.items()}
    if wanted is None:
        return {p: (known_from[p], min(end, known_from[p] + share)) for p, (_, end) in bounds.items()}
    ranges = {}
    for partition, offsets in wanted.items():
        if partition not in bounds:
            raise _gone(partition, min(offsets))
        first, end = bounds[partition]
        ranges[partition] = max(first, min(known_from[partition], min(offsets))), min(end, max(offsets) + 1)
        if ranges[partition][1] - ranges[partition][0] > OFFSETS_LOOKED_AT:
            raise Conflict("too many letters wait before the selected ones: replay all of them, or older ones first")
    return ranges


def _chosen(
    letters: Sequence[Letter], wanted: Mapping[int, set[int]] | None, done: Mapping[int, Replayed]
) -> list[Letter]:
    if wanted is None:
        return [letter for letter in letters if letter.target][:LETTERS_AT_ONCE]
    found = {(letter.partition, letter.offset): letter for letter in letters}
    chosen = []
    for partition, offsets in wanted.items():
        for offset in sorted(offsets):
            if offset in done[partition]:
                continue
            letter = found.get((partition, offset))
            if letter is None:
                raise _gone(partition, offset)
            if letter.target is None:
                raise Conflict(f"letter {letter.id} cannot be replayed: {letter.reason}")
            chosen.append(letter)
    return chosen


def _gone(partition: int, offset: int) -> ServiceFault:
    detail = f"there is no letter {partition}:{offset} (any more)"
    return ServiceFault(404, "unknown-letter", "There is no such letter", detail)


async def _send(
    producer: Any,
    letters_of: DeadLetterSink,
    batch: Sequence[Letter],
    done: dict[int, Replayed],
    waiting: Mapping[int, list[int]],
    known: Mapping[int, tuple[int, int]],
) -> None:
    """One transaction: the records, and that they were sent. `done` and `waiting` follow once it is committed."""
    after, left = dict(done), dict(waiting)
    for partition in {letter.partition for letter in batch}:
        offsets = {letter.offset for letter in batch if letter.partition == partition}
        left[partition] = [offset for offset in waiting[partition] if offset not in offsets]
        after[partition] = done[partition].adding(offsets, left[partition], known[partition])
        if len(after[partition].metadata()) > METADATA_CHARS_MAX:
            raise Conflict("letters are replayed in too many places: replay all of them, or the oldest first")
    committed = {
        TopicPartition(letters_of.topic, partition): OffsetAndMetadata(now.below, now.metadata())
        for partition, now in after.items()
        if now != done[partition]
    }
    try:
        with translated():
            await producer.begin_transaction()
            acknowledged = [await _queue(producer, letters_of, letter) for letter in batch]
            await asyncio.gather(*acknowledged)
            await producer.send_offsets_to_transaction(committed, letters_of.replayer)
            await producer.commit_transaction()
    except BaseException:
        # While it is open it holds back whoever reads the topics: brokers, or the next replay, end it in the end.
        with contextlib.suppress(TimeoutError, kafka_errors.KafkaError):
            async with asyncio.timeout(_ABORT_S):
                await producer.abort_transaction()
        raise
    done.update(after)
    for partition, offsets_left in left.items():
        waiting[partition][:] = offsets_left


async def _queue(producer: Any, letters_of: DeadLetterSink, letter: Letter) -> asyncio.Future[Any]:
    assert letter.target is not None, "chosen letters can be replayed"
    topic, partition = letter.target
    origin = f"{letters_of.topic}-{letter.partition}:{letter.offset}".encode()
    record = letter.record
    queued: asyncio.Future[Any] = await producer.send(
        topic, record.value, key=record.key, partition=partition, headers=[("streamproc-replayed", origin)]
    )
    return queued


async def _replayed(client: Client, letters_of: DeadLetterSink, partitions: Sequence[int]) -> dict[int, Replayed]:
    group, topic = letters_of.replayer, letters_of.topic
    found = await committed_offsets(client, group, topic, partitions, why=letters_of.why)
    try:
        return {p: Replayed.from_committed(*found[p]) if p in found else Replayed() for p in partitions}
    except ValueError as error:
        raise Conflict(f"offsets of the consumer group {group} were not written by this service: {error}") from error


async def _bounds(client: Client, letters_of: DeadLetterSink, partitions: Sequence[int]) -> dict[int, tuple[int, int]]:
    """First offset, and the one behind the last committed record."""
    await client.follow(letters_of.topic)
    first, end = [
        await list_offsets(
            client, letters_of.topic, dict.fromkeys(partitions, which), "read_committed", why=letters_of.why
        )
        for which in (EARLIEST, LATEST)
    ]
    return {partition: (first[partition], end[partition]) for partition in partitions}


async def _read(
    client: Client, letters_of: DeadLetterSink, ranges: Mapping[int, tuple[int, int]]
) -> AsyncIterator[Letter]:
    """Letters with offsets in these ranges [first, stop), of one partition in order."""
    fetcher = Fetcher(client, letters_of.topic, "read_committed", why=letters_of.why)
    fetcher.feeds = {p: PartitionFeed(p, first, stop) for p, (first, stop) in ranges.items() if first < stop}
    try:
        while not all(feed.finished for feed in fetcher.feeds.values()):
            fetcher.arrived.clear()
            fetcher.pump()
            if not any(feed.waiting for feed in fetcher.feeds.values()):
                await fetcher.arrived.wait()
            if fetcher.failure is not None:
                raise fetcher.failure
            for feed in fetcher.feeds.values():
                first, stop = ranges[feed.partition]
                while feed.waiting:
                    _, readable = feed.waiting[0]
                    batch = feed.pop()
                    records = await asyncio.to_thread(batch.records, first, stop) if readable else []
                    for record in records:
                        yield letters_of.letter(feed.partition, record)
                    feed.position = batch.next_offset
    finally:
        await fetcher.close()


@asynccontextmanager
async def _connected(letters_of: DeadLetterSink) -> AsyncIterator[Client]:
    """Whoever asks is waiting: no second attempt is made."""
    client = Client(client_options(letters_of.connection))
    try:
        try:
            async with asyncio.timeout(CONNECTING_S):
                await client.start()
        except TimeoutError as error:
            raise NoConnection(f"{', '.join(client.brokers)} did not answer within {CONNECTING_S:.0f} s") from error
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def _producer(letters_of: DeadLetterSink) -> AsyncIterator[Any]:
    """The only one that can commit a replay of this sink from now on."""
    producer: Any = _new_producer(
        **client_options(letters_of.connection),
        transactional_id=letters_of.replayer,
        transaction_timeout_ms=_TRANSACTION_MS,
        max_request_size=_REQUEST_BYTES_MAX,
    )
    try:
        try:
            with translated():
                await producer.start()
        except AssertionError as error:  # how aiokafka says that the cluster has no broker at the moment
            raise Unreachable("no broker is known yet") from error
        yield producer
    finally:
        with contextlib.suppress(TimeoutError, kafka_errors.KafkaError):
            async with asyncio.timeout(_CLOSE_S):
                await producer.stop()


@contextmanager
def _refusals(then: str) -> Iterator[None]:
    """What keeps us from it, as the API says it. `then`: what to do where it was cut short."""
    try:
        yield
    except TimeoutError as error:
        detail = f"Kafka did not answer in time. {then}"
        raise ServiceFault(503, "unavailable", "Kafka does not answer", detail) from error
    except Unreachable as error:
        if isinstance(error.__cause__, kafka_errors.ProducerFenced):
            raise Conflict("another replay of this sink has begun; this one has ended") from error
        detail = f"no broker takes a connection: {error}" if isinstance(error, NoConnection) else str(error)
        raise ServiceFault(503, "unavailable", "Kafka does not answer", detail) from error


def _newest(letters: list[Letter], limit: int) -> list[Letter]:
    return sorted(letters, key=lambda one: (one.record.timestamp, one.partition, one.offset), reverse=True)[:limit]
