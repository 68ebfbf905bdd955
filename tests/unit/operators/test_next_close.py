"""What an operator says of its next close is when its next results come: not a millisecond before."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.deduplicate import KeepFirstSpec
from operators.element import TIME, EventTimeMs
from operators.operator import ClosesWindows, Operator, OperatorContext, OperatorSpec, Output
from operators.session import SessionAggregateSpec
from operators.slices import Window
from operators.window import WindowAggregateSpec
from state.key_group import KeyGroupRange
from state.memory import MemoryBackend
from tests.unit.operators.windowed import SCHEMA, plan

WINDOWS = [Window(10, 10), Window(10, 4), Window(12, 4, cumulates=True), Window(4, 10), Window(10, 10, offset_ms=3)]
GROUPS = KeyGroupRange(0, 7)


def made(spec: OperatorSpec) -> Operator:
    return spec.create(OperatorContext("s", 0, 8, GROUPS, MemoryBackend(GROUPS)))


def frame(times: list[int]) -> pl.DataFrame:
    rows = {"k": [str(time % 3) for time in times], "v": times, TIME: times}
    return pl.DataFrame(rows, schema={**SCHEMA, TIME: pl.Int64()})


def rows(outputs: Iterator[Output]) -> int:
    return sum(output.frame.height for output in outputs if output.tag == "main")


def specs() -> Iterator[OperatorSpec]:
    counts = plan(n="count(*)")
    for window in WINDOWS:
        for accept_for in (0, 5):
            yield WindowAggregateSpec(("k",), window, counts, accept_for, False, SCHEMA)
    for update_every in (0, 3):
        yield WindowAggregateSpec(("k",), Window(10, 4), counts, 0, False, SCHEMA, update_every_ms=update_every)
    for accept_for in (0, 5):
        yield SessionAggregateSpec(("k",), 6, counts, accept_for, False, SCHEMA)
    yield SessionAggregateSpec(("k",), 6, counts, 0, False, SCHEMA, update_every_ms=3)


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(list(specs())),
    st.lists(st.tuples(st.lists(st.integers(0, 60), max_size=4), st.none() | st.integers(1, 8)), max_size=10),
)
def test_results_come_exactly_then(spec: OperatorSpec, turns: list[tuple[list[int], int | None]]) -> None:
    operator = made(spec)
    assert isinstance(operator, ClosesWindows)
    watermark = 0
    rows(operator.on_watermark(EventTimeMs(watermark)))
    for times, step in turns:
        if times:
            rows(operator.process(frame(times), EventTimeMs(watermark)))
        due = operator.next_close()
        if due is None:
            continue
        assert due > watermark
        watermark = due - 1 if step is None else min(due - 1, watermark + step)
        assert rows(operator.on_watermark(EventTimeMs(watermark))) == 0
        assert operator.next_close() == due
        if step is None:
            watermark = due
            assert rows(operator.on_watermark(due)) > 0
    while (due := operator.next_close()) is not None:
        assert rows(operator.on_watermark(due)) > 0
    assert rows(operator.on_watermark(EventTimeMs(10_000))) == 0, "all that was open has been told of"


@pytest.mark.parametrize("times", [[], [5]])
def test_nothing_is_told_of_what_is_not_open(times: list[int]) -> None:
    operator = made(WindowAggregateSpec(("k",), Window(10, 10), plan(n="count(*)"), 0, False, SCHEMA))
    assert isinstance(operator, ClosesWindows)
    if times:
        rows(operator.process(frame(times), EventTimeMs(0)))
    assert operator.next_close() == (9 if times else None)


def test_a_first_row_is_certain_when_the_watermark_reaches_it() -> None:
    operator = made(KeepFirstSpec(("k",), SCHEMA, timed=True))
    assert isinstance(operator, ClosesWindows)
    rows(operator.process(frame([7, 5]), EventTimeMs(0)))
    assert operator.next_close() == 5
    assert rows(operator.on_watermark(EventTimeMs(5))) == 1
    assert operator.next_close() == 7
