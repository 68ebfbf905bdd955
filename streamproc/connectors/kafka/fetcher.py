"""Keeps a bounded number of bytes of raw record batches ahead of the reader, for some partitions of one topic.

One request at a time to each broker, which waits there until records arrive. A partition is asked for
while little of it waits here, so that decoding and fetching overlap; what waits is bounded, which is how
a slow pipeline slows its source down.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from aiokafka.protocol.fetch import FetchRequest

from streamproc.connectors.kafka.aiokafka_private import Client
from streamproc.connectors.kafka.broker_errors import Unreachable, error_name
from streamproc.connectors.kafka.client import log, log_unreachable
from streamproc.connectors.kafka.failure import BrokerError, KafkaRefused, OffsetUnavailable, UnreadableBatch
from streamproc.connectors.kafka.offsets import (
    EARLIEST,
    ISOLATION_LEVELS,
    LATEST,
    OFFSET_OUT_OF_RANGE,
    PASSING_ERRORS,
    TOPIC_REFUSED,
    UNKNOWN_TOPIC,
    Isolation,
    list_offsets,
)
from streamproc.connectors.kafka.record_batch import RawBatch, split_batches, visible

FETCH_BYTES_MAX: Final = 32 << 20  # of one response; a single larger batch still comes
PARTITION_BYTES_MAX: Final = 4 << 20
_ENOUGH_PARTITION_BYTES: Final = 2 << 20  # with this much of a partition waiting here, no more is asked for
_ENOUGH_BYTES: Final = 32 << 20  # the same for all partitions together
_WAIT_MS: Final = 500
_SHORT_WAIT_MS: Final = 10  # when partitions are left out of a request: they must not wait behind it
_ERROR_PAUSE_S: Final = 0.2
_AWAY_S: Final = 5.0  # the same, where it may be sending what takes its time
_ANSWER_S_MAX: Final = 2.0  # a broker that takes longer to say that there is nothing is away


@dataclass(slots=True)
class PartitionFeed:
    """One partition: what waits here, and how far it has been handed out and fetched."""

    partition: int
    position: int  # offset of the next record to hand out
    stop: int | None = None  # nothing at or behind this offset is wanted
    end: int = 0  # behind the last (stable) record, as last heard
    fetch_from: int = field(init=False)
    waiting: deque[tuple[RawBatch, bool]] = field(default_factory=deque)  # and whether its records may be read
    waiting_bytes: int = 0
    heard_s: float = field(default_factory=time.monotonic)  # when a broker answered last

    def __post_init__(self) -> None:
        self.fetch_from = self.position

    @property
    def finished(self) -> bool:
        """Everything before `stop` has been handed out."""
        return self.stop is not None and self.position >= self.stop

    @property
    def fetched(self) -> bool:
        """Everything before `stop` has been fetched."""
        return self.stop is not None and self.fetch_from >= self.stop

    def lag(self) -> int:
        """Records still to hand out, as far as known."""
        return max(0, (self.end if self.stop is None else self.stop) - self.position)

    def put(self, batches: Iterable[tuple[RawBatch, bool]]) -> None:
        """Batches that were fetched next."""
        for batch, readable in batches:
            if batch.next_offset <= self.fetch_from:
                continue
            self.waiting.append((batch, readable))
            self.waiting_bytes += len(batch.raw)
            self.fetch_from = batch.next_offset

    def pop(self) -> RawBatch:
        """The batch that waits longest."""
        batch, _ = self.waiting.popleft()
        self.waiting_bytes -= len(batch.raw)
        return batch

    def drop_waiting(self) -> None:
        """Nothing more is wanted."""
        self.waiting.clear()
        self.waiting_bytes = 0


class Fetcher:
    """Fetches for every feed in `feeds`. What ends it for good is in `failure`."""

    def __init__(self, client: Client, topic: str, isolation: Isolation, *, why: str) -> None:
        self.feeds: dict[int, PartitionFeed] = {}
        self.failure: BaseException | None = None
        self.arrived = asyncio.Event()  # something to take, or a failure
        self.topic_unknown = asyncio.Event()  # a broker does not know (one of) our partitions
        self._client = client
        self._topic = topic
        self._isolation: Isolation = isolation
        self._why = why
        self._asking: dict[int, asyncio.Task[None]] = {}
        self._away: set[int] = set()  # brokers that did not answer when they were asked last
        self._asked_s: dict[int, float] = {}  # when each broker was asked what it has not answered yet
        self._refreshing: asyncio.Task[None] | None = None
        self._attempts = 0
        self._closed = False

    def pump(self) -> None:
        """Start the requests that are due; called whenever feeds were added or taken from."""
        if self._closed or self.failure is not None:
            return
        due: dict[int, list[PartitionFeed]] = defaultdict(list)
        left_out: set[int] = set()
        room = sum(feed.waiting_bytes for feed in self.feeds.values()) < _ENOUGH_BYTES
        for feed in self.feeds.values():
            if feed.fetched:
                continue
            leader = self._client.leader(self._topic, feed.partition)
            if leader is None:
                self._refresh_soon()
            elif room and feed.waiting_bytes < _ENOUGH_PARTITION_BYTES:
                due[leader].append(feed)
            else:
                left_out.add(leader)
        for leader, feeds in due.items():
            if leader not in self._asking:
                wait_ms = _SHORT_WAIT_MS if leader in left_out else _WAIT_MS
                task = asyncio.create_task(self._ask(leader, feeds, wait_ms))
                self._asking[leader] = task
                self._asked_s[leader] = time.monotonic()
                task.add_done_callback(lambda done, leader=leader: self._asked(leader, done))  # type: ignore[misc]

    def listening(self) -> bool:
        """Whether each partition has something here, or its broker has just said that there is nothing."""
        since_s = time.monotonic() - _ANSWER_S_MAX
        return all(feed.fetched or feed.waiting or feed.heard_s >= since_s for feed in self.feeds.values())

    def unreachable(self) -> str | None:
        """What keeps records from coming, where that is not that there are none."""
        if (trouble := self._client.contact.trouble) is not None:
            return trouble
        now_s = time.monotonic()
        for feed in self.feeds.values():
            if feed.fetched or feed.waiting:
                continue
            leader = self._client.leader(self._topic, feed.partition)
            if leader is None and now_s - feed.heard_s > _ANSWER_S_MAX:
                return f"partition {feed.partition} of {self._topic} has no leader"
            if leader in self._away or (leader is not None and now_s - self._asked_s.get(leader, now_s) > _AWAY_S):
                return "the broker does not answer"
        return None

    async def close(self) -> None:
        """Ask no more."""
        self._closed = True
        tasks = [*self._asking.values(), *([self._refreshing] if self._refreshing else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def fail(self, failure: BaseException) -> None:
        """End for good, unless that has happened."""
        self.failure = self.failure or failure
        self.arrived.set()

    def _asked(self, leader: int, task: asyncio.Task[None]) -> None:
        del self._asking[leader]
        self._asked_s.pop(leader, None)
        if not task.cancelled():
            if (error := task.exception()) is not None:
                self.fail(error)
            self.pump()

    def _refresh_soon(self) -> None:
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.create_task(self._refresh())
            self._refreshing.add_done_callback(self._refreshed)

    def _refreshed(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            if (error := task.exception()) is not None:
                self.fail(error)
            self.pump()

    async def _refresh(self) -> None:
        try:
            await self._client.refresh()
        except Unreachable as error:
            self._attempts += 1
            await log_unreachable(self._attempts, brokers=self._client.brokers, why=self._why, error=error)
        else:
            await asyncio.sleep(_ERROR_PAUSE_S)

    async def _ask(self, leader: int, feeds: list[PartitionFeed], wait_ms: int) -> None:
        asked = {feed.partition: feed.fetch_from for feed in feeds}
        partitions = [(partition, offset, PARTITION_BYTES_MAX) for partition, offset in asked.items()]
        level = ISOLATION_LEVELS[self._isolation]
        request = FetchRequest(wait_ms, 1, FETCH_BYTES_MAX, level, [(self._topic, partitions)], rack_id="")
        try:
            response = await self._client.send(leader, request)
        except Unreachable as error:
            self._attempts += 1
            self._away.add(leader)
            await log_unreachable(self._attempts, brokers=self._client.brokers, why=self._why, error=error)
            await self._refresh()
            return
        self._asked_s.pop(leader, None)
        self._away.discard(leader)
        if self._attempts:
            self._attempts = 0
            log.info("broker reachable again", brokers=self._client.brokers, needed_by=self._why)
        passing: set[int] = set()
        for _, answers in response.topics:
            for partition, code, *rest in answers:
                feed = self.feeds.get(partition)
                if feed is None or feed.fetch_from != asked.get(partition):
                    continue
                if code == 0:
                    self._take(feed, response.API_VERSION, rest)
                else:
                    passing.add(code)
                    await self._judge(feed, code)
        if passing:
            await self._refresh()

    def _take(self, feed: PartitionFeed, version: int, answer: list[Any]) -> None:
        """`answer`: high watermark, last stable offset, …, aborted transactions, (preferred replica,) batches."""
        committed = self._isolation == "read_committed"
        feed.heard_s = time.monotonic()
        feed.end = answer[1] if committed else answer[0]
        aborted = (answer[-3] if version >= 11 else answer[-2]) or ()
        try:
            feed.put(visible(split_batches(answer[-1] or b""), aborted if committed else None))
        except UnreadableBatch as error:
            raise UnreadableBatch(f"{self._why}: {self._topic}-{feed.partition}: {error}") from error
        if feed.waiting:
            self.arrived.set()

    async def _judge(self, feed: PartitionFeed, code: int) -> None:
        """Raise what will not pass."""
        place = f"{self._why}: {self._topic}-{feed.partition}"
        if code == UNKNOWN_TOPIC:
            self.topic_unknown.set()
        elif code == OFFSET_OUT_OF_RANGE:
            ends = []
            for which in (EARLIEST, LATEST):
                wanted = {feed.partition: which}
                found = await list_offsets(self._client, self._topic, wanted, "read_uncommitted", why=self._why)
                ends.append(found[feed.partition])
            if not ends[0] <= feed.fetch_from <= ends[1]:
                raise OffsetUnavailable(out_of_range_text(place, feed.fetch_from, ends[0], ends[1]))
        elif code == TOPIC_REFUSED:
            raise KafkaRefused(f"{place}: not authorised to read the topic")
        elif code not in PASSING_ERRORS:
            raise BrokerError(f"{place}: the broker answered {error_name(code)} to a fetch at offset {feed.fetch_from}")


def out_of_range_text(place: str, offset: int, first: int, end: int) -> str:
    """Names the place, the offsets there are and what to do."""
    if offset < first:
        cause = (
            f"{first - offset} records were deleted before they were read, by retention or by hand. "
            "Let the topic keep records for longer (retention.ms)"
        )
    else:
        cause = "the topic was truncated or created again"
    return (
        f"{place}: offset {offset} is not available, the partition holds {first} to {end}: {cause}. "
        "To go on without them, start the pipeline without its checkpoints"
    )
