"""Regular joins against a join of everything both sides hold: changelogs, equal rows, batch cuts, rescaling."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.element import DELETE, INSERT, KIND, UPDATE_AFTER, UPDATE_BEFORE
from operators.join import pairs
from operators.join.regular import RegularJoinSpec
from operators.join.shape import JoinKind
from tests.unit.operators.join.feeds import Arrival, arrivals, batches
from tests.unit.operators.join.joined import JoinStep, Row, frame, results, shape

Value = tuple[str | None, int]
Rows = Counter[Value]
PLUS = (INSERT, UPDATE_AFTER)


def joined(kind: JoinKind, left: Rows, right: Rows, *, residual: bool) -> Counter[tuple[Value | None, Value | None]]:
    """The join of two multisets."""
    found: Counter[tuple[Value | None, Value | None]] = Counter()
    met_left: set[Value] = set()
    met_right: set[Value] = set()
    for one in left:
        for other in right:
            if one[0] is not None and one[0] == other[0] and (not residual or one[1] <= other[1]):
                met_left.add(one)
                met_right.add(other)
                if kind not in ("semi", "anti"):
                    found[one, other] += left[one] * right[other]
    for one, count in left.items():
        if one in met_left if kind == "semi" else one not in met_left and kind in ("left", "full", "anti"):
            found[one, None] += count
    for other, count in right.items():
        if kind in ("right", "full") and other not in met_right:
            found[None, other] += count
    return +found


@st.composite
def changes(draw: st.DrawFn, changelogs: tuple[bool, bool]) -> list[tuple[Arrival, int]]:
    """Rows with few values, so that equal ones come; a changelog takes some of its rows back."""
    held: tuple[list[Row], list[Row]] = ([], [])
    found: list[tuple[Arrival, int]] = []
    for arrival in draw(arrivals()):
        side, row, watermark = arrival
        if changelogs[side] and held[side] and draw(st.booleans()):
            old = held[side].pop(draw(st.integers(0, len(held[side]) - 1)))
            found.append((Arrival(side, old, watermark), draw(st.sampled_from([UPDATE_BEFORE, DELETE]))))
        else:
            row = Row(row.key, row.value % 4, row.time)
            held[side].append(row)
            found.append((Arrival(side, row, watermark), draw(st.sampled_from(PLUS if changelogs[side] else [INSERT]))))
    return found


@pytest.mark.parametrize("kind", ["inner", "left", "right", "full", "semi", "anti"])
def test_the_changes_add_up_to_the_join(kind: JoinKind) -> None:
    @settings(max_examples=20, deadline=None)
    @given(data=st.data(), changelogs=st.tuples(st.booleans(), st.booleans()), residual=st.booleans())
    def check(data: st.DataObject, changelogs: tuple[bool, bool], residual: bool) -> None:
        fed = data.draw(changes(changelogs), label="changes")
        spec = RegularJoinSpec(shape(kind, residual=residual, changelogs=changelogs))
        held: tuple[Rows, Rows] = (Counter(), Counter())
        given_so_far: Counter[tuple[Value | None, Value | None]] = Counter()
        count = 0
        with tempfile.TemporaryDirectory() as folder, patch.object(pairs, "PAIRS", data.draw(st.integers(1, 5))):
            step = JoinStep(spec, Path(folder))
            for batch in data.draw(batches([arrival for arrival, _ in fed]), label="batches"):
                side, kinds = batch[0].side, [kind for _, kind in fed[count : count + len(batch)]]
                count += len(batch)
                rows = [arrival.row for arrival in batch]
                step.outputs.clear()
                step.process(side, frame(side, rows, None, kinds if changelogs[side] else None), batch[-1].watermark)
                for row, change in zip(rows, kinds, strict=True):
                    held[side][row[:2]] += 1 if change in PLUS else -1
                for each in step.main():
                    assert (KIND in each.columns) == spec.changelog
                    kinds_out = each[KIND].to_list() if KIND in each.columns else [INSERT] * each.height
                    for result, change in zip(results([each]), kinds_out, strict=True):
                        given_so_far[result.left, result.right] += 1 if change in PLUS else -1
                        assert given_so_far[result.left, result.right] >= 0, "taken back before it was given"
                assert +given_so_far == joined(kind, +held[0], +held[1], residual=residual)
                if data.draw(st.integers(0, 4), label="restore") == 0:
                    step.restore(data.draw(st.integers(1, 3), label="parallelism"))
            step.close()

    check()
