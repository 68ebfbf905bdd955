"""Decides about checkpoints: events in, commands out. It never waits, reads a clock or does I/O.

One checkpoint is under way at a time. It completes when every subtask has acknowledged and its
manifest has been created; until then it can be aborted, and the next one starts from nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from operators.element import CheckpointId

SubtaskId = tuple[str, int]  # vertex, index


# -- events
@dataclass(frozen=True, slots=True)
class Trigger:
    """Time for a checkpoint (the interval, a stop, the end of input)."""


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A subtask has written its part; `part` is what the manifest keeps of it."""

    subtask: SubtaskId
    checkpoint: CheckpointId
    part: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Declined:
    """A subtask, or the manifest, could not be written. `refused`: the store will never take it."""

    checkpoint: CheckpointId
    reason: str
    refused: bool = False


@dataclass(frozen=True, slots=True)
class Expired:
    """The deadline of a checkpoint has passed."""

    checkpoint: CheckpointId


@dataclass(frozen=True, slots=True)
class ManifestCreated:
    """The commit point is behind us."""

    checkpoint: CheckpointId


Event = Trigger | Acknowledged | Declined | Expired | ManifestCreated


# -- commands
@dataclass(frozen=True, slots=True)
class InjectBarriers:
    checkpoint: CheckpointId


@dataclass(frozen=True, slots=True)
class CreateManifest:
    checkpoint: CheckpointId
    parts: Mapping[SubtaskId, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Complete:
    """Sinks may commit; older checkpoints may go."""

    checkpoint: CheckpointId


@dataclass(frozen=True, slots=True)
class Abort:
    checkpoint: CheckpointId
    reason: str


@dataclass(frozen=True, slots=True)
class FailJob:
    """More checkpoints in a row have failed than are tolerated, or no other can succeed either (`refused`)."""

    reason: str
    refused: bool = False


Command = InjectBarriers | CreateManifest | Complete | Abort | FailJob


@dataclass(slots=True)
class _Pending:
    checkpoint: CheckpointId
    missing: set[SubtaskId]
    parts: dict[SubtaskId, Mapping[str, Any]] = field(default_factory=dict)


class CheckpointCoordinator:
    """The state machine of one job attempt."""

    def __init__(self, subtasks: frozenset[SubtaskId], next_id: CheckpointId, tolerate_failures: int) -> None:
        self._subtasks = subtasks
        self._next_id = next_id
        self._tolerate_failures = tolerate_failures
        self._failures_in_a_row = 0
        self._pending: _Pending | None = None

    @property
    def pending(self) -> CheckpointId | None:
        """The checkpoint under way."""
        return self._pending.checkpoint if self._pending else None

    def missing(self) -> frozenset[SubtaskId]:
        """Subtasks the pending checkpoint waits for."""
        return frozenset(self._pending.missing) if self._pending else frozenset()

    def handle(self, event: Event) -> list[Command]:
        """One event; events about a checkpoint that is not pending any more are stale and change nothing."""
        if isinstance(event, Trigger):
            return self._begin() if self._pending is None else []
        if self._pending is None or event.checkpoint != self._pending.checkpoint:
            return []
        if isinstance(event, Acknowledged):
            return self._acknowledge(self._pending, event)
        if isinstance(event, ManifestCreated):
            self._pending = None
            self._failures_in_a_row = 0
            return [Complete(event.checkpoint)]
        if isinstance(event, Expired):
            waited = ", ".join(f"{vertex}[{index}]" for vertex, index in sorted(self._pending.missing))
            return self._abort(event.checkpoint, f"timed out; not acknowledged by: {waited or 'the manifest'}")
        if event.refused:
            return [*self._abort(event.checkpoint, event.reason)[:1], FailJob(event.reason, refused=True)]
        return self._abort(event.checkpoint, event.reason)

    def _begin(self) -> list[Command]:
        checkpoint = self._next_id
        self._next_id = CheckpointId(checkpoint + 1)
        self._pending = _Pending(checkpoint, set(self._subtasks))
        return [InjectBarriers(checkpoint)]

    def _acknowledge(self, pending: _Pending, event: Acknowledged) -> list[Command]:
        pending.missing.discard(event.subtask)
        pending.parts[event.subtask] = event.part
        return [] if pending.missing else [CreateManifest(pending.checkpoint, pending.parts)]

    def _abort(self, checkpoint: CheckpointId, reason: str) -> list[Command]:
        self._pending = None
        self._failures_in_a_row += 1
        commands: list[Command] = [Abort(checkpoint, reason)]
        if self._failures_in_a_row > self._tolerate_failures:
            failed = self._failures_in_a_row
            what = "a checkpoint has" if failed == 1 else f"{failed} checkpoints in a row have"
            commands.append(FailJob(f"{what} failed; the last one: {reason}"))
        return commands
