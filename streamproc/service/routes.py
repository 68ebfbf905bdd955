"""The REST of the contract: each route asks `PipelineApi` one thing and answers with its view."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Body, Path, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from streamproc.pipeline.spec import PIPELINE_NAME
from streamproc.service.api import PipelineApi
from streamproc.service.guard import GuardedRoute, needs
from streamproc.service.openapi import problems
from streamproc.service.views import (
    CheckpointList,
    CheckpointView,
    ErrorList,
    GraphView,
    PipelineDetail,
    PipelineList,
    PlanView,
    WhyView,
)

PARALLELISM_MAX: Final = 32_768  # as many as there can be key groups

_YAML_EXAMPLE: Final = """\
version: 1
pipeline: numbers
sources:
  rows: {type: datagen, rate: 10, columns: {id: {sequence: {start: 0}}}}
sinks:
  out: {type: blackhole, input: rows}
"""
_YAML_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "description": "The pipeline file, as UTF-8 text. References to secrets are resolved by the service.",
        "content": {
            media: {"schema": {"type": "string"}, "example": _YAML_EXAMPLE}
            for media in ("application/yaml", "text/plain")
        },
    }
}


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class StopRequest(_Request):
    """How to stop."""

    drain: bool = Field(
        default=False, description="End the input: every window closes and all results are committed.", examples=[True]
    )


class StartRequest(_Request):
    """Where to go on from."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=False)

    restore_from: int | None = Field(
        default=None,
        alias="from",
        ge=1,
        le=2**53,
        description="A checkpoint or savepoint; null: the newest one.",
        examples=[12],
    )


class SavepointRequest(_Request):
    """An empty object: a savepoint has no options."""


class RescaleRequest(_Request):
    """How many subtasks."""

    parallelism: int = Field(
        ge=1, le=PARALLELISM_MAX, description="Subtasks of every node that does not say otherwise.", examples=[3]
    )


Name = Annotated[str, Path(description="The pipeline's name.", examples=["numbers"])]
NewName = Annotated[
    str, Path(description="The pipeline's name, as in its file.", pattern=PIPELINE_NAME, examples=["numbers"])
]
Step = Annotated[str, Path(description="A source, step or sink.", examples=["revenue"])]


def rest_router(service: PipelineApi) -> APIRouter:
    """`/v1`."""
    router = APIRouter(prefix="/v1/pipelines", route_class=GuardedRoute, tags=["pipelines"])

    @router.get("", operation_id="listPipelines", summary="All pipelines, by name")
    @needs("read")
    async def list_pipelines() -> PipelineList:
        return PipelineList(pipelines=service.list())

    @router.put(
        "/{name}",
        operation_id="putPipeline",
        summary="Create a pipeline, or upgrade it",
        description=(
            "The same file again does nothing. An upgrade takes a savepoint, stops, and goes on from there with the"
            " new graph. It is refused where state would be dropped, unless `drop_state` is given."
        ),
        response_description="Upgraded, or nothing to do",
        responses={
            201: {"model": PipelineDetail, "description": "Created", "headers": {"Location": _LOCATION}},
            **problems(409, 422, 504),
        },
        openapi_extra=_YAML_BODY,
    )
    @needs("admin")
    async def put_pipeline(
        request: Request,
        response: Response,
        name: NewName,
        plan: Annotated[
            str | None,
            Query(max_length=200, description="The id of a plan: do exactly this one, or refuse (409)."),
        ] = None,
        drop_state: Annotated[bool, Query(description="State that cannot be kept may be dropped.")] = False,
    ) -> PipelineDetail:
        detail, created = await service.put(name, await request.body(), plan=plan, drop_state=drop_state)
        if created:
            response.status_code = 201
            response.headers["Location"] = f"/v1/pipelines/{name}"
        return detail

    @router.get("/{name}", operation_id="getPipeline", summary="One pipeline", responses=problems(404))
    @needs("read")
    async def get_pipeline(name: Name) -> PipelineDetail:
        return service.get(name)

    @router.delete(
        "/{name}",
        operation_id="deletePipeline",
        summary="Stop a pipeline with a last checkpoint, and forget it",
        description="Its checkpoints stay in their store.",
        status_code=204,
        response_description="Gone",
        responses=problems(404, 409, 504),
    )
    @needs("admin")
    async def delete_pipeline(name: Name) -> None:
        await service.delete(name)

    @router.post(
        "/{name}/plan",
        operation_id="planPipeline",
        summary="What putting this file would do",
        description="Changes nothing. Each difference comes with what would happen to the step's state.",
        responses=problems(422),
        openapi_extra=_YAML_BODY,
    )
    @needs("read")
    async def plan_pipeline(request: Request, name: NewName) -> PlanView:
        return await service.plan(name, await request.body())

    @router.post(
        "/{name}/stop",
        operation_id="stopPipeline",
        summary="Stop with a last checkpoint",
        responses=problems(404, 409, 504),
    )
    @needs("admin")
    async def stop_pipeline(name: Name, body: Annotated[StopRequest | None, Body()] = None) -> PipelineDetail:
        return await service.stop(name, drain=body.drain if body is not None else False)

    @router.post(
        "/{name}/start",
        operation_id="startPipeline",
        summary="Go on, from the newest checkpoint or from a given one",
        responses=problems(404, 409, 504),
    )
    @needs("admin")
    async def start_pipeline(name: Name, body: Annotated[StartRequest | None, Body()] = None) -> PipelineDetail:
        return await service.start(name, restore_from=body.restore_from if body is not None else None)

    @router.post(
        "/{name}/savepoints",
        operation_id="takeSavepoint",
        summary="Take a checkpoint that is kept",
        description="The pipeline goes on meanwhile. A savepoint stays until somebody deletes it.",
        status_code=201,
        response_description="Taken",
        responses=problems(404, 409, 504),
    )
    @needs("admin")
    async def take_savepoint(name: Name, body: Annotated[SavepointRequest | None, Body()] = None) -> CheckpointView:
        return await service.savepoint(name)

    @router.delete(
        "/{name}/savepoints/{savepoint}",
        operation_id="deleteSavepoint",
        summary="Keep a savepoint no longer",
        description="It becomes a checkpoint like others, which the pipeline removes once it is old.",
        status_code=204,
        response_description="Released",
        responses=problems(404, 504),
    )
    @needs("admin")
    async def delete_savepoint(
        name: Name, savepoint: Annotated[int, Path(description="Its number.", ge=1, examples=[12])]
    ) -> None:
        await service.release_savepoint(name, savepoint)

    @router.post(
        "/{name}/rescale",
        operation_id="rescalePipeline",
        summary="Go on with another parallelism, from a savepoint",
        responses=problems(404, 409, 504),
    )
    @needs("admin")
    async def rescale_pipeline(name: Name, body: RescaleRequest) -> PipelineDetail:
        return await service.rescale(name, body.parallelism)

    @router.get(
        "/{name}/checkpoints",
        operation_id="listCheckpoints",
        summary="The stored checkpoints and savepoints, newest first",
        responses=problems(404),
    )
    @needs("read")
    async def list_checkpoints(name: Name) -> CheckpointList:
        return CheckpointList(checkpoints=await service.checkpoints(name))

    @router.get("/{name}/graph", operation_id="getGraph", summary="The job graph, live", responses=problems(404, 409))
    @needs("read")
    async def get_graph(name: Name) -> GraphView:
        return service.graph(name)

    @router.get(
        "/{name}/errors",
        operation_id="listErrors",
        summary="The last bad records and failures, newest first",
        responses=problems(404),
    )
    @needs("read")
    async def list_errors(name: Name) -> ErrorList:
        return service.errors(name)

    @router.get(
        "/{name}/why/{step}",
        operation_id="explainSilence",
        summary="Why nothing comes out of a step",
        responses=problems(404, 409),
    )
    @needs("read")
    async def why(name: Name, step: Step) -> WhyView:
        return service.why(name, step)

    return router


_LOCATION: Final = {"description": "The pipeline.", "schema": {"type": "string"}}
