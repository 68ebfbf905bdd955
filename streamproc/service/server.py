"""The process of `streamproc serve`: listens, brings the pipelines back, and on a signal takes their last checkpoints.

The ports are taken before any pipeline is touched: a second service, or a wrong address, harms nothing.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from typing import Final

import structlog
import uvicorn
from fastapi import FastAPI

from state.failure import Failure
from streamproc.observability.http import metrics_served, taken
from streamproc.observability.metrics import MetricRegistry
from streamproc.observability.redaction import Redaction
from streamproc.service.app import create_app
from streamproc.service.audit import AuditFile
from streamproc.service.auth import asks_who, check_exposure, is_loopback
from streamproc.service.config import ListenConfig, ServiceConfig, TlsConfig
from streamproc.service.page.routes import page_router
from streamproc.service.protocol import ServiceProtocol
from streamproc.service.service import PipelineService
from streamproc.service.views import PipelineSummary
from streamproc.stop_signals import ABORTED, stop_signals

ANSWERS_SECONDS_MAX: Final = 10  # for requests that are under way when the service ends
KEEP_ALIVE_SECONDS: Final = 20
HEADER_BYTES_MAX: Final = 32_768

_BACKLOG: Final = 128

log = structlog.get_logger("streamproc.service")


class AddressUnavailable(Failure):
    """The API's address cannot be listened on."""

    acts = "user"


class WrongCertificate(Failure):
    """The files of `tls` cannot be used."""

    acts = "user"


@dataclass(frozen=True, slots=True)
class Listening:
    """Where the service can be reached."""

    api: str
    metrics: str


async def serve(
    config: ServiceConfig,
    redaction: Redaction,
    *,
    say: Callable[[str], None],
    listening: Callable[[Listening], None],
) -> bool:
    """Serve until a signal; gives whether something was left behind that keeps the process from ending by itself.
    Raises a Failure for the user to mend: an address in use, a directory that another service holds."""
    check_exposure(config)
    registry = MetricRegistry()
    service = PipelineService(config, registry, redaction)
    async with AsyncExitStack() as around:
        tls = tls_context(config.tls) if config.tls is not None else None
        listener = around.enter_context(_listen(config.listen))
        audit = AuditFile(config.audit_log) if config.audit_log is not None else None
        if audit is not None:
            around.callback(audit.close)
        server = api_server(create_app(service, config, page=page_router(service), audit=audit), tls)
        stop = around.enter_context(_stopped_by_signals(say))
        metrics_port = await around.enter_async_context(
            metrics_served(
                registry,
                lambda: map(_Ready, service.list()),
                config.metrics.port,
                config.metrics.host,
                known=lambda: service.opened,
            )
        )
        await service.open()
        try:
            _warn(config)
            scheme = "http" if tls is None else "https"
            api = _url(scheme, config.listen.host, listener.getsockname()[1])
            listening(Listening(api, _url("http", config.metrics.host, metrics_port)))
            await _until(stop, server, listener, service)
        finally:
            await service.close()
    return service.left_behind or not await service.calls_return()


async def _until(stop: asyncio.Event, server: ApiServer, listener: socket.socket, service: PipelineService) -> None:
    """Answer until the signal; then take no more connections and, while what is under way is answered, stop the
    pipelines: a request may wait for one of them."""
    serving = asyncio.create_task(server.serve([listener]), name="api")
    signalled = asyncio.create_task(stop.wait(), name="signal")
    await asyncio.wait({serving, signalled}, return_when=asyncio.FIRST_COMPLETED)
    signalled.cancel()
    server.should_exit = True
    await service.close()
    await serving


class ApiServer(uvicorn.Server):
    """uvicorn, which leaves signals to us."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """None are."""
        yield


def api_server(
    app: FastAPI, tls: ssl.SSLContext | None, protocol: type[ServiceProtocol] = ServiceProtocol
) -> ApiServer:
    """Serves `app` on the sockets it is given."""
    config = uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        lifespan="off",
        log_config=None,  # our logging is set up
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nobody may say for another where they come from
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=ANSWERS_SECONDS_MAX,
        h11_max_incomplete_event_size=HEADER_BYTES_MAX,
    )
    config.load()
    config.ssl = tls
    return ApiServer(config)


@dataclass(frozen=True, slots=True)
class _Ready:
    """A pipeline as `/readyz` tells of it."""

    summary: PipelineSummary

    @property
    def pipeline(self) -> str:
        return self.summary.name

    @property
    def wanted_running(self) -> bool:
        return self.summary.wanted == "running"

    @property
    def ready(self) -> bool:
        return self.summary.ready

    @property
    def state(self) -> str:
        return self.summary.state

    @property
    def message(self) -> str:
        return self.summary.message


@contextmanager
def _listen(listen: ListenConfig) -> Iterator[socket.socket]:
    """A socket that is bound. Raises AddressUnavailable."""
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    try:
        listener = socket.create_server((listen.host, listen.port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise AddressUnavailable(f"cannot listen on {listen.host}:{listen.port}: {taken(error, '--port')}") from error
    with listener:
        yield listener


def tls_context(tls: TlsConfig) -> ssl.SSLContext:
    """TLS 1.2 and later, with client certificates where they are asked for. Raises WrongCertificate."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    file = tls.certificate
    try:
        context.load_cert_chain(file, tls.key)
        if tls.clients is not None:
            file = tls.clients.ca
            context.load_verify_locations(file)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:  # a key that does not fit its certificate is an SSLError, too
        reason = getattr(error, "reason", None) or error.strerror or str(error)
        raise WrongCertificate(f"tls: {file} cannot be used: {reason}") from error
    return context


def _warn(config: ServiceConfig) -> None:
    host = config.listen.host
    if is_loopback(host) and not asks_who(config):
        return
    if config.tls is None and not is_loopback(host):
        log.warning("tokens travel in the clear: set tls, or put something in front that ends it", host=host)
    if not is_loopback(host) and not config.allowed_hosts and host in ("0.0.0.0", "::"):
        log.warning("requests are refused unless their Host is localhost: set allowed_hosts", host=host)


@contextmanager
def _stopped_by_signals(say: Callable[[str], None]) -> Iterator[asyncio.Event]:
    """First signal: last checkpoints, then the end. Second: the end at once, which loses nothing that a checkpoint
    holds: the next start treats it as a crash."""
    stopping = asyncio.Event()

    def stop() -> None:
        stopping.set()
        say("streamproc: taking last checkpoints, then stopping; once more stops at once")

    def at_once() -> None:
        say("streamproc: stopped at once")
        os._exit(ABORTED)

    with stop_signals(stop, at_once):
        yield stopping


def _url(scheme: str, host: str, port: int) -> str:
    shown = f"[{host}]" if ":" in host else host
    return f"{scheme}://{shown}:{port}"
