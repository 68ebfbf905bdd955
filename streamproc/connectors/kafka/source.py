"""A Kafka topic as a source: every partition is a split, read from an exact offset and never silently from another.

Partition p belongs to subtask `(p + crc32(source name)) % parallelism`. A position is
`{"offset": next, "stop": end or null, "topic_id": …}`; the id tells a topic that was deleted and created again.
"""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Final

from operators.connector import Decoded, Fetched, Position, SplitId
from operators.types import FieldType
from streamproc.connectors.kafka.aiokafka_private import Client, TopicDescription
from streamproc.connectors.kafka.broker_errors import Contact, Unreachable
from streamproc.connectors.kafka.client import connect, find_topic, log, missing_topic_text
from streamproc.connectors.kafka.decoding import OFFSET_MAX, Piece, RowFormat, row_format, split_id
from streamproc.connectors.kafka.failure import KafkaRefused, TopicMissing, TopicRecreated
from streamproc.connectors.kafka.fetcher import Fetcher, PartitionFeed
from streamproc.connectors.kafka.offsets import EARLIEST, LATEST, NOT_FOUND, Isolation, list_offsets
from streamproc.connectors.kafka.record_batch import RawBatch
from streamproc.pipeline.spec import KafkaConnectionSpec, KafkaSourceSpec, StartTimestamp

DISCOVERY_S: Final = 10.0
_TOPIC_GONE_S: Final = 5.0  # absent for so long in what brokers say, a topic counts as deleted
_TOPIC_GONE_POLL_S: Final = 1.0


class KafkaSource:
    """One `type: kafka` source of a pipeline file."""

    def __init__(
        self,
        name: str,
        config: KafkaSourceSpec,
        connection: KafkaConnectionSpec,
        fields: Mapping[str, FieldType],
        *,
        required: Sequence[str] = (),
        isolation: Isolation = "read_committed",
        discovery_s: float = DISCOVERY_S,
    ) -> None:
        self.name = name
        self.config = config
        self.connection = connection
        self.isolation: Isolation = isolation
        self.discovery_s = discovery_s
        self.form = row_format(name, config.topic, config.format, fields, config.metadata, required)

    @property
    def bounded(self) -> bool:
        """Whether input ends by itself: `stop: latest`."""
        return self.config.stop == "latest"

    def reader(self, subtask: int, parallelism: int) -> KafkaReader:
        """The reader of one subtask."""
        return KafkaReader(self, subtask, parallelism)


class KafkaReader:
    """One subtask's partitions of the topic."""

    def __init__(self, source: KafkaSource, subtask: int, parallelism: int) -> None:
        self._source = source
        self._topic = source.config.topic
        self._why = f"source {source.name}"
        self._subtask = subtask
        self._parallelism = parallelism
        self._topic_id = ""
        self._contact = Contact()
        self._client: Client | None = None
        self._fetcher: Fetcher | None = None
        self._watching: asyncio.Task[None] | None = None
        self._untold: set[int] = set()  # partitions that had nothing to read: to be said once

    async def open(self, restored: Mapping[SplitId, Position] | None) -> None:
        """Connect (waiting for the broker), find our partitions and where each begins and ends."""
        self._client = await connect(self._source.connection, why=self._why, contact=self._contact)
        topic = await find_topic(self._client, self._topic, why=self._why)
        self._topic_id = topic.topic_id
        await self._client.follow(self._topic)
        self._fetcher = Fetcher(self._client, self._topic, self._source.isolation, why=self._why)
        for feed in await self._feeds(topic, restored or {}):
            self._fetcher.feeds[feed.partition] = feed
            if feed.finished:
                self._untold.add(feed.partition)
        self._fetcher.pump()
        self._watching = asyncio.create_task(self._watch())

    def splits(self) -> Mapping[SplitId, Position]:
        """Our partitions and the position behind what `fetch` has handed out."""
        return {self._split(feed): self._position(feed) for feed in self._feeds_now()}

    async def fetch(self, max_rows: int, timeout_s: float) -> Sequence[Fetched]:
        """Whole record batches, about `max_rows` rows of each partition at most (one batch may exceed it)."""
        assert self._fetcher is not None, "open first"
        fetched = self._take(max_rows)
        if not fetched and timeout_s > 0:
            try:
                async with asyncio.timeout(timeout_s):
                    await self._fetcher.arrived.wait()
            except TimeoutError:
                return []
            fetched = self._take(max_rows)
        return fetched

    def exhausted(self) -> bool:
        """Every partition has been read up to its stop; only where the source is bounded."""
        return self._source.bounded and self._fetcher is not None and all(f.finished for f in self._feeds_now())

    def lag_records(self) -> int | None:
        """Offsets between our positions and the ends of our partitions as last heard."""
        return None if self._fetcher is None else sum(feed.lag() for feed in self._feeds_now())

    def listening(self) -> bool:
        """Whether brokers answer for each of our partitions."""
        return self._fetcher is not None and self._fetcher.listening()

    def unreachable(self) -> str | None:
        """What connecting or fetching waits for at this moment."""
        return self._contact.trouble or (None if self._fetcher is None else self._fetcher.unreachable())

    async def close(self) -> None:
        """Stop fetching and disconnect; idempotent."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        if self._fetcher is not None:
            await self._fetcher.close()
        if self._client is not None:
            await self._client.close()

    def _feeds_now(self) -> list[PartitionFeed]:
        return list(self._fetcher.feeds.values()) if self._fetcher is not None else []

    def _is_ours(self, partition: int) -> bool:
        return (partition + zlib.crc32(self._source.name.encode())) % self._parallelism == self._subtask

    def _split(self, feed: PartitionFeed) -> SplitId:
        return split_id(self._topic, feed.partition)

    def _position(self, feed: PartitionFeed) -> Position:
        position: dict[str, int | str | None] = {"offset": feed.position, "stop": feed.stop}
        return position | {"topic_id": self._topic_id} if self._topic_id else position

    # --- where to begin and end

    async def _feeds(self, topic: TopicDescription, restored: Mapping[SplitId, Position]) -> list[PartitionFeed]:
        """Our partitions. Where a checkpoint knows splits of this source, it alone says where they begin."""
        self._check_restored(topic, restored)
        ours = [partition for partition in topic.partitions if self._is_ours(partition)]
        known = {p: restored[split] for p in ours if (split := split_id(self._topic, p)) in restored}
        if restored and self._source.bounded:
            ours = list(known)  # the others were not there when the end was fixed
        first = {p: int(known[p]["offset"]) for p in known}
        first |= await self._first_offsets([p for p in ours if p not in known], new=bool(restored))
        ends = await self._list(dict.fromkeys(ours, LATEST))
        feeds = []
        for partition in ours:
            stop = known[partition].get("stop") if partition in known else None
            if not self._source.bounded:
                stop = None
            elif stop is None:
                stop = ends[partition]
            feeds.append(PartitionFeed(partition, first[partition], stop, ends[partition]))
        return feeds

    def _check_restored(self, topic: TopicDescription, restored: Mapping[SplitId, Position]) -> None:
        there = {split_id(self._topic, partition) for partition in topic.partitions}
        for split, position in restored.items():
            if split not in there:
                raise TopicRecreated(
                    f"{self._why}: {split} of the checkpoint is not in topic {self._topic!r} (any more): "
                    "start the pipeline without its checkpoints, or name the topic it was made with"
                )
            if topic.topic_id and position.get("topic_id", topic.topic_id) != topic.topic_id:
                raise TopicRecreated(self._recreated_text())

    def _recreated_text(self) -> str:
        return (
            f"{self._why}: topic {self._topic!r} was deleted and created again: offsets of the old one mean nothing "
            "in it. Start the pipeline without its checkpoints to read the new topic"
        )

    async def _first_offsets(self, partitions: Sequence[int], *, new: bool) -> dict[int, int]:
        """Where partitions without a position begin. `new` ones came since: from their start in any case."""
        start = self._source.config.start
        if new or start == "earliest":
            return await self._list(dict.fromkeys(partitions, EARLIEST))
        ends = await self._list(dict.fromkeys(partitions, LATEST))
        if not isinstance(start, StartTimestamp):
            return ends
        wanted = dict.fromkeys(partitions, _epoch_ms(start.timestamp))
        found = await self._list(wanted)
        return {p: ends[p] if found.get(p, NOT_FOUND) == NOT_FOUND else found[p] for p in partitions}

    async def _list(self, wanted: Mapping[int, int]) -> dict[int, int]:
        assert self._client is not None
        return await list_offsets(self._client, self._topic, wanted, self._source.isolation, why=self._why)

    # --- handing out

    def _take(self, max_rows: int) -> list[Fetched]:
        assert self._fetcher is not None
        if self._fetcher.failure is not None:
            raise self._fetcher.failure
        self._fetcher.arrived.clear()
        taken = [piece for feed in self._feeds_now() if (piece := self._take_from(feed, max_rows)) is not None]
        if taken:
            if any(feed.waiting for feed in self._feeds_now()):
                self._fetcher.arrived.set()
            self._fetcher.pump()
        return taken

    def _take_from(self, feed: PartitionFeed, max_rows: int) -> Fetched | None:
        first, stop = feed.position, OFFSET_MAX if feed.stop is None else feed.stop
        batches: list[RawBatch] = []
        rows = size = passed = 0
        while feed.waiting and feed.position < stop:
            batch, readable = feed.waiting[0]
            count = batch.rows_between(first, stop) if readable else 0
            if batches and rows + count > max_rows:
                break
            feed.pop()
            passed += 1
            feed.position = min(max(feed.position, batch.next_offset), stop)
            if count:
                batches.append(batch)
                rows += count
                size += len(batch.raw)
        if not passed and feed.partition not in self._untold:
            return None
        if feed.finished:
            feed.drop_waiting()
        self._untold.discard(feed.partition)
        decode = _decoder(Piece(feed.partition, first, stop, batches), self._source.form)
        return Fetched(self._split(feed), self._position(feed), rows, size, decode, feed.finished)

    # --- watching the topic

    async def _watch(self) -> None:
        """Find new partitions, and how far behind we are; notice a topic that was deleted or created again."""
        assert self._client is not None
        assert self._fetcher is not None
        loop = asyncio.get_running_loop()
        gone_since: float | None = None
        while True:
            pause_s = self._source.discovery_s if gone_since is None else _TOPIC_GONE_POLL_S
            try:
                # Not `wait_for`: before Python 3.12 it forgets a cancellation that comes together with the event.
                async with asyncio.timeout(pause_s):
                    await self._fetcher.topic_unknown.wait()
            except TimeoutError:
                pass
            else:
                self._fetcher.topic_unknown.clear()
                await asyncio.sleep(min(pause_s, _TOPIC_GONE_POLL_S))
            try:
                topic = await self._client.describe_topic(self._topic)
                if topic is None:
                    gone_since = gone_since or loop.time()
                    if loop.time() - gone_since > _TOPIC_GONE_S:
                        raise TopicMissing(
                            f"topic {self._topic!r} was deleted while {self._why} read it. "
                            + missing_topic_text(self._topic, await self._client.topic_names(), why=self._why)
                        )
                    continue
                gone_since = None
                if self._topic_id and topic.topic_id != self._topic_id:
                    raise TopicRecreated(self._recreated_text())
                await self._add_new(topic)
                await self._look_at_ends()
            except Unreachable:
                continue  # the fetcher says so
            except Exception as error:
                self._fetcher.fail(error)
                return

    async def _add_new(self, topic: TopicDescription) -> None:
        assert self._client is not None
        assert self._fetcher is not None
        if self._source.bounded:
            return
        new = [p for p in topic.partitions if self._is_ours(p) and p not in self._fetcher.feeds]
        if not new:
            return
        await self._client.refresh()
        for partition, offset in (await self._first_offsets(new, new=True)).items():
            log.info("new partition", source=self._source.name, split=split_id(self._topic, partition), offset=offset)
            self._fetcher.feeds[partition] = PartitionFeed(partition, offset)
        self._fetcher.pump()

    async def _look_at_ends(self) -> None:
        """Of partitions that are not asked for more, because nobody takes what was fetched: they go on growing."""
        heard_s = time.monotonic() - self._source.discovery_s
        feeds = [feed for feed in self._feeds_now() if feed.stop is None and feed.heard_s < heard_s]
        if not feeds:
            return
        ends = await self._list(dict.fromkeys((feed.partition for feed in feeds), LATEST))
        for feed in feeds:
            feed.end = max(feed.end, ends[feed.partition])


def _decoder(piece: Piece, form: RowFormat) -> Callable[[], Decoded]:
    return partial(piece.decode, form)


def _epoch_ms(timestamp: str) -> int:
    try:
        moment = datetime.fromisoformat(timestamp)
    except ValueError as error:
        raise KafkaRefused(f"start.timestamp {timestamp!r} is not an ISO-8601 time") from error
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
