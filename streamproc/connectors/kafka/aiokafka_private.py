"""The only module that touches aiokafka's internals (0.14, pinned): its client as a plain request channel, and
its producer with finished record batches and a producer identity that we choose.

`tests/unit/connectors/kafka/test_aiokafka_private.py` fails when a new release changes what is relied on.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

import aiokafka.errors as kafka_errors
from aiokafka import AIOKafkaProducer
from aiokafka.client import AIOKafkaClient, ConnectionGroup, CoordinationType
from aiokafka.conn import AIOKafkaConnection, CloseReason, create_conn
from aiokafka.producer.transaction_manager import TransactionManager
from aiokafka.protocol.admin import DescribeConfigsRequest
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.structs import TopicPartition

from streamproc.connectors.kafka.broker_errors import Contact, NoConnection, Unreachable, error_name, translated
from streamproc.connectors.kafka.failure import KafkaRefused
from streamproc.connectors.kafka.protocol import NO_UUID, DescribeTopicRequest

_CLOSE_S: Final = 2.0  # a broker that hangs must not keep us from closing
_TOPIC_RESOURCE: Final = 2
_FOREVER_S: Final = 10.0**9
_CONNECTION_OPTIONS: Final = (
    "request_timeout_ms",
    "ssl_context",
    "security_protocol",
    "sasl_mechanism",
    "sasl_plain_username",
    "sasl_plain_password",
    "sasl_oauth_token_provider",
)
# aiokafka is partly untyped: these names carry no more than what is used of them here.
_new_client: Any = AIOKafkaClient
_new_producer: Any = AIOKafkaProducer
_new_transaction_manager: Any = TransactionManager
_create_conn: Any = create_conn


def _broken_when_lost(write: Callable[..., Any]) -> Callable[..., Any]:
    """A write to a connection that has just been lost raises RuntimeError under uvloop. aiokafka expects an
    OSError: its task that keeps metadata would die of the other, and all that waits for metadata with it."""

    @functools.wraps(write)
    def guarded(connection: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return write(connection, *args, **kwargs)
        except kafka_errors.KafkaError:  # a RuntimeError too
            raise
        except RuntimeError as error:
            connection.close(reason=CloseReason.CONNECTION_BROKEN)
            raise kafka_errors.KafkaConnectionError(f"connection lost: {error}") from error

    return guarded


_connection: Any = AIOKafkaConnection
_connection.send = _broken_when_lost(_connection.send)
_connection._send_sasl_token = _broken_when_lost(_connection._send_sasl_token)


class ProducerIdentity(NamedTuple):
    """Who a transaction belongs to. The epoch grows each time the transactional id is initialised."""

    producer_id: int
    epoch: int


NO_IDENTITY: Final = ProducerIdentity(-1, -1)


@dataclass(frozen=True, slots=True)
class TopicDescription:
    """A topic as the cluster knows it; `topic_id` is "" where brokers are too old to have one."""

    partitions: Sequence[int]
    topic_id: str


class _Start:
    """aiokafka leaves a connection open for good when it is cancelled while it begins: so it goes on to the end,
    which `settle` waits for."""

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None

    async def run(self, start: Coroutine[Any, Any, None]) -> None:
        """`start`, whose caller may be cancelled."""
        self._task = asyncio.create_task(start)
        await asyncio.shield(self._task)

    async def settle(self) -> None:
        """Until it has ended; a broker that hangs must not keep us."""
        if self._task is not None and not self._task.done():
            await asyncio.wait([self._task], timeout=_CLOSE_S)
            self._task.cancel()
            await asyncio.wait([self._task])
        if self._task is not None and not self._task.cancelled():
            self._task.exception()  # seen


class Client:
    """Connections to one cluster and its metadata. Every call raises `Unreachable` when nobody answers."""

    def __init__(self, options: Mapping[str, Any], contact: Contact | None = None) -> None:
        self.contact = contact or Contact()
        self._options = options
        self._client: Any = _new_client(**options)
        self._start = _Start()

    @property
    def brokers(self) -> list[str]:
        """The bootstrap addresses."""
        return list(self._options["bootstrap_servers"])

    async def start(self) -> None:
        """Connect once. `KafkaRefused` when a broker answers and does not want us."""
        error = "no broker given"
        settings = {name: self._options[name] for name in _CONNECTION_OPTIONS if name in self._options}
        for host, port, _ in self._client.hosts:
            try:
                with translated():  # aiokafka's bootstrap would hide why we are refused
                    probe = await _create_conn(host, port, **settings)
                    await asyncio.wait([probe.close()], timeout=_CLOSE_S)
                    await self._start.run(self._client.bootstrap())
                return
            except Unreachable as unreachable:
                error = f"{host}:{port}: {unreachable}"
        raise NoConnection(error)

    async def close(self) -> None:
        """Close every connection; idempotent."""
        await self._start.settle()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await self._client.close()

    async def send(self, node: int | None, request: Any, *, coordination: bool = False) -> Any:
        """One request to one broker (None: any), and its decoded response.

        Fetches wait on a broker: what must not wait behind them says `coordination`, a connection of its own.
        """
        group = ConnectionGroup.COORDINATION if coordination else ConnectionGroup.DEFAULT
        node = self._client.get_random_node() if node is None else node
        if node is None:
            raise Unreachable("no broker is known yet")
        with translated():
            return await self._client.send(node, request, group=group)

    def nodes(self) -> list[int]:
        """Ids of the brokers."""
        return [broker.nodeId for broker in self._client.cluster.brokers()]

    def leader(self, topic: str, partition: int) -> int | None:
        """The broker that leads a followed partition; None while unknown."""
        node: int | None = self._client.cluster.leader_for_partition(TopicPartition(topic, partition))
        return None if node == -1 else node

    async def follow(self, topic: str) -> None:
        """Keep leaders of this topic's partitions known."""
        with translated():
            await self._client.set_topics([topic])

    async def refresh(self) -> bool:
        """Ask for leaders again; False when nobody answered."""
        with translated():
            return bool(await self._client.force_metadata_update())

    async def describe_topic(self, topic: str) -> TopicDescription | None:
        """The topic as it is now; None when it does not exist. Never creates it."""
        code, topic_id, partitions = await self._topic_metadata(topic)
        if code == kafka_errors.UnknownTopicOrPartitionError.errno:
            return None
        if code in (kafka_errors.TopicAuthorizationFailedError.errno, kafka_errors.InvalidTopicError.errno):
            raise KafkaRefused(f"topic {topic!r}: {error_name(code)}")
        return TopicDescription(sorted(partitions), topic_id)

    async def _topic_metadata(self, topic: str) -> tuple[int, str, list[int]]:
        try:
            response = await self.send(None, DescribeTopicRequest(topic), coordination=True)
        except KafkaRefused as refused:
            if not isinstance(refused.__cause__, NotImplementedError):
                raise
            old = MetadataRequest([topic], allow_auto_topic_creation=False)
            response = await self.send(None, old, coordination=True)
            code, _, _, partitions = response.topics[0]
            return code, "", [partition[1] for partition in partitions]
        code, _, topic_id, _, partitions, _, _ = response.topics[0]
        return code, "" if topic_id == NO_UUID else topic_id.hex(), [partition[1] for partition in partitions]

    async def cluster_id(self) -> str:
        """What the cluster calls itself, at whatever addresses it is; empty where brokers do not say."""
        response = await self.send(None, MetadataRequest([], allow_auto_topic_creation=False), coordination=True)
        return getattr(response, "cluster_id", None) or ""

    async def topic_names(self) -> list[str]:
        """Names of the topics we may see; empty when brokers do not say."""
        with contextlib.suppress(Unreachable, KafkaRefused):
            response = await self.send(None, MetadataRequest(None), coordination=True)
            return [topic[1] for topic in response.topics]
        return []

    async def topic_setting(self, topic: str, name: str) -> str | None:
        """A topic's configuration value; None when we may not see it."""
        request = DescribeConfigsRequest([(_TOPIC_RESOURCE, topic, [name])])
        response = await self.send(None, request, coordination=True)
        for code, _, _, _, entries in response.resources:
            for entry in entries if code == 0 else ():
                if entry[0] == name:
                    value: str | None = entry[1]
                    return value
        return None

    async def transaction_coordinator(self, transactional_id: str) -> int:
        """The broker that keeps the transactions of this id."""
        return await self.coordinator(CoordinationType.TRANSACTION, transactional_id)

    async def coordinator(self, kind: CoordinationType, key: str) -> int:
        """The broker that keeps a group, or the transactions of an id."""
        with translated():
            node: int = await self._client.coordinator_lookup(kind, key)
        return node


class Batch(Protocol):
    """What aiokafka's sender asks of a batch (the shape of its own `BatchBuilder`)."""

    def _set_producer_state(self, producer_id: int, producer_epoch: int, base_sequence: int) -> None: ...
    def _build(self) -> bytes: ...
    def size(self) -> int: ...
    def record_count(self) -> int: ...
    def close(self) -> None: ...
    def closed(self) -> bool: ...


class BatchProducer:
    """Sends finished record batches; sequence numbers, retries and the partitions of a transaction are aiokafka's.

    With a transactional id nothing is initialised, committed or aborted here: `begin` is given the identity
    and the transaction is ended elsewhere.
    """

    def __init__(self, options: Mapping[str, Any], transactional_id: str | None, timeout_ms: int) -> None:
        self._transactional_id = transactional_id
        self._timeout_ms = timeout_ms
        transactional = {"transactional_id": transactional_id, "transaction_timeout_ms": timeout_ms}
        self._producer: Any = _new_producer(
            **options, enable_idempotence=True, **(transactional if transactional_id is not None else {})
        )
        self._producer._message_accumulator._batch_ttl = _FOREVER_S  # we decide for how long to wait
        self._start = _Start()
        self._lookup = self._producer.client.coordinator_lookup
        self._producer.client.coordinator_lookup = self._coordinator_lookup

    async def start(self, identity: ProducerIdentity = NO_IDENTITY) -> None:
        """Connect. A transactional producer needs its `identity`: with one, aiokafka asks for none."""
        manager = self._producer._txn_manager
        if self._transactional_id is not None and not manager.has_pid():
            manager.set_pid_and_epoch(*identity)
        with translated():
            await self._start.run(self._producer.start())

    def begin(self, identity: ProducerIdentity) -> None:
        """The next transaction, with nothing of the one before: sequence numbers start at zero."""
        manager = _new_transaction_manager(self._transactional_id, self._timeout_ms)
        manager.set_pid_and_epoch(*identity)
        manager.begin_transaction()
        self._producer._txn_manager = manager
        self._producer._sender._txn_manager = manager
        self._producer._message_accumulator._txn_manager = manager

    async def _coordinator_lookup(self, kind: CoordinationType, key: str) -> Any:
        """aiokafka's sender asks again after a timeout, but would die of a connection that breaks meanwhile."""
        try:
            return await self._lookup(kind, key)
        except kafka_errors.KafkaConnectionError as error:
            raise kafka_errors.RequestTimedOutError(str(error)) from error

    def partitions(self, topic: str) -> list[int]:
        """Partitions of a topic as last heard, ascending."""
        return sorted(self._producer.client.cluster.partitions_for_topic(topic) or ())

    async def follow(self, topic: str) -> None:
        """Make the topic's partitions and leaders known."""
        with translated():
            await self._producer.client.set_topics([topic])

    async def send(self, batch: Batch, topic: str, partition: int) -> asyncio.Future[Any]:
        """Queue a batch behind at most one other of its partition; the future ends with its acknowledgement.

        Raises `TimeoutError` when there was no room for the request timeout, or the topic is not known at the
        moment; nothing was queued then.
        """
        if not self.partitions(topic):
            await self._producer.client.force_metadata_update()
            raise TimeoutError
        try:
            future: asyncio.Future[Any] = await self._producer.send_batch(batch, topic, partition=partition)
        except (kafka_errors.KafkaTimeoutError, kafka_errors.UnknownTopicOrPartitionError) as error:
            raise TimeoutError from error
        future.add_done_callback(_retrieve)
        return future

    def failure(self) -> BaseException | None:
        """Why the sender has stopped for good; None while it runs."""
        task = self._producer._sender.sender_task
        if task is None or not task.done() or task.cancelled():
            return None
        error: BaseException | None = task.exception()
        return (error.__cause__ or error) if error is not None else None

    async def close(self) -> None:
        """Close without flushing and without ending a transaction; idempotent."""
        await self._start.settle()
        self._producer._closed = True
        client, task = self._producer.client, self._producer._sender.sender_task
        if task is not None:
            task.cancel()  # it first waits for its requests in flight, which end with their connections
        await self._close_connections()
        deadline = asyncio.get_running_loop().time() + _CLOSE_S
        while task is not None and not task.done():
            if client._md_update_fut is not None and not client._md_update_fut.done():
                client._md_update_fut.set_result(False)  # nobody updates metadata any more
            if asyncio.get_running_loop().time() > deadline:
                task.cancel()
            await asyncio.wait([task], timeout=0.05)
        if task is not None and not task.cancelled():
            task.exception()
        await self._close_connections()  # its requests may have opened another
        self._see_failures()

    def _see_failures(self) -> None:
        """A sender that dies fails futures that nobody waits for: asyncio would complain about each."""
        accumulator, manager = self._producer._message_accumulator, self._producer._txn_manager
        waiters = [
            b._drain_waiter for b in itertools.chain(*accumulator._batches.values(), accumulator._pending_batches)
        ]
        if self._transactional_id is not None and manager._transaction_waiter is not None:
            waiters.append(manager._transaction_waiter)
        for waiter in waiters:
            if waiter.done():
                _retrieve(waiter)

    async def _close_connections(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await self._producer.client.close()


def _retrieve(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()
