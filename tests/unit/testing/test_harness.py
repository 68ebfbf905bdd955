"""The harness users get: rows, time, crashes, state, side outputs; for process functions and python functions."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from operators.row_errors import RecordFailed
from streamproc import Context, ListState, MapState, ProcessFunction, ValueState
from streamproc.testing import ProcessHarness, PythonHarness

MINUTE = timedelta(minutes=1)


class Counter(ProcessFunction):
    """Counts rows of a key; a minute without one ends the count. Amounts above 100 are alerts."""

    count = ValueState("int64", default=0)
    last = ValueState("timestamp")
    notes = ListState("string", ttl="1h")
    by = MapState("string", "float64", ttl="1h")

    def process(self, row: dict[str, Any], ctx: Context) -> Iterator[dict[str, Any]]:
        assert ctx.time is not None
        self.count.set(self.count.get() + 1)
        self.by.set(row["kind"], self.by.get(row["kind"], 0.0) + row["amount"])
        self.notes.add(f"{row['kind']} {row['amount']}")
        if (last := self.last.get()) is not None:
            ctx.delete_timer(last + MINUTE)
        self.last.set(ctx.time)
        ctx.timer(ctx.time + MINUTE)
        if row["amount"] > 100:
            ctx.side("alerts", {"id": ctx.key, "amount": row["amount"]})
        if row["amount"] < 0:
            raise ValueError("negative amount")
        yield from ()

    def on_timer(self, time: datetime, ctx: Context) -> Iterator[dict[str, Any]]:
        yield {"id": ctx.key, "rows": self.count.get(), "total": sum(self.by.values())}
        for state in (self.count, self.last, self.notes, self.by):
            state.clear()


def counter(**options: Any) -> ProcessHarness:
    return ProcessHarness(
        Counter,
        schema={"id": "int64", "kind": "string", "amount": "float64", "at": "timestamp_ms"},
        event_time="at",
        key=["id"],
        columns={"id": "int64", "rows": "int64", "total": "float64"},
        outputs={"alerts": {"id": "int64", "amount": "float64"}},
        **options,
    )


def order(id: int, second: int, amount: float, kind: str = "a") -> dict[str, Any]:
    return {"id": id, "kind": kind, "amount": amount, "at": f"2026-01-01T12:00:{second:02}Z"}


def test_a_timer_fires_when_the_watermark_comes_to_it_and_not_before() -> None:
    harness = counter()
    harness.push(order(1, 0, 5), order(2, 1, 7), order(1, 20, 6))
    harness.watermark("2026-01-01T12:01:00.999Z")
    assert harness.rows == []
    harness.watermark("2026-01-01T12:01:01Z")
    assert harness.take() == [{"id": 2, "rows": 1, "total": 7.0}]
    harness.end()
    assert harness.take() == [{"id": 1, "rows": 2, "total": 11.0}]
    assert harness.state("count", 1) == 0


@pytest.mark.parametrize("parallelism", [1, 2, 3])
def test_state_and_timers_survive_a_crash_at_another_parallelism(parallelism: int) -> None:
    harness = counter()
    harness.push(*(order(n, n, 10.0 * n) for n in range(20)))
    assert harness.side("alerts") == [{"id": n, "amount": 10.0 * n} for n in range(11, 20)]
    harness.crash(parallelism=parallelism)
    assert harness.state("count", 7) == 1
    assert harness.state("notes", 7) == ["a 70.0"]
    assert harness.state("by", 7) == {"a": 70.0}
    harness.push(order(7, 30, 1, "b"))
    harness.crash()
    harness.end()
    assert sorted(harness.rows, key=lambda row: row["id"])[7] == {"id": 7, "rows": 2, "total": 71.0}
    assert len(harness.rows) == 20


def test_a_row_that_fails_leaves_nothing_behind() -> None:
    harness = counter(errors="dlq")
    harness.push(order(1, 0, 5), order(1, 1, -1), order(1, 2, 200))
    assert harness.state("count", 1) == 2
    assert harness.state("by", 1) == {"a": 205.0}
    [error] = harness.errors
    assert "ValueError: negative amount" in error["error"]
    assert "test_harness.py, line" in error["error"]
    with pytest.raises(RecordFailed, match=r"step test: test_harness.py:Counter failed on .*negative amount"):
        counter().push(order(1, 1, -1))


def test_lists_and_maps_expire_by_event_time() -> None:
    harness = counter()
    harness.push(order(1, 0, 5), {"id": 1, "kind": "b", "amount": 1, "at": "2026-01-01T12:59:59.999Z"})
    assert harness.state("by", 1) == {"a": 5.0, "b": 1.0}
    harness.push({"id": 1, "kind": "c", "amount": 1, "at": "2026-01-01T13:00:00Z"})
    harness.watermark("2026-01-01T12:00:01Z")
    harness.watermark("2026-01-01T13:00:00Z")
    assert harness.state("notes", 1) == ["b 1.0", "c 1.0"]
    assert harness.state("by", 1) == {"b": 1.0, "c": 1.0}


class Heartbeat(ProcessFunction):
    """Reports a key every ten seconds of the clock."""

    seen = ValueState("int64", ttl="1m", default=0)

    def process(self, row: dict[str, Any], ctx: Context) -> None:
        self.seen.set(self.seen.get() + 1)
        ctx.timer_processing(ctx.now + timedelta(seconds=10))

    def on_timer(self, time: datetime, ctx: Context) -> None:
        assert (ctx.domain, ctx.time) == ("processing", None)
        ctx.emit({"a": ctx.key[0], "b": ctx.key[1], "seen": self.seen.get(), "at": time})


def test_the_clock_fires_timers_and_expires_state_where_there_is_no_event_time() -> None:
    harness = ProcessHarness(
        Heartbeat,
        schema={"a": "int64", "b": "string"},
        key=["a", "b"],
        columns={"a": "int64", "b": "string", "seen": "int64", "at": "timestamp_ms"},
    )
    start = datetime(2026, 1, 1, tzinfo=UTC)
    harness.clock(start)
    harness.push({"a": 1, "b": None}, {"a": 1, "b": "x"}, {"a": 1, "b": "x"})
    harness.crash()
    harness.clock(start + timedelta(seconds=9))
    assert harness.rows == []
    harness.clock(start + timedelta(seconds=10))
    at = start + timedelta(seconds=10)
    assert sorted(harness.take(), key=lambda row: row["seen"]) == [
        {"a": 1, "b": None, "seen": 1, "at": at},
        {"a": 1, "b": "x", "seen": 2, "at": at},
    ]
    assert harness.state("seen", (1, "x")) == 2
    harness.clock(start + timedelta(seconds=60))
    assert harness.state("seen", (1, "x")) == 0


def test_what_is_pushed_must_be_of_the_schema() -> None:
    harness = counter()
    with pytest.raises(ValueError, match="column 'amount' is float64: 'much' \\(str\\) is not a float"):
        harness.push({"id": 1, "amount": "much", "at": "2026-01-01T12:00:00Z"})
    with pytest.raises(ValueError, match="has no 'at', which is the event time"):
        harness.push({"id": 1})
    harness.watermark("2026-01-01T12:00:00Z")
    with pytest.raises(ValueError, match="only moves forward"):
        harness.watermark("2026-01-01T12:00:00Z")


def add_risk(row: dict[str, Any]) -> dict[str, Any] | None:
    return {"risk": row["amount"] / 100} if row["amount"] >= 0 else None


def add_risks(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(risk=pl.col("amount") / 100)


async def ask_risk(row: dict[str, Any]) -> dict[str, Any]:
    await asyncio.sleep(0.002 if row["amount"] == 50 else 0)
    return {"risk": row["amount"] / 100}


@pytest.mark.parametrize(("function", "mode"), [(add_risk, "row"), (add_risks, "batch"), (ask_risk, "async")])
def test_functions_of_python_steps(function: Any, mode: Any) -> None:
    with PythonHarness(function, schema={"amount": "float64"}, columns={"risk": "float64"}, mode=mode) as harness:
        assert harness.push({"amount": 50.0}, {"amount": 25.0}) == [
            {"amount": 50.0, "risk": 0.5},
            {"amount": 25.0, "risk": 0.25},
        ]
