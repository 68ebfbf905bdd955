from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from streamproc.connectors import file_sink
from streamproc.connectors.file_sink import FileSink
from streamproc.connectors.file_system import FileSystemError
from streamproc.connectors.part_files import PartLost
from streamproc.pipeline.spec import FileSinkSpec

SCHEMA = {"id": pl.Int64(), "name": pl.String()}


def sink(path: Path | str, form: Any = "json", name: str = "out") -> FileSink:
    spec = FileSinkSpec.model_validate({"type": "file", "input": "x", "path": str(path), "format": form})
    return FileSink("pipe", name, spec, SCHEMA)


async def opened(of: FileSink, subtask: int = 0) -> file_sink.FileWriter:
    writer = of.writer(subtask, 2)
    await writer.open()
    return writer


def rows(first: int, count: int = 2) -> pl.DataFrame:
    ids = list(range(first, first + count))
    return pl.DataFrame({"__time": ids, "id": ids, "name": [f"é{i}" for i in ids]})


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def ids(folder: Path) -> list[int]:
    files = [folder / name for name in visible(folder)]
    return sorted(json.loads(line)["id"] for file in files for line in file.read_text().splitlines())


def unfinished(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.endswith(".inprogress")]


async def test_rows_appear_when_their_checkpoint_completes_and_not_before(tmp_path: Path) -> None:
    out = sink(tmp_path)
    await out.recover([], 2)
    writers = [await opened(out, subtask) for subtask in (0, 1)]
    await writers[0].write(rows(0))
    await writers[1].write(rows(2))
    prepared = [await writer.prepare(1) for writer in writers]
    await writers[0].write(rows(4))
    assert visible(tmp_path) == []
    for writer in writers:
        await writer.commit(1)
        await writer.commit(1)
    assert ids(tmp_path) == [0, 1, 2, 3]
    assert visible(tmp_path) == sorted(part["final"] for parts in prepared for part in parts)
    assert [name.rsplit("-", 1)[0] for name in visible(tmp_path)] == ["part-0-1-0", "part-1-1-0"]
    for writer in writers:
        await writer.close()
    assert ids(tmp_path) == [0, 1, 2, 3]


async def test_a_checkpoint_without_rows_makes_no_file(tmp_path: Path) -> None:
    out = sink(tmp_path)
    await out.recover([], 1)
    writer = await opened(out)
    await writer.write(rows(0, 0))
    assert await writer.prepare(1) == []
    await writer.commit(1)
    assert visible(tmp_path) == unfinished(tmp_path) == []


async def test_what_an_aborted_checkpoint_prepared_comes_with_the_next(tmp_path: Path) -> None:
    out = sink(tmp_path)
    await out.recover([], 1)
    writer = await opened(out)
    await writer.write(rows(0))
    aborted = await writer.prepare(1)
    await writer.write(rows(2))
    assert (await writer.prepare(2))[:1] == aborted
    await writer.commit(2)
    assert ids(tmp_path) == [0, 1, 2, 3]
    await writer.write(rows(4))
    assert len(await writer.prepare(3)) == 1


async def test_a_commit_leaves_what_a_later_checkpoint_prepared(tmp_path: Path) -> None:
    out = sink(tmp_path)
    await out.recover([], 1)
    writer = await opened(out)
    await writer.write(rows(0))
    await writer.prepare(1)
    await writer.write(rows(2))
    await writer.prepare(2)
    await writer.commit(1)
    assert ids(tmp_path) == [0, 1]


@pytest.mark.parametrize("committed_before", [False, True], ids=["before commit", "after commit"])
async def test_recovery_commits_the_checkpoint_and_removes_the_rest(tmp_path: Path, committed_before: bool) -> None:
    crashed = sink(tmp_path)
    await crashed.recover([], 1)
    writer = await opened(crashed)
    await writer.write(rows(0))
    parts = await writer.prepare(1)
    if committed_before:
        await writer.commit(1)
    await writer.write(rows(100))
    await writer.prepare(2)
    await writer.write(rows(200))
    other = tmp_path / ".pipe.out2.0-x-0.inprogress"
    other.touch()
    for _ in range(2):
        await sink(tmp_path).recover(json.loads(json.dumps(parts)), 1)
        assert ids(tmp_path) == [0, 1]
        assert unfinished(tmp_path) == [other.name]
    await writer.close()


async def test_a_part_its_reader_has_taken_is_not_lost_but_one_that_vanished_is(tmp_path: Path) -> None:
    out = sink(tmp_path)
    await out.recover([], 1)
    writer = await opened(out)
    await writer.write(rows(0))
    parts = await writer.prepare(1)
    (tmp_path / parts[0]["pending"]).rename(tmp_path / "elsewhere")
    with pytest.raises(PartLost, match="gone without having been committed"):
        await sink(tmp_path).recover(parts, 1)
    (tmp_path / "elsewhere").rename(tmp_path / parts[0]["pending"])
    await writer.commit(1)
    (tmp_path / parts[0]["final"]).unlink()
    await sink(tmp_path).recover(parts, 1)


async def test_recovery_finds_parts_in_the_folder_they_were_written_to(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    out = sink(old)
    await out.recover([], 1)
    writer = await opened(out)
    await writer.write(rows(0))
    parts = await writer.prepare(1)
    await sink(new).recover(parts, 1)
    assert ids(old) == [0, 1]
    await writer.close()


async def test_a_part_is_closed_when_it_is_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_sink, "PART_BYTES_MAX", 30)
    out = sink(tmp_path)
    await out.recover([], 1)
    writer = await opened(out)
    for first in (0, 2, 4):
        await writer.write(rows(first))
    assert len(await writer.prepare(1)) == 3
    await writer.commit(1)
    assert ids(tmp_path) == [0, 1, 2, 3, 4, 5]


async def test_csv_files_each_begin_with_the_header_and_parquet_files_are_whole(tmp_path: Path) -> None:
    for form in ("csv", "parquet"):
        out = sink(tmp_path / form, form)
        await out.recover([], 1)
        writer = await opened(out)
        await writer.write(rows(0))
        await writer.write(rows(2))
        await writer.prepare(1)
        await writer.commit(1)
        await writer.write(rows(9))
        await writer.close()
    (csv,) = (tmp_path / "csv").glob("*.csv")
    assert csv.read_text() == "id,name\n0,é0\n1,é1\n2,é2\n3,é3\n"
    (parquet,) = (tmp_path / "parquet").glob("*.parquet")
    assert pl.read_parquet(parquet)["id"].to_list() == [0, 1, 2, 3]


async def test_after_a_failed_write_the_writer_refuses_to_go_on(tmp_path: Path) -> None:
    out = sink(tmp_path / "gone")
    writer = await opened(out)
    with pytest.raises(FileSystemError, match="sink out"):
        await writer.write(rows(0))
    (tmp_path / "gone").mkdir()
    with pytest.raises(FileSystemError):
        await writer.prepare(1)


@pytest.fixture
def memory() -> Iterator[Any]:
    fs: Any = MemoryFileSystem()  # type: ignore[no-untyped-call]
    yield fs
    fs.rm("/out", recursive=True)


async def test_other_file_systems_commit_by_moving_and_recover_from_a_half_done_move(memory: Any) -> None:
    out = sink("memory://out")
    await out.recover([], 1)
    writer = await opened(out)
    await writer.write(rows(0))
    parts = await writer.prepare(1)
    pending, final = (f"/out/{parts[0][part]}" for part in ("pending", "final"))
    memory.pipe_file(final, b"half")
    await sink("memory://out").recover(parts, 1)
    assert memory.cat_file(final).count(b"\n") == 2
    assert not memory.exists(pending)
    memory.copy(final, pending)
    await sink("memory://out").recover(parts, 1)
    assert memory.cat_file(final).count(b"\n") == 2
    assert not memory.exists(pending)
