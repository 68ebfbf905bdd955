"""Kafka messages that aiokafka 0.14 lacks: metadata with topic ids, InitProducerId that knows the epoch it
replaces, and what describes and lists transactions. Field orders are those of Kafka's protocol guide.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any, ClassVar

from aiokafka.protocol.abstract import AbstractType
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Int64,
    Schema,
    TaggedFields,
)


class Uuid(AbstractType[bytes]):
    """Sixteen bytes; all zero where there is none."""

    @classmethod
    def encode(cls, value: bytes) -> bytes:
        """The bytes themselves."""
        return value

    @classmethod
    def decode(cls, data: BytesIO) -> bytes:
        """The next sixteen bytes."""
        return data.read(16)


NO_UUID = bytes(16)


class _MetadataResponse(Response):
    API_KEY = 3
    API_VERSION = 12
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(
                ("node_id", Int32),
                ("host", CompactString("utf-8")),
                ("port", Int32),
                ("rack", CompactString("utf-8")),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_id", CompactString("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("name", CompactString("utf-8")),
                ("topic_id", Uuid),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline", CompactArray(Int32)),
                        ("tags", TaggedFields),
                    ),
                ),
                ("authorized_operations", Int32),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class _MetadataRequest12(RequestStruct):
    API_KEY = 3
    API_VERSION = 12
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _MetadataResponse
    SCHEMA = Schema(
        (
            "topics",
            CompactArray(("topic_id", Uuid), ("name", CompactString("utf-8")), ("tags", TaggedFields)),
        ),
        ("allow_auto_topic_creation", Boolean),
        ("include_topic_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class DescribeTopicRequest(Request[_MetadataRequest12]):
    """Metadata of one topic, never creating it. Brokers since 3.0."""

    API_KEY: ClassVar[int] = 3

    def __init__(self, topic: str) -> None:
        self._topic = topic

    def build(self, request_struct_class: type[_MetadataRequest12]) -> _MetadataRequest12:
        """The struct to send."""
        return request_struct_class([(NO_UUID, self._topic, {})], False, False, {})


class _InitProducerIdResponse(Response):
    API_KEY = 22
    API_VERSION = 4
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("error_code", Int16),
        ("producer_id", Int64),
        ("producer_epoch", Int16),
        ("tags", TaggedFields),
    )


class _InitProducerIdRequest4(RequestStruct):
    API_KEY = 22
    API_VERSION = 4
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _InitProducerIdResponse
    SCHEMA = Schema(
        ("transactional_id", CompactString("utf-8")),
        ("transaction_timeout_ms", Int32),
        ("producer_id", Int64),
        ("producer_epoch", Int16),
        ("tags", TaggedFields),
    )


class InitProducerIdRequest(Request[_InitProducerIdRequest4]):
    """A new epoch of a transactional id. With the current `producer_id` and `epoch` it is refused when
    somebody else has moved on since; with -1, -1 it takes over whoever holds the id. Brokers since 2.7."""

    API_KEY: ClassVar[int] = 22

    def __init__(self, transactional_id: str, timeout_ms: int, producer_id: int = -1, epoch: int = -1) -> None:
        self._fields: tuple[Any, ...] = (transactional_id, timeout_ms, producer_id, epoch, {})

    def build(self, request_struct_class: type[_InitProducerIdRequest4]) -> _InitProducerIdRequest4:
        """The struct to send."""
        return request_struct_class(*self._fields)


class _DescribeTransactionsResponse(Response):
    API_KEY = 65
    API_VERSION = 0
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "transactions",
            CompactArray(
                ("error_code", Int16),
                ("transactional_id", CompactString("utf-8")),
                ("state", CompactString("utf-8")),
                ("timeout_ms", Int32),
                ("started_ms", Int64),
                ("producer_id", Int64),
                ("producer_epoch", Int16),
                (
                    "topics",
                    CompactArray(
                        ("topic", CompactString("utf-8")),
                        ("partitions", CompactArray(Int32)),
                        ("tags", TaggedFields),
                    ),
                ),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class _DescribeTransactionsRequest0(RequestStruct):
    API_KEY = 65
    API_VERSION = 0
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _DescribeTransactionsResponse
    SCHEMA = Schema(("transactional_ids", CompactArray(CompactString("utf-8"))), ("tags", TaggedFields))


class DescribeTransactionRequest(Request[_DescribeTransactionsRequest0]):
    """State and epoch of one transactional id, without touching it. Brokers since 3.0."""

    API_KEY: ClassVar[int] = 65

    def __init__(self, transactional_id: str) -> None:
        self._transactional_id = transactional_id

    def build(self, request_struct_class: type[_DescribeTransactionsRequest0]) -> _DescribeTransactionsRequest0:
        """The struct to send."""
        return request_struct_class([self._transactional_id], {})


class _ListTransactionsResponse(Response):
    API_KEY = 66
    API_VERSION = 0
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("error_code", Int16),
        ("unknown_state_filters", CompactArray(CompactString("utf-8"))),
        (
            "transaction_states",
            CompactArray(
                ("transactional_id", CompactString("utf-8")),
                ("producer_id", Int64),
                ("transaction_state", CompactString("utf-8")),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class _ListTransactionsRequest0(RequestStruct):
    API_KEY = 66
    API_VERSION = 0
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _ListTransactionsResponse
    SCHEMA = Schema(
        ("state_filters", CompactArray(CompactString("utf-8"))),
        ("producer_id_filters", CompactArray(Int64)),
        ("tags", TaggedFields),
    )


class ListTransactionsRequest(Request[_ListTransactionsRequest0]):
    """Every transactional id that one broker coordinates, in any state. Brokers since 3.0."""

    API_KEY: ClassVar[int] = 66

    def build(self, request_struct_class: type[_ListTransactionsRequest0]) -> _ListTransactionsRequest0:
        """The struct to send."""
        return request_struct_class([], [], {})
