"""What only the real database can do wrong: locks, stalls, corrupt files, a full disk."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from state import rocksdb
from state.failure import StateError
from state.key_group import KeyGroupRange
from state.rocksdb import RocksBackend

ALL = KeyGroupRange(0, 127)


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[RocksBackend]:
    backend = RocksBackend.create(tmp_path / "db", ALL)
    yield backend
    backend.close()


def test_close_releases_the_lock_even_with_a_scan_half_read(backend: RocksBackend, tmp_path: Path) -> None:
    for value in (b"1", b"2"):
        backend.blocks("slices").append(0, ALL, value)
    scan = backend.blocks("slices").scan(0, ALL)
    next(scan)
    backend.close()
    backend.close()

    again = RocksBackend.open_restored(tmp_path / "db", ALL)
    again.close()
    with pytest.raises(StateError):
        next(scan)
    with pytest.raises(StateError):
        backend.blocks("slices").append(0, ALL, b"")


def test_create_refuses_a_folder_with_state(backend: RocksBackend, tmp_path: Path) -> None:
    backend.close()
    with pytest.raises(StateError, match="exists"):
        RocksBackend.create(tmp_path / "db", ALL)


def test_snapshot_refuses_a_folder_that_exists(backend: RocksBackend, tmp_path: Path) -> None:
    (tmp_path / "chk").mkdir()
    with pytest.raises(StateError, match="cannot take a snapshot"):
        backend.snapshot(tmp_path / "chk")


def test_writing_faster_than_the_disk_waits_instead_of_failing(backend: RocksBackend) -> None:
    state = backend.blocks("slices")
    value = os.urandom(4 << 20)
    for namespace in range(40):
        state.append(namespace, ALL, value)

    assert backend.size_bytes() >= 40 * len(value)
    assert all(block.value == value for namespace in range(40) for block in state.scan(namespace, ALL))


def test_a_stall_without_end_is_given_up(backend: RocksBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    tries = 0

    def stalled() -> None:
        nonlocal tries
        tries += 1
        raise Exception("Result incomplete: Write stall")  # what rocksdict raises

    monkeypatch.setattr(rocksdb, "_STALL_SECONDS_MAX", 0.02)
    with pytest.raises(StateError, match="stalled"):
        backend._write(stalled)
    assert tries > 1


def test_tables_written_before_are_not_written_again_by_the_next_snapshot(
    backend: RocksBackend, tmp_path: Path
) -> None:
    state = backend.blocks("slices")
    state.append(0, ALL, os.urandom(1 << 20))
    first = backend.snapshot(tmp_path / "chk-1")
    state.append(1, ALL, b"small")
    second = backend.snapshot(tmp_path / "chk-2")

    blobs = [name for name in first.files if name.endswith(".blob")]
    assert blobs
    assert set(blobs) <= set(second.files)
    for name in blobs:
        assert (first.directory / name).samefile(second.directory / name)


def test_clipping_leaves_the_old_parts_as_they_are(backend: RocksBackend, tmp_path: Path) -> None:
    backend.blocks("slices").append(0, ALL, b"rows")
    part = backend.snapshot(tmp_path / "chk")
    before = {name: (part.directory / name).read_bytes() for name in part.files}

    RocksBackend.restore_clipped(tmp_path / "new", KeyGroupRange(0, 9), [part.directory]).close()

    assert {name: (part.directory / name).read_bytes() for name in part.files} == before


@pytest.mark.parametrize("suffix", [".sst", ".blob"])
def test_a_flipped_bit_is_an_error_and_never_a_shorter_scan(backend: RocksBackend, tmp_path: Path, suffix: str) -> None:
    state = backend.blocks("slices")
    for number in range(2000):
        state.append(number % 7, ALL, b"x" * 10)
    state.append(0, ALL, os.urandom(100_000))
    snapshot = backend.snapshot(tmp_path / "chk")
    [name] = [name for name in snapshot.files if name.endswith(suffix)]
    path = snapshot.directory / name
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.unlink()  # it is a hard link to the live database's file
    path.write_bytes(content)

    with pytest.raises(StateError):
        _read_everything(snapshot.directory)


def _read_everything(directory: Path) -> None:
    restored = RocksBackend.open_restored(directory, ALL)
    try:
        state = restored.blocks("slices")
        for namespace in state.namespaces():
            for _ in state.scan(namespace, ALL):
                pass
    finally:
        restored.close()


def test_a_file_size_limit_is_a_state_error(tmp_path: Path) -> None:
    """RLIMIT_FSIZE stands for a full disk: the flush of a snapshot fails."""
    program = f"""
import os, resource
from pathlib import Path
from state.failure import StateError
from state.key_group import KeyGroupRange
from state.rocksdb import RocksBackend

backend = RocksBackend.create(Path({str(tmp_path / "db")!r}), KeyGroupRange(0, 9))
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
backend.blocks("slices").append(0, KeyGroupRange(0, 9), os.urandom(4 << 20))
try:
    backend.snapshot(Path({str(tmp_path / "chk")!r}))
except StateError as error:
    print("StateError", error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("StateError cannot take a snapshot"), done.stderr
    assert not (tmp_path / "chk").exists()
