"""Attempts and lineage: of two jobs on one store, never both commit the same records."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from operators.element import CheckpointId
from state.failure import CorruptCheckpoint
from state.store import CheckpointStore
from streamproc.checkpoint.driver import tidy
from streamproc.checkpoint.manifest import (
    VERSION,
    Manifest,
    NewerRelease,
    assemble,
    committed_name,
    manifest_name,
    restored_name,
)
from streamproc.checkpoint.recovery import (
    Attempt,
    CheckpointsGone,
    Superseded,
    UnknownCheckpoint,
    claim,
    lineage,
    list_checkpoints,
    newer_attempt,
    read_attempts,
)


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


def test_what_a_newer_release_has_written_is_not_passed_over(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim(store)
    write(store, 1, 1)
    monkeypatch.setattr("streamproc.checkpoint.manifest.VERSION", VERSION + 1)
    write(store, 2, 1)
    monkeypatch.undo()
    with pytest.raises(NewerRelease, match="written by a newer release"):
        claim(store)
    restored = claim(store, CheckpointId(1)).restored
    assert restored is not None
    assert restored.checkpoint == 1


def test_the_newest_checkpoint_of_the_newest_attempt_comes_first() -> None:
    attempts = [Attempt(1, None), Attempt(2, CheckpointId(2))]
    assert lineage(attempts, {CheckpointId(c): a for c, a in [(1, 1), (2, 1), (3, 2)]}) == [3, 2, 1]


def test_what_a_zombie_wrote_after_the_next_attempt_restored_is_ignored() -> None:
    attempts = [Attempt(1, None), Attempt(2, CheckpointId(2))]
    assert lineage(attempts, {CheckpointId(c): a for c, a in [(1, 1), (2, 1), (3, 1)]}) == [2, 1]


def test_what_an_attempt_has_restored_is_used_again_when_nothing_else_is_left_of_its_writer() -> None:
    savepoint, later = CheckpointId(3), CheckpointId(80)
    attempts = [Attempt(8, CheckpointId(79)), Attempt(9, savepoint)]  # 9 has gone back, and completed nothing yet
    assert lineage(attempts, {savepoint: 1, later: 8}) == [3]
    assert lineage([*attempts, Attempt(10, None)], {savepoint: 1, later: 8}) == []


def test_an_attempt_from_nothing_cuts_all_older_lineage() -> None:
    assert lineage([Attempt(1, None), Attempt(2, None)], {CheckpointId(1): 1}) == []


def test_an_attempt_whose_record_is_lost_goes_on_from_its_own_checkpoints() -> None:
    written = {CheckpointId(c): a for c, a in [(1, 1), (2, 2), (3, 2)]}
    assert lineage([Attempt(1, None)], written) == [3, 2]
    assert lineage([Attempt(1, None), Attempt(3, CheckpointId(3))], written) == [3, 2]


def test_a_savepoint_older_than_all_records_is_no_sign_of_a_lost_one() -> None:
    assert lineage([Attempt(8, CheckpointId(79))], {CheckpointId(3): 1, CheckpointId(79): 8}) == [79]


def test_a_claim_takes_the_newest_checkpoint_and_the_next_number(store: CheckpointStore) -> None:
    first = claim(store)
    assert (first.attempt, first.restored, first.next_checkpoint) == (1, None, 1)
    write(store, 1, attempt=1)
    second = claim(store)
    assert second.restored == manifest(1, 1)
    assert (second.attempt, second.next_checkpoint) == (2, 2)
    assert newer_attempt(store, 1) == 2
    assert newer_attempt(store, 2) is None


def remove(store: CheckpointStore, prefix: str = "") -> None:
    for name, _ in list(store.list(prefix)):
        store.delete(name)


def test_an_attempt_that_does_not_find_its_own_claim_knows_that_the_store_was_emptied(store: CheckpointStore) -> None:
    claim(store)
    remove(store)
    with pytest.raises(CheckpointsGone, match="not there any more"):
        newer_attempt(store, 1)


def test_an_emptied_store_is_no_beginning_where_an_attempt_has_begun(store: CheckpointStore) -> None:
    claim(store)
    write(store, 1, attempt=1)
    remove(store)
    with pytest.raises(CheckpointsGone):
        claim(store, begun=True)
    assert not list(store.list("")), "whoever comes later must not take it for a beginning"
    assert claim(store).restored is None


def test_checkpoints_without_a_record_of_any_attempt_are_no_beginning(store: CheckpointStore) -> None:
    claim(store)
    write(store, 1, attempt=1)
    remove(store, "attempts/")
    for _ in range(2):
        with pytest.raises(CheckpointsGone):
            claim(store)
    assert claim(store, CheckpointId(1)).restored == manifest(1, 1)


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


def refusing(*damaged: int) -> Callable[[Manifest], None]:
    """A fetch that finds damage in the files of some checkpoints."""

    def fetch(manifest: Manifest) -> None:
        if manifest.checkpoint in damaged:
            raise CorruptCheckpoint(f"file of {manifest.checkpoint} is torn")

    return fetch


def test_a_checkpoint_with_damaged_files_is_passed_over_for_good(store: CheckpointStore) -> None:
    claim(store)
    for checkpoint in (1, 2, 3):
        write(store, checkpoint, attempt=1)
    claimed = claim(store, fetch=refusing(2, 3))
    assert claimed.restored == manifest(1, 1)
    assert claimed.next_checkpoint == 4
    assert claimed.skipped == ("checkpoint 2: file of 2 is torn", "checkpoint 3: file of 3 is torn")
    assert read_attempts(store)[-1] == Attempt(2, CheckpointId(1)), "what was really restored"
    again = claim(store)
    assert again.restored == manifest(1, 1), "its transactions were fenced: never go back to 3"


def test_with_no_whole_checkpoint_nothing_begins_anew_and_nothing_is_recorded(store: CheckpointStore) -> None:
    claim(store)
    write(store, 1, attempt=1)
    store.create(manifest_name(2), b"")
    with pytest.raises(CorruptCheckpoint, match=r"none of the checkpoints.*chk-00000002.*file of 1 is torn.*anew"):
        claim(store, fetch=refusing(1))
    assert [attempt.number for attempt in read_attempts(store)] == [1]
    assert claim(store).restored == manifest(1, 1), "mended, it goes on"


def test_a_lost_manifest_is_noticed_by_the_mark_of_its_commit_and_its_number_not_used_again(
    store: CheckpointStore,
) -> None:
    claim(store)
    write(store, 1, attempt=1)
    store.create(committed_name(2), b"")
    claimed = claim(store)
    assert claimed.restored == manifest(1, 1)
    assert "chk-00000002/manifest.json is missing" in claimed.skipped[0]
    assert claimed.next_checkpoint == 3


def test_older_damage_is_no_alarm_and_a_wanted_checkpoint_is_taken_or_nothing(store: CheckpointStore) -> None:
    claim(store)
    store.create(manifest_name(1), b"{torn")
    write(store, 2, attempt=1)
    assert claim(store).skipped == ()
    with pytest.raises(CorruptCheckpoint, match="cannot start from checkpoint 1"):
        claim(store, CheckpointId(1))
    with pytest.raises(CorruptCheckpoint, match="file of 2"):
        claim(store, CheckpointId(2), fetch=refusing(2))


def test_an_unreadable_record_of_an_attempt_makes_older_checkpoints_unusable_not_the_job(
    store: CheckpointStore,
) -> None:
    claim(store)
    write(store, 1, attempt=1)
    claim(store)
    store.delete(restored_name(2))
    store.create(restored_name(2), b"{torn")
    write(store, 2, attempt=2)
    assert claim(store, fetch=refusing()).restored == manifest(2, 2)
    with pytest.raises(CorruptCheckpoint):
        claim(store, fetch=refusing(2))


def test_tidying_keeps_the_newest_in_spite_of_a_damaged_one_and_stops_when_superseded(store: CheckpointStore) -> None:
    claim(store)
    for checkpoint in (1, 2, 3):
        write(store, checkpoint, attempt=1)
    store.create(committed_name(1), b"")
    store.delete(manifest_name(2))
    store.create(manifest_name(2), b"{torn")
    tidy(store, attempt=1, checkpoint=CheckpointId(3), keep=2)
    assert list_checkpoints(store) == [2, 3]
    assert [name for name, _ in store.list("chk-00000001")] == []
    claim(store)
    write(store, 4, attempt=1)
    with pytest.raises(Superseded):
        tidy(store, attempt=1, checkpoint=CheckpointId(4), keep=1)
    assert list_checkpoints(store) == [2, 3, 4]
