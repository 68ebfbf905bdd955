from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from operators.connector import ERRORS_SCHEMA, Position, SplitId
from operators.types import parse_type
from streamproc.connectors import file_split
from streamproc.connectors.file_source import FileReader, FileSource, NoFiles
from streamproc.connectors.file_split import FileChanged, FileFailure
from streamproc.formats.protocol import FormatError
from streamproc.pipeline.spec import FileSourceSpec

FIELDS = {"id": parse_type("int64"), "name": parse_type("string")}


def source(path: Path | str, **options: Any) -> FileSource:
    declared = {"type": "file", "path": str(path), "schema": {"id": "int64", "name": "string"}, **options}
    return FileSource("src", FileSourceSpec.model_validate(declared), FIELDS)


def write_lines(path: Path, first: int, count: int) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("a") as file:
        file.writelines(json.dumps({"id": i, "name": f"é{i}"}) + "\n" for i in range(first, first + count))


class Read:
    """What a reader handed out, and where it stood after each piece."""

    def __init__(self) -> None:
        self.frames: list[pl.DataFrame] = []
        self.errors: list[pl.DataFrame] = []
        self.positions: list[Mapping[SplitId, Position]] = []

    @property
    def ids(self) -> list[int]:
        return [i for frame in self.frames for i in frame["id"].to_list()]


async def read(
    reader: FileReader, restored: Mapping[SplitId, Position] | None = None, max_rows: int = 10, until: int | None = None
) -> Read:
    """Read to the end, or until there are `until` rows."""
    got = Read()
    await reader.open(restored)
    got.positions.append(reader.splits())
    while not reader.exhausted() and (until is None or len(got.ids) < until):
        for piece in await reader.fetch(max_rows, 5.0):
            if piece.rows:
                decoded = piece.decode()
                got.frames.append(decoded.frame)
                if decoded.errors is not None:
                    got.errors.append(decoded.errors)
        got.positions.append(reader.splits())
    await reader.close()
    return got


async def test_all_files_of_a_glob_are_read_to_their_ends(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.json", 0, 25)
    write_lines(tmp_path / "b.json", 25, 3)
    write_lines(tmp_path / ".hidden.json", 100, 1)
    (tmp_path / "c.json").write_text("")
    got = await read(source(tmp_path / "*.json").reader(0, 1))
    assert sorted(got.ids) == list(range(28))
    assert max(frame.height for frame in got.frames) <= 12
    assert {split: position.get("done") for split, position in got.positions[-1].items()} == {
        "a.json": True,
        "b.json": True,
        "c.json": True,
    }


async def test_every_file_falls_to_exactly_one_subtask(tmp_path: Path) -> None:
    for i in range(20):
        write_lines(tmp_path / f"part{i}" / "x.json", i, 1)
    parts = [await read(source(tmp_path / "*" / "*.json").reader(subtask, 3)) for subtask in range(3)]
    assert sorted(i for part in parts for i in part.ids) == list(range(20))
    assert all(part.ids for part in parts)


@pytest.mark.parametrize("form", ["json", "csv", "csv-plain", "gz", "parquet"])
async def test_from_every_position_the_rest_is_read_and_nothing_twice(tmp_path: Path, form: str) -> None:
    rows = pl.DataFrame({"id": range(45), "name": [f'n, "{i}"' for i in range(45)], "extra": [0] * 45})
    options: dict[str, Any] = {"format": form}
    path = tmp_path / "rows"
    if form == "json":
        rows.write_ndjson(path)
    elif form == "gz":
        path, options = tmp_path / "rows.json.gz", {}
        path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows.to_dicts()).encode()))
    elif form == "parquet":
        rows.write_parquet(path, row_group_size=17)
    elif form == "csv":
        rows.select("extra", "name", "id").write_csv(path)
    else:
        rows.select("id", "name").write_csv(path, include_header=False)
        options = {"format": {"type": "csv", "header": False}}
    got = await read(source(path, **options).reader(0, 1))
    assert got.ids == list(range(45))
    assert got.frames[0]["name"][3] == 'n, "3"'
    read_so_far = 0
    for index, position in enumerate(got.positions[:-1]):
        rest = await read(source(path, **options).reader(0, 1), position)
        assert rest.ids == list(range(read_so_far, 45))
        read_so_far += got.frames[index].height if index < len(got.frames) else 0
    assert (await read(source(path, **options).reader(0, 1), got.positions[-1])).ids == []


async def test_bad_lines_become_error_rows_with_their_line_number(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(b'\xef\xbb\xbf{"id": 1}\n\n{"id": "2"}\r\n{"id": 3}\nbroken\n{"id": 4}')
    got = await read(source(path).reader(0, 1))
    assert got.ids == [1, 3, 4]
    errors = got.errors[0]
    assert dict(errors.schema) == ERRORS_SCHEMA
    assert errors.select("source", "split", "offset", "value", "step").rows() == [
        ("src", "x.json", 3, b'{"id": "2"}', "src"),
        ("src", "x.json", 5, b"broken", "src"),
    ]
    assert errors["error"][0] == "id: expected int64, found a string"


async def test_csv_lines_are_counted_with_the_header(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(b"name,id\na,1\nb,x\n")
    got = await read(source(path, format="csv").reader(0, 1))
    assert (got.ids, got.errors[0]["offset"].to_list()) == ([1], [3])


async def test_a_missing_column_names_the_file_and_the_column(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("id,title\n1,a\n")
    with pytest.raises(FormatError, match=r"source src: x.csv: column name is not in the header: id, title"):
        await read(source(tmp_path / "x.csv", format="csv").reader(0, 1))
    pl.DataFrame({"id": [1]}).write_parquet(tmp_path / "x.parquet")
    with pytest.raises(FormatError, match=r"source src: x.parquet: column name is missing"):
        await read(source(tmp_path / "x.parquet", format="parquet").reader(0, 1))


async def test_no_file_is_a_fault_of_a_bounded_source_that_names_the_glob(tmp_path: Path) -> None:
    with pytest.raises(NoFiles, match=r"no file matches .*/\*\.json$"):
        await source(tmp_path / "*.json").reader(0, 1).open(None)
    with pytest.raises(NoFiles, match="is a folder"):
        await source(tmp_path).reader(0, 1).open(None)


async def test_a_file_that_shrank_or_went_since_the_checkpoint_fails_loudly(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_lines(path, 0, 30)
    position = (await read(source(path).reader(0, 1), until=20)).positions[-1]
    path.write_text('{"id": 1}\n')
    with pytest.raises(FileChanged, match=r"x\.json is shorter"):
        await read(source(path).reader(0, 1), position)
    path.unlink()
    with pytest.raises(FileChanged, match=r"x\.json, read in part at the checkpoint, is gone"):
        await read(source(path).reader(0, 1), position)


async def test_follow_reads_whole_lines_as_they_come_and_new_files(tmp_path: Path) -> None:
    following = source(tmp_path / "*.json", follow=True)
    reader = following.reader(0, 1)
    assert not following.bounded
    await reader.open(None)
    assert await reader.fetch(10, 0.0) == []
    write_lines(tmp_path / "a.json", 0, 2)
    with (tmp_path / "a.json").open("a") as file:
        file.write('{"id": 2, ')
    first = await read(following.reader(0, 1), until=2)
    assert first.ids == [0, 1]
    with (tmp_path / "a.json").open("a") as file:
        file.write('"name": null}\n')
    write_lines(tmp_path / "b.json", 3, 1)
    rest = await read(following.reader(0, 1), first.positions[-1], until=2)
    assert sorted(rest.ids) == [2, 3]
    assert await reader.fetch(10, 5.0)
    assert not reader.exhausted()
    await reader.close()


async def test_a_followed_file_that_is_truncated_fails_loudly(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_lines(path, 0, 3)
    reader = source(path, follow=True).reader(0, 1)
    await reader.open(None)
    assert len(await reader.fetch(10, 0.0)) == 1
    path.write_text("")
    with pytest.raises(FileChanged, match=r"a\.json is shorter"):
        await reader.fetch(10, 0.0)
    await reader.close()


async def test_a_line_without_end_is_refused_instead_of_filling_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_split, "LINE_BYTES_MAX", 1 << 20)
    (tmp_path / "x.json").write_bytes(b'{"id": 1}\n' + b"x" * (3 << 20))
    with pytest.raises(FileFailure, match=r"x\.json: line 2 is longer than 1 MB"):
        await read(source(tmp_path / "x.json").reader(0, 1))


async def test_other_file_systems_are_read_by_url() -> None:
    memory: Any = MemoryFileSystem()  # type: ignore[no-untyped-call]
    memory.pipe_file("/in/a.json", b'{"id": 1}\n{"id": 2}')
    try:
        got = await read(source("memory://in/*.json").reader(0, 1))
    finally:
        memory.rm("/in", recursive=True)
    assert got.ids == [1, 2]
