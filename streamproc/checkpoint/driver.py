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
from typing import Any, Literal

import structlog

from operators.element import CheckpointId
from state.failure import AlreadyExists, CorruptCheckpoint, Failure, StoreRefused
from state.snapshot import UploadId, collect
from state.store import CheckpointStore
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
    Kind,
    Manifest,
    assemble,
    attempt_of,
    checkpoint_of,
    committed_name,
    manifest_name,
)
from streamproc.checkpoint.recovery import (
    Superseded,
    list_checkpoints,
    newer_attempt,
    read_manifest,
    superseded_text,
)
from streamproc.dataflow.source_subtask import SourceSubtask
from streamproc.dataflow.subtask import Subtask
from streamproc.observability.status import JobObserver
from streamproc.pipeline.spec import CheckpointSpec

log = structlog.get_logger("streamproc.checkpoint")


class TooManyFailedCheckpoints(Failure):
    """Checkpoints keep failing; a restart may find a healthier store."""

    acts = "world"
    retry_helps = True


@dataclass(frozen=True, slots=True)
class Ending:
    """Why the job ends after its last checkpoint."""

    status: Literal["finished", "stopped"]
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
    ) -> None:
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
        self._kind: Kind = "periodic"
        self._triggered_s = 0.0

    # -- what subtasks report (CheckpointReporter)

    def acknowledge(self, subtask: SubtaskId, checkpoint: CheckpointId, part: Mapping[str, Any]) -> None:
        """A subtask's part is durable."""
        self._events.put_nowait(Acknowledged(subtask, checkpoint, part))

    def decline(self, checkpoint: CheckpointId, reason: str, *, refused: bool) -> None:
        """A subtask's part could not be written."""
        self._events.put_nowait(Declined(checkpoint, reason, refused))

    # -- the cycle

    async def run(self, stop: asyncio.Event, caught_up: Callable[[], bool] | None) -> Ending:
        """Checkpoint now (it pins where sources began), then every interval, until `stop` is set, the input has
        ended, or `caught_up` says so; then once more."""
        await self._until_completed("periodic", stop, tries=1)
        while True:
            reason = await self._wait(stop, caught_up)
            if reason == "periodic":
                await self._once(reason)
                continue
            if reason == "stop":
                self._observer.status.state = "stopping"
            checkpoint = await self._until_completed(reason, None, tries=None)
            assert checkpoint is not None
            return Ending("finished" if reason == "finished" else "stopped", checkpoint)

    async def _wait(self, stop: asyncio.Event, caught_up: Callable[[], bool] | None) -> Kind:
        deadline = time.monotonic() + self._spec.every / 1000
        ended = asyncio.create_task(self._all_exhausted())
        stopped = asyncio.create_task(stop.wait())
        try:
            while True:
                left = deadline - time.monotonic()
                timeout = min(left, 0.25) if caught_up is not None else left
                await asyncio.wait([ended, stopped], timeout=max(0.0, timeout), return_when=asyncio.FIRST_COMPLETED)
                if ended.done():
                    return "finished"
                if stopped.done() or (caught_up is not None and caught_up()):
                    return "stop"
                if time.monotonic() >= deadline:
                    return "periodic"
        finally:
            ended.cancel()
            stopped.cancel()

    async def _all_exhausted(self) -> None:
        for source in self._sources:
            await source.exhausted.wait()

    async def _until_completed(self, kind: Kind, stop: asyncio.Event | None, tries: int | None) -> CheckpointId | None:
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
                    source.trigger(checkpoint, halt=self._kind != "periodic")
            case CreateManifest(checkpoint, parts):
                return await self._create_manifest(checkpoint, list(parts.values()))
            case Complete(checkpoint):
                await self._complete(checkpoint)
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
        )
        left_s = self._spec.timeout / 1000 - (time.monotonic() - self._triggered_s)
        try:
            # A manifest that is created later after all, by a thread we no longer wait for, does no harm: nothing is
            # committed because of it, and it stays behind the next one.
            async with asyncio.timeout(max(0.0, left_s)):
                newer = await asyncio.to_thread(self._create_and_look, manifest)
        except TimeoutError:
            return Declined(checkpoint, "timed out; the store has not answered to the manifest")
        except Failure as failure:
            refused = isinstance(failure, StoreRefused)
            return Declined(checkpoint, f"the manifest could not be written: {failure}", refused)
        if newer is not None:
            raise Superseded(superseded_text(self._pipeline, self._attempt))
        metrics = self._observer.metrics
        metrics.checkpoint_size_bytes.set(manifest.size_bytes())
        metrics.checkpoint_alignment_seconds.set(max(float(part["alignment_s"]) for part in parts))
        metrics.uncommitted_transactions.set(sum(len(c) for c in manifest.sinks.values()))
        return ManifestCreated(checkpoint)

    def _create_and_look(self, manifest: Manifest) -> int | None:
        """Create the manifest; the number of a newer attempt, if there is one."""
        name = manifest_name(manifest.checkpoint)
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
        metrics.uncommitted_transactions.set(0)
        metrics.checkpoint_duration.observe(took_s)
        metrics.checkpoints_total("completed").inc()
        metrics.last_completed_checkpoint_id.set(checkpoint)
        status.checkpoint, status.checkpoint_at, status.checkpoint_duration_s = checkpoint, time.time(), took_s
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


def tidy(store: CheckpointStore, attempt: int, checkpoint: CheckpointId, keep: int) -> None:
    """Mark `checkpoint` committed; keep the newest `keep`; delete files nothing refers to any more."""
    store.create(committed_name(checkpoint), b"")
    checkpoints = [c for c in list_checkpoints(store) if c <= checkpoint][-keep:]
    _check_not_superseded(store, attempt)
    for name, _ in store.list("chk-"):  # sorted: the mark of a commit goes before its manifest
        if (old := checkpoint_of(name)) is not None and old < checkpoints[0]:
            store.delete(name)
    kept = list(_readable(store, checkpoints))

    def live() -> set[str]:
        _check_not_superseded(store, attempt)
        return {file.name for manifest in kept for file in manifest.files()}

    collect(store, live, UploadId(attempt, checkpoint))
    for name, _ in store.list("attempts/"):
        number = attempt_of(name)
        if number is not None and number < min((manifest.attempt for manifest in kept), default=attempt):
            store.delete(name)


def _check_not_superseded(store: CheckpointStore, attempt: int) -> None:
    if newer_attempt(store, attempt) is not None:
        raise Superseded("another attempt has taken over: what it needs is not ours to judge")


def _readable(store: CheckpointStore, checkpoints: Sequence[CheckpointId]) -> Iterator[Manifest]:
    """Their manifests, without those that are damaged: nobody can go on from them."""
    for checkpoint in checkpoints:
        with contextlib.suppress(CorruptCheckpoint):
            yield read_manifest(store, checkpoint)
