"""Carries out what the coordinator decides, for one job attempt in one process.

One task owns the whole cycle: trigger, wait for acknowledgements, create the manifest, look for newer
claims, let sinks commit, remove what is subsumed. The next checkpoint starts only after that.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import structlog

from operators.element import CheckpointId
from state.failure import AlreadyExists, CorruptCheckpoint, Failure, StoreRefused
from state.snapshot import UploadId, collect
from state.store import CheckpointStore
from streamproc.checkpoint.control import JobControl, SavepointFailed
from streamproc.checkpoint.coordinator import (
    Abort,
    Acknowledged,
    CheckpointCoordinator,
    Command,
    Complete,
    CreateManifest,
    Declined,
    Event,
    Expired,
    FailJob,
    InjectBarriers,
    ManifestCreated,
    SubtaskId,
    Trigger,
)
from streamproc.checkpoint.manifest import (
    NOTHING_YET,
    Asker,
    Kind,
    Manifest,
    assemble,
    attempt_of,
    checkpoint_of,
    committed_name,
    manifest_name,
    savepoint_mark,
    savepoint_name,
)
from streamproc.checkpoint.recovery import (
    CheckpointsGone,
    Superseded,
    list_checkpoints,
    list_savepoints,
    newer_attempt,
    read_manifest,
    superseded_text,
)
from streamproc.dataflow.source_subtask import SourceSubtask
from streamproc.dataflow.subtask import Subtask
from streamproc.observability.facts import PendingCheckpoint
from streamproc.observability.ledger import StepLedger
from streamproc.observability.status import JobObserver
from streamproc.pipeline.spec import CheckpointSpec

log = structlog.get_logger("streamproc.checkpoint")

_ENDS: Final[Mapping[Kind, Literal["finished", "stopped", "drained"]]] = {
    "finished": "finished",
    "stop": "stopped",
    "drain": "drained",
}


class TooManyFailedCheckpoints(Failure):
    """Checkpoints keep failing; a restart may find a healthier store."""

    acts = "world"
    retry_helps = True


@dataclass(frozen=True, slots=True)
class Ending:
    """Why the job ends after its last checkpoint."""

    status: Literal["finished", "stopped", "drained"]
    checkpoint: CheckpointId


class CheckpointDriver:
    """The checkpoint cycle of one attempt."""

    def __init__(
        self,
        pipeline: str,
        attempt: int,
        max_parallelism: int,
        spec: CheckpointSpec,
        store: CheckpointStore,
        subtasks: Sequence[Subtask],
        next_checkpoint: CheckpointId,
        observer: JobObserver,
        ledger: Mapping[str, StepLedger] = NOTHING_YET,
    ) -> None:
        """`ledger`: of the checkpoint from which the attempt goes on."""
        self._pipeline = pipeline
        self._attempt = attempt
        self._max_parallelism = max_parallelism
        self._spec = spec
        self._store = store
        self._subtasks = subtasks
        self._sources = [s for s in subtasks if isinstance(s, SourceSubtask)]
        self._coordinator = CheckpointCoordinator(
            frozenset(subtask.id for subtask in subtasks), next_checkpoint, spec.tolerate_failures
        )
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._observer = observer
        self._restored_ledger = ledger
        self._ledger = ledger  # of the newest manifest
        self._unaccounted: dict[str, int] = {}  # by node, what the log has been told
        self._kind: Kind = "periodic"
        self._asker: Asker = "user"  # of the savepoint under way
        self._triggered_s = 0.0
        self._committing = False
        self._draining = False

    # -- what subtasks report (CheckpointReporter)

    def acknowledge(self, subtask: SubtaskId, checkpoint: CheckpointId, part: Mapping[str, Any]) -> None:
        """A subtask's part is durable."""
        self._events.put_nowait(Acknowledged(subtask, checkpoint, part))

    def decline(self, checkpoint: CheckpointId, reason: str, *, refused: bool) -> None:
        """A subtask's part could not be written."""
        self._events.put_nowait(Declined(checkpoint, reason, refused))

    def pending(self) -> PendingCheckpoint | None:
        """The checkpoint under way; nobody is missing while sinks commit."""
        if self._coordinator.pending is None and not self._committing:
            return None
        missing = tuple(sorted(self._coordinator.missing()))
        return PendingCheckpoint(time.monotonic() - self._triggered_s, missing)

    # -- the cycle

    async def run(self, control: JobControl, caught_up: Callable[[], bool] | None) -> Ending:
        """Checkpoint now (it pins where sources began), then every interval and whenever a savepoint is asked for,
        until a stop is, the input has ended, or `caught_up` says so; then once more."""
        await self._until_completed("periodic", tries=1)
        while True:
            kind = await self._wait(control, caught_up)
            if kind == "periodic":
                await self._once(kind)
            elif kind == "savepoint":
                await self._savepoint(control)
            else:
                if kind == "stop":
                    self._observer.status.state = "stopping"
                checkpoint = await self._until_completed(kind, tries=None)
                assert checkpoint is not None
                return Ending(_ENDS[kind], checkpoint)

    async def _wait(self, control: JobControl, caught_up: Callable[[], bool] | None) -> Kind:
        """Until there is something to do: the kind of checkpoint to take."""
        deadline = time.monotonic() + self._spec.every / 1000
        ended = asyncio.create_task(self._all_exhausted())
        try:
            while True:
                control.wake.clear()
                if ended.done():
                    return "drain" if self._draining else "finished"
                if control.wants_savepoint:
                    return "savepoint"
                if control.stopping.is_set():
                    if not control.drain:
                        return "drain" if self._draining else "stop"  # every source sends the end before this barrier
                    self._drain()
                elif caught_up is not None and caught_up():
                    return "stop"
                left = deadline - time.monotonic()
                if left <= 0:
                    return "periodic"
                woken = asyncio.create_task(control.wake.wait())
                try:
                    timeout = min(left, 0.25) if caught_up is not None else left
                    await asyncio.wait([ended, woken], timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    woken.cancel()
        finally:
            ended.cancel()

    def _drain(self) -> None:
        """End the input here: event time comes to its end, all windows close."""
        if not self._draining:
            self._draining = True
            self._observer.status.state = "stopping"
            for source in self._sources:
                source.drain()

    async def _savepoint(self, control: JobControl) -> None:
        """Answer everybody who asked before its trigger."""
        asked, self._asker = control.take_asked()
        completed = await self._once("savepoint")
        for each in asked:
            if each.done():  # whoever asked does not wait any more
                continue
            if completed is None:
                each.set_exception(SavepointFailed("the savepoint was aborted; the log says why"))
            else:
                each.set_result(completed)

    async def _all_exhausted(self) -> None:
        for source in self._sources:
            await source.exhausted.wait()

    async def _until_completed(self, kind: Kind, tries: int | None) -> CheckpointId | None:
        """Try until one completes; the coordinator fails the job when too many in a row do not."""
        while tries is None or tries > 0:
            completed = await self._once(kind)
            if completed is not None:
                return completed
            if tries is not None:
                tries -= 1
        return None

    async def _once(self, kind: Kind) -> CheckpointId | None:
        """One checkpoint from trigger to the end; its id if it completed."""
        self._kind = kind
        self._triggered_s = time.monotonic()
        deadline = self._triggered_s + self._spec.timeout / 1000
        outcome: CheckpointId | None = None
        commands = self._coordinator.handle(Trigger())
        while True:
            for command in commands:
                follow_up = await self._carry_out(command)
                if follow_up is not None:
                    self._events.put_nowait(follow_up)
                if isinstance(command, Complete):
                    outcome = command.checkpoint
            pending = self._coordinator.pending
            if pending is None:
                return outcome
            event: Event
            try:
                # Not `wait_for`: before Python 3.12 it forgets a cancellation that comes together with the event.
                async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                    event = await self._events.get()
            except TimeoutError:
                event = Expired(pending)
            commands = self._coordinator.handle(event)

    async def _carry_out(self, command: Command) -> Event | None:
        match command:
            case InjectBarriers(checkpoint):
                for source in self._sources:
                    source.trigger(checkpoint, halt=self._kind in _ENDS)
            case CreateManifest(checkpoint, parts):
                return await self._create_manifest(checkpoint, list(parts.values()))
            case Complete(checkpoint):
                self._committing = True
                try:
                    await self._complete(checkpoint)
                finally:
                    self._committing = False
            case Abort(checkpoint, reason):
                self._observer.metrics.checkpoints_total("aborted").inc()
                log.warning("checkpoint aborted", checkpoint=checkpoint, reason=reason)
            case FailJob(reason, refused):
                raise StoreRefused(reason) if refused else TooManyFailedCheckpoints(reason)
        return None

    async def _create_manifest(self, checkpoint: CheckpointId, parts: list[Mapping[str, Any]]) -> Event:
        manifest = assemble(
            self._pipeline,
            checkpoint,
            self._attempt,
            int(time.time() * 1000),
            self._kind,
            self._max_parallelism,
            parts,
            self._restored_ledger,
        )
        self._ledger = manifest.ledger
        left_s = self._spec.timeout / 1000 - (time.monotonic() - self._triggered_s)
        try:
            # A manifest that is created later after all, by a thread we no longer wait for, does no harm: nothing is
            # committed because of it, and it stays behind the next one.
            async with asyncio.timeout(max(0.0, left_s)):
                newer = await asyncio.to_thread(self._create_and_look, manifest)
        except TimeoutError:
            return Declined(checkpoint, "timed out; the store has not answered to the manifest")
        except CheckpointsGone:
            raise
        except Failure as failure:
            refused = isinstance(failure, StoreRefused)
            return Declined(checkpoint, f"the manifest could not be written: {failure}", refused)
        if newer is not None:
            raise Superseded(superseded_text(self._pipeline, self._attempt))
        metrics = self._observer.metrics
        metrics.checkpoint_size_bytes.set(manifest.size_bytes())
        metrics.checkpoint_alignment_seconds.set(max(float(part["alignment_s"]) for part in parts))
        return ManifestCreated(checkpoint)

    def _create_and_look(self, manifest: Manifest) -> int | None:
        """Create the manifest; the number of a newer attempt, if there is one."""
        name = manifest_name(manifest.checkpoint)
        if manifest.kind == "savepoint":
            self._store.create(savepoint_name(manifest.checkpoint), savepoint_mark(self._asker))
        try:
            self._store.create(name, manifest.to_bytes())
        except AlreadyExists:
            # Ours after all, when the store answered late and was asked again; else an older attempt's last
            # act, which takes the number and nothing more: lineage ignores it, and we go on with the next.
            if self._store.read(name) != manifest.to_bytes() and newer_attempt(self._store, self._attempt) is None:
                raise
        return newer_attempt(self._store, self._attempt)

    async def _complete(self, checkpoint: CheckpointId) -> None:
        await asyncio.gather(*(subtask.on_complete(checkpoint) for subtask in self._subtasks))
        took_s = time.monotonic() - self._triggered_s
        metrics, status = self._observer.metrics, self._observer.status
        metrics.checkpoint_duration.observe(took_s)
        metrics.checkpoints_total("completed").inc()
        metrics.last_completed_checkpoint_id.set(checkpoint)
        metrics.last_completed_checkpoint_timestamp.set(time.time())
        status.checkpoint, status.checkpoint_at, status.checkpoint_duration_s = checkpoint, time.time(), took_s
        self._close_books(checkpoint)
        status.checkpoints += 1
        # The checkpoint itself is complete; what is left over is removed after a later one. A thread that is no
        # longer waited for removes nothing that a later checkpoint refers to.
        try:
            async with asyncio.timeout(self._spec.timeout / 1000):
                await asyncio.to_thread(tidy, self._store, self._attempt, checkpoint, self._spec.keep)
        except Superseded:
            raise
        except TimeoutError:
            log.warning("old checkpoints could not be removed", reason="timed out; the store has not answered")
        except Failure as failure:
            log.warning("old checkpoints could not be removed", reason=str(failure))

    def _close_books(self, checkpoint: CheckpointId) -> None:
        """Show the ledger; rows that it misses (or has too many of) are our fault, and nobody else would notice."""
        self._observer.status.ledger = self._ledger
        for node, account in self._ledger.items():
            unaccounted = account.unaccounted
            self._observer.metrics.ledger_unaccounted(node).set(unaccounted)
            if unaccounted != self._unaccounted.get(node, 0):
                log.error(
                    "the record ledger does not balance: rows were lost (above 0) or came twice (below)",
                    checkpoint=checkpoint,
                    node=node,
                    unaccounted=unaccounted,
                    **account.as_json(),
                )
            self._unaccounted[node] = unaccounted


def tidy(store: CheckpointStore, attempt: int, checkpoint: CheckpointId, keep: int) -> None:
    """Mark `checkpoint` committed; keep the newest `keep` and all savepoints; delete files nothing refers to."""
    store.create(committed_name(checkpoint), b"")
    stored = [c for c in list_checkpoints(store) if c <= checkpoint]
    savepoints = set(list_savepoints(store))
    newest = [c for c in stored if c not in savepoints][-keep:] or [checkpoint]
    checkpoints = [c for c in stored if c >= newest[0] or c in savepoints]
    _check_not_superseded(store, attempt)
    for name, _ in store.list("chk-"):  # sorted: the mark of a commit goes before its manifest
        if (old := checkpoint_of(name)) is not None and old <= checkpoint and old not in checkpoints:
            store.delete(name)
    kept = list(_readable(store, checkpoints))

    def live() -> set[str]:
        _check_not_superseded(store, attempt)
        return {file.name for manifest in kept for file in manifest.files()}

    collect(store, live, UploadId(attempt, checkpoint))
    # Those that only an old savepoint is of are not needed: one goes on from a savepoint by its number.
    oldest = min((manifest.attempt for manifest in kept if manifest.checkpoint >= newest[0]), default=attempt)
    for name, _ in store.list("attempts/"):
        number = attempt_of(name)
        if number is not None and number < oldest:
            store.delete(name)


def _check_not_superseded(store: CheckpointStore, attempt: int) -> None:
    if newer_attempt(store, attempt) is not None:
        raise Superseded(  # what that one needs is not ours to judge
            f"another attempt has taken over from this one (attempt {attempt}) and goes on from the same checkpoints, "
            f"in {store.shown}; this one ends"
        )


def _readable(store: CheckpointStore, checkpoints: Sequence[CheckpointId]) -> Iterator[Manifest]:
    """Their manifests, without those that are damaged: nobody can go on from them."""
    for checkpoint in checkpoints:
        with contextlib.suppress(CorruptCheckpoint):
            yield read_manifest(store, checkpoint)
