"""Random arrivals on two inputs: keys that repeat, times in disorder, rows behind the watermark now and then."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import strategies as st

from operators.element import WATERMARK_MIN
from tests.unit.operators.join.joined import Row


class Arrival(NamedTuple):
    """A row of side 0 or 1, and the watermark of the step just before it."""

    side: int
    row: Row
    watermark: int


@st.composite
def arrivals(draw: st.DrawFn, *, size: int = 40) -> list[Arrival]:
    """Values are unique, so that a joined row tells which pair it is."""
    bound = draw(st.integers(0, 12))
    time, highest = draw(st.integers(-20, 20)), int(WATERMARK_MIN)
    found: list[Arrival] = []
    drawn = draw(
        st.lists(
            st.tuples(
                st.integers(0, 1),
                st.integers(0, 5) | st.integers(0, 30),
                st.just(0) | st.integers(0, 25),
                st.sampled_from(["a", "a", "b", "c", None]),
            ),
            max_size=size,
        )
    )
    values = draw(st.permutations(range(len(drawn))))
    for (side, step, back, key), value in zip(drawn, values, strict=True):
        time += step
        found.append(Arrival(side, Row(key, value, time - back), highest))
        highest = max(highest, time - back - bound)
    return found


@st.composite
def batches(draw: st.DrawFn, arrived: list[Arrival]) -> list[list[Arrival]]:
    """The arrivals cut into batches of one side each."""
    found: list[list[Arrival]] = []
    for arrival in arrived:
        if found and found[-1][-1].side == arrival.side and draw(st.integers(0, 3)):
            found[-1].append(arrival)
        else:
            found.append([arrival])
    return found
