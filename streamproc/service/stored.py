"""What a checkpoint store holds for one pipeline, as the service tells it. Everything here blocks."""

from __future__ import annotations

from datetime import UTC, datetime

from operators.element import CheckpointId
from state.store import CheckpointStore
from streamproc.checkpoint.compatibility import losses
from streamproc.checkpoint.manifest import Manifest, committed_name
from streamproc.checkpoint.recovery import (
    lineage,
    list_savepoints,
    read_attempts,
    read_manifest,
    release_savepoint,
    survey,
)
from streamproc.pipeline.logical import LogicalGraph
from streamproc.pipeline.physical import plan_physical
from streamproc.service.views import CheckpointView


def store_of(graph: LogicalGraph) -> CheckpointStore:
    """Where its checkpoints are."""
    return CheckpointStore.open(graph.job.checkpoint.storage, graph.pipeline)


def stored_checkpoints(graph: LogicalGraph) -> tuple[CheckpointView, ...]:
    """Newest first. Of a damaged one little more is known than its number."""
    store = store_of(graph)
    found = survey(store)
    kept = set(list_savepoints(store))
    views = [view_of(manifest, kept=number in kept) for number, manifest in found.manifests.items()]
    views += [CheckpointView(id=number, kind="periodic", damage=damage) for number, damage in found.damage.items()]
    return tuple(sorted(views, key=lambda view: -view.id))


def view_of(manifest: Manifest, *, kept: bool) -> CheckpointView:
    """One that is whole. `kept`: until somebody releases it."""
    return CheckpointView(
        id=manifest.checkpoint,
        kind="periodic" if manifest.kind == "savepoint" and not kept else manifest.kind,
        attempt=manifest.attempt,
        completed_at=datetime.fromtimestamp(manifest.created_ms / 1000, UTC),
        size_bytes=manifest.size_bytes(),
    )


def newest(graph: LogicalGraph) -> tuple[Manifest | None, bool]:
    """What a start would go on from, unless its files turn out damaged; and whether its sinks have committed."""
    store = store_of(graph)
    manifests = survey(store).manifests
    line = lineage(read_attempts(store), {number: manifest.attempt for number, manifest in manifests.items()})
    if not line:
        return None, True
    return manifests[line[0]], store.exists(committed_name(line[0]))


def misfits(graph: LogicalGraph, checkpoint: int) -> list[str]:
    """Why going on from this checkpoint would lose something; it must be whole."""
    store = store_of(graph)
    manifest = read_manifest(store, CheckpointId(checkpoint))
    committed = store.exists(committed_name(checkpoint))
    return [loss.says for loss in losses(plan_physical(graph), manifest, committed=committed)]


def release(graph: LogicalGraph, savepoint: int) -> None:
    """From now on it is a checkpoint like others."""
    release_savepoint(store_of(graph), CheckpointId(savepoint))


def release_for_upgrades(graph: LogicalGraph, kept: int | None) -> list[CheckpointId]:
    """Release all savepoints that only upgrades have asked for, but `kept`; gives those that were."""
    store = store_of(graph)
    released = [savepoint for savepoint in list_savepoints(store, by="upgrade") if savepoint != kept]
    for savepoint in released:
        release_savepoint(store, savepoint)
    return released
