"""A Kafka topic as a sink: exactly once through one transaction per checkpoint and subtask, or at least once.

An epoch (what is written between two barriers) goes into one transaction, begun at its first record. `prepare`
waits until every record is acknowledged and leaves the transaction open; `commit` ends it once the checkpoint
is complete. A transaction whose checkpoint was aborted stays prepared and is committed with a later one. So a
subtask has several transactional ids (slots): one that writes, and those that wait.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import polars as pl

from operators.connector import Committable
from operators.element import Schema
from streamproc.connectors.kafka.aiokafka_private import NO_IDENTITY, BatchProducer, Client, ProducerIdentity
from streamproc.connectors.kafka.broker_errors import Contact, Unreachable
from streamproc.connectors.kafka.client import client_options, connect, find_topic, log, missing_topic_text, patiently
from streamproc.connectors.kafka.delivery import Delivery
from streamproc.connectors.kafka.encoding import DEFAULT_BATCH_BYTES_MAX, BatchEncoder, ErrorRecordEncoder, RowEncoder
from streamproc.connectors.kafka.failure import (
    BrokerError,
    CommitLost,
    Fenced,
    KafkaRefused,
    TopicMissing,
    TransactionExpired,
)
from streamproc.connectors.kafka.transactions import (
    Prepared,
    TransactionClient,
    check_cluster,
    id_prefix,
    transactional_id,
)
from streamproc.pipeline.spec import KafkaConnectionSpec, KafkaSinkSpec

SLOTS: Final = 3  # transactional ids of a subtask that are fenced before they were ever used
_CONCURRENT_REQUESTS: Final = 16
_LOOK_S: Final = 10.0  # how often a writer asks whether brokers are there, also while it has nothing to write
_TOPIC_GONE_POLLS: Final = 5  # absent each time, a topic counts as deleted
_TOPIC_GONE_POLL_S: Final = 1.0


class KafkaSink:
    """One `type: kafka` sink of a pipeline file."""

    def __init__(
        self,
        pipeline: str,
        name: str,
        config: KafkaSinkSpec,
        connection: KafkaConnectionSpec,
        schema: Schema,
        *,
        carries_errors: bool = False,
    ) -> None:
        self.pipeline = pipeline
        self.name = name
        self.config = config
        self.connection = connection
        self.why = f"sink {name}"
        self.contact = Contact()  # while it recovers
        self.cluster = ""  # its id, known once recovered
        self._schema = schema
        self._carries_errors = carries_errors
        self._fenced: dict[str, ProducerIdentity] = {}

    async def recover(self, committables: Sequence[Committable], parallelism: int) -> None:
        """Commit what the restored checkpoint prepared, then take every transactional id of this sink away
        from whoever still holds it. `CommitLost` when a prepared transaction was aborted meanwhile, `KafkaRefused`
        when it is another cluster's."""
        client = await connect(self.connection, why=self.why, contact=self.contact)
        try:
            transactions = TransactionClient(client, self.config.transaction_timeout, why=self.why)
            prepared = [Prepared.from_json(kept) for kept in committables]
            self.cluster = await patiently(client.cluster_id, client=client, why=self.why)
            check_cluster(prepared, self.cluster, why=self.why)
            await commit_all(transactions, prepared)
            ids = await transactions.ids(id_prefix(self.pipeline, self.name))
            if self.exactly_once:
                ids |= {
                    transactional_id(self.pipeline, self.name, subtask, slot)
                    for subtask in range(parallelism)
                    for slot in range(SLOTS)
                }
            permits = asyncio.Semaphore(_CONCURRENT_REQUESTS)

            async def fence(transactional: str) -> None:
                async with permits:
                    self._fenced[transactional] = await transactions.initialise(transactional)

            await asyncio.gather(*map(fence, sorted(ids)))
            log.info("sink recovered", sink=self.name, committed=len(committables), fenced=len(ids))
        finally:
            await client.close()

    @property
    def exactly_once(self) -> bool:
        """Whether records become visible with their checkpoint only."""
        return self.config.delivery == "exactly_once"

    def writer(self, subtask: int, parallelism: int) -> TransactionalWriter | IdempotentWriter:
        """The writer of one subtask."""
        return TransactionalWriter(self, subtask) if self.exactly_once else IdempotentWriter(self, subtask)

    async def close(self) -> None:
        """Nothing stays open after `recover`."""

    def take_identity(self, transactional: str) -> ProducerIdentity:
        """The identity `recover` made for this id, once: no two transactions may share one."""
        return self._fenced.pop(transactional, NO_IDENTITY)

    def encoder(self, batch_bytes_max: int, subtask: int) -> BatchEncoder:
        """What turns this sink's frames into batches. Blocks, where its format needs a schema registry."""
        if self._carries_errors:
            return ErrorRecordEncoder(
                transactional=self.exactly_once, batch_bytes_max=batch_bytes_max, first_turn=subtask
            )
        return RowEncoder(
            self.config,
            self._schema,
            transactional=self.exactly_once,
            batch_bytes_max=batch_bytes_max,
            first_turn=subtask,
            why=self.why,
        )


class _TopicWriter:
    """What both kinds of writers have: the topic, an encoder and a client beside the producers."""

    def __init__(self, sink: KafkaSink, subtask: int) -> None:
        self._sink = sink
        self._subtask = subtask
        self._topic = sink.config.topic
        self._why = sink.why
        self._contact = Contact()
        self._client: Client | None = None
        self._encoder: BatchEncoder | None = None
        self._partitions: Sequence[int] = ()
        self._looking: asyncio.Task[None] | None = None

    @property
    def client(self) -> Client:
        assert self._client is not None, "open first"
        return self._client

    async def open(self) -> None:
        """Connect (waiting for the broker) and look at the topic; `TopicMissing` when it is not there."""
        self._client = await connect(self._sink.connection, why=self._why, contact=self._contact)
        topic = await find_topic(self._client, self._topic, why=self._why)
        self._partitions = topic.partitions
        setting = await patiently(
            lambda: self.client.topic_setting(self._topic, "max.message.bytes"),
            client=self._client,
            why=self._why,
        )
        self._encoder = await asyncio.to_thread(
            self._sink.encoder, int(setting or DEFAULT_BATCH_BYTES_MAX), self._subtask
        )
        self._looking = asyncio.create_task(self._look())

    async def _look(self) -> None:
        """Notice brokers that are gone before there is something to write to them."""
        with contextlib.suppress(KafkaRefused):  # whoever writes will be told
            while True:
                await asyncio.sleep(_LOOK_S)
                await patiently(lambda: self.client.describe_topic(self._topic), client=self.client, why=self._why)

    async def close(self) -> None:
        """Disconnect; idempotent."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        if self._client is not None:
            await self._client.close()

    def unreachable(self) -> str | None:
        """What the sink or the writer waits for at this moment."""
        if (trouble := self._sink.contact.trouble or self._contact.trouble) is not None:
            return trouble
        delivery = self.delivering
        return "the broker does not acknowledge" if delivery is not None and delivery.stalled() else None

    @property
    def delivering(self) -> Delivery | None:
        """What is being sent."""
        raise AssertionError("a writer is transactional or idempotent")

    async def start_producer(self, transactional: str | None, identity: ProducerIdentity) -> BatchProducer:
        """A connected producer."""
        options = client_options(self._sink.connection)
        producer = BatchProducer(options, transactional, self._sink.config.transaction_timeout)
        try:
            await patiently(lambda: producer.start(identity), client=self.client, why=self._why)
            await producer.follow(self._topic)
        except BaseException:
            await producer.close()
            raise
        return producer

    async def send(self, frame: pl.DataFrame, producer: BatchProducer, delivery: Delivery) -> None:
        """Encode one frame on a worker thread and send it."""
        assert self._encoder is not None, "open first"
        self._partitions = producer.partitions(self._topic) or self._partitions
        for partition, batch in await asyncio.to_thread(self._encoder.encode, frame, self._partitions):
            await delivery.send(partition, batch)

    async def still_waiting(self) -> None:
        """Nothing was acknowledged for a while: say so; a topic that is gone will never acknowledge."""
        log.warning("broker does not acknowledge, waiting", sink=self._sink.name, brokers=self.client.brokers)
        for _ in range(_TOPIC_GONE_POLLS):
            try:
                if await self.client.describe_topic(self._topic) is not None:
                    return
            except Unreachable:
                return
            await asyncio.sleep(_TOPIC_GONE_POLL_S)
        raise TopicMissing(missing_topic_text(self._topic, await self.client.topic_names(), why=self._why))


@dataclass(slots=True)
class _Slot:
    """One transactional id and its producer."""

    transactional_id: str
    identity: ProducerIdentity
    used: bool = False  # the identity had its transaction
    begun_s: float = 0.0  # by the event loop's clock, its transaction
    producer: BatchProducer | None = None


@dataclass(slots=True)
class _OpenTransaction:
    slot: _Slot
    producer: BatchProducer
    delivery: Delivery


class TransactionalWriter(_TopicWriter):
    """Exactly once."""

    def __init__(self, sink: KafkaSink, subtask: int) -> None:
        super().__init__(sink, subtask)
        self._transactions: TransactionClient | None = None
        self._slots: list[_Slot] = []
        self._free: list[_Slot] = []
        self._open: _OpenTransaction | None = None
        self._prepared: list[tuple[Prepared, _Slot]] = []
        self._timeout_s = sink.config.transaction_timeout / 1000

    async def open(self) -> None:
        """Connect and look at the topic. Transactions begin with the first record."""
        await super().open()
        self._transactions = TransactionClient(self.client, self._sink.config.transaction_timeout, why=self._why)
        for _ in range(SLOTS):
            self._free.append(self._new_slot())

    async def write(self, frame: pl.DataFrame) -> None:
        """Write one batch into the open transaction; waits while too much is unacknowledged."""
        if not frame.height:
            return
        if self._open is None:
            self._open = await self._begin()
        transaction = self._open
        try:
            await self.send(frame, transaction.producer, transaction.delivery)
        except Fenced as fenced:
            raise self._fenced_or_expired(fenced, transaction) from fenced

    async def prepare(self, checkpoint: int) -> Sequence[Committable]:
        """Wait for every acknowledgement. Returns all transactions that wait for a checkpoint to complete."""
        if (transaction := self._open) is not None:
            try:
                await transaction.delivery.settle()
            except Fenced as fenced:
                raise self._fenced_or_expired(fenced, transaction) from fenced
            slot, place = transaction.slot, transaction.delivery.acknowledged_at
            if place is None:  # every batch was acknowledged as a duplicate, without its offset
                raise BrokerError(f"{self._why}: the broker did not say where records of {self._topic!r} were written")
            prepared = Prepared(
                slot.transactional_id, slot.identity, checkpoint, self._topic, *place, self._sink.cluster
            )
            self._prepared.append((prepared, slot))
            self._open = None
        if any(self._expired(slot) for _, slot in self._prepared):
            # Were the checkpoint to complete, their records would be lost; now they come again.
            raise TransactionExpired(self._expired_text())
        return [prepared.to_json() for prepared, _ in self._prepared]

    async def commit(self, checkpoint: int) -> None:
        """End the transactions prepared for this checkpoint and earlier ones."""
        assert self._transactions is not None, "open first"
        due = [(prepared, slot) for prepared, slot in self._prepared if prepared.checkpoint <= checkpoint]
        await commit_all(self._transactions, [prepared for prepared, _ in due])
        for prepared, slot in due:
            self._prepared.remove((prepared, slot))
            self._free.append(slot)

    async def close(self) -> None:
        """Disconnect, leaving prepared transactions as they are; idempotent."""
        await asyncio.gather(*(slot.producer.close() for slot in self._slots if slot.producer is not None))
        await super().close()

    @property
    def delivering(self) -> Delivery | None:
        return None if self._open is None else self._open.delivery

    def _new_slot(self) -> _Slot:
        transactional = transactional_id(self._sink.pipeline, self._sink.name, self._subtask, len(self._slots))
        slot = _Slot(transactional, self._sink.take_identity(transactional))
        self._slots.append(slot)
        return slot

    async def _begin(self) -> _OpenTransaction:
        assert self._transactions is not None, "open first"
        slot = self._free.pop(0) if self._free else self._new_slot()
        if slot.used or slot.identity == NO_IDENTITY:
            # Never two transactions under one epoch: committing the older again would end the newer half-written.
            slot.identity = await self._transactions.initialise(slot.transactional_id, slot.identity)
        slot.used = True
        if slot.producer is None:
            slot.producer = await self.start_producer(slot.transactional_id, slot.identity)
        slot.producer.begin(slot.identity)
        slot.begun_s = asyncio.get_running_loop().time()

        async def while_waiting() -> None:
            if self._expired(slot):
                raise TransactionExpired(self._expired_text())
            await self.still_waiting()

        delivery = Delivery(slot.producer, self._topic, while_waiting, why=self._why)
        return _OpenTransaction(slot, slot.producer, delivery)

    def _expired(self, slot: _Slot) -> bool:
        """Whether the broker may have aborted the slot's transaction by itself."""
        return asyncio.get_running_loop().time() - slot.begun_s > self._timeout_s

    def _fenced_or_expired(self, fenced: Fenced, transaction: _OpenTransaction) -> Fenced | TransactionExpired:
        """The broker answers alike to both; a clock tells them apart."""
        return TransactionExpired(self._expired_text()) if self._expired(transaction.slot) else fenced

    def _expired_text(self) -> str:
        return (
            f"{self._why}: a transaction was open for longer than transaction_timeout ({self._timeout_s:.0f} s) and "
            "was aborted by the broker: checkpoints are too slow or too rare for it"
        )


class IdempotentWriter(_TopicWriter):
    """At least once: visible at once, and again after a restart. No duplicates through retries."""

    def __init__(self, sink: KafkaSink, subtask: int) -> None:
        super().__init__(sink, subtask)
        self._producer: BatchProducer | None = None
        self._delivery: Delivery | None = None

    async def open(self) -> None:
        """Connect and look at the topic."""
        await super().open()
        self._producer = await self.start_producer(None, NO_IDENTITY)
        self._delivery = Delivery(self._producer, self._topic, self.still_waiting, why=self._why)

    @property
    def delivering(self) -> Delivery | None:
        return self._delivery

    async def write(self, frame: pl.DataFrame) -> None:
        """Send one batch; waits while too much is unacknowledged."""
        assert self._producer is not None, "open first"
        assert self._delivery is not None
        if frame.height:
            await self.send(frame, self._producer, self._delivery)

    async def prepare(self, checkpoint: int) -> Sequence[Committable]:
        """Wait for every acknowledgement; there is nothing to commit."""
        assert self._delivery is not None, "open first"
        await self._delivery.settle()
        return []

    async def commit(self, checkpoint: int) -> None:
        """Nothing to do."""

    async def close(self) -> None:
        """Disconnect; idempotent."""
        if self._producer is not None:
            await self._producer.close()
        await super().close()


async def commit_all(transactions: TransactionClient, prepared: Sequence[Prepared]) -> None:
    """Commit all, or raise after all were tried; of several failures a lost commit comes first."""
    results = await asyncio.gather(*map(transactions.commit, prepared), return_exceptions=True)
    failures = [result for result in results if isinstance(result, BaseException)]
    if failures:
        raise next((failure for failure in failures if isinstance(failure, CommitLost)), failures[0])
