"""Asking the application without a socket, and a service behind it that says what a test wants it to say."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NoReturn

import httpx
from fastapi import FastAPI

from streamproc.observability.facts import JobFacts
from streamproc.service.api import UnknownPipeline
from streamproc.service.config import ServiceConfig, TokenConfig
from streamproc.service.problem import MEDIA_TYPE
from streamproc.service.views import (
    CheckpointView,
    DeadLetterList,
    ErrorList,
    GraphView,
    PipelineDetail,
    PipelineSummary,
    PlanView,
    WhyView,
)

READ, ADMIN = "read-token-0123456789", "admin-token-0123456789"
TOKENS = ServiceConfig(
    tokens=(TokenConfig(name="ada", role="admin", token=ADMIN), TokenConfig(name="rita", role="read", token=READ))
)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def detail(name: str, yaml: str = "") -> PipelineDetail:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return PipelineDetail(
        name=name,
        state="running",
        wanted="running",
        ready=True,
        revision=1,
        parallelism=1,
        yaml=yaml,
        created_at=now,
        updated_at=now,
    )


@dataclass
class Remembering:
    """Keeps files by name and notes what it was asked to do; `fails` is raised in its place."""

    pipelines: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[Any, ...]] = field(default_factory=list)
    fails: Exception | None = None

    def list(self) -> tuple[PipelineSummary, ...]:
        return tuple(self.get(name) for name in sorted(self.pipelines))

    def get(self, name: str) -> PipelineDetail:
        if name not in self.pipelines:
            raise UnknownPipeline(name)
        return detail(name, self.pipelines[name])

    async def plan(self, name: str, yaml: bytes) -> PlanView:
        self._note("plan", name, yaml)
        return PlanView(
            id="p1", pipeline=name, revision=None, action="create", drops_state=False, checkpoint=None, changes=()
        )

    async def put(
        self, name: str, yaml: bytes, *, plan: str | None = None, drop_state: bool = False
    ) -> tuple[PipelineDetail, bool]:
        self._note("put", name, yaml, plan, drop_state)
        created = name not in self.pipelines
        self.pipelines[name] = yaml.decode()
        return self.get(name), created

    async def delete(self, name: str) -> None:
        self._note("delete", name)
        self.get(name)
        del self.pipelines[name]

    async def stop(self, name: str, *, drain: bool = False) -> PipelineDetail:
        self._note("stop", name, drain)
        return self.get(name)

    async def start(self, name: str, *, restore_from: int | None = None) -> PipelineDetail:
        self._note("start", name, restore_from)
        return self.get(name)

    async def savepoint(self, name: str) -> CheckpointView:
        self._note("savepoint", name)
        self._nothing(name)

    async def release_savepoint(self, name: str, savepoint: int) -> None:
        self._note("release_savepoint", name, savepoint)
        self._nothing(name)

    async def rescale(self, name: str, parallelism: int) -> PipelineDetail:
        self._note("rescale", name, parallelism)
        return self.get(name)

    async def checkpoints(self, name: str) -> tuple[CheckpointView, ...]:
        self.get(name)
        return ()

    def graph(self, name: str) -> GraphView:
        self.get(name)
        return GraphView(pipeline=name, live=False, nodes=(), edges=())

    def errors(self, name: str) -> ErrorList:
        self.get(name)
        return ErrorList(total=0, errors=())

    def why(self, name: str, step: str) -> WhyView:
        self.get(name)
        return WhyView(pipeline=name, step=step, summary="it flows", findings=())

    def facts(self, name: str) -> JobFacts | None:
        self.get(name)
        return None

    async def dead_letters(self, name: str, sink: str, limit: int) -> DeadLetterList:
        self._nothing(name)

    async def replay(self, name: str, sink: str, ids: Sequence[str] | None) -> int:
        self._nothing(name)

    def _note(self, *asked: Any) -> None:
        self.asked.append(asked)
        if self.fails is not None:
            raise self.fails

    def _nothing(self, name: str) -> NoReturn:
        raise UnknownPipeline(name)


@asynccontextmanager
async def asking(app: FastAPI, **more: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client at `localhost:8080`. An error that leaves the application fails the test."""
    transport = httpx.ASGITransport(app, client=("127.0.0.1", 4000))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8080", **more) as client:
        yield client


def problem(response: httpx.Response, status: int, slug: str | None = None) -> dict[str, Any]:
    """The problem that was answered, with this status."""
    assert (response.status_code, response.headers.get("content-type")) == (status, MEDIA_TYPE), response.text
    if response.request.method == "HEAD":
        return {}
    found: dict[str, Any] = response.json()
    assert found["status"] == status
    assert found["title"]
    assert slug is None or found["type"].endswith(f":{slug}"), found
    return found
