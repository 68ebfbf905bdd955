"""Attempts and lineage: of two jobs on one store, never both commit the same records."""

from __future__ import annotations

from pathlib import Path

import pytest

from operators.element import CheckpointId
from state.failure import CorruptCheckpoint
from state.store import CheckpointStore
from streamproc.checkpoint.manifest import Manifest, assemble, manifest_name
from streamproc.checkpoint.recovery import Attempt, UnknownCheckpoint, claim, lineage, newer_attempt


def manifest(checkpoint: int, attempt: int) -> Manifest:
    part = {
        "sources": {"orders": {"orders-0": {"position": {"offset": checkpoint}, "max_time": 5, "finished": False}}},
        "steps": {
            "sum": {
                "describe": "sum",
                "groups": [0, 127],
                "operator": {},
                "files": {"1.sst": ["files/1-1/ab", "ab", 3]},
            }
        },
        "sinks": {"out": [{"id": 1}]},
    }
    return assemble("p", CheckpointId(checkpoint), attempt, 0, "periodic", 128, [part])


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore.open(f"file:{tmp_path}", "p")


def write(store: CheckpointStore, checkpoint: int, attempt: int) -> None:
    store.create(manifest_name(checkpoint), manifest(checkpoint, attempt).to_bytes())


def test_a_manifest_reads_back_equal_and_a_flipped_bit_is_found() -> None:
    content = manifest(3, 1).to_bytes()
    assert Manifest.from_bytes(content, "m") == manifest(3, 1)
    with pytest.raises(CorruptCheckpoint, match="checksum"):
        Manifest.from_bytes(content.replace(b'"offset": 3', b'"offset": 4'), "m")
    with pytest.raises(CorruptCheckpoint, match="not a readable manifest"):
        Manifest.from_bytes(content[:-20], "m")


def test_the_newest_checkpoint_of_the_newest_attempt_comes_first() -> None:
    attempts = [Attempt(1, None), Attempt(2, CheckpointId(2))]
    assert lineage(attempts, {CheckpointId(c): a for c, a in [(1, 1), (2, 1), (3, 2)]}) == [3, 2, 1]


def test_what_a_zombie_wrote_after_the_next_attempt_restored_is_ignored() -> None:
    attempts = [Attempt(1, None), Attempt(2, CheckpointId(2))]
    assert lineage(attempts, {CheckpointId(c): a for c, a in [(1, 1), (2, 1), (3, 1)]}) == [2, 1]


def test_an_attempt_from_nothing_cuts_all_older_lineage() -> None:
    assert lineage([Attempt(1, None), Attempt(2, None)], {CheckpointId(1): 1}) == []


def test_a_claim_takes_the_newest_checkpoint_and_the_next_number(store: CheckpointStore) -> None:
    first = claim(store)
    assert (first.attempt, first.restored, first.next_checkpoint) == (1, None, 1)
    write(store, 1, attempt=1)
    second = claim(store)
    assert second.restored == manifest(1, 1)
    assert (second.attempt, second.next_checkpoint) == (2, 2)
    assert newer_attempt(store, 1) == 2
    assert newer_attempt(store, 2) is None


def test_a_checkpoint_that_completes_while_we_claim_is_seen(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim(store)
    create = store.create

    def racing(name: str, content: bytes) -> None:
        if name == "attempts/00000002":
            write(store, 1, attempt=1)  # the old attempt completes at the last moment
        create(name, content)

    monkeypatch.setattr(store, "create", racing)
    assert claim(store).restored == manifest(1, 1)


def test_an_attempt_that_died_right_after_its_claim_cuts_no_lineage(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim(store)
    write(store, 1, attempt=1)
    create = store.create

    def dying(name: str, content: bytes) -> None:
        create(name, content)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(store, "create", dying)
        with pytest.raises(KeyboardInterrupt):
            claim(store)
    claimed = claim(store)
    assert (claimed.attempt, claimed.restored) == (3, manifest(1, 1))


def test_an_unreadable_checkpoint_is_passed_over_and_reported(store: CheckpointStore) -> None:
    claim(store)
    write(store, 1, attempt=1)
    store.create(manifest_name(2), b"{torn")
    claimed = claim(store)
    assert claimed.restored == manifest(1, 1)
    assert claimed.next_checkpoint == 3
    assert "chk-00000002" in claimed.skipped[0]


def test_a_wanted_checkpoint_that_is_not_there_names_those_that_are(store: CheckpointStore) -> None:
    claim(store)
    write(store, 1, attempt=1)
    with pytest.raises(UnknownCheckpoint, match="no checkpoint 9 to start from; there are: 1"):
        claim(store, CheckpointId(9))
