"""Ending and beginning Kafka transactions by their id, from whichever process.

A transaction is `(transactional id, producer id, epoch)`. Prepared (every record acknowledged, not ended) it
outlives its process: any client that knows the three commits it, and committing twice is harmless. Each
transaction gets an epoch of its own, so that committing an old one again can never end a newer one.
When the broker refuses a commit because the epoch has moved on, the log itself says what became of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.transaction import EndTxnRequest

from streamproc.connectors.kafka.aiokafka_private import NO_IDENTITY, Client, ProducerIdentity
from streamproc.connectors.kafka.broker_errors import NotReady, Unreachable, error_name
from streamproc.connectors.kafka.client import log, patiently
from streamproc.connectors.kafka.failure import BrokerError, CommitLost, Fenced, KafkaRefused
from streamproc.connectors.kafka.offsets import ISOLATION_LEVELS, OFFSET_OUT_OF_RANGE, PASSING_ERRORS
from streamproc.connectors.kafka.protocol import (
    DescribeTransactionRequest,
    InitProducerIdRequest,
    ListTransactionsRequest,
)
from streamproc.connectors.kafka.record_batch import split_batches

_COORDINATOR_LOADING: Final = 14
_COORDINATOR_MOVED: Final = frozenset({15, 16})
_CONCURRENT: Final = 51  # the markers of the one before are still being written
_INVALID_TIMEOUT: Final = 50
_REFUSED: Final = frozenset({31, 53})
_EPOCH_MOVED_ON: Final = frozenset({47, 90})
_NOT_OURS_TO_END: Final = _EPOCH_MOVED_ON | {48, 49}  # moved on, already aborted, or id unknown

_RETRY_S: Final = 0.02
_PATIENCE_S: Final = 60.0  # for a coordinator that answers "not yet"
_OUTCOME_BYTES: Final = 1  # the first batch comes whatever its size

Outcome = Literal["committed", "aborted", "expired", "unknown"]


def transactional_id(pipeline: str, sink: str, subtask: int, slot: int) -> str:
    """`streamproc.<pipeline>.<sink>.<subtask>.<slot>`: one pipeline name is one writer in a Kafka cluster."""
    return f"{id_prefix(pipeline, sink)}{subtask}.{slot}"


def id_prefix(pipeline: str, sink: str) -> str:
    """What every transactional id of a sink begins with; names hold no dots."""
    return f"streamproc.{pipeline}.{sink}."


@dataclass(frozen=True, slots=True)
class Prepared:
    """A transaction that waits for its checkpoint, and where one of its records is."""

    transactional_id: str
    identity: ProducerIdentity
    checkpoint: int
    topic: str
    partition: int
    offset: int
    cluster: str  # its id; empty: not known

    def to_json(self) -> dict[str, Any]:
        """What a manifest keeps."""
        return {
            "transactional_id": self.transactional_id,
            "producer_id": self.identity.producer_id,
            "epoch": self.identity.epoch,
            "checkpoint": self.checkpoint,
            "topic": self.topic,
            "partition": self.partition,
            "offset": self.offset,
            "cluster": self.cluster,
        }

    @staticmethod
    def from_json(kept: Mapping[str, Any]) -> Prepared:
        """What a manifest kept."""
        identity = ProducerIdentity(kept["producer_id"], kept["epoch"])
        place = (kept["topic"], kept["partition"], kept["offset"])
        return Prepared(kept["transactional_id"], identity, kept["checkpoint"], *place, kept.get("cluster", ""))


class TransactionClient:
    """The transactions of one sink, over one client."""

    def __init__(self, client: Client, timeout_ms: int, *, why: str) -> None:
        self._client = client
        self._timeout_ms = timeout_ms
        self._why = why
        self._coordinators: dict[str, int] = {}

    async def initialise(self, transactional: str, current: ProducerIdentity = NO_IDENTITY) -> ProducerIdentity:
        """A new epoch; what was open under the id is aborted. With `current`, `Fenced` when it no longer is."""
        request = InitProducerIdRequest(transactional, self._timeout_ms, *current)
        response = await self._ask(transactional, request, current)
        if response.error_code == 0:
            return ProducerIdentity(response.producer_id, response.producer_epoch)
        if response.error_code in _EPOCH_MOVED_ON:
            raise Fenced(fenced_text(self._why))
        if response.error_code == _INVALID_TIMEOUT:
            raise KafkaRefused(
                f"{self._why}: transaction_timeout of {self._timeout_ms} ms is more than the brokers allow "
                "(transaction.max.timeout.ms, 15m by default): lower the one or raise the other"
            )
        raise BrokerError(f"{self._why}: {transactional}: {error_name(response.error_code)} to InitProducerId")

    async def commit(self, prepared: Prepared) -> None:
        """Make a prepared transaction visible. Committed before: fine. `CommitLost` when the broker aborted it."""
        request = EndTxnRequest(prepared.transactional_id, *prepared.identity, True)
        response = await self._ask(prepared.transactional_id, request)
        if response.error_code == 0:
            return
        if response.error_code not in _NOT_OURS_TO_END:
            raise BrokerError(f"{self._why}: {prepared.transactional_id}: {error_name(response.error_code)} to EndTxn")
        outcome = await self.outcome(prepared)
        log.info("transaction ended before", transaction=prepared.to_json(), outcome=outcome)
        if outcome == "expired":
            log.warning(
                "records of a checkpoint were deleted by retention, whether they were committed cannot be known",
                transaction=prepared.to_json(),
            )
        elif outcome != "committed":
            raise CommitLost(_lost_text(self._why, prepared, outcome))

    async def outcome(self, prepared: Prepared) -> Outcome:
        """What became of a transaction, from the log: whether a committed reader skips its record."""
        level = ISOLATION_LEVELS["read_committed"]
        partitions = [(prepared.partition, prepared.offset, _OUTCOME_BYTES)]
        request = FetchRequest(0, 0, _OUTCOME_BYTES, level, [(prepared.topic, partitions)], rack_id="")

        async def ask() -> Outcome:
            await self._client.follow(prepared.topic)
            leader = self._client.leader(prepared.topic, prepared.partition)
            if leader is None:
                if await self._client.describe_topic(prepared.topic) is None:
                    return "unknown"
                await self._client.refresh()
                raise NotReady(f"{prepared.topic}-{prepared.partition} has no leader")
            response = await self._client.send(leader, request)
            _, code, _, stable, *rest = response.topics[0][1][0]
            if code in PASSING_ERRORS:
                await self._client.refresh()
                raise NotReady(f"{prepared.topic}-{prepared.partition}: {error_name(code)}")
            if code == OFFSET_OUT_OF_RANGE:
                return "expired"
            if code != 0:
                return "unknown"
            if stable <= prepared.offset:
                raise NotReady(f"{prepared.topic}-{prepared.partition}: a transaction is still being ended")
            first = next(split_batches(rest[-1] or b""), None)
            if first is None or first.producer_id != prepared.identity.producer_id:
                return "unknown"  # compacted away since, or another topic of that name
            aborted = (rest[-3] if response.API_VERSION >= 11 else rest[-2]) or ()
            ours = prepared.identity.producer_id
            return "aborted" if any(who == ours and at <= prepared.offset for who, at in aborted) else "committed"

        return await patiently(ask, client=self._client, why=self._why)

    async def ids(self, prefix: str) -> set[str]:
        """Every transactional id with this prefix that brokers remember, in whatever state."""

        async def ask() -> set[str]:
            found: set[str] = set()
            for node in self._client.nodes():
                response = await self._client.send(node, ListTransactionsRequest(), coordination=True)
                if response.error_code != 0:
                    raise NotReady(f"{error_name(response.error_code)} to ListTransactions")
                found |= {state[0] for state in response.transaction_states if state[0].startswith(prefix)}
            return found

        return await patiently(ask, client=self._client, why=self._why)

    async def _check_current(self, transactional: str, current: ProducerIdentity) -> None:
        """`Fenced` when somebody else's transaction is open.

        The broker compares epochs only where no transaction is open; else it would abort that one first and
        refuse us then. A zombie that stops exactly between this and the next request can still do so: its
        successor then fails with `CommitLost` rather than lose anything silently.
        """
        response = await self._ask_once(transactional, DescribeTransactionRequest(transactional))
        code, _, state, _, _, *holder, _, _ = response.transactions[0]
        if code == 0 and state == "Ongoing" and tuple(holder) != current:
            raise Fenced(fenced_text(self._why))

    async def _ask(self, transactional: str, request: Any, current: ProducerIdentity = NO_IDENTITY) -> Any:
        """The coordinator's answer, once it is more than "not yet" or "not here"."""
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + _PATIENCE_S

        async def ask() -> Any:
            if current != NO_IDENTITY:
                await self._check_current(transactional, current)
            return await self._ask_once(transactional, request)

        while True:
            response = await patiently(ask, client=self._client, why=self._why)
            code = response.error_code
            if code in _REFUSED:
                raise KafkaRefused(f"{self._why}: not authorised for the transactional id {transactional!r}")
            if code in _COORDINATOR_MOVED:
                self._coordinators.pop(transactional, None)
            elif code not in (_COORDINATOR_LOADING, _CONCURRENT):
                return response
            if loop.time() > give_up_at:
                raise BrokerError(f"{self._why}: {transactional}: still {error_name(code)} after {_PATIENCE_S:.0f} s")
            await asyncio.sleep(_RETRY_S)

    async def _ask_once(self, transactional: str, request: Any) -> Any:
        node = self._coordinators.get(transactional)
        if node is None:
            node = await self._client.transaction_coordinator(transactional)
            self._coordinators[transactional] = node
        try:
            return await self._client.send(node, request, coordination=True)
        except Unreachable:
            self._coordinators.pop(transactional, None)
            raise


def check_cluster(prepared: Sequence[Prepared], cluster: str, *, why: str) -> None:
    """Another cluster knows nothing of these transactions, and may have a topic of that name. Raises KafkaRefused."""
    for each in prepared:
        if each.cluster and cluster and each.cluster != cluster:
            raise KafkaRefused(
                f"{why}: results of checkpoint {each.checkpoint} wait to be committed in the cluster {each.cluster}, "
                f"but its brokers are of the cluster {cluster}: start the pipeline once with the brokers of before, "
                "and they are"
            )


def fenced_text(why: str) -> str:
    """What `Fenced` says."""
    return f"{why}: another attempt of this pipeline has taken over its transactions; this one ends"


def _lost_text(why: str, prepared: Prepared, outcome: Outcome) -> str:
    what = (
        "the broker aborted the transaction, which was open for longer than transaction_timeout"
        if outcome == "aborted"
        else "the broker does not know the transaction any more, and its records are not where they were written"
    )
    return (
        f"{why}: results of checkpoint {prepared.checkpoint} written to topic {prepared.topic!r} are lost: {what} "
        f"({prepared.transactional_id}, partition {prepared.partition} from offset {prepared.offset}). "
        "Start from an older checkpoint to write them again, and keep transaction_timeout above checkpoint plus restart"
    )
