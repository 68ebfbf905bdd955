"""What can be asked of the service, whoever asks: REST, the page. Every refusal is a `ServiceFault` with its status."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Protocol

from state.failure import Actor, Failure
from streamproc.observability.facts import JobFacts
from streamproc.pipeline.faults import Fault
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


class ServiceFault(Failure):
    """A request that is refused. `status` is HTTP's; `slug` ends the problem's type."""

    acts: ClassVar[Actor] = "user"

    def __init__(self, status: int, slug: str, title: str, detail: str) -> None:
        super().__init__(detail)
        self.status, self.slug, self.title = status, slug, title


class UnknownPipeline(ServiceFault):
    """404."""

    def __init__(self, name: str) -> None:
        super().__init__(404, "unknown-pipeline", "There is no such pipeline", f"there is no pipeline {name}")


class FaultyPipeline(ServiceFault):
    """422: the YAML has errors; all of them."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        super().__init__(422, "faulty-pipeline", "The pipeline file has errors", "\n".join(map(str, faults)))
        self.faults = faults


class DropsState(ServiceFault):
    """409: going on would throw state away, and nobody has said it may."""

    def __init__(self, plan: PlanView) -> None:
        lost = ", ".join(c.name for c in plan.changes if c.state in ("rebuilt", "dropped"))
        super().__init__(409, "drops-state", "State would be dropped", f"this would drop the state of {lost}")
        self.plan = plan


class PlanOutdated(ServiceFault):
    """409: the plan that was shown is not what would be done now."""

    def __init__(self, plan: PlanView) -> None:
        detail = "the pipeline has changed since that plan was made; look at the new one"
        super().__init__(409, "plan-outdated", "The plan is outdated", detail)
        self.plan = plan


class Conflict(ServiceFault):
    """409: not in the state the pipeline is in."""

    def __init__(self, detail: str) -> None:
        super().__init__(409, "conflict", "Not possible in this state", detail)


class PipelineApi(Protocol):
    """The service. Names are those of pipelines; every method raises ServiceFault for what it refuses."""

    def list(self) -> tuple[PipelineSummary, ...]:
        """By name."""

    def get(self, name: str) -> PipelineDetail:
        """One."""

    async def plan(self, name: str, yaml: bytes) -> PlanView:
        """What `put` would do. Raises FaultyPipeline."""

    async def put(
        self, name: str, yaml: bytes, *, plan: str | None = None, drop_state: bool = False
    ) -> tuple[PipelineDetail, bool]:
        """Create or upgrade; and whether it was created. The same file again does nothing. `plan`: do exactly this
        one, or raise PlanOutdated. Raises FaultyPipeline, DropsState."""

    async def delete(self, name: str) -> None:
        """Stop with a last checkpoint, and forget; its checkpoints stay in their store."""

    async def stop(self, name: str, *, drain: bool = False) -> PipelineDetail:
        """Stop with a last checkpoint. `drain`: input ends, every window closes, results are committed."""

    async def start(self, name: str, *, restore_from: int | None = None) -> PipelineDetail:
        """Go on from the newest checkpoint, or from this one (a savepoint, say)."""

    async def savepoint(self, name: str) -> CheckpointView:
        """A checkpoint that is kept until somebody deletes it, taken while the pipeline goes on."""

    async def release_savepoint(self, name: str, savepoint: int) -> None:
        """It is a checkpoint like others from now on: removed once it is old. 404 where there is no such savepoint."""

    async def rescale(self, name: str, parallelism: int) -> PipelineDetail:
        """Go on with this many subtasks of every node that does not say otherwise, from a savepoint."""

    async def checkpoints(self, name: str) -> tuple[CheckpointView, ...]:
        """Newest first."""

    def graph(self, name: str) -> GraphView:
        """The job graph, live where the pipeline runs."""

    def errors(self, name: str) -> ErrorList:
        """The last bad records and failures."""

    def why(self, name: str, step: str) -> WhyView:
        """Why nothing comes out of a node. Raises ServiceFault 404 for a node that is not there."""

    def facts(self, name: str) -> JobFacts | None:
        """What the job is doing now; None while it does not run."""

    async def dead_letters(self, name: str, sink: str, limit: int) -> DeadLetterList:
        """The newest letters of a Kafka sink of bad records. Raises ServiceFault for a sink that is none."""

    async def replay(self, name: str, sink: str, ids: Sequence[str] | None) -> int:
        """Send letters (None: all that wait) back to their sources' topics, once; how many were sent."""
