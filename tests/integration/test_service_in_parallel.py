"""Several clients want different things of one pipeline at the same time: one after the other gets its way."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from streamproc.observability.metrics import MetricRegistry
from streamproc.observability.redaction import Redaction
from streamproc.service.api import UnknownPipeline
from streamproc.service.config import ServiceConfig
from streamproc.service.service import PipelineService
from tests.integration.test_service import Shop


async def test_creating_and_deleting_one_name_in_parallel(tmp_path: Path) -> None:
    shop, metrics = Shop(tmp_path), MetricRegistry()
    config = ServiceConfig(directory=tmp_path / "service", checkpoints=f"file:{tmp_path}/stored")
    service = PipelineService(config, metrics, Redaction())
    await service.open()
    try:
        await service.plan("shop", shop.yaml())
        assert b'pipeline="shop"' not in metrics.render(), "what is only asked about leaves no trace"
        wishes = [service.put("shop", shop.yaml()) if n % 3 else _delete(service, "shop") for n in range(9)]
        await asyncio.gather(*wishes)
        detail, _ = await service.put("shop", shop.yaml())
        assert (detail.state, detail.revision) == ("running", 1)
        assert b'streamproc_wanted{pipeline="shop"} 1.0' in metrics.render()
    finally:
        await service.close()
        assert await service.calls_return()


async def _delete(service: PipelineService, name: str) -> None:
    with contextlib.suppress(UnknownPipeline):
        await service.delete(name)
