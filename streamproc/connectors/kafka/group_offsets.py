"""Offsets that a consumer group has committed, with what was written beside them; never those of a transaction
that has not ended yet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Final

from aiokafka.client import CoordinationType
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Boolean, CompactArray, CompactString, Int16, Int32, Int64, Schema, TaggedFields

from streamproc.connectors.kafka.aiokafka_private import Client
from streamproc.connectors.kafka.broker_errors import NotReady, error_name
from streamproc.connectors.kafka.client import patiently
from streamproc.connectors.kafka.failure import KafkaRefused

_PASSING: Final = frozenset({14, 15, 16, 88})  # coordinator loading or moved; a transaction that is still being ended


class _OffsetFetchResponse(Response):
    API_KEY = 9
    API_VERSION = 7
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "topics",
            CompactArray(
                ("name", CompactString("utf-8")),
                (
                    "partitions",
                    CompactArray(
                        ("partition", Int32),
                        ("offset", Int64),
                        ("leader_epoch", Int32),
                        ("metadata", CompactString("utf-8")),
                        ("error_code", Int16),
                        ("tags", TaggedFields),
                    ),
                ),
                ("tags", TaggedFields),
            ),
        ),
        ("error_code", Int16),
        ("tags", TaggedFields),
    )


class _OffsetFetchRequest7(RequestStruct):
    API_KEY = 9
    API_VERSION = 7
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _OffsetFetchResponse
    SCHEMA = Schema(
        ("group", CompactString("utf-8")),
        (
            "topics",
            CompactArray(("name", CompactString("utf-8")), ("partitions", CompactArray(Int32)), ("tags", TaggedFields)),
        ),
        ("require_stable", Boolean),
        ("tags", TaggedFields),
    )


class _StableOffsetsRequest(Request[_OffsetFetchRequest7]):
    """Brokers since 2.5."""

    API_KEY: ClassVar[int] = 9

    def __init__(self, group: str, topic: str, partitions: Sequence[int]) -> None:
        self._fields: tuple[Any, ...] = (group, [(topic, list(partitions), {})], True, {})

    def build(self, request_struct_class: type[_OffsetFetchRequest7]) -> _OffsetFetchRequest7:
        """The struct to send."""
        return request_struct_class(*self._fields)


async def committed_offsets(
    client: Client, group: str, topic: str, partitions: Sequence[int], *, why: str
) -> dict[int, tuple[int, str]]:
    """By partition the offset and its metadata; a partition that nothing is committed for is left out. Waits for
    brokers that are away, and for a transaction that is being ended."""

    async def ask() -> dict[int, tuple[int, str]]:
        node = await client.coordinator(CoordinationType.GROUP, group)
        request = _StableOffsetsRequest(group, topic, partitions)
        response = await client.send(node, request, coordination=True)
        found: dict[int, tuple[int, str]] = {}
        answers = [one for _, each, _ in response.topics for one in each]
        for code in (response.error_code, *(answer[4] for answer in answers)):
            if code in _PASSING:
                raise NotReady(f"offsets of group {group}: {error_name(code)}")
            if code != 0:
                raise KafkaRefused(f"{why}: offsets of group {group!r}: {error_name(code)}")
        for partition, offset, _, metadata, *_ in answers:
            if offset >= 0:
                found[partition] = offset, metadata or ""
        return found

    return await patiently(ask, client=client, why=why)
