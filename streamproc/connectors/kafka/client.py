"""Connection options of a pipeline file as aiokafka's, and clients that wait for a broker that is away.

A broker that cannot be reached is waited for, with one log line per attempt; one that refuses us
(authentication, certificates) is a failure at once. Secrets go into the options and nowhere else.
"""

from __future__ import annotations

import asyncio
import difflib
import itertools
import logging
import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final, TypeVar

import structlog
from aiokafka.abc import AbstractTokenProvider

from streamproc.connectors.kafka.aiokafka_private import Client, TopicDescription
from streamproc.connectors.kafka.broker_errors import Contact, NotReady, Unreachable
from streamproc.connectors.kafka.failure import KafkaRefused, TopicMissing
from streamproc.pipeline.spec import KafkaConnectionSpec, SaslSpec, TlsSpec

log = structlog.get_logger("streamproc.kafka")

REQUEST_TIMEOUT_MS: Final = 15_000
BACKOFF_FIRST_S: Final = 0.25
BACKOFF_MAX_S: Final = 5.0
TOPIC_WAIT_S: Final = 10.0  # a topic just created may not be known to every broker yet
_TOPIC_POLL_S: Final = 0.5

T = TypeVar("T")

# aiokafka logs every refused connection and unknown topic, several times a second; what matters is logged here.
logging.getLogger("aiokafka").setLevel(logging.CRITICAL)


def client_options(connection: KafkaConnectionSpec) -> dict[str, Any]:
    """Options that aiokafka's client and producer share. `KafkaRefused` for what cannot work."""
    security = connection.security
    context = _tls_context(security.tls)
    options: dict[str, Any] = {
        "bootstrap_servers": list(connection.brokers),
        "request_timeout_ms": REQUEST_TIMEOUT_MS,
        "retry_backoff_ms": 100,
        "metadata_max_age_ms": 60_000,
    }
    if security.sasl is not None:
        options |= _sasl_options(security.sasl, secure=context is not None)
        options["security_protocol"] = "SASL_PLAINTEXT" if context is None else "SASL_SSL"
    elif context is not None:
        options["security_protocol"] = "SSL"
    if context is not None:
        options["ssl_context"] = context
    return options


def _tls_context(tls: TlsSpec | bool | None) -> ssl.SSLContext | None:
    if tls is None or tls is False:
        return None
    spec = TlsSpec() if tls is True else tls
    try:
        context = ssl.create_default_context(cafile=spec.ca)  # host names are checked by default
        if spec.certificate is not None:
            context.load_cert_chain(spec.certificate, spec.key, spec.key_password or "")
    except (OSError, ssl.SSLError) as error:
        files = ", ".join(path for path in (spec.ca, spec.certificate, spec.key) if path is not None)
        raise KafkaRefused(f"TLS files cannot be used ({files}): {error}") from error
    return context


def _sasl_options(sasl: SaslSpec, *, secure: bool) -> dict[str, Any]:
    if sasl.mechanism in ("PLAIN", "OAUTHBEARER") and not secure and not sasl.allow_without_tls:
        raise KafkaRefused(
            f"SASL {sasl.mechanism} sends the secret in the clear without TLS: set security.tls, "
            "or security.sasl.allow_without_tls: true where the network is trusted"
        )
    options: dict[str, Any] = {"sasl_mechanism": sasl.mechanism}
    if sasl.mechanism == "OAUTHBEARER":
        if not sasl.token:
            raise KafkaRefused("SASL OAUTHBEARER needs security.sasl.token")
        options["sasl_oauth_token_provider"] = _StaticToken(sasl.token)
    else:
        if sasl.username is None or sasl.password is None:
            raise KafkaRefused(f"SASL {sasl.mechanism} needs security.sasl.username and security.sasl.password")
        options["sasl_plain_username"] = sasl.username
        options["sasl_plain_password"] = sasl.password
    return options


class _StaticToken(AbstractTokenProvider):
    """An OAUTHBEARER token that is always the same; not shown in a repr."""

    def __init__(self, token: str) -> None:
        self._token = token

    async def token(self) -> str:
        """The token."""
        return self._token


def backoff_s(attempt: int) -> float:
    """The pause after this attempt (the first is 1)."""
    return min(BACKOFF_FIRST_S * 2.0 ** min(attempt - 1, 16), BACKOFF_MAX_S)


async def patiently(action: Callable[[], Awaitable[T]], *, client: Client, why: str) -> T:
    """`action`'s result, however long no broker can be reached; one log line per attempt. Meanwhile the client's
    contact says so."""
    waiting = object()
    try:
        for attempt in itertools.count(1):
            try:
                result = await action()
            except Unreachable as unreachable:
                client.contact.lost(waiting, unreachable)
                await log_unreachable(attempt, brokers=client.brokers, why=why, error=unreachable)
            else:
                if attempt > 1:
                    log.info("broker reachable again", brokers=client.brokers, needed_by=why)
                return result
    finally:
        client.contact.regained(waiting)
    raise AssertionError("attempts never end")


async def log_unreachable(attempt: int, *, brokers: Sequence[str], why: str, error: Unreachable) -> None:
    """Say that attempt `attempt` failed, and pause before the next."""
    pause_s = backoff_s(attempt)
    log.warning(
        "broker not ready, trying again" if isinstance(error, NotReady) else "broker unreachable, trying again",
        brokers=list(brokers),
        needed_by=why,
        attempt=attempt,
        retry_in_s=pause_s,
        error=str(error),
    )
    await asyncio.sleep(pause_s)


async def connect(connection: KafkaConnectionSpec, *, why: str, contact: Contact | None = None) -> Client:
    """A started client; waits for the broker as long as it takes. `why` ("source orders") is for the log."""
    client = Client(client_options(connection), contact)
    try:
        await patiently(client.start, client=client, why=why)
    except BaseException:
        await client.close()
        raise
    return client


async def find_topic(client: Client, topic: str, *, why: str) -> TopicDescription:
    """The topic. One that stays unknown for `TOPIC_WAIT_S` is a `TopicMissing`."""
    deadline = asyncio.get_running_loop().time() + TOPIC_WAIT_S
    while True:
        found = await patiently(lambda: client.describe_topic(topic), client=client, why=why)
        if found is not None and found.partitions:
            return found
        if asyncio.get_running_loop().time() > deadline:
            raise TopicMissing(missing_topic_text(topic, await client.topic_names(), why=why))
        await asyncio.sleep(_TOPIC_POLL_S)


def missing_topic_text(topic: str, known: Iterable[str], *, why: str) -> str:
    """Names the topic, near names and the command that creates it."""
    near = difflib.get_close_matches(topic, [name for name in known if not name.startswith("__")], n=3)
    hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    return (
        f"topic {topic!r} of {why} does not exist.{hint} Create it, for example: "
        f"kafka-topics.sh --bootstrap-server BROKER --create --topic {topic} --partitions 4"
    )
