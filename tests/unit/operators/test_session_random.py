"""Sessions against a model that takes one row at a time: disorder, batch cuts, late rows, updates, rescaling."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.element import WATERMARK_MAX, WATERMARK_MIN
from operators.session import SessionAggregateSpec
from tests.unit.operators.test_window_random import Feed, cuts, feeds
from tests.unit.operators.windowed import SCHEMA, Group, Row, Subtasks, Values, batch, folded, plan, results


@dataclass
class Session:
    first: int
    last: int
    values: Values


@dataclass
class Sessions:
    """The semantics in the contract's words, row by row."""

    gap: int
    accept_for: int = 0
    watermark: int = WATERMARK_MIN
    of_key: dict[str | None, list[Session]] = field(default_factory=dict)
    late: list[Row] = field(default_factory=list)

    def row(self, row: Row, watermark: int) -> None:
        now = max(self.watermark, watermark)
        sessions = self.of_key.setdefault(row.key, [])
        touched = [
            each
            for each in sessions
            if each.first - self.gap <= row.time <= each.last + self.gap and not self._out_of_reach(each.last, now)
        ]
        if not touched and self._out_of_reach(row.time, now):
            self.late.append(row)
            return
        whole = Session(row.time, row.time, [row.value])
        for each in touched:
            sessions.remove(each)
            whole.first, whole.last = min(whole.first, each.first), max(whole.last, each.last)
            whole.values += each.values
        sessions.append(whole)

    def all(self) -> dict[Group, Values]:
        return {
            Group(each.first, key, each.last + self.gap): sorted(each.values)
            for key, sessions in self.of_key.items()
            for each in sessions
        }

    def closed(self) -> dict[Group, Values]:
        return {group: values for group, values in self.all().items() if self.watermark >= group.end - 1}

    def _out_of_reach(self, last: int, now: int) -> bool:
        return now >= last + self.gap - 1 + self.accept_for


def spec(gap: int, accept_for: int = 0, update_every_ms: int | None = None) -> SessionAggregateSpec:
    return SessionAggregateSpec(("k",), gap, plan(), accept_for, True, SCHEMA, update_every_ms=update_every_ms)


@pytest.mark.parametrize("rocks", [False, True], ids=["memory", "rocksdb"])
def test_agrees_with_the_model_however_cut_and_rescaled(rocks: bool) -> None:
    @settings(max_examples=10 if rocks else 60, deadline=None)
    @given(
        data=st.data(),
        feed=feeds(),
        gap=st.sampled_from([1, 3, 8, 30]),
        accept_for=st.sampled_from([0, 0, 1, 7, 40]),
        update_every_ms=st.sampled_from([None, None, 0, 5, 20]),
    )
    def check(data: st.DataObject, feed: Feed, gap: int, accept_for: int, update_every_ms: int | None) -> None:
        model = Sessions(gap, accept_for)
        with tempfile.TemporaryDirectory() as folder:
            step = Subtasks(spec(gap, accept_for, update_every_ms), Path(folder), rocks=rocks)

            def check_results(expected: dict[Group, Values]) -> None:
                if update_every_ms is None:
                    emitted = results(step.main())
                    assert expected.items() <= dict(emitted).items()
                    if not accept_for:
                        assert len(emitted) == len(expected)
                else:
                    shown = dict(folded(step.main()))
                    assert expected.items() <= shown.items()

            for first, end in data.draw(cuts(len(feed.rows)), label="batches"):
                rows, watermarks = feed.rows[first:end], feed.watermarks[first:end]
                if rows:
                    step.process(batch(rows, watermarks), model.watermark)
                for row, watermark in zip(rows, watermarks, strict=True):
                    model.row(row, watermark)
                if watermarks and watermarks[-1] > model.watermark and data.draw(st.booleans(), label="watermark"):
                    model.watermark = watermarks[-1]
                    step.on_watermark(model.watermark)
                    check_results(model.closed())
                if update_every_ms == 0:
                    assert dict(folded(step.main())) == model.all()
                match data.draw(st.sampled_from(["go on", "go on", "checkpoint", "restore"]), label="then"):
                    case "checkpoint":
                        step.checkpoint()
                    case "restore":
                        step.restore(data.draw(st.integers(1, 4), label="parallelism"))
            model.watermark = WATERMARK_MAX
            step.on_watermark(WATERMARK_MAX)
            check_results(model.all())
            if update_every_ms is not None:
                assert dict(folded(step.main())) == model.all()
            assert sorted(map(repr, step.late())) == sorted(map(repr, model.late))
            assert step.held_rows == 0
            step.close()
            assert step.late_count == len(model.late)

    check()
