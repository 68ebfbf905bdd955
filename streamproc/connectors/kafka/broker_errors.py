"""What aiokafka's errors mean to us: nobody answers (try again), or we are refused for good."""

from __future__ import annotations

import contextlib
import os
import ssl
from collections.abc import Iterator
from typing import Final

import aiokafka.errors as kafka_errors

from streamproc.connectors.kafka.failure import KafkaRefused

_REFUSALS: Final = (
    kafka_errors.AuthenticationFailedError,
    kafka_errors.AuthenticationMethodNotSupported,
    kafka_errors.SaslAuthenticationFailed,
    kafka_errors.UnsupportedSaslMechanismError,
    kafka_errors.IllegalSaslStateError,
    kafka_errors.ClusterAuthorizationFailedError,
    kafka_errors.TopicAuthorizationFailedError,
    kafka_errors.TransactionalIdAuthorizationFailed,
)
_NOT_READY: Final = (
    kafka_errors.CoordinatorNotAvailableError,
    kafka_errors.CoordinatorLoadInProgressError,
    kafka_errors.NotCoordinatorError,
    kafka_errors.LeaderNotAvailableError,
)


class Unreachable(Exception):
    """No broker answered, or none that can answer yet; trying again may help."""


class NoConnection(Unreachable):
    """None of the addresses takes a connection; the text names one, and what is wrong with it."""


class NotReady(Unreachable):
    """A broker answered, but cannot do it yet: elections, loading, markers still to be written."""


class Contact:
    """Whether brokers answer one source or sink: what is being waited for now, by whoever waits."""

    def __init__(self) -> None:
        self._troubles: dict[object, str] = {}

    def lost(self, waiting: object, error: Unreachable) -> None:
        """`waiting` has had no answer, and tries again."""
        match error:
            case NotReady():
                trouble = "the broker is not ready"
            case NoConnection():  # perhaps its address is wrong
                trouble = f"the broker does not answer ({error})"
            case _:
                trouble = "the broker does not answer"
        self._troubles[waiting] = trouble

    def regained(self, waiting: object) -> None:
        """It waits no more."""
        self._troubles.pop(waiting, None)

    @property
    def trouble(self) -> str | None:
        """In words; None: nobody waits."""
        return next(iter(self._troubles.values()), None)


def error_name(code: int) -> str:
    """What an error code of the protocol is called, for messages."""
    names = {90: "ProducerFenced", 120: "TransactionAbortable"}  # aiokafka knows neither
    return names.get(code) or kafka_errors.for_code(code).__name__


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turns aiokafka's errors into `Unreachable` or `KafkaRefused`."""
    try:
        yield
    except _REFUSALS as error:
        raise KafkaRefused(f"the broker refused us: {error}") from error
    except ssl.SSLEOFError as error:
        raise Unreachable(str(error)) from error
    except ssl.SSLError as error:
        raise KafkaRefused(f"no TLS connection to the broker: {error}") from error
    except (kafka_errors.IncompatibleBrokerVersion, NotImplementedError) as error:
        raise KafkaRefused(f"the broker is too old: {error}") from error
    except _NOT_READY as error:
        raise NotReady(str(error)) from error
    except (kafka_errors.KafkaError, OSError, TimeoutError) as error:
        raise Unreachable(_in_words(error)) from error


def _in_words(error: Exception) -> str:
    """`Connection refused`, `Name or service not known`: without numbers and addresses, which we tell ourselves."""
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno) if error.errno > 0 else error.strerror or str(error)
    return str(error) or type(error).__name__
