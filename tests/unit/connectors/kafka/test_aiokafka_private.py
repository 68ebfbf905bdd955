"""Fails when a new aiokafka changes what `aiokafka_private` relies on.

When it does: read the changed functions, check each assumption of `aiokafka_private` against them, run the
integration tests against a real broker, then take over the new fingerprint (the message shows it).
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
from typing import Any

import aiokafka
import pytest
import uvloop
from aiokafka import AIOKafkaProducer
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import KafkaConnectionError
from aiokafka.producer.message_accumulator import MessageAccumulator, MessageBatch
from aiokafka.producer.sender import Sender, SendProduceReqHandler
from aiokafka.producer.transaction_manager import TransactionManager
from aiokafka.protocol.admin import ApiVersionRequest
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.offset import OffsetRequest
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.transaction import AddPartitionsToTxnRequest, EndTxnRequest

import streamproc.connectors.kafka.aiokafka_private  # noqa: F401  guards aiokafka's connections

FINGERPRINTS = {
    AIOKafkaClient: "e5e5f42395367a92",
    AIOKafkaConnection: "ac26ab36fe7cd5b4",
    AIOKafkaProducer: "f56c529895670071",
    MessageAccumulator: "562530971ca9bd19",
    MessageBatch: "36a7b1dac89d2910",
    Sender: "46ef144176b79ef8",
    SendProduceReqHandler: "708c9da866caf440",
    TransactionManager: "d0932794d69a6780",
    FetchRequest: "ef21d383f1372a25",
    OffsetRequest: "d01378a63d0c1062",
}


def test_the_release_is_the_one_that_was_read() -> None:
    assert aiokafka.__version__.startswith("0.14."), aiokafka.__version__


@pytest.mark.parametrize("relied_on", FINGERPRINTS, ids=lambda relied_on: relied_on.__name__)
def test_the_code_relied_on_is_unchanged(relied_on: type) -> None:
    found = hashlib.sha256(inspect.getsource(relied_on).encode()).hexdigest()[:16]
    assert found == FINGERPRINTS[relied_on], f"{relied_on.__name__} has changed: read it again"


def test_transactions_are_still_spoken_in_the_old_way() -> None:
    """From EndTxn 5 the broker moves the epoch with every commit: a prepared transaction could not be resumed."""
    versions = {request.API_KEY: max(struct.API_VERSION for struct in request._CLASSES) for request in REQUESTS}
    assert versions[EndTxnRequest.API_KEY] < 5
    assert versions[ProduceRequest.API_KEY] < 12
    assert versions[AddPartitionsToTxnRequest.API_KEY] < 4


def test_a_write_to_a_connection_just_lost_is_a_connection_error() -> None:
    """uvloop refuses it with a RuntimeError, of which aiokafka's metadata task would die."""

    async def scenario() -> None:
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        connection = new_connection("127.0.0.1", port, request_timeout_ms=1000)
        connection._reader, connection._writer = await asyncio.open_connection("127.0.0.1", port)
        connection._read_task = asyncio.create_task(asyncio.sleep(0))
        connection._writer.transport.abort()
        await connection._reader.read()
        try:
            with pytest.raises(KafkaConnectionError, match="connection lost"):
                connection.send(ApiVersionRequest())
            assert not connection.connected()
        finally:
            connection.close()
            server.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario())


new_connection: Any = AIOKafkaConnection
REQUESTS = (EndTxnRequest, ProduceRequest, AddPartitionsToTxnRequest)
