"""As-of joins against a search through all versions: disorder, late rows, deletions, batch cuts, rescaling."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.element import DELETE, INSERT, UPDATE_AFTER, UPDATE_BEFORE, WATERMARK_MAX
from operators.join import as_of
from operators.join.as_of import AsOfJoinSpec
from operators.join.shape import JoinKind
from tests.unit.operators.join.feeds import Arrival, arrivals, batches
from tests.unit.operators.join.joined import JoinStep, Result, frame, results, shape


def searched(
    kind: JoinKind, arrived: Sequence[Arrival], kinds: Sequence[int], passed: Sequence[int], *, residual: bool
) -> tuple[list[Result], int]:
    """`passed`: how many arrivals were there when the watermark passed each."""
    found, late = [], 0
    for index, (side, row, watermark) in enumerate(arrived):
        if side:
            continue
        behind = row.time <= watermark
        until = watermark if behind else row.time
        known = index if behind else passed[index]
        versions = [
            (other.row.time, number)
            for number, other in enumerate(arrived[:known])
            if other.side and other.row.key == row.key and row.key is not None and kinds[number] != UPDATE_BEFORE
            if other.row.time <= until
        ]
        match = None
        if versions:
            number = max(versions)[1]
            version = arrived[number].row
            if version.time <= row.time and kinds[number] != DELETE and (not residual or row.value <= version.value):
                match = (version.key, version.value)
        if match is not None or kind == "left":
            found.append(Result((row.key, row.value), match, row.time))
        elif behind and row.key is not None:
            late += 1
    return found, late


@pytest.mark.parametrize("kind", ["inner", "left"])
@pytest.mark.parametrize("changelog", [False, True])
def test_agrees_with_a_search(kind: JoinKind, changelog: bool) -> None:
    @settings(max_examples=20, deadline=None)
    @given(data=st.data(), arrived=arrivals(), residual=st.booleans())
    def check(data: st.DataObject, arrived: list[Arrival], residual: bool) -> None:
        said = [INSERT, UPDATE_AFTER, UPDATE_BEFORE, DELETE] if changelog else [INSERT]
        kinds = [data.draw(st.sampled_from(said)) for _ in arrived]
        passed = [len(arrived)] * len(arrived)
        watermark, count = -(2**62), 0
        with tempfile.TemporaryDirectory() as folder, patch.object(as_of, "PAIRS", data.draw(st.integers(1, 5))):
            step = JoinStep(AsOfJoinSpec(shape(kind, residual=residual, changelogs=(False, changelog))), Path(folder))
            for batch in data.draw(batches(arrived), label="batches"):
                side, rows = batch[0].side, [arrival.row for arrival in batch]
                marks = [arrival.watermark for arrival in batch]
                here = kinds[count : count + len(batch)]
                step.process(side, frame(side, rows, marks, here if side and changelog else None), watermark)
                count += len(batch)
                if marks[-1] > watermark and data.draw(st.booleans(), label="watermark"):
                    watermark = marks[-1]
                    step.on_watermark(watermark)
                    for index, arrival in enumerate(arrived[:count]):
                        if arrival.row.time <= watermark:
                            passed[index] = min(passed[index], count)
                if data.draw(st.integers(0, 4), label="restore") == 0:
                    step.restore(data.draw(st.integers(1, 3), label="parallelism"))
            step.on_watermark(WATERMARK_MAX)
            for operator in step.operators:
                assert len(operator._waiting) == 0
                keys = [key for _, rows in operator._versions.scan() for key in rows["right.k"]]
                assert len(keys) == len(set(keys)), "only the newest version of a key is kept"
            step.close()
            expected, late = searched(kind, arrived, kinds, passed, residual=residual)
            assert sorted(map(repr, results(step.main()))) == sorted(map(repr, expected))
            assert step.late == late

    check()
