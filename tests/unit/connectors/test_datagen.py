from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.connector import Position, SplitId
from streamproc.connectors.counter_random import CounterRandom
from streamproc.connectors.datagen import SPLITS, DatagenConfigError, DatagenReader, DatagenSource, datagen_schema
from streamproc.pipeline.spec import DatagenSourceSpec

COLUMNS = {
    "id": {"sequence": {"start": 1}},
    "n": {"uniform": [1, 6]},
    "x": {"uniform": [0.0, 0.5]},
    "size": {"normal": [10.0, 2.0]},
    "colour": {"choice": ["red", "green"]},
    "item": {"zipf": {"n": 100, "s": 1.1}},
    "at": {"time": {"start": "2026-01-01T00:00:00Z", "step": "100ms"}},
    "site": {"constant": "paris"},
    "note": {"text": {"length": 11}},
}


def spec(**options: Any) -> DatagenSourceSpec:
    return DatagenSourceSpec.model_validate({"type": "datagen", **options})


def source(**options: Any) -> DatagenSource:
    return DatagenSource("gen", spec(**options))


async def drain(
    reader: DatagenReader, restored: Mapping[SplitId, Position] | None = None, max_rows: int = 100, pieces: int = 10**9
) -> list[pl.DataFrame]:
    frames = []
    await reader.open(restored)
    while not reader.exhausted() and pieces > 0:
        for piece in await reader.fetch(max_rows, 1.0):
            pieces -= 1
            if piece.rows:
                frames.append(piece.decode().frame)
    return frames


@settings(max_examples=15, deadline=None)
@given(rows=st.integers(0, 1000), parallelism=st.integers(1, 10), max_rows=st.integers(1, 300))
async def test_the_rows_are_the_same_at_every_parallelism(rows: int, parallelism: int, max_rows: int) -> None:
    generated = source(columns=COLUMNS, rows=rows, seed=7)
    expected = generated.generate(np.arange(rows))
    parts = [await drain(generated.reader(i, parallelism), max_rows=max_rows) for i in range(parallelism)]
    frames = [frame for part in parts for frame in part]
    assert sum(frame.height for frame in frames) == rows
    if rows:
        assert pl.concat(frames).sort("id").equals(expected)


async def test_a_restored_reader_continues_at_another_parallelism() -> None:
    generated = source(table="bid", rows=1000)
    first = generated.reader(0, 1)
    before = await drain(first, pieces=5)
    rest = [await drain(generated.reader(i, 3), first.splits()) for i in range(3)]
    got = pl.concat([*before, *(frame for part in rest for frame in part)])
    assert got.sort(pl.all()).equals(generated.generate(np.arange(1000)).sort(pl.all()))
    again = generated.reader(0, 1)
    await drain(again)
    assert await drain(generated.reader(0, 1), again.splits()) == []


async def test_event_time_ascends_in_every_split() -> None:
    for options in ({"columns": COLUMNS}, {"table": "bid"}):
        reader = source(rows=500, **options).reader(0, 1)
        await reader.open(None)
        column = "at" if "columns" in options else "dateTime"
        last: dict[SplitId, Any] = {}
        while not reader.exhausted():
            for piece in await reader.fetch(20, 1.0):
                times = piece.decode().frame[column]
                assert times.is_sorted()
                assert times[0] >= last.get(piece.split, times[0])
                last[piece.split] = times[-1]


def test_seeds_and_columns_differ_and_a_seed_repeats() -> None:
    rows = np.arange(50)
    twins = {"a": {"uniform": [0, 10**6]}, "b": {"uniform": [0, 10**6]}}
    frame = source(columns=twins, seed=1).generate(rows)
    assert not frame["a"].equals(frame["b"])
    assert frame.equals(source(columns=twins, seed=1).generate(rows))
    assert not frame.equals(source(columns=twins, seed=2).generate(rows))


def test_values_are_drawn_as_asked() -> None:
    frame = source(columns=COLUMNS).generate(np.arange(20_000))
    assert dict(frame.schema) == datagen_schema(spec(columns=COLUMNS))
    assert frame["id"].to_list()[:2] == [1, 2]
    counts = frame["n"].value_counts(sort=True)["count"]
    assert sorted(frame["n"].unique()) == [1, 2, 3, 4, 5, 6]
    assert counts.max() / counts.min() < 1.1  # type: ignore[operator]
    assert 0.0 <= frame["x"].min() < 0.01 < 0.49 < frame["x"].max() < 0.5  # type: ignore[operator]
    assert frame["size"].mean() == pytest.approx(10.0, abs=0.1)
    assert frame["size"].std() == pytest.approx(2.0, abs=0.1)
    assert frame["item"].is_between(1, 100).all()
    assert frame["item"].value_counts(sort=True)["item"][0] == 1
    assert frame["at"][10] == datetime(2026, 1, 1, 0, 0, 1, tzinfo=UTC)
    assert frame["note"].str.contains("^[a-z]{11}$").all()
    assert frame["note"].n_unique() == 20_000


@pytest.mark.parametrize(
    ("options", "path", "message"),
    [
        ({}, (), "give either table or columns"),
        ({"table": "bid", "columns": COLUMNS}, (), "give either table or columns"),
        ({"columns": {}}, ("columns",), "at least one column"),
        ({"columns": {"a": 1}}, ("columns", "a"), "a column is written as one of sequence, uniform"),
        ({"columns": {"a": {"poisson": 1}}}, ("columns", "a", "poisson"), "poisson is not a kind of column"),
        ({"columns": {"a": {"uniform": [2, 1]}}}, ("columns", "a", "uniform"), "2 is above the highest 1"),
        ({"columns": {"a": {"uniform": [1]}}}, ("columns", "a", "uniform"), "write two numbers"),
        ({"columns": {"a": {"uniform": [1, "b"]}}}, ("columns", "a", "uniform"), "'b' is not a number"),
        ({"columns": {"a": {"normal": [0, -1]}}}, ("columns", "a", "normal"), "cannot be negative"),
        ({"columns": {"a": {"choice": []}}}, ("columns", "a", "choice"), "as a list"),
        ({"columns": {"a": {"choice": [1, "x"]}}}, ("columns", "a", "choice"), "all text, all numbers"),
        ({"columns": {"a": {"zipf": {"s": 1}}}}, ("columns", "a", "zipf"), "n is missing"),
        ({"columns": {"a": {"zipf": {"n": 0}}}}, ("columns", "a", "zipf", "n"), "n is 1 to"),
        ({"columns": {"a": {"time": {"step": "1 s"}}}}, ("columns", "a", "time", "step"), "is not a duration"),
        ({"columns": {"a": {"time": {"start": "x"}}}}, ("columns", "a", "time", "start"), "not an ISO-8601 time"),
        ({"columns": {"a": {"sequence": {"by": 2}}}}, ("columns", "a", "sequence", "by"), "by is not an option"),
        ({"columns": {"a": {"text": {"length": 0}}}}, ("columns", "a", "text", "length"), "length is 1 to"),
        ({"columns": {"a": {"constant": None}}}, ("columns", "a", "constant"), "all text"),
        ({"columns": {"a": {"constant": 2**70}}}, ("columns", "a", "constant"), "does not fit 64 bits"),
    ],
)
def test_a_fault_in_the_configuration_leads_to_its_place(options: Any, path: tuple[str, ...], message: str) -> None:
    with pytest.raises(DatagenConfigError, match=message) as caught:
        datagen_schema(spec(**options))
    assert caught.value.path == path


async def test_a_rate_is_kept_over_all_splits_in_row_order_and_bursts_are_bounded() -> None:
    generated = source(columns={"id": {"sequence": None}}, rate=1000)
    now = 50.0
    readers = [DatagenReader(generated, range(i, SPLITS, 2), clock=lambda: now) for i in range(2)]
    for reader in readers:
        await reader.open(None)

    async def due() -> list[int]:
        pieces = [piece for reader in readers for piece in await reader.fetch(10_000, 0.0)]
        return sorted(i for piece in pieces for i in piece.decode().frame["id"])

    assert await due() == []
    now += 0.1
    assert await due() == list(range(100))
    assert await due() == []
    now += 0.003
    assert await due() == [100, 101, 102]
    now += 3600
    assert len(await due()) == pytest.approx(1000, abs=SPLITS)


async def test_a_rate_still_ends_when_the_rows_are_over() -> None:
    ticks = (tick / 10 for tick in range(100))
    generated = source(columns={"id": {"sequence": {}}}, rate=10, rows=3)
    reader = DatagenReader(generated, range(SPLITS), clock=lambda: next(ticks))
    await reader.open(None)
    rows = 0
    while not reader.exhausted():
        rows += sum(piece.rows for piece in await reader.fetch(10, 0.0))
    assert (rows, reader.exhausted(), reader.lag_records()) == (3, True, 0)


def test_streams_of_random_bits_look_uniform() -> None:
    bits = CounterRandom(3).bits(0, np.arange(1 << 14))
    ones = [(int(np.count_nonzero(bits >> np.uint64(i) & np.uint64(1)))) for i in range(64)]
    assert all(abs(count - (1 << 13)) < 400 for count in ones)
