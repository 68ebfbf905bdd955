"""Snapshots in the checkpoint store: only new files travel, damage is found, garbage goes and nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from state.backend import LocalSnapshot
from state.failure import CorruptCheckpoint, StateError
from state.key_group import KeyGroupRange
from state.restored_files import RestoredFiles
from state.rocksdb import RocksBackend
from state.snapshot import StoredFile, UploadId, collect, unreferenced, upload
from state.store import CheckpointStore

ALL = KeyGroupRange(0, 127)


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore.open(str(tmp_path / "store"))


def download(store: CheckpointStore, files: Mapping[str, StoredFile], directory: Path) -> None:
    fetched = RestoredFiles(store, directory.with_name("fetched"))
    fetched.fetch(files.values())
    fetched.place(files, directory)
    fetched.remove()


def names(store: CheckpointStore) -> set[str]:
    return {name for name, _ in store.list("files/")}


def test_state_survives_upload_and_download_and_the_next_upload_sends_only_what_is_new(
    store: CheckpointStore, tmp_path: Path
) -> None:
    backend = RocksBackend.create(tmp_path / "db", ALL)
    large = os.urandom(1 << 20)
    backend.blocks("slices").append(0, ALL, large)
    first = upload(store, backend.snapshot(tmp_path / "chk-1"), {}, UploadId(1, 1))
    backend.blocks("slices").append(1, ALL, b"small")
    second = upload(store, backend.snapshot(tmp_path / "chk-2"), first, UploadId(1, 2))
    backend.close()

    sent = names(store) - {file.name for file in first.values()}
    assert sum(size for name, size in store.list() if name in sent) < 20_000
    download(store, second, tmp_path / "restored")
    restored = RocksBackend.open_restored(tmp_path / "restored", ALL)
    restored.blocks("slices").append(1, ALL, b"more")
    assert [block.value for block in restored.blocks("slices").scan(0, ALL)] == [large]
    assert [block.value for block in restored.blocks("slices").scan(1, ALL)] == [b"small", b"more"]

    # A database restored in place goes on sharing what it was restored from.
    third = upload(store, restored.snapshot(tmp_path / "chk-3"), second, UploadId(2, 3))
    restored.close()
    blobs = {name: file for name, file in second.items() if name.endswith((".blob", ".sst"))}
    assert blobs.items() <= third.items()


def test_small_files_of_the_same_size_are_told_apart_by_content(store: CheckpointStore, tmp_path: Path) -> None:
    folder = tmp_path / "chk"
    folder.mkdir()
    snapshot = LocalSnapshot(folder, ("CURRENT",))
    (folder / "CURRENT").write_bytes(b"MANIFEST-000001\n")
    first = upload(store, snapshot, {}, UploadId(1, 1))
    assert upload(store, snapshot, first, UploadId(1, 2)) == first
    (folder / "CURRENT").write_bytes(b"MANIFEST-000002\n")
    assert upload(store, snapshot, first, UploadId(1, 3))["CURRENT"].name.startswith("files/1-3/")


def test_a_local_file_that_vanished_fails_the_upload(store: CheckpointStore, tmp_path: Path) -> None:
    with pytest.raises(StateError, match=r"000001\.sst"):
        upload(store, LocalSnapshot(tmp_path, ("000001.sst",)), {}, UploadId(1, 1))


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_flip, "does not match its sha256"),
        (lambda path: os.truncate(path, 500), "has 500 bytes instead of 1000"),
        (lambda path: path.unlink(), "is missing"),
    ],
    ids=["flipped", "torn", "missing"],
)
def test_a_damaged_file_is_found(
    store: CheckpointStore, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    (tmp_path / "chk").mkdir()
    (tmp_path / "chk" / "000001.sst").write_bytes(os.urandom(1000))
    files = upload(store, LocalSnapshot(tmp_path / "chk", ("000001.sst",)), {}, UploadId(1, 1))
    stored = files["000001.sst"].name
    damage(tmp_path / "store" / stored)

    with pytest.raises(CorruptCheckpoint, match=message) as corrupt:
        download(store, files, tmp_path / "restored")
    assert stored in str(corrupt.value)
    assert store.shown in str(corrupt.value)


@pytest.mark.parametrize("local_name", ["../escaped", "/tmp/escaped", "a/b", ".", ""])
def test_a_checkpoint_cannot_write_outside_the_restored_folder(
    store: CheckpointStore, tmp_path: Path, local_name: str
) -> None:
    fetched = RestoredFiles(store, tmp_path / "fetched")
    with pytest.raises(CorruptCheckpoint, match="names a local file"):
        fetched.place({local_name: StoredFile("files/1-1/ab", "0" * 64, 0)}, tmp_path / "restored")
    with pytest.raises(CorruptCheckpoint, match="names the sha256"):
        fetched.fetch([StoredFile("files/1-1/ab", local_name, 0)])
    assert not (tmp_path / "restored").exists()


def test_a_file_torn_on_its_way_is_fetched_again(
    store: CheckpointStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "chk").mkdir()
    (tmp_path / "chk" / "CURRENT").write_bytes(b"MANIFEST-000001")
    files = upload(store, LocalSnapshot(tmp_path / "chk", ("CURRENT",)), {}, UploadId(1, 1))
    get = store.get
    torn = [True]

    def tearing(name: str, target: Path) -> None:
        get(name, target)
        if torn:
            os.truncate(target, torn.pop())

    monkeypatch.setattr(store, "get", tearing)
    download(store, files, tmp_path / "restored")
    assert (tmp_path / "restored" / "CURRENT").read_bytes() == b"MANIFEST-000001"


def test_only_files_of_finished_uploads_that_nobody_refers_to_are_garbage() -> None:
    def stored(upload_id: str, digit: str) -> str:
        return f"files/{upload_id}/{digit * 64}"

    everything = [
        stored("1-3", "a"),  # still referred to
        stored("1-9", "b"),  # of an attempt that is over
        stored("2-5", "c"),  # of the newest completed checkpoint, live
        stored("2-4", "d"),  # of an aborted checkpoint
        stored("2-6", "e"),  # pending: its upload may be under way
        stored("3-1", "f"),  # of a newer attempt: not ours
        "files/readme",
        "chk-4/manifest.json",
    ]
    live = {everything[0], everything[2]}

    assert unreferenced(everything, live, UploadId(2, 5)) == [everything[1], everything[3]]


def test_collecting_keeps_live_checkpoints_restorable(store: CheckpointStore, tmp_path: Path) -> None:
    backend = RocksBackend.create(tmp_path / "db", ALL)
    files: dict[str, StoredFile] = {}
    for checkpoint in range(1, 4):
        backend.blocks("slices").append(checkpoint, ALL, os.urandom(50_000))
        snapshot = backend.snapshot(tmp_path / f"chk-{checkpoint}")
        files = upload(store, snapshot, files, UploadId(1, checkpoint))
    backend.close()
    live = {file.name for file in files.values()}

    assert collect(store, lambda: live, UploadId(1, 3)) > 0
    assert names(store) == live
    download(store, files, tmp_path / "restored")
    restored = RocksBackend.open_restored(tmp_path / "restored", ALL)
    assert restored.blocks("slices").namespaces() == [1, 2, 3]
    restored.close()


def test_a_superseded_attempt_calls_its_collection_off(store: CheckpointStore) -> None:
    garbage = f"files/1-1/{'0' * 64}"
    store.create(garbage, b"")

    def live() -> set[str]:
        raise InterruptedError("superseded")

    with pytest.raises(InterruptedError):
        collect(store, live, UploadId(1, 1))
    assert store.exists(garbage)
