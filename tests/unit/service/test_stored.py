"""What the service tells of a checkpoint store: of what is damaged no more than is known."""

from __future__ import annotations

from pathlib import Path

from operators.element import CheckpointId
from state.store import CheckpointStore
from streamproc.checkpoint.manifest import Manifest, manifest_name, savepoint_mark, savepoint_name
from streamproc.pipeline.logical import LogicalGraph
from streamproc.service.stored import release_for_upgrades, store_of, stored_checkpoints
from tests.unit.pipeline.files import graph_of


def graph_in(folder: Path) -> LogicalGraph:
    return graph_of(f"""
version: 1
pipeline: shop
job: {{checkpoint: {{storage: "file:{folder}"}}}}
sources: {{numbers: {{type: datagen, table: bid}}}}
sinks: {{out: {{type: blackhole, input: numbers}}}}
""")


def complete(store: CheckpointStore, number: int, *, mark: bytes | None = None) -> None:
    manifest = Manifest(
        "shop", CheckpointId(number), 3, 1_000, "periodic" if mark is None else "savepoint", 8, {}, {}, {}
    )
    if mark is not None:
        store.create(savepoint_name(number), mark)
    store.create(manifest_name(number), manifest.to_bytes())


def test_of_a_damaged_checkpoint_nothing_is_made_up(tmp_path: Path) -> None:
    graph = graph_in(tmp_path)
    complete(store_of(graph), 1)
    store_of(graph).create(manifest_name(2), b"{")
    damaged, whole = stored_checkpoints(graph)
    assert (damaged.id, damaged.attempt, damaged.completed_at, damaged.size_bytes) == (2, None, None, None)
    assert damaged.damage is not None
    assert (whole.id, whole.attempt, whole.size_bytes, whole.damage) == (1, 3, 0, None)


def test_only_what_upgrades_asked_for_and_nothing_names_is_released(tmp_path: Path) -> None:
    graph = graph_in(tmp_path)
    for number, mark in enumerate((b"", savepoint_mark("upgrade"), savepoint_mark("user"), savepoint_mark("upgrade"))):
        complete(store_of(graph), number + 1, mark=mark)
    assert release_for_upgrades(graph, kept=2) == [4]
    kinds = {view.id: view.kind for view in stored_checkpoints(graph)}
    assert kinds == {1: "savepoint", 2: "savepoint", 3: "savepoint", 4: "periodic"}
    assert release_for_upgrades(graph, kept=None) == [2]
