"""One pipeline of the service: what is wanted of it, what its file means, and the supervisor that makes it so.

Every change first becomes durable as what is wanted, then is brought about; both under the pipeline's lock, so changes
come one after the other. A change that is interrupted is taken up by the next start of the service. (An upgrade without
a savepoint stops the old revision before it becomes durable, to plan of what is stored: interrupted there, it was never
begun.)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal, TypeVar

import structlog

from state.failure import Failure
from state.store import shown_url
from streamproc.checkpoint.control import SavepointFailed
from streamproc.checkpoint.manifest import Manifest
from streamproc.pipeline.faults import InvalidPipeline
from streamproc.pipeline.logical import LogicalGraph
from streamproc.service.api import Conflict, DropsState, FaultyPipeline, PlanOutdated, ServiceFault
from streamproc.service.definition import Definition
from streamproc.service.plan import dropped_names, make_plan
from streamproc.service.rates import Samples
from streamproc.service.registry import Damaged, Entry, Record, sha256_of
from streamproc.service.stored import misfits, newest, release, release_for_upgrades, store_of, stored_checkpoints
from streamproc.service.supervisor import PipelineSupervisor, as_failure
from streamproc.service.surroundings import Surroundings
from streamproc.service.views import CheckpointView, PlanView

log = structlog.get_logger("streamproc.service")

T = TypeVar("T")

UPGRADE_SAVEPOINT_S: Final = 60.0
_UNDER_WAY_S: Final = 5.0
_LOOK_S: Final = 5.0


class DamagedRecord(Failure):
    """What was wanted of the pipeline cannot be read any more."""

    acts = "world"


@dataclass(slots=True)
class HostedPipeline:
    """`record` is None where it is damaged; `definition` where nothing has been read yet."""

    name: str
    around: Surroundings
    supervisor: PipelineSupervisor
    record: Record | None = None
    damage: str = ""
    yaml: bytes = b""
    definition: Definition | None = None
    checkpoints: tuple[CheckpointView, ...] = ()  # as last seen in the store
    samples: Samples = field(default_factory=Samples)
    changing: asyncio.Lock = field(default_factory=asyncio.Lock)
    returning: bool = False  # it is to be brought back, and has not been yet
    gone: bool = False
    _saving: asyncio.Lock = field(default_factory=asyncio.Lock)
    _look: asyncio.Task[tuple[CheckpointView, ...]] | None = None

    @property
    def graph(self) -> LogicalGraph | None:
        """What runs, or would."""
        return None if self.definition is None else self.definition.graph

    @property
    def wish(self) -> Record:
        """The record. Raises Conflict where it is damaged."""
        if self.record is None:
            raise Conflict(f"what is wanted of {self.name} cannot be read: {self.damage}. Put its file again")
        return self.record

    # -- at the start of the service

    def load(self, stored: Entry | Damaged) -> None:
        """Take over what the registry holds."""
        self.returning = True
        if isinstance(stored, Damaged):
            self.damage = stored.reason
            log.error("what is wanted of a pipeline cannot be read", pipeline=self.name, reason=stored.reason)
            self.supervisor.fail(DamagedRecord(f"what is wanted of it cannot be read: {stored.reason}"))
        else:
            self.record, self.yaml = stored.record, stored.yaml
            self.supervisor.status.state = "starting" if self.record.wanted != "stopped" else "stopped"

    async def bring_back(self) -> None:
        """Make it so as it was wanted when the service ended."""
        if self.record is None or self.supervisor.running:
            return
        if self.record.wanted == "running":
            await self._begin()
        elif await self._read() is not None:
            await self.look_into_store()
            await self._end_after_all("drain" if self.record.wanted == "drained" else "stop")
        if await self._release_for_upgrades():  # an upgrade was cut short
            await self.look_into_store()

    async def _end_after_all(self, how: Literal["stop", "drain"]) -> None:
        """The service ended while it was stopping or draining, or when it had. Results that its last checkpoint holds
        and nobody has committed are, by a run that ends as soon as it can."""
        assert self.graph is not None
        last, committed = None, True
        try:
            last, committed = await asyncio.to_thread(newest, self.graph)
        except Failure as failure:
            log.warning("the checkpoint store cannot be looked into", pipeline=self.name, reason=str(failure))
        if committed and last is not None and last.kind in ("drain", "finished"):
            self.supervisor.status.state = "drained" if last.kind == "drain" else "finished"
        elif not committed or how == "drain":
            await self._begin(then=how)

    # -- changes; the caller holds `changing`

    async def create(self, definition: Definition, *, plan: str | None, drop_state: bool) -> None:
        """A new pipeline; in place of one whose record is damaged. Raises PlanOutdated, DropsState: there may be
        checkpoints of an earlier pipeline of this name."""
        shown = await self.plan(definition)
        self._check(shown, plan, drop_state)
        now = datetime.now(UTC)
        record = Record(
            name=self.name,
            revision=1,
            yaml_sha256=sha256_of(definition.yaml),
            allowed_drops=tuple(sorted(dropped_names(shown))),
            storage=shown_url(self.around.config.checkpoints),
            created_at=now,
            updated_at=now,
        )
        await self.around.durably(self.around.registry.create, record, definition.yaml)
        self.record, self.yaml, self.damage = record, definition.yaml, ""
        self.definition = definition

    async def begin_if_wanted(self) -> None:
        """The pipeline has just been created."""
        if self.wish.wanted == "running" and not self.supervisor.running:
            await self._begin(self.definition)

    async def upgrade(self, definition: Definition, *, plan: str | None, drop_state: bool) -> None:
        """Go on with another file. Raises PlanOutdated, DropsState."""
        shown = await self.plan(definition)
        self._check(shown, plan, drop_state)
        same = definition.yaml == self.yaml
        if shown.action == "nothing":
            if not same:
                await self._save(definition.yaml, revision=self.wish.revision + 1)
                self.definition = definition
            if self.wish.wanted == "running" and self.supervisor.status.state == "failed":
                await self._begin()
            return
        parallelism = None if definition.names_parallelism and not same else self.wish.parallelism
        await self._replace(
            definition, shown, drop_state=drop_state, revision=self.wish.revision + 1, parallelism=parallelism
        )

    async def rescale(self, parallelism: int) -> None:
        """Go on with other subtasks."""
        wish = self.wish
        definition = await self.around.read(self.name, self.yaml, parallelism, wish)
        if definition.graph is None:
            raise FaultyPipeline(definition.faults)
        shown = await self.plan(definition)
        if shown.drops_state:
            raise DropsState(shown)
        if shown.action == "nothing" and parallelism == wish.parallelism:
            return
        await self._replace(definition, shown, drop_state=False, revision=wish.revision, parallelism=parallelism)

    async def stop(self) -> None:
        """With a last checkpoint. What has drained, or finished, stays so."""
        if self.supervisor.running or self.supervisor.status.state not in ("drained", "finished"):
            if self.wish.wanted != "stopped":
                await self._save(wanted="stopped")
            await self.supervisor.end()
            self.supervisor.rest()
            await self.look_into_store()

    async def drain(self) -> None:
        """Ask for it; `supervisor.ended` tells that it has come."""
        state = self.supervisor.status.state
        if state in ("drained", "finished") and not self.supervisor.running:
            return
        if not self.supervisor.draining:
            if state != "running":
                raise Conflict(f"{self.name} is {state}: only a running pipeline can be drained")
            await self._save(wanted="drained")
            self.supervisor.drain()

    async def start(self, restore_from: int | None) -> None:
        """From the newest checkpoint, or from this one. Where all checkpoints are gone nothing begins anew: their disk
        may just not be mounted."""
        supervisor = self.supervisor
        if supervisor.running and self.wish.wanted == "stopped":
            await supervisor.end()  # it only makes up for a stop that was cut short
        if supervisor.running:
            if restore_from is not None:
                raise Conflict(f"{self.name} is {supervisor.status.state}: stop it before it goes back to a checkpoint")
            if supervisor.draining:
                raise Conflict(f"{self.name} is being drained: stop it, or wait, before it is started")
            return
        if restore_from is not None:
            await self._check_restorable(restore_from)
            # What an upgrade was once allowed to drop was of another checkpoint.
            await self._save(wanted="running", restore_from=restore_from, allowed_drops=())
        elif supervisor.status.state == "finished" and self.wish.wanted == "running":
            return
        else:
            await self._save(wanted="running", restore_from=None)
        await self._begin()

    async def delete(self) -> None:
        """Stop, and forget."""
        if self.record is not None and self.record.wanted != "stopped":
            await self._save(wanted="stopped")
        await self.supervisor.end()
        await self.around.durably(self.around.registry.forget, self.name)
        self.gone = True

    # -- what is asked

    async def read(self, yaml: bytes) -> Definition:
        """What a file would mean here. Raises FaultyPipeline."""
        parallelism = None if self.record is None else self.record.parallelism
        definition = await self.around.read(self.name, yaml, parallelism, self.record)
        if parallelism is not None and definition.names_parallelism and yaml != self.yaml:
            definition = await self.around.read(self.name, yaml, None, self.record)  # what the file says now is newer
        if definition.graph is None:
            raise FaultyPipeline(definition.faults)
        return definition

    async def plan(self, definition: Definition) -> PlanView:
        """What going on with this file would do."""
        assert definition.graph is not None
        stored, committed = await asyncio.to_thread(newest, definition.graph if self.graph is None else self.graph)
        return self._plan(
            definition.graph, stored, committed=committed, running=self.supervisor.status.state == "running"
        )

    @staticmethod
    def _check(shown: PlanView, plan: str | None, drop_state: bool) -> None:
        if plan is not None and plan != shown.id:
            raise PlanOutdated(shown)
        if shown.drops_state and not drop_state:
            raise DropsState(shown)

    def _plan(self, new: LogicalGraph, stored: Manifest | None, *, committed: bool, running: bool) -> PlanView:
        return make_plan(
            pipeline=self.name,
            revision=None if self.record is None else self.record.revision,
            old=self.graph,
            new=new,
            stored=stored,
            running=running,
            committed=committed,
        )

    async def look_into_store(self) -> tuple[CheckpointView, ...]:
        """Newest first; what was last seen when the store does not answer. One look at a time: a store that hangs
        holds one thread, not one for everybody who asks."""
        if self.graph is None:
            return self.checkpoints
        try:
            async with asyncio.timeout(_LOOK_S):
                while self._look is not None and not self._look.done():
                    await asyncio.wait({self._look})
                self._look = asyncio.create_task(asyncio.to_thread(stored_checkpoints, self.graph))
                self._look.add_done_callback(lambda look: look.cancelled() or look.exception())
                seen = await asyncio.shield(self._look)
        except (Failure, TimeoutError) as error:
            reason = str(error) or "it does not answer"
            log.warning("the checkpoint store cannot be looked into", pipeline=self.name, reason=reason)
        else:
            self.checkpoints = tuple(self.samples.with_durations(seen))
        return self.checkpoints

    # -- bringing it about

    async def _replace(
        self, new: Definition, shown: PlanView, *, drop_state: bool, revision: int, parallelism: int | None
    ) -> None:
        """Savepoint, the new wish, stop, start. The plan that was `shown` is made once more of the savepoint as it is:
        now all of it is known. Where there is none, the old revision is stopped first: it might come to run meanwhile,
        and leave state that the plan knows nothing of."""
        ran = self.supervisor.running
        savepoint = await self._upgrade_savepoint()
        try:
            if savepoint is None:
                await self.supervisor.end()
            plan = await self._plan_of_stored(new)
            if plan.drops_state and not drop_state:
                raise DropsState(plan)
            await self._save(
                new.yaml if revision != self.wish.revision else None,
                revision=revision,
                parallelism=parallelism,
                allowed_drops=tuple(sorted(dropped_names(plan) | dropped_names(shown))),
                restore_from=None,
                upgrade_savepoint=self.wish.upgrade_savepoint if savepoint is None else savepoint,
            )
        except Exception:
            await self._release_for_upgrades()
            if ran and not self.supervisor.running:
                await self._go_on(self.definition)
            raise
        await self._release_for_upgrades()
        await self.supervisor.end()
        self.definition = new
        await self._go_on(new)

    async def _plan_of_stored(self, new: Definition) -> PlanView:
        """What going on with this file from the newest checkpoint would do."""
        assert new.graph is not None
        stored, committed = await asyncio.to_thread(newest, new.graph if self.graph is None else self.graph)
        return self._plan(new.graph, stored, committed=committed, running=False)

    async def _go_on(self, definition: Definition | None) -> None:
        """As is wanted, after a run was ended for another."""
        if self.wish.wanted == "running":
            await self._begin(definition)
        elif self.wish.wanted == "drained" and self.supervisor.status.state not in ("drained", "finished"):
            await self._begin(definition, then="drain")

    async def _upgrade_savepoint(self) -> int | None:
        """Where to go back to should the new revision be a mistake. A pipeline that cannot take one any more is what
        upgrades are there to mend: it goes on from its newest checkpoint."""
        if self.supervisor.status.state != "running":
            return None
        try:
            async with asyncio.timeout(UPGRADE_SAVEPOINT_S):
                return await self.supervisor.savepoint("upgrade")
        except (SavepointFailed, TimeoutError) as error:
            log.warning("no savepoint before the upgrade", pipeline=self.name, reason=str(error) or "it took too long")
            return None

    async def release(self, savepoint: int) -> None:
        """Nobody keeps it any more. Where the store does not answer it stays, and the log says so."""
        assert self.graph is not None
        await self._released(release, self.graph, savepoint)

    async def _release_for_upgrades(self) -> bool:
        """Of the savepoints that only upgrades asked for, the last that was gone on from is kept: release what others
        there are, of upgrades that were refused or cut short, too. Whether there were any."""
        if self.graph is None:
            return False
        return bool(await self._released(release_for_upgrades, self.graph, self.wish.upgrade_savepoint))

    async def _released(self, act: Callable[..., T], *arguments: Any) -> T | None:
        try:
            async with asyncio.timeout(_LOOK_S):
                return await asyncio.to_thread(act, *arguments)
        except (Failure, TimeoutError) as error:
            reason = str(error) or "the store does not answer"
            log.warning("an old savepoint is kept", pipeline=self.name, reason=reason)
            return None

    async def _begin(
        self, definition: Definition | None = None, *, then: Literal["stop", "drain"] | None = None
    ) -> None:
        """Start what is wanted, of a file that is read anew: references and user code may have changed. What is wrong
        with it fails this pipeline and no other."""
        definition = definition or await self._read()
        if definition is None or definition.graph is None:
            return
        self.definition = definition
        self.supervisor.begin(
            definition.graph,
            restore_from=self.wish.restore_from,
            begun=self.wish.begun,
            dropped=frozenset(self.wish.allowed_drops),
            on_restored=self._restored,
            then=then,
        )
        await self.supervisor.under_way(_UNDER_WAY_S)
        await self.look_into_store()

    async def _read(self) -> Definition | None:
        try:
            definition = await self.around.read(self.name, self.yaml, self.wish.parallelism, self.wish)
        except Exception as error:  # user code that is loaded may do anything
            log.error("a pipeline file cannot be read", pipeline=self.name, exc_info=error)
            self.supervisor.fail(as_failure(error))
            return None
        if definition.graph is None:
            self.supervisor.fail(InvalidPipeline([f for f in definition.faults if f.severity == "error"]))
            return None
        self.definition = definition
        return definition

    async def _restored(self) -> None:
        if self.wish.restore_from is not None or not self.wish.begun:
            await self._save(restore_from=None, begun=True, updated_at=self.wish.updated_at)  # nobody has asked for it

    async def _check_restorable(self, checkpoint: int) -> None:
        if self.graph is None and await self._read() is None:
            raise Conflict(f"the file of {self.name} has errors: {self.supervisor.status.message}")
        assert self.graph is not None
        views = {view.id: view for view in await asyncio.to_thread(stored_checkpoints, self.graph)}
        if checkpoint not in views:
            shown = store_of(self.graph).shown
            detail = (
                f"there is no checkpoint {checkpoint} in {shown}; there are: {', '.join(map(str, views)) or 'none'}"
            )
            raise ServiceFault(404, "unknown-checkpoint", "There is no such checkpoint", detail)
        if (damage := views[checkpoint].damage) is not None:
            raise Conflict(f"checkpoint {checkpoint} cannot be gone on from: {damage}")
        if found := await asyncio.to_thread(misfits, self.graph, checkpoint):
            says = "; ".join(map(self.around.redaction.text, found))
            raise Conflict(
                f"checkpoint {checkpoint} does not fit the file as it is now: {says}. "
                "Apply the file of its time first, and start from it then; or start from another"
            )

    async def _save(self, yaml: bytes | None = None, **changed: Any) -> None:
        """Make another wish durable; `yaml` that of a new revision. Raises RegistryUnwritable."""
        async with self._saving:
            if yaml is not None:
                changed["yaml_sha256"] = sha256_of(yaml)
            changed.setdefault("updated_at", datetime.now(UTC))
            record = self.wish.model_copy(update=changed)
            await self.around.durably(self.around.registry.write, record, yaml)
            self.record, self.yaml = record, self.yaml if yaml is None else yaml
