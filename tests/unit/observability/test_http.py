"""Metrics and health over real HTTP on a port the system picked."""

from __future__ import annotations

import asyncio
import re

import aiohttp
import pytest

from streamproc.observability.http import PortUnavailable, metrics_served
from streamproc.observability.loop_lag import loop_lag_measured
from streamproc.observability.metrics import MetricRegistry, PipelineMetrics
from streamproc.observability.status import JobStatus
from tests.eventually import eventually


async def get(port: int, path: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as response:
        return response.status, await response.text()


async def test_metrics_are_served() -> None:
    registry = MetricRegistry()
    PipelineMetrics(registry, "p").up.set(1)
    async with metrics_served(registry, list, 0) as port:
        status, text = await get(port, "/metrics")
    assert status == 200
    assert 'streamproc_up{pipeline="p"} 1.0' in text.splitlines()


async def test_ready_follows_the_job_and_alive_does_not() -> None:
    job = JobStatus("p")
    async with metrics_served(MetricRegistry(), lambda: [job], 0) as port:
        assert (await get(port, "/readyz"))[0] == 503
        assert (await get(port, "/healthz"))[0] == 200

        job.state, job.message = "waiting", "the broker does not answer"
        status, text = await get(port, "/readyz")
        assert status == 503
        assert "the broker does not answer" in text

        job.state = "running"
        assert (await get(port, "/readyz"))[0] == 200


async def test_nothing_is_ready_before_the_pipelines_are_known() -> None:
    known = False
    async with metrics_served(MetricRegistry(), list, 0, known=lambda: known) as port:
        assert (await get(port, "/readyz"))[0] == 503
        known = True
        assert (await get(port, "/readyz"))[0] == 200


async def test_what_is_wanted_and_whether_it_is_so_are_metrics_too() -> None:
    job = JobStatus("p", state="waiting")
    async with metrics_served(MetricRegistry(), lambda: [job], 0) as port:
        text = (await get(port, "/metrics"))[1]
        assert 'streamproc_wanted{pipeline="p"} 1.0' in text
        assert 'streamproc_ready{pipeline="p"} 0.0' in text
        job.state = "running"
        assert 'streamproc_ready{pipeline="p"} 1.0' in (await get(port, "/metrics"))[1]


async def test_only_the_loopback_is_listened_on_and_nothing_else_is_there() -> None:
    async with metrics_served(MetricRegistry(), list, 0) as port:
        assert (await get(port, "/"))[0] == 404


async def test_another_address_is_served_when_asked_for() -> None:
    async with metrics_served(MetricRegistry(), list, 0, "0.0.0.0") as port:
        assert (await get(port, "/healthz"))[0] == 200
    nobodys = "192.0.2.1"
    with pytest.raises(PortUnavailable, match=re.escape(nobodys)):
        async with metrics_served(MetricRegistry(), list, 0, nobodys):
            pass


async def test_a_taken_port_is_the_users_to_mend() -> None:
    async with metrics_served(MetricRegistry(), list, 0) as port:
        with pytest.raises(PortUnavailable, match=f"127.0.0.1:{port}") as raised:
            async with metrics_served(MetricRegistry(), list, port):
                pass
    assert raised.value.acts == "user"


async def test_a_blocked_loop_shows_in_the_lag() -> None:
    registry = MetricRegistry()

    def observed() -> tuple[float, float]:
        samples = {s.name: s.value for family in registry.event_loop_lag.collect() for s in family.samples}
        return samples["streamproc_event_loop_lag_seconds_count"], samples["streamproc_event_loop_lag_seconds_sum"]

    loop = asyncio.get_running_loop()
    async with loop_lag_measured(registry.event_loop_lag):
        await asyncio.sleep(0)
        blocked_until = loop.time() + 0.4
        while loop.time() < blocked_until:
            pass
        await eventually(lambda: observed()[0] > 0)
    assert observed()[1] >= 0.25
