"""What `checkpoints` says of a real store on disk, whole and damaged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from operators.element import CheckpointId
from state.failure import CorruptCheckpoint
from state.key_group import KeyGroupRange
from state.snapshot import StoredFile, sha256_of
from state.store import CheckpointStore
from streamproc.checkpoint.manifest import Manifest, StepPart, committed_name, manifest_name
from streamproc.commands.checkpoints import NoSuchCheckpoint, list_all, show, verify_all
from streamproc.commands.session import Session

STATE = b"twelve bytes"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Pipeline `flights` with checkpoints 1 (committed) and 2, which share a file."""
    store = CheckpointStore.open(str(tmp_path / "store" / "flights"))
    local = tmp_path / "000001.sst"
    local.write_bytes(STATE)
    stored = StoredFile(f"files/1-1/{sha256_of(local)}", sha256_of(local), len(STATE))
    store.put(stored.name, local)
    for number in (1, 2):
        manifest = Manifest(
            pipeline="flights",
            checkpoint=CheckpointId(number),
            attempt=1,
            created_ms=1_700_000_000_000,
            kind="periodic",
            max_parallelism=128,
            sources={"departures": {"flights.parquet": {"position": {"row": 10 * number}, "finished": False}}},
            steps={"weekly": [StepPart("aggregate", KeyGroupRange(0, 127), {}, {"000001.sst": stored})]},
            sinks={"out": [{"file": "part-1"}]},
        )
        store.create(manifest_name(number), manifest.to_bytes())
    store.create(committed_name(1), b"")
    return tmp_path / "store"


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def state_file(root: Path) -> Path:
    (found,) = (root / "flights" / "files" / "1-1").iterdir()
    return found


def test_list_shows_each_checkpoint(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert list_all(Session(), f"file:{root}", as_json=True) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert (first["pipeline"], first["checkpoint"], first["committed"]) == ("flights", 1, True)
    assert (second["checkpoint"], second["committed"], second["files"], second["bytes"]) == (2, False, 1, len(STATE))

    assert list_all(Session(), f"file:{root}", as_json=False) == 0
    assert "flights" in capsys.readouterr().out


def test_the_url_may_name_one_pipelines_folder(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert list_all(Session(), f"file:{root}/flights", as_json=True) == 0
    assert [entry["pipeline"] for entry in json.loads(capsys.readouterr().out)] == ["flights", "flights"]


def test_show_gives_positions_state_and_what_sinks_prepared(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert show(Session(), f"file:{root}", "latest", as_json=True) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["checkpoint"] == 2
    assert shown["sources"]["departures"]["flights.parquet"]["position"] == {"row": 20}
    assert shown["steps"]["weekly"][0]["files"]["000001.sst"]["bytes"] == len(STATE)
    assert shown["sinks"] == {"out": [{"file": "part-1"}]}

    assert show(Session(), f"file:{root}", "1", as_json=False) == 0
    text = capsys.readouterr().out
    assert "checkpoint 1" in text
    assert "row 10" in text


def test_show_of_a_number_that_is_not_there(root: Path) -> None:
    with pytest.raises(NoSuchCheckpoint, match="no checkpoint 7"):
        show(Session(), f"file:{root}", "7", as_json=False)


def test_a_store_without_checkpoints_is_not_called_good(tmp_path: Path) -> None:
    with pytest.raises(NoSuchCheckpoint):
        verify_all(Session(), f"file:{tmp_path}", as_json=False)


def test_verify_finds_everything_good(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify_all(Session(), f"file:{root}", as_json=False) == 0
    assert capsys.readouterr().out.count("good, 1 files") == 2


def test_verify_finds_an_altered_file_in_every_checkpoint_that_needs_it(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flip_a_byte(state_file(root))
    assert verify_all(Session(), f"file:{root}", as_json=True) == 1
    assert all("sha256" in result["faults"][0] for result in json.loads(capsys.readouterr().out))


def test_verify_finds_a_torn_and_a_missing_file(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state_file(root).write_bytes(STATE[:5])
    assert verify_all(Session(), f"file:{root}", as_json=False) == 1
    assert "5 bytes instead of 12" in capsys.readouterr().err

    state_file(root).unlink()
    assert verify_all(Session(), f"file:{root}", as_json=False) == 1
    assert "not there" in capsys.readouterr().err


def test_a_torn_manifest_is_listed_as_unreadable_and_verified_as_bad(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flip_a_byte(root / "flights" / manifest_name(2))
    assert list_all(Session(), f"file:{root}", as_json=True) == 0
    assert [entry["readable"] for entry in json.loads(capsys.readouterr().out)] == [True, False]
    assert verify_all(Session(), f"file:{root}", as_json=False) == 1
    with pytest.raises(CorruptCheckpoint):
        show(Session(), f"file:{root}", "latest", as_json=False)
