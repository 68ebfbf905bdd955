"""HTTP/1.1 connections of strangers: bounded in number and time, and with the client's certificate where TLS has one.

uvicorn bounds the pause between requests only; here a request must also have arrived, headers and body, within
`ARRIVAL_SECONDS_MAX` of the connection or of its first byte.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from streamproc.service.auth import CERTIFICATE_KEY
from streamproc.service.problem import MEDIA_TYPE, TYPE_PREFIX

ARRIVAL_SECONDS_MAX: Final = 30.0
CONNECTIONS_MAX: Final = 512

_ARRIVED: Final = (h11.DONE, h11.MUST_CLOSE, h11.CLOSED, h11.ERROR, h11.SWITCHED_PROTOCOL)


class ServiceProtocol(H11Protocol):
    """One connection."""

    arrival_seconds_max = ARRIVAL_SECONDS_MAX
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Refused where there are too many; else the first request is awaited."""
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS_MAX:
            transport.close()
            return
        name = common_name(transport)
        if name is not None:
            self.app_state = {**self.app_state, CERTIFICATE_KEY: name}
        self._await_request()

    def data_received(self, data: bytes) -> None:
        """More of a request."""
        super().data_received(data)
        if self.conn.their_state in _ARRIVED:
            self._forget_deadline()
        else:
            self._await_request()

    def on_response_complete(self) -> None:
        """The next request has its own time; until its first byte uvicorn's for idle connections counts."""
        super().on_response_complete()
        if self.conn.their_state is h11.IDLE:
            self._forget_deadline()
            if self.conn.trailing_data[0]:
                self._await_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is awaited any more."""
        self._forget_deadline()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP gets a problem, too."""
        problem = {"type": TYPE_PREFIX + "bad-request", "title": "Bad Request", "status": 400, "detail": msg}
        headers = [(b"content-type", MEDIA_TYPE.encode()), (b"x-content-type-options", b"nosniff")]
        body = json.dumps(problem).encode()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            response = h11.Response(
                status_code=400,
                headers=[*headers, (b"content-length", str(len(body)).encode()), (b"connection", b"close")],
            )
            for event in (response, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _await_request(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(self.arrival_seconds_max, self._too_late)

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_late(self) -> None:
        self._deadline = None
        if not self.transport.is_closing():
            self.transport.close()


def common_name(transport: asyncio.BaseTransport) -> str | None:
    """The common name in the client's certificate, which TLS has verified; None where it showed none."""
    connection: Any = transport.get_extra_info("ssl_object")
    certificate = connection.getpeercert() if connection is not None else None
    if not certificate:
        return None
    names = [value for part in certificate.get("subject", ()) for key, value in part if key == "commonName"]
    return names[-1] if names else ""
