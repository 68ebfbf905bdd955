"""Which checkpoint a starting job goes on from, and who may go on at all.

A job first takes an attempt number by creating a claim, then looks which checkpoints are complete, then
records the one it goes on from. A running job creates its manifest, then looks for newer claims before
its sinks commit. So of two jobs on one store, either the new one sees the old one's checkpoint or the
old one sees the new one's claim: never both commit the same records.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from operators.element import CheckpointId
from state.failure import AlreadyExists, CorruptCheckpoint, Failure, NotInStore
from state.store import CheckpointStore
from streamproc.checkpoint.manifest import (
    Manifest,
    attempt_name,
    attempt_of,
    checkpoint_of,
    manifest_name,
    restored_name,
)


class Superseded(Failure):
    """Another attempt of the same pipeline has taken over; this one must stop and commit nothing."""

    acts = "user"


class UnknownCheckpoint(Failure):
    """`--from` names a checkpoint that is not there."""

    acts = "user"


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt that has recorded what it goes on from (None: from nothing). One that never came that far
    has written and fenced nothing, and does not count."""

    number: int
    restored_from: CheckpointId | None


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to run, and what to go on from."""

    attempt: int
    restored: Manifest | None
    next_checkpoint: CheckpointId
    skipped: tuple[str, ...]  # checkpoints of the lineage that could not be read, and why


def lineage(attempts: Sequence[Attempt], manifests: Mapping[CheckpointId, int]) -> list[CheckpointId]:
    """Checkpoints a new attempt may go on from, newest first. `manifests`: checkpoint → its attempt.

    A manifest that an attempt wrote after a later attempt had restored from an earlier one belongs to a
    zombie: its transactions have been fenced, so it is no place to go on from.
    """
    valid: list[CheckpointId] = []
    bound: float = float("inf")
    for attempt in sorted(attempts, key=lambda a: a.number, reverse=True):
        valid += [c for c, owner in manifests.items() if owner == attempt.number and c <= bound]
        bound = min(bound, -1 if attempt.restored_from is None else attempt.restored_from)
    return sorted(valid, reverse=True)


def read_attempts(store: CheckpointStore) -> list[Attempt]:
    """All attempts that have recorded what they go on from."""
    found = []
    for name, _ in store.list("attempts/"):
        number = attempt_of(name)
        if number is not None and name == restored_name(number):
            found.append(Attempt(number, json.loads(store.read(name))["restored_from"]))
    return found


def list_checkpoints(store: CheckpointStore) -> list[CheckpointId]:
    """Checkpoints that have a manifest, ascending."""
    return sorted(c for name, _ in store.list("chk-") if (c := checkpoint_of(name)) is not None)


def read_manifest(store: CheckpointStore, checkpoint: CheckpointId) -> Manifest:
    """Raises CorruptCheckpoint."""
    name = manifest_name(checkpoint)
    return Manifest.from_bytes(store.read(name), name)


def claim(store: CheckpointStore, wanted: CheckpointId | None = None) -> Claim:
    """Take the next attempt. `wanted`: go on from this checkpoint instead of the newest."""
    number = _take_number(store)
    restored, skipped = _choose(store, number, wanted)
    body = {"restored_from": restored.checkpoint if restored else None}
    store.create(restored_name(number), json.dumps(body).encode())
    newest = max(list_checkpoints(store), default=0)
    return Claim(number, restored, CheckpointId(newest + 1), tuple(skipped))


def _take_number(store: CheckpointStore) -> int:
    """Create the claim of the next attempt; somebody beginning at the same moment gets another number."""
    unique = json.dumps({"claim": str(uuid.uuid4())}).encode()
    while True:
        number = max(_attempt_numbers(store), default=0) + 1
        try:
            store.create(attempt_name(number), unique)
        except AlreadyExists:
            continue
        return number


def _attempt_numbers(store: CheckpointStore) -> list[int]:
    return [number for name, _ in store.list("attempts/") if (number := attempt_of(name)) is not None]


def newer_attempt(store: CheckpointStore, attempt: int) -> int | None:
    """The number of a claim newer than `attempt`, if any."""
    newest = max(_attempt_numbers(store), default=attempt)
    return newest if newest > attempt else None


def _choose(store: CheckpointStore, number: int, wanted: CheckpointId | None) -> tuple[Manifest | None, list[str]]:
    """The newest readable manifest of the lineage before attempt `number`, and what could not be read."""
    attempts = [attempt for attempt in read_attempts(store) if attempt.number < number]
    manifests: dict[CheckpointId, Manifest] = {}
    skipped: list[str] = []
    for checkpoint in list_checkpoints(store):
        try:
            manifests[checkpoint] = read_manifest(store, checkpoint)
        except CorruptCheckpoint as failure:
            skipped.append(str(failure))
        except NotInStore:
            continue  # a running attempt has just removed it
    if wanted is not None:
        if wanted not in manifests:
            there = ", ".join(map(str, manifests)) or "none"
            raise UnknownCheckpoint(f"there is no checkpoint {wanted} to start from; there are: {there}")
        return manifests[wanted], skipped
    valid = lineage(attempts, {c: m.attempt for c, m in manifests.items()})
    return manifests[valid[0]] if valid else None, skipped
