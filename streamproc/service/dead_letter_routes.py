"""Dead letters over REST: they hold payloads, so both routes are for admins."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ConfigDict, Field

from streamproc.service.api import PipelineApi
from streamproc.service.guard import GuardedRoute, needs
from streamproc.service.openapi import problems
from streamproc.service.views import DeadLetterList

LETTERS_MAX = 500

Name = Annotated[str, Path(description="The pipeline's name.", max_length=63, examples=["numbers"])]
SinkName = Annotated[str, Path(description="A Kafka sink of `.errors` streams.", max_length=200, examples=["dead"])]


class ReplayRequest(BaseModel):
    """Which letters."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    ids: list[str] | None = Field(
        default=None,
        max_length=LETTERS_MAX,
        description="Letters by id; null: all that wait.",
        examples=[["0:15", "1:7"]],
    )


class Replayed(BaseModel):
    """What was sent."""

    replayed: int


def dead_letter_router(service: PipelineApi) -> APIRouter:
    """`/v1/pipelines/{name}/dead-letters/{sink}`."""
    router = APIRouter(
        prefix="/v1/pipelines/{name}/dead-letters/{sink}", route_class=GuardedRoute, tags=["dead letters"]
    )

    @router.get(
        "", operation_id="listDeadLetters", summary="The newest dead letters of a sink", responses=problems(404, 409)
    )
    @needs("admin")
    async def list_dead_letters(
        name: Name,
        sink: SinkName,
        limit: Annotated[int, Query(ge=0, le=LETTERS_MAX, description="How many, at most.")] = 50,
    ) -> DeadLetterList:
        return await service.dead_letters(name, sink, limit)

    @router.post(
        "/replay",
        operation_id="replayDeadLetters",
        summary="Send dead letters back to their source's topic, each once",
        description=(
            "The original key and value, in a Kafka transaction that also records that they were sent. Letters sent"
            " before are left out; of many that wait the oldest are sent, and the rest by asking again."
        ),
        responses=problems(404, 409),
    )
    @needs("admin")
    async def replay_dead_letters(name: Name, sink: SinkName, body: ReplayRequest | None = None) -> Replayed:
        ids = None if body is None else body.ids
        return Replayed(replayed=await service.replay(name, sink, ids))

    return router
