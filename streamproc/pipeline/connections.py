"""Which Kafka cluster a source or sink talks to, and whether how it does so is safe."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from streamproc.pipeline.document import FieldPath
from streamproc.pipeline.faults import FaultLog
from streamproc.pipeline.shape import Part
from streamproc.pipeline.spec import KafkaConnectionSpec, KafkaSinkSpec, KafkaSourceSpec, SecuritySpec
from streamproc.pipeline.suggest import did_you_mean

_TOPIC: Final = re.compile(r"[a-zA-Z0-9._-]{1,249}")


def check_connection(part: Part[KafkaConnectionSpec], log: FaultLog) -> None:
    """What is wrong with one entry of `connections`."""
    if part.spec is not None:
        if not part.is_wrong("brokers"):
            _check_brokers(part.spec.brokers, part.path, log)
        _check_security(part.spec.security, part, log)


def check_topic(topic: str, part: Part[Any], log: FaultLog) -> None:
    """A topic's name is one that Kafka takes."""
    if part.is_wrong("topic") or (_TOPIC.fullmatch(topic) and topic not in (".", "..")):
        return
    path = (*part.path, "topic")
    written = log.document.as_written.get(path, topic)
    message = f"'{written}' cannot be a topic: its name is 1 to 249 letters, digits, '.', '_' and '-'"
    log.error(path, message)


def resolve_connection(
    spec: KafkaSourceSpec | KafkaSinkSpec,
    part: Part[Any],
    connections: Mapping[str, Part[KafkaConnectionSpec]],
    log: FaultLog,
) -> KafkaConnectionSpec | None:
    """The connection a part names, or the one it spells out itself; None with a fault when there is none."""
    path = part.path
    if spec.connection is not None:
        for name in ("brokers", "security"):
            if getattr(spec, name) is not None:
                log.error(
                    (*path, name),
                    f"'{name}' belongs to the connection '{spec.connection}'",
                    "give one of the two",
                    at_key=True,
                )
        if spec.connection not in connections:
            hint = did_you_mean(spec.connection, connections) or "there is no section 'connections' with that name"
            log.error((*path, "connection"), f"unknown connection '{spec.connection}'", hint)
            return None
        found = connections[spec.connection].spec
        return None if found is None else found.model_copy(update={"brokers": split_brokers(found.brokers)})
    if spec.brokers is None:
        if not part.is_wrong("connection") and not part.is_wrong("brokers"):
            only = f"there is the connection '{next(iter(connections))}'" if len(connections) == 1 else None
            log.error(path, "needs 'connection' or 'brokers'", only, at_key=True)
        return None
    security = spec.security or SecuritySpec()
    _check_brokers(spec.brokers, path, log)
    _check_security(security, part, log)
    return KafkaConnectionSpec(type="kafka", brokers=split_brokers(spec.brokers), security=security)


def split_brokers(brokers: list[str]) -> list[str]:
    """One address an item: a reference often gives several, with commas between."""
    return [address for item in brokers for address in (part.strip() for part in item.split(",")) if address]


def _check_brokers(brokers: list[str], path: FieldPath, log: FaultLog) -> None:
    for index, item in enumerate(brokers):
        at = (*path, "brokers", index)
        addresses = split_brokers([item])
        written = log.document.as_written.get(at, item)
        if not addresses:
            log.error(at, f"'{written}' gives no address: a broker is written host:port")
        for address in addresses:
            host, _, port = address.rpartition(":")
            if (
                not host
                or not port.isascii()
                or not port.isdigit()
                or not 0 < int(port[:6]) < 65_536
                or " " in host
                or "/" in host
            ):
                log.error(at, f"'{written}' is not a broker's address: it is written host:port, for example kafka:9092")
                break


def _check_security(security: SecuritySpec, part: Part[Any], log: FaultLog) -> None:
    sasl = security.sasl
    if sasl is None or part.is_wrong("security", "sasl"):
        return
    at = (*part.path, "security", "sasl")
    needed = ("token",) if sasl.mechanism == "OAUTHBEARER" else ("username", "password")
    for name in needed:
        if getattr(sasl, name) is None:
            log.error(at, f"'{name}' is missing: {sasl.mechanism} needs it", at_key=True)
    tls = security.tls or part.is_wrong("security", "tls")
    if sasl.mechanism == "PLAIN" and not tls and not sasl.allow_without_tls:
        hint = "add `tls: true`, or in full knowledge `allow_without_tls: true`"
        log.error((*at, "mechanism"), "PLAIN without TLS sends the password readable over the network", hint)
