"""Record batches on their way to one topic: bounded in bytes, every acknowledgement looked at."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import aiokafka.errors as kafka_errors

from state.failure import Failure
from streamproc.connectors.kafka.aiokafka_private import BatchProducer
from streamproc.connectors.kafka.failure import BrokerError, Fenced, KafkaRefused, RecordTooLarge
from streamproc.connectors.kafka.record_batch import OutgoingBatch
from streamproc.connectors.kafka.transactions import fenced_text

UNACKNOWLEDGED_BYTES_MAX: Final = 16 << 20
_WAIT_S: Final = 5.0
_RETRY_S: Final = 0.1

_FENCED: Final = (
    kafka_errors.ProducerFenced,
    kafka_errors.InvalidProducerEpoch,
    kafka_errors.InvalidProducerIdMapping,
    kafka_errors.InvalidTxnState,
)
_TOO_LARGE: Final = (kafka_errors.MessageSizeTooLargeError, kafka_errors.RecordListTooLargeError)


class Delivery:
    """What one producer sends to `topic`. `while_waiting` is called every few seconds without an
    acknowledgement: it says so in the log, and raises when waiting on makes no sense."""

    def __init__(
        self, producer: BatchProducer, topic: str, while_waiting: Callable[[], Awaitable[None]], *, why: str
    ) -> None:
        self._producer = producer
        self._topic = topic
        self._while_waiting = while_waiting
        self._why = why
        self._sent: dict[asyncio.Future[Any], OutgoingBatch] = {}
        self._sent_bytes = 0
        self._sent_s: dict[asyncio.Future[Any], float] = {}  # when, by the event loop's clock
        self._acknowledged_s = 0.0  # when something was last
        self._refused_since_s: float | None = None  # not even taken, for want of a broker that knows the topic
        self.acknowledged_at: tuple[int, int] | None = None  # partition and offset of a record that is there

    async def send(self, partition: int, batch: OutgoingBatch) -> None:
        """Send a batch; waits while too much is unacknowledged. Raises what an earlier batch met."""
        while self._sent_bytes > UNACKNOWLEDGED_BYTES_MAX:
            await self._wait(asyncio.FIRST_COMPLETED)
        loop = asyncio.get_running_loop()
        say_at = loop.time() + _WAIT_S
        while True:
            self._look(future for future in list(self._sent) if future.done())
            try:
                future = await self._producer.send(batch, self._topic, partition)
                self._refused_since_s = None
                break
            except TimeoutError:  # at once, where the topic is not known: a producer made while brokers are away
                self._refused_since_s = self._refused_since_s or loop.time()
                if loop.time() >= say_at:
                    say_at = loop.time() + _WAIT_S
                    await self._while_waiting()
                await asyncio.sleep(_RETRY_S)
            except kafka_errors.KafkaError as error:
                raise self._failure(self._producer.failure() or error, batch) from error
        future.add_done_callback(self._answered)
        self._sent[future] = batch
        self._sent_s[future] = loop.time()
        self._sent_bytes += batch.size()

    def stalled(self) -> bool:
        """Whether something waits, and for longer than a broker takes nothing has been acknowledged. One that takes
        its time over each of many batches is slow, and there."""
        waiting_s = (sent_s for future, sent_s in self._sent_s.items() if not future.done())
        since_s = next(waiting_s, None) if self._refused_since_s is None else self._refused_since_s
        if since_s is None:
            return False
        return asyncio.get_running_loop().time() - max(since_s, self._acknowledged_s) >= _WAIT_S

    async def settle(self) -> None:
        """Until every batch is acknowledged."""
        while self._sent:
            await self._wait(asyncio.FIRST_EXCEPTION)
        if (error := self._producer.failure()) is not None:
            raise self._failure(error, None)

    def _answered(self, future: asyncio.Future[Any]) -> None:
        if not future.cancelled() and future.exception() is None:
            self._acknowledged_s = asyncio.get_running_loop().time()

    async def _wait(self, which: str) -> None:
        done, _ = await asyncio.wait(self._sent, timeout=_WAIT_S, return_when=which)
        self._look(done)
        if not done:
            await self._while_waiting()

    def _look(self, done: Any) -> None:
        for future in done:
            batch = self._sent.pop(future)
            del self._sent_s[future]
            self._sent_bytes -= batch.size()
            if (error := future.exception()) is not None:
                raise self._failure(self._producer.failure() or error, batch) from error
            acknowledged = future.result()
            if acknowledged is not None and acknowledged.offset >= 0:
                self.acknowledged_at = (acknowledged.partition, acknowledged.offset)

    def _failure(self, error: BaseException, batch: OutgoingBatch | None) -> Failure:
        if isinstance(error, Failure):
            return error
        if isinstance(error, _TOO_LARGE):
            count, size = (batch.record_count(), batch.size()) if batch is not None else (0, 0)
            what = f"a record of {size} bytes" if count == 1 else f"{count} records of {size} bytes together"
            return RecordTooLarge(
                f"{self._why}: topic {self._topic!r} does not take {what} (compressed, with framing): "
                "raise its max.message.bytes, or make the records smaller"
            )
        if isinstance(error, _FENCED):
            return Fenced(fenced_text(self._why))
        if isinstance(error, kafka_errors.TopicAuthorizationFailedError | kafka_errors.ClusterAuthorizationFailedError):
            return KafkaRefused(f"{self._why}: not authorised to write to topic {self._topic!r}")
        return BrokerError(f"{self._why}: topic {self._topic!r}: {str(error) or type(error).__name__}")
