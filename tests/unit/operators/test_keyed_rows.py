"""Rows kept by key: what they cost on disk and in memory, what they refuse, and where hashes used to go wrong."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from operators import row_journal
from operators.hashing import key_groups
from operators.keyed_rows import KeyedRows, MisplacedRow, UnknownRow
from operators.operator import OperatorContext
from state.backend import StateBackend
from state.key_group import KeyGroupRange
from state.memory import MemoryBackend
from state.rocksdb import RocksBackend

MAX_PARALLELISM = 8
ALL = KeyGroupRange(0, MAX_PARALLELISM - 1)
SCHEMA: dict[str, pl.DataType] = {"k": pl.Int64(), "t": pl.Int64()}


def kept(backend: StateBackend, *, time: str | None = None, key: tuple[str, ...] = ("k",)) -> KeyedRows:
    return KeyedRows(OperatorContext("step", 0, MAX_PARALLELISM, ALL, backend), "rows", SCHEMA, key, time=time)


def batch(keys: Sequence[int] | npt.NDArray[np.int64], times: int | pl.Expr = 0) -> pl.DataFrame:
    """Rows with these keys at these times, of which a number is that of all."""
    time = pl.lit(times) if isinstance(times, int) else times
    return pl.DataFrame({"k": pl.Series(keys, dtype=pl.Int64)}).with_columns(t=time.cast(pl.Int64))


def held(rows: KeyedRows) -> pl.DataFrame:
    return pl.concat([frame for _, frame in rows.scan()]) if len(rows) else pl.DataFrame(schema=SCHEMA)


def restored(backend: MemoryBackend, folder: Path, *, time: str | None = None) -> KeyedRows:
    backend.snapshot(folder)
    rows = kept(MemoryBackend.open_restored(folder, ALL), time=time)
    rows.restore()
    return rows


def test_two_hundred_thousand_rows_are_found_and_come_back(tmp_path: Path) -> None:
    backend = RocksBackend.create(tmp_path / "db", ALL)
    rows = kept(backend)
    keys = np.random.default_rng(1).permutation(200_000)
    for part in np.array_split(keys, 13):
        rows.add(batch(part))
    rows.flush()
    snapshot = backend.snapshot(tmp_path / "chk")
    backend.close()

    again = RocksBackend.open_restored(snapshot.directory, ALL)
    rows = kept(again)
    rows.restore()
    asked = batch(np.arange(-1000, 200_000, 7))
    found = rows.find(asked)

    assert len(rows) == 200_000
    assert rows.rows(found.ids).get_column("k").equals(asked.get_column("k")[found.at])
    assert asked.get_column("k")[found.at].to_list() == [k for k in asked.get_column("k") if k >= 0]
    again.close()


def test_ids_stay_good_while_others_come_and_go() -> None:
    rows = kept(MemoryBackend(ALL))
    first = rows.add(batch(np.arange(100)))
    rows.remove(first[50:])
    rows.mark(first[:3])
    for start in range(1000, 400_000, 20_000):
        rows.remove(rows.add(batch(np.arange(start, start + 20_000))))

    assert rows.rows(first[:50][::-1]).get_column("k").to_list() == list(range(49, -1, -1))
    assert rows.marked(first[:5]).tolist() == [True] * 3 + [False] * 2
    assert np.array_equal(rows.find(batch([7])).ids, first[7:8])
    assert len(rows) == 50


def test_state_stays_bounded_when_rows_are_replaced_for_ever(tmp_path: Path) -> None:
    backend = MemoryBackend(ALL)
    rows = kept(backend)
    sizes = []
    with patch.object(row_journal, "SLACK_ROWS", 1000):
        for step in range(150):
            frame = batch(np.arange(4000) if step % 3 else np.arange(2000), step)
            rows.remove(rows.find(frame).ids)
            rows.add(frame)
            rows.flush()
            sizes.append(backend.size_bytes())
    assert len(rows) == 4000
    assert max(sizes[75:]) <= max(sizes[:75])
    again = held(restored(backend, tmp_path / "chk"))
    assert again.sort("k").equals(held(rows).sort("k"))


def test_expired_rows_leave_without_a_note_each(tmp_path: Path) -> None:
    backend = MemoryBackend(ALL)
    rows = kept(backend, time="t")
    blocks = backend.blocks("rows")
    for step in range(40):
        rows.add(batch(np.arange(5000), 2 * step + pl.col("k") % 2))  # a generation dies in two steps
        rows.remove(rows.before(2 * step - 5))
        rows.flush()
        assert len([number for number in blocks.namespaces() if number >= 0]) <= 4
        assert not [number for number in blocks.namespaces() if -1000 < number < 0], "changes were noted"
    assert held(restored(backend, tmp_path / "chk", time="t")).equals(held(rows))


def test_a_row_behind_the_horizon_is_kept_over_a_restore(tmp_path: Path) -> None:
    """Rows up to time 9 have died for good; one that comes later with such a time has not."""
    backend = MemoryBackend(ALL)
    rows = kept(backend, time="t")
    ids = rows.add(batch(range(20), pl.col("k")))
    rows.flush()
    rows.remove(np.concatenate((rows.before(10), ids[19:])))
    rows.flush()

    backend.snapshot(tmp_path / "1")
    again = MemoryBackend.open_restored(tmp_path / "1", ALL)
    rows = kept(again, time="t")
    rows.restore()
    assert sorted(held(rows).get_column("t")) == list(range(10, 19))
    rows.add(batch([7], 3))
    rows.flush()
    rows = restored(again, tmp_path / "2", time="t")
    assert sorted(held(rows).get_column("t")) == [3, *range(10, 19)]


def test_a_hot_key_s_dead_rows_do_not_make_every_search_long() -> None:
    rows = kept(MemoryBackend(ALL))
    rows.add(batch(np.arange(100_000)))
    for _ in range(30):
        rows.remove(rows.add(batch(np.full(3000, 5))))
    rows.find(batch([5]))

    assert len(rows._index) < 110_000
    assert len(rows.find(batch([5])).ids) == 1


def test_asking_for_a_row_that_is_gone_is_a_fault_of_ours() -> None:
    rows = kept(MemoryBackend(ALL))
    ids = rows.add(batch([1, 2]))
    rows.remove(ids[:1])
    for ask in (rows.rows, rows.mark, rows.marked):
        with pytest.raises(UnknownRow, match="step step"):
            ask(ids)
        with pytest.raises(UnknownRow):
            ask(np.array([2**40]))


def test_a_row_of_another_subtask_is_refused() -> None:
    group = int(key_groups(batch([1]), ["k"], MAX_PARALLELISM)[0])
    others = KeyGroupRange(group + 1, group + 1)
    rows = KeyedRows(OperatorContext("step", 0, MAX_PARALLELISM, others, MemoryBackend(others)), "rows", SCHEMA, ["k"])
    with pytest.raises(MisplacedRow):
        rows.add(batch([1]))


def test_the_exchange_key_decides_the_group_where_it_is_not_the_key(tmp_path: Path) -> None:
    backend = MemoryBackend(ALL)
    context = OperatorContext("step", 0, MAX_PARALLELISM, ALL, backend)
    rows = KeyedRows(context, "rows", SCHEMA, ["t", "k"], exchange=["k"])
    frame = batch(range(50), pl.col("k") % 3)
    rows.add(frame)
    rows.flush()
    backend.snapshot(tmp_path / "chk")
    own = KeyGroupRange(2, 4)
    part = KeyedRows(
        OperatorContext("step", 0, MAX_PARALLELISM, own, MemoryBackend.restore_clipped(own, [tmp_path / "chk"])),
        "rows",
        SCHEMA,
        ["t", "k"],
        exchange=["k"],
    )
    part.restore()
    expected = frame.filter(key_groups(frame, ["k"], MAX_PARALLELISM).is_between(2, 4))
    assert held(part).equals(expected)


def test_an_empty_list_has_one_key_group_whatever_comes_with_it() -> None:
    alone = pl.DataFrame({"k": [[]]}, schema={"k": pl.List(pl.Int64)})
    among = pl.DataFrame({"k": [[], [1]]}, schema={"k": pl.List(pl.Int64)})
    assert key_groups(alone, ["k"], 128)[0] == key_groups(among, ["k"], 128)[0]
