"""Asking brokers where partitions begin and end."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from typing import Final, Literal

from aiokafka.protocol.offset import OffsetRequest

from streamproc.connectors.kafka.aiokafka_private import Client
from streamproc.connectors.kafka.broker_errors import NotReady, error_name
from streamproc.connectors.kafka.client import TOPIC_WAIT_S, patiently
from streamproc.connectors.kafka.failure import KafkaRefused, TopicMissing

Isolation = Literal["read_committed", "read_uncommitted"]

EARLIEST: Final = -2
LATEST: Final = -1
NOT_FOUND: Final = -1  # no record is as young as the timestamp asked for

OFFSET_OUT_OF_RANGE: Final = 1
UNKNOWN_TOPIC: Final = 3
TOPIC_REFUSED: Final = 29
# Leader moved, not elected yet, or its disk is away: another broker will answer.
PASSING_ERRORS: Final = frozenset({5, 6, 7, 9, 13, 56, 74, 75, 76, 78})

ISOLATION_LEVELS: Final[Mapping[Isolation, int]] = {"read_uncommitted": 0, "read_committed": 1}


async def list_offsets(
    client: Client, topic: str, wanted: Mapping[int, int], isolation: Isolation, *, why: str
) -> dict[int, int]:
    """For each partition the first offset at or after a timestamp (ms), or `EARLIEST`, or `LATEST`: behind the
    last record, of committed readers behind the last stable one. `NOT_FOUND` when no record is that young.

    Waits for brokers that are away; a topic that is not there for `TOPIC_WAIT_S` is a `TopicMissing`.
    """
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + TOPIC_WAIT_S

    async def ask() -> dict[int, int]:
        found: dict[int, int] = {}
        by_leader: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for partition, timestamp in wanted.items():
            leader = client.leader(topic, partition)
            if leader is None:
                await client.refresh()
                raise NotReady(f"{topic}-{partition} has no leader")
            by_leader[leader].append((partition, timestamp))
        for leader, partitions in by_leader.items():
            request = OffsetRequest(-1, ISOLATION_LEVELS[isolation], [(topic, partitions)])
            response = await client.send(leader, request)
            for partition, code, _, offset in response.topics[0][1]:
                if code == UNKNOWN_TOPIC and loop.time() > give_up_at:
                    raise TopicMissing(f"topic {topic!r} of {why} has no partition {partition} (any more)")
                if code == UNKNOWN_TOPIC or code in PASSING_ERRORS:
                    await client.refresh()
                    raise NotReady(f"{topic}-{partition}: {error_name(code)}")
                if code != 0:
                    raise KafkaRefused(f"offsets of {topic}-{partition} for {why}: {error_name(code)}")
                found[partition] = offset
        return found

    return await patiently(ask, client=client, why=why) if wanted else {}
