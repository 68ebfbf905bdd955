"""Which checkpoint a starting job goes on from, and who may go on at all.

A job first takes an attempt number by creating a claim, then looks which checkpoints are complete, then
records the one it goes on from. A running job creates its manifest, then looks for newer claims before
its sinks commit. So of two jobs on one store, either the new one sees the old one's checkpoint or the
old one sees the new one's claim: never both commit the same records.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import structlog

from operators.element import CheckpointId
from state.failure import AlreadyExists, CorruptCheckpoint, Failure, NotInStore
from state.store import CheckpointStore
from streamproc.checkpoint.manifest import (
    Asker,
    Manifest,
    NewerRelease,
    attempt_name,
    attempt_of,
    checkpoint_of,
    committed_name,
    manifest_name,
    restored_name,
    savepoint_mark,
    savepoint_name,
)

log = structlog.get_logger("streamproc.checkpoint")


class Superseded(Failure):
    """Another attempt of the same pipeline has taken over; this one must stop and commit nothing."""

    acts = "user"


def superseded_text(pipeline: str, attempt: int) -> str:
    """What `Superseded` says."""
    return (
        f"another attempt of {pipeline} has taken over from this one (attempt {attempt}) and goes on from the same "
        "checkpoints; this one ends"
    )


class CheckpointsGone(Failure):
    """What attempts recorded in the store is not there any more. It may come back (a disk that is not mounted); to go
    on without it would be to begin anew and write every result again."""

    acts = "world"
    retry_helps = True

    def __init__(self, store: CheckpointStore) -> None:
        super().__init__(
            f"what the pipeline has recorded in {store.shown} is not there any more: was it removed, or is its disk "
            "not mounted? It goes on when that is back. To begin anew, which writes all results again: stop it, move "
            "away what is left there, and start it (in a service: delete it, and apply its file)"
        )


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
    skipped: tuple[str, ...]  # damage of checkpoints newer than `restored`


@dataclass(frozen=True, slots=True)
class StoredCheckpoints:
    """What a store holds of checkpoints: those that can be read, and what is wrong with the others. `newer`: one of
    those is of a newer release."""

    manifests: Mapping[CheckpointId, Manifest]
    damage: Mapping[CheckpointId, str]
    newer: NewerRelease | None = None


def lineage(attempts: Sequence[Attempt], manifests: Mapping[CheckpointId, int]) -> list[CheckpointId]:
    """Checkpoints a new attempt may go on from, newest first. `manifests`: checkpoint → its attempt.

    A manifest that an attempt wrote after a later attempt had restored from an earlier one belongs to a
    zombie: its transactions have been fenced, so it is no place to go on from. What an attempt has restored is one,
    whoever wrote it: of the attempt that wrote an old savepoint nothing else may be left.
    """
    valid: set[CheckpointId] = set()
    bound: float = float("inf")
    lost = [Attempt(number, None) for number in lost_records(attempts, manifests.values())]
    for attempt in sorted([*attempts, *lost], key=lambda a: a.number, reverse=True):
        valid |= {
            c
            for c, owner in manifests.items()
            if (owner == attempt.number or c == attempt.restored_from) and c <= bound
        }
        bound = min(bound, -1 if attempt.restored_from is None else attempt.restored_from)
    return sorted(valid, reverse=True)


def lost_records(attempts: Sequence[Attempt], owners: Iterable[int]) -> set[int]:
    """Attempts that wrote a manifest, but whose record is not there: somebody has removed it, for a job removes only
    those older than all it keeps. What older ones completed may be a zombie's, then."""
    numbers = {attempt.number for attempt in attempts}
    return {owner for owner in owners if owner not in numbers and owner > min(numbers, default=owner)}


def read_attempts(store: CheckpointStore) -> list[Attempt]:
    """All attempts that have recorded what they go on from."""
    found = []
    for name, _ in store.list("attempts/"):
        number = attempt_of(name)
        if number is None or name != restored_name(number):
            continue
        try:
            found.append(Attempt(number, json.loads(store.read(name))["restored_from"]))
        except NotInStore:
            continue  # a running attempt has just removed it
        except (ValueError, KeyError, TypeError):
            # What older attempts completed may be a zombie's, then: better to go on from none of it.
            log.error("the record of an attempt is damaged, older checkpoints are not used", file=name)
            found.append(Attempt(number, None))
    return found


def list_checkpoints(store: CheckpointStore) -> list[CheckpointId]:
    """Checkpoints that have a manifest, ascending."""
    found = ((checkpoint_of(name), name) for name, _ in store.list("chk-"))
    return sorted(c for c, name in found if c is not None and name == manifest_name(c))


def list_savepoints(store: CheckpointStore, *, by: Asker | None = None) -> list[CheckpointId]:
    """Checkpoints that are kept until somebody releases them, ascending; `by`: only those asked for by them."""
    names = {name for name, _ in store.list("chk-")}
    numbers = {c for name in names if (c := checkpoint_of(name)) is not None}
    found = sorted(c for c in numbers if savepoint_name(c) in names and manifest_name(c) in names)
    return found if by is None else [c for c in found if _is_marked(store, c, by)]


def _is_marked(store: CheckpointStore, savepoint: CheckpointId, by: Asker) -> bool:
    try:
        return store.read(savepoint_name(savepoint)) == savepoint_mark(by)
    except NotInStore:
        return False  # it has just been released


def release_savepoint(store: CheckpointStore, savepoint: CheckpointId) -> None:
    """From now on it is a checkpoint like others: removed once it is old."""
    store.delete(savepoint_name(savepoint))


def read_manifest(store: CheckpointStore, checkpoint: CheckpointId) -> Manifest:
    """Raises CorruptCheckpoint."""
    name = manifest_name(checkpoint)
    return Manifest.from_bytes(store.read(name), name)


def claim(
    store: CheckpointStore,
    wanted: CheckpointId | None = None,
    *,
    fetch: Callable[[Manifest], None] = lambda _: None,
    begun: bool = False,
) -> Claim:
    """Take the next attempt, and go on from the newest checkpoint that is whole (or from `wanted` and no other).

    `fetch` brings a checkpoint's files here; when it raises CorruptCheckpoint the one before is tried. What is
    recorded is what was fetched, so no later attempt goes on from a checkpoint that was passed over. Raises
    CorruptCheckpoint when there are checkpoints and none is whole, CheckpointsGone when there are some but no attempt's
    record, or when there is nothing although an attempt has `begun`: beginning anew would write every result again.
    """
    if begun and wanted is None and not read_attempts(store):
        raise CheckpointsGone(store)
    number = _take_number(store)
    stored = survey(store)
    restored: Manifest | None
    skipped: tuple[str, ...] = ()
    if wanted is None:
        attempts = [attempt for attempt in read_attempts(store) if attempt.number < number]
        if stored.manifests and not attempts:  # an attempt is recorded before it writes any
            raise CheckpointsGone(store)
        restored, skipped = _newest_whole(stored, attempts, fetch)
    else:
        restored = _wanted(stored, wanted)
        fetch(restored)
    body = {"restored_from": restored.checkpoint if restored else None}
    store.create(restored_name(number), json.dumps(body).encode())
    return Claim(number, restored, CheckpointId(_newest_number(store) + 1), skipped)


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
    """The number of a claim newer than `attempt`, if any. Raises CheckpointsGone when there is not even its own: then
    what it has stored before is not there, either, and a checkpoint would be no place to go on from."""
    numbers = _attempt_numbers(store)
    if (newest := max(numbers, default=attempt)) > attempt:
        return newest
    if attempt not in numbers:
        raise CheckpointsGone(store)
    return None


def survey(store: CheckpointStore) -> StoredCheckpoints:
    """Read every manifest."""
    names = {name for name, _ in store.list("chk-")}
    manifests: dict[CheckpointId, Manifest] = {}
    damage: dict[CheckpointId, str] = {}
    newer: NewerRelease | None = None
    for checkpoint in sorted({c for name in names if (c := checkpoint_of(name)) is not None}):
        name = manifest_name(checkpoint)
        if name not in names and committed_name(checkpoint) not in names:
            continue  # a savepoint that did not complete
        if name not in names:
            damage[checkpoint] = f"{name} is missing, although {committed_name(checkpoint)} is there"
            continue
        try:
            manifests[checkpoint] = read_manifest(store, checkpoint)
        except CorruptCheckpoint as failure:
            damage[checkpoint] = str(failure)
        except NewerRelease as failure:
            damage[checkpoint], newer = str(failure), failure
        except NotInStore:
            continue  # a running attempt has just removed it
    return StoredCheckpoints(manifests, damage, newer)


def _newest_number(store: CheckpointStore) -> int:
    """The highest number a checkpoint has left a trace of: a new one must not find the mark of another's commit."""
    return max((c for name, _ in store.list("chk-") if (c := checkpoint_of(name)) is not None), default=0)


def _wanted(stored: StoredCheckpoints, wanted: CheckpointId) -> Manifest:
    if wanted in stored.manifests:
        return stored.manifests[wanted]
    if wanted in stored.damage:
        raise CorruptCheckpoint(f"cannot start from checkpoint {wanted}: {stored.damage[wanted]}")
    there = ", ".join(map(str, stored.manifests)) or "none"
    raise UnknownCheckpoint(f"there is no checkpoint {wanted} to start from; there are: {there}")


def _newest_whole(
    stored: StoredCheckpoints, attempts: Sequence[Attempt], fetch: Callable[[Manifest], None]
) -> tuple[Manifest | None, tuple[str, ...]]:
    """The newest checkpoint of the lineage that can be fetched, and the damage of newer ones. None: there is none."""
    if stored.newer is not None:
        raise stored.newer
    damage = dict(stored.damage)
    owners = {checkpoint: manifest.attempt for checkpoint, manifest in stored.manifests.items()}
    if lost := lost_records(attempts, owners.values()):
        log.error("records of attempts are missing, older checkpoints are not used", attempts=sorted(lost))
    for checkpoint in lineage(attempts, owners):
        try:
            fetch(stored.manifests[checkpoint])
        except CorruptCheckpoint as failure:
            damage[checkpoint] = f"checkpoint {checkpoint}: {failure}"
        else:
            return stored.manifests[checkpoint], tuple(damage[c] for c in sorted(damage) if c > checkpoint)
    if damage:
        raise CorruptCheckpoint(
            f"none of the checkpoints can be used: {'; '.join(damage[c] for c in sorted(damage, reverse=True))}. "
            "To begin anew, which writes all results again, give it another place for its checkpoints"
        )
    return None, ()
