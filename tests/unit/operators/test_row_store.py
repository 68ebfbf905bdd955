"""Rows by number: memory and disk stay bounded, and a row is what it was wherever it lies."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.element import Schema
from operators.row_store import RowStore
from state.spill import SpillFolder

SCHEMA: Schema = {"n": pl.Int64(), "text": pl.String(), "list": pl.List(pl.Int64())}
FLAT = ["n", "text"]


def rows(first: int, count: int) -> pl.DataFrame:
    numbers = list(range(first, first + count))
    columns = {"n": numbers, "text": [f"row {n} {'x' * (n % 17)}" for n in numbers], "list": [[n, n] for n in numbers]}
    return pl.DataFrame(columns, schema=SCHEMA)


def stored(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*"))


@settings(max_examples=40, deadline=None)
@given(data=st.data(), bytes_max=st.sampled_from([0, 300, 2000, 10**9]))
def test_agrees_with_a_list(data: st.DataObject, bytes_max: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        store = RowStore(SCHEMA, SpillFolder(Path(name), "rows"), bytes_max)
        held: list[int] = []
        came = 0
        for operation in data.draw(st.lists(st.sampled_from(["append", "append", "keep", "renumber"]), max_size=15)):
            match operation:
                case "append":
                    count = data.draw(st.integers(0, 20))
                    store.append(rows(came, count).with_columns(extra=0))
                    held += range(came, came + count)
                    came += count
                case "keep":
                    some = data.draw(st.integers(0, 4))  # of four: mostly dead frames are written again
                    alive = [data.draw(st.integers(0, 3)) < some for _ in held]
                    store.keep(np.array(alive, dtype=np.bool_))
                    held = [number for number, kept in zip(held, alive, strict=True) if kept]
                case "renumber":
                    order = data.draw(st.permutations(range(len(held))))
                    store.renumber(np.array(order, dtype=np.int64))
                    held = [held[number] for number in order]
            wanted = data.draw(st.lists(st.integers(0, len(held) - 1), max_size=30)) if held else []
            got = store.gather(np.array(wanted, dtype=np.int64))
            assert got.schema == pl.Schema(SCHEMA)
            assert got.get_column("n").to_list() == [held[number] for number in wanted]
            assert all(n == got.get_column("list")[at][0] for at, n in enumerate(got.get_column("n")))
            flat = store.gather(np.array(wanted, dtype=np.int64), FLAT)
            assert flat.equals(got.select(FLAT))


def test_rows_beyond_the_budget_are_in_files_and_go_with_the_last_of_a_file(tmp_path: Path) -> None:
    store = RowStore(SCHEMA, SpillFolder(tmp_path, "rows"), 20_000)
    for first in range(0, 10_000, 100):
        store.append(rows(first, 100))
    size = rows(0, 10_000).estimated_size()
    assert stored(tmp_path) > size - 20_000

    alive = np.zeros(10_000, dtype=np.bool_)
    alive[::10] = True
    alive[:3000] = True
    store.keep(alive)
    assert store.gather(np.arange(int(alive.sum()))).get_column("n").to_list() == np.flatnonzero(alive).tolist()
    assert stored(tmp_path) < size * 0.5, "files of mostly dead rows are written again"
    store.keep(np.zeros(int(alive.sum()), dtype=np.bool_))
    assert not list(tmp_path.iterdir())


def test_files_are_few_and_bounded_when_rows_are_replaced_for_ever(tmp_path: Path) -> None:
    store = RowStore(SCHEMA, SpillFolder(tmp_path, "rows"), 5_000)
    most = 0
    for first in range(0, 30_000, 500):
        store.append(rows(first, 500))
        total = min(first + 500, 1500)
        if first >= 1000:
            store.keep(np.arange(total) >= total - 1000)
        most = max(most, stored(tmp_path))
    assert store.gather(np.arange(1000)).get_column("n").to_list() == list(range(29_000, 30_000))
    assert most < 4 * rows(0, 1000).estimated_size()


def test_without_a_disk_everything_stays() -> None:
    store = RowStore(SCHEMA)
    store.append(rows(0, 5000))
    store.append(rows(5000, 10))
    assert store.gather(np.array([5009, 0])).equals(pl.concat([rows(5009, 1), rows(0, 1)]))
