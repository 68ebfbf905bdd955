"""Spilled frames: mapped and not read, equal in every type, gone with their files, and loud when the disk is full."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from state.failure import StateError
from state.key_group import KeyGroupRange
from state.memory import MemoryBackend
from state.rocksdb import RocksBackend
from state.spill import SpillFolder

ALL = KeyGroupRange(0, 7)
TYPES = {
    "integer": pl.Series([1, None, -3], dtype=pl.Int64),
    "small": pl.Series([1, 2, 3], dtype=pl.Int8),
    "flag": pl.Series([True, None, False]),
    "number": pl.Series([1.5, float("nan"), None]),
    "single": pl.Series([1.5, 2.5, None], dtype=pl.Float32),
    "text": pl.Series(["", "a text longer than twelve bytes", None]),
    "bytes": pl.Series([b"\xff", None, b"x" * 40]),
    "day": pl.Series([date(2026, 1, 1), None, date(1969, 1, 1)]),
    "moment": pl.Series([datetime(2026, 1, 1, tzinfo=UTC), None, None], dtype=pl.Datetime("us", "UTC")),
    "decimal": pl.Series([Decimal("1.50"), None, Decimal("-2.00")], dtype=pl.Decimal(38, 2)),
    "list": pl.Series([[1, None], [], None], dtype=pl.List(pl.Int64)),
    "texts": pl.Series([["a", "b"], [], None], dtype=pl.List(pl.String)),
    "struct": pl.Series([{"a": 1, "b": "x"}, {"a": None, "b": "y"}, None]),
    "nothing": pl.Series([None, None, None], dtype=pl.Null),
}


@pytest.mark.parametrize("name", list(TYPES))
def test_a_spilled_frame_is_what_it_was(name: str, tmp_path: Path) -> None:
    frame = pl.DataFrame({name: TYPES[name]})
    spilled = SpillFolder(tmp_path / "new", "rows").write(frame)
    assert spilled.frame.equals(frame)
    assert spilled.frame.schema == frame.schema
    assert spilled.frame[[2, 0]].equals(frame[[2, 0]])


def test_rows_are_mapped_and_outlive_their_file(tmp_path: Path) -> None:
    count = 1_000_000
    folder = SpillFolder(tmp_path, "rows")
    folder.write(pl.DataFrame({"n": [1]}))
    spilled = folder.write(pl.DataFrame({"n": np.arange(count), "m": np.arange(count)}))
    before = anonymous_mb()
    some = spilled.frame[np.arange(0, count, 1000)]
    assert anonymous_mb() - before < 4, "a gather of a thousand rows has read the file"
    assert spilled.path.name in Path("/proc/self/maps").read_text()

    spilled.delete()
    spilled.delete()
    assert [path.name for path in tmp_path.iterdir()] == ["rows-0.arrow"]
    assert some.get_column("n").to_list() == list(range(0, count, 1000))


def anonymous_mb() -> int:
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon")]
    return int(line.split()[1]) // 1024


@pytest.fixture
def full_disk() -> Iterator[None]:
    """No file grows beyond 100 kB: what writes sees the error of the system."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_is_a_failure_of_state_and_leaves_no_torn_file(tmp_path: Path) -> None:
    with pytest.raises(StateError, match=r"cannot spill 50000 rows of 'rows' to .*rows-0\.arrow: .*too large"):
        SpillFolder(tmp_path, "rows").write(pl.DataFrame({"n": np.arange(50_000)}))
    assert not list(tmp_path.iterdir())


def test_the_folder_lives_with_the_database(tmp_path: Path) -> None:
    backend = RocksBackend.create(tmp_path / "db", ALL)
    SpillFolder(backend.spill_folder(), "rows").write(pl.DataFrame({"n": [1]}))
    snapshot = backend.snapshot(tmp_path / "chk")
    assert not [name for name in snapshot.files if name.endswith(".arrow")]
    left_over = backend.spill_folder() / "rows-0.arrow"
    assert left_over.exists()
    backend.close()
    assert not backend.spill_folder().exists()

    backend.spill_folder().mkdir()
    left_over.touch()  # by a process that was killed
    again = RocksBackend.open_restored(tmp_path / "db", ALL)
    assert not left_over.exists()
    again.close()


def test_the_model_has_no_disk() -> None:
    assert MemoryBackend(ALL).spill_folder() is None
