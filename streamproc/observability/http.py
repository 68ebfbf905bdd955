"""Metrics and health on their own port: `/metrics`, `/healthz`, `/readyz`.

The answer to `/healthz` comes from the loop the job runs on: a loop that hangs does not answer, which
is what a liveness probe wants to see. Loopback unless told otherwise: nothing here asks for a token.
"""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Protocol

from state.failure import Failure
from streamproc.observability.metrics import CONTENT_TYPE, MetricRegistry

if TYPE_CHECKING:
    from aiohttp import web  # imported where it is used: a tenth of a second that most runs need not wait

LOOPBACK = "127.0.0.1"


class Readiness(Protocol):
    """Whether one pipeline does what is wanted of it, and if not, why."""

    @property
    def pipeline(self) -> str:
        """Its name."""

    @property
    def wanted_running(self) -> bool:
        """It is wanted to run."""

    @property
    def ready(self) -> bool:
        """It is as wanted."""

    @property
    def state(self) -> str:
        """What it does."""

    @property
    def message(self) -> str:
        """Why, where the state does not say it; may be empty."""


Pipelines = Callable[[], Iterable[Readiness]]  # those there are now: in a service they come and go


class PortUnavailable(Failure):
    """The metrics port cannot be listened on."""

    acts = "user"


@asynccontextmanager
async def metrics_served(
    registry: MetricRegistry,
    pipelines: Pipelines,
    port: int,
    host: str = LOOPBACK,
    *,
    known: Callable[[], bool] = lambda: True,
) -> AsyncIterator[int]:
    """Serve while the block runs; gives the port (one the system picked, for 0). Not ready until the pipelines are
    `known`."""
    from aiohttp import web

    runner = web.AppRunner(_application(registry, pipelines, known), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise PortUnavailable(f"cannot serve metrics on {host}:{port}: {taken(error, '--metrics-port')}") from error
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def taken(error: OSError, option: str) -> str:
    """Why an address cannot be had, in the system's own words, and which option names another port."""
    in_words = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or str(error)
    more = f"; {option} names another" if error.errno in (errno.EADDRINUSE, errno.EACCES) else ""
    return f"{in_words.lower()}{more}"


def _application(registry: MetricRegistry, pipelines: Pipelines, known: Callable[[], bool]) -> web.Application:
    from aiohttp import web

    async def metrics(request: web.Request) -> web.Response:
        for each in pipelines():
            registry.gauge("wanted", each.pipeline).set(each.wanted_running)
            registry.gauge("ready", each.pipeline).set(each.ready)
        return web.Response(body=await registry.scrape(), headers={"Content-Type": CONTENT_TYPE})

    async def healthz(request: web.Request) -> web.Response:
        return web.json_response({"status": "alive"})

    async def readyz(request: web.Request) -> web.Response:
        now = list(pipelines())
        ready = known() and all(one.ready for one in now)
        said = {
            one.pipeline: {"state": one.state, "ready": one.ready} | ({"message": one.message} if one.message else {})
            for one in now
        }
        return web.json_response({"ready": ready, "pipelines": said}, status=200 if ready else 503)

    application = web.Application(client_max_size=1024)
    application.router.add_get("/metrics", metrics)
    application.router.add_get("/healthz", healthz)
    application.router.add_get("/readyz", readyz)
    return application
