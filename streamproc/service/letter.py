"""One dead letter: what a record of a sink of bad records says, and where its original came from. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from streamproc.connectors.kafka.record_batch import Record
from streamproc.pipeline.logical import LogicalGraph
from streamproc.pipeline.spec import KafkaConnectionSpec, KafkaSinkSpec, KafkaSourceSpec
from streamproc.service.api import Conflict, ServiceFault
from streamproc.service.views import DeadLetterView

TEXT_CHARS_MAX: Final = 2_000


@dataclass(frozen=True, slots=True)
class Letter:
    """One letter. `target`: where its record came from; None where that is not known, and `reason` says why."""

    partition: int
    offset: int
    record: Record
    headers: Mapping[str, str]
    target: tuple[str, int] | None
    reason: str | None

    @property
    def id(self) -> str:
        """`partition:offset`."""
        return f"{self.partition}:{self.offset}"


@dataclass(frozen=True, slots=True)
class DeadLetterSink:
    """A sink of bad records, and the sources that they come from."""

    graph: LogicalGraph
    name: str
    topic: str
    connection: KafkaConnectionSpec

    @property
    def why(self) -> str:
        """For the log."""
        return f"dead letters of {self.name}"

    @property
    def replayer(self) -> str:
        """The transactional id and the group of its replays; outside what the sink itself takes over."""
        return f"streamproc-replay.{self.graph.pipeline}.{self.name}"

    def letter(self, partition: int, record: Record) -> Letter:
        """What a record of its topic says."""
        headers = {name: (value or b"").decode("utf-8", "replace") for name, value in record.headers}
        target, reason = self._target(headers)
        return Letter(partition, record.offset, record, headers, target, reason)

    def _target(self, headers: Mapping[str, str]) -> tuple[tuple[str, int] | None, str | None]:
        split, name = headers.get("split"), headers.get("source")
        if split is None or name is None or "offset" not in headers:
            return None, "a step failed on a row made from records: the original record is not in the letter"
        source = self.graph.sources.get(name)
        if source is None:
            return None, f"the pipeline has no source {name} any more"
        if not isinstance(source.config, KafkaSourceSpec) or source.connection is None:
            return None, f"source {name} does not read a Kafka topic"
        if set(source.connection.brokers) != set(self.connection.brokers):
            return None, f"source {name} is in another Kafka cluster than the letters: no transaction spans both"
        topic, _, partition = split.rpartition("-")
        if topic != source.config.topic or not (partition.isascii() and partition.isdecimal()):
            return None, f"the record came from {split}, source {name} reads topic {source.config.topic} now"
        return (topic, int(partition)), None


def dead_letter_sink(graph: LogicalGraph, name: str) -> DeadLetterSink:
    """Raises ServiceFault where the sink is none of dead letters."""
    sink = graph.sinks.get(name)
    if sink is None:
        raise ServiceFault(404, "unknown-sink", "There is no such sink", f"{graph.pipeline} has no sink {name}")
    if not isinstance(sink.config, KafkaSinkSpec) or sink.connection is None or not sink.carries_errors:
        raise Conflict(f'sink {name} does not write bad records (`input: "*.errors"`) to a Kafka topic')
    return DeadLetterSink(graph, name, sink.config.topic, sink.connection)


def view_of(letter: Letter, *, replayed: bool) -> DeadLetterView:
    """What is told of it."""
    headers, record = letter.headers, letter.record
    offset = headers.get("offset", "")
    key, key_binary = _shown(record.key)
    value, value_binary = _shown(record.value)
    return DeadLetterView(
        id=letter.id,
        at=datetime.fromtimestamp(record.timestamp / 1000, UTC),
        node=headers.get("step"),
        source=headers.get("source"),
        split=headers.get("split"),
        offset=int(offset) if offset.isascii() and offset.isdecimal() else None,
        error=headers.get("error", "not said"),
        key=key,
        value=value,
        key_binary=key_binary,
        binary=value_binary,
        replayable=letter.target is not None,
        reason=letter.reason,
        replayed=replayed,
    )


def _shown(payload: bytes | None) -> tuple[str | None, bool]:
    """Bytes as text, or in hex where they are none; the beginning of what is long."""
    if payload is None:
        return None, False
    try:
        text, binary = payload.decode(), False
        if any(not character.isprintable() and character not in "\t\n\r" for character in text[:TEXT_CHARS_MAX]):
            raise ValueError
    except ValueError:
        text, binary = payload[: TEXT_CHARS_MAX // 2].hex(), True
        if len(payload) > TEXT_CHARS_MAX // 2:
            text += "…"
    return text if len(text) <= TEXT_CHARS_MAX else f"{text[:TEXT_CHARS_MAX]}…", binary
