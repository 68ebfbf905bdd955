"""Metrics and health on their own port: `/metrics`, `/healthz`, `/readyz`.

The answer to `/healthz` comes from the loop the job runs on: a loop that hangs does not answer, which
is what a liveness probe wants to see. Loopback unless told otherwise: nothing here asks for a token.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from state.failure import Failure
from streamproc.observability.metrics import CONTENT_TYPE, MetricRegistry
from streamproc.observability.status import JobStatus

if TYPE_CHECKING:
    from aiohttp import web  # imported where it is used: a tenth of a second that most runs need not wait

LOOPBACK = "127.0.0.1"


class PortUnavailable(Failure):
    """The metrics port cannot be listened on."""

    acts = "user"


@asynccontextmanager
async def metrics_served(
    registry: MetricRegistry, statuses: Sequence[JobStatus], port: int, host: str = LOOPBACK
) -> AsyncIterator[int]:
    """Serve while the block runs; gives the port (one the system picked, for 0)."""
    from aiohttp import web

    runner = web.AppRunner(_application(registry, statuses), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise PortUnavailable(f"cannot serve metrics on {host}:{port}: {error.strerror or error}") from error
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def _application(registry: MetricRegistry, statuses: Sequence[JobStatus]) -> web.Application:
    from aiohttp import web

    async def metrics(request: web.Request) -> web.Response:
        text = await asyncio.to_thread(registry.render)
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE})

    async def healthz(request: web.Request) -> web.Response:
        return web.json_response({"status": "alive"})

    async def readyz(request: web.Request) -> web.Response:
        ready = all(status.ready for status in statuses)
        pipelines = {
            status.pipeline: {"state": status.state} | ({"message": status.message} if status.message else {})
            for status in statuses
        }
        return web.json_response({"ready": ready, "pipelines": pipelines}, status=200 if ready else 503)

    application = web.Application(client_max_size=1024)
    application.router.add_get("/metrics", metrics)
    application.router.add_get("/healthz", healthz)
    application.router.add_get("/readyz", readyz)
    return application
