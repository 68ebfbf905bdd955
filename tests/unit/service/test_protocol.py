"""Connections over real sockets: slow ones end, too many are refused, what is no HTTP gets a problem."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from streamproc.service import protocol
from streamproc.service.app import create_app
from streamproc.service.config import ServiceConfig
from streamproc.service.protocol import ServiceProtocol
from streamproc.service.server import HEADER_BYTES_MAX, api_server
from tests.eventually import eventually
from tests.unit.service.asking import Remembering


class Impatient(ServiceProtocol):
    arrival_seconds_max = 0.2


@asynccontextmanager
async def serving(kind: type[ServiceProtocol] = ServiceProtocol) -> AsyncIterator[int]:
    """The port. The server ends with the block, and with it all connections."""
    server = api_server(create_app(Remembering({"p": "x"}), ServiceConfig()), None, kind)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        task = asyncio.create_task(server.serve([listener]))
        await eventually(lambda: server.started)
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            server.force_exit = True
            await task


async def exchange(port: int, *parts: bytes) -> bytes:
    """Everything that is answered until the other side closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
        return await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()


@pytest.mark.parametrize(
    "begin",
    [
        b"",
        b"GET /v1/pipelines HT",
        b"GET /v1/pipelines HTTP/1.1\r\nHost: localhost\r\nX: ",
        b"PUT /v1/pipelines/p HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nversion",
        b"GET /v1/pipelines HTTP/1.1\r\nHost: localhost\r\n\r\nGET /v1",
    ],
    ids=["silent", "request line", "headers", "body", "second request"],
)
async def test_who_does_not_finish_a_request_is_cut_off(begin: bytes) -> None:
    async with serving(Impatient) as port:
        answer = await exchange(port, begin)
        assert answer.count(b"HTTP/1.1 200") == begin.count(b"\r\n\r\nGET")
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"http://127.0.0.1:{port}/v1/pipelines")).status_code == 200


async def test_one_connection_serves_many_requests() -> None:
    async with serving(Impatient) as port, httpx.AsyncClient() as client:
        for _ in range(3):
            assert (await client.put(f"http://127.0.0.1:{port}/v1/pipelines/p", content=b"a: 1")).status_code == 200
            head = await client.head(f"http://127.0.0.1:{port}/v1/pipelines")
            assert (head.status_code, head.content) == (200, b"")
            assert "server" not in head.headers


@pytest.mark.parametrize(
    "sent", [b"\x16\x03\x01\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"X: " + b"y" * HEADER_BYTES_MAX]
)
async def test_what_is_no_http_gets_a_problem(sent: bytes) -> None:
    async with serving() as port:
        answer = await exchange(port, sent)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400")
    assert b"application/problem+json" in head
    assert json.loads(body)["status"] == 400


async def test_connections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "CONNECTIONS_MAX", 3)
    async with serving() as port:
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        assert await exchange(port) == b""
        for _, writer in held:
            writer.close()
