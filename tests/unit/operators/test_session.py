"""Sessions in small scenarios: what is one session, when it closes, what is late, and what updates say."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from operators.element import DELETE, INSERT, KIND, TIME, UPDATE_AFTER, UPDATE_BEFORE, WATERMARK_MAX, WATERMARK_MIN
from operators.row_errors import RecordFailed
from operators.session import SessionAggregateSpec
from operators.window import MissingEventTime, ResultFailed
from tests.unit.operators.windowed import SCHEMA, Group, Row, Subtasks, batch, plan, results


def spec(gap: int = 10, accept_for: int = 0, update_every_ms: int | None = None) -> SessionAggregateSpec:
    return SessionAggregateSpec(("k",), gap, plan(), accept_for, True, SCHEMA, update_every_ms=update_every_ms)


def emitted(step: Subtasks) -> list[tuple[Group, list[int]]]:
    """What came out since the last call."""
    found = results(step.main())
    step.outputs = [output for output in step.outputs if output.tag != "main"]
    return sorted(found, key=repr)


def changed(step: Subtasks) -> list[tuple[int, int, int, int]]:
    """Kind, start, end and total of the changes since the last call, in order."""
    frames = [output.frame for output in step.outputs if output.tag == "main"]
    step.outputs = []
    bounds = [pl.col(name).cast(pl.Int64) for name in ("window_start", "window_end")]
    return [row for frame in frames for row in frame.select(KIND, *bounds, "total").rows()]


def test_rows_exactly_the_gap_apart_share_a_session(tmp_path: Path) -> None:
    step = Subtasks(spec(), tmp_path)
    step.process(batch([Row("a", 1, 0), Row("a", 2, 10), Row("b", 4, 0), Row("b", 8, 11)]), WATERMARK_MIN)
    step.process(batch([Row("a", 16, 20)]), WATERMARK_MIN)
    step.on_watermark(WATERMARK_MAX)
    assert emitted(step) == [(Group(0, "a", 30), [1, 2, 16]), (Group(0, "b", 10), [4]), (Group(11, "b", 21), [8])]
    assert step.held_rows == 0


def test_a_session_closes_when_the_watermark_reaches_its_last_instant(tmp_path: Path) -> None:
    step = Subtasks(spec(), tmp_path)
    step.process(batch([Row("a", 1, 0), Row(None, 2, 4)]), WATERMARK_MIN)
    step.on_watermark(8)
    assert emitted(step) == []
    step.on_watermark(9)
    assert emitted(step) == [(Group(0, "a", 10), [1])]
    step.process(batch([Row("a", 4, 10)]), 9)  # exactly at its end: closed is closed
    step.on_watermark(WATERMARK_MAX)
    assert emitted(step) == [(Group(10, "a", 20), [4]), (Group(4, None, 14), [2])]


def test_output_columns_are_key_window_and_aggregates(tmp_path: Path) -> None:
    tried = spec(60_000)
    step = Subtasks(tried, tmp_path)
    step.process(batch([Row(None, 3, 1_767_225_601_000)]), WATERMARK_MIN)
    step.on_watermark(WATERMARK_MAX)
    [output] = step.outputs
    assert output.frame.schema == pl.Schema({**tried.schema, TIME: pl.Int64()})
    start, end = datetime(2026, 1, 1, 0, 0, 1, tzinfo=UTC), datetime(2026, 1, 1, 0, 1, 1, tzinfo=UTC)
    assert output.frame.rows() == [(None, start, end, 1, 3, [3], 1_767_225_660_999)]


def test_a_row_between_two_sessions_makes_them_one(tmp_path: Path) -> None:
    step = Subtasks(spec(), tmp_path)
    step.process(batch([Row("a", 1, 0), Row("a", 2, 18)]), WATERMARK_MIN)
    step.restore(3)
    step.process(batch([Row("a", 4, 9)]), WATERMARK_MIN)
    step.on_watermark(WATERMARK_MAX)
    assert emitted(step) == [(Group(0, "a", 28), [1, 2, 4])]


def test_a_row_is_late_when_the_session_it_would_form_is_closed_unless_it_joins_one(tmp_path: Path) -> None:
    step = Subtasks(spec(), tmp_path)
    step.process(batch([Row("a", 1, 20)]), WATERMARK_MIN)
    step.on_watermark(25)
    step.process(batch([Row("a", 2, 12), Row("b", 4, 12), Row("b", 8, 17)]), 25)
    assert step.late() == [Row("b", 4, 12)]
    step.on_watermark(WATERMARK_MAX)
    assert emitted(step) == [(Group(12, "a", 30), [1, 2]), (Group(17, "b", 27), [8])]
    step.close()
    assert step.late_count == 1


def test_lateness_is_each_row_s_own(tmp_path: Path) -> None:
    """All in one batch: the first session is closed by the time the third row comes, which then begins another."""
    step = Subtasks(spec(), tmp_path)
    rows = [Row("a", 1, 0), Row("b", 2, 13), Row("a", 4, 7), Row("a", 8, 2)]
    step.process(batch(rows, [WATERMARK_MIN, 0, 13, 13]), WATERMARK_MIN)
    step.on_watermark(WATERMARK_MAX)
    assert emitted(step) == [
        (Group(0, "a", 10), [1]),
        (Group(13, "b", 23), [2]),
        (Group(2, "a", 17), [4, 8]),
    ]


def test_accepted_rows_reopen_closed_sessions(tmp_path: Path) -> None:
    step = Subtasks(spec(accept_for=30), tmp_path)
    step.process(batch([Row("a", 1, 0), Row("a", 2, 15)]), WATERMARK_MIN)
    step.on_watermark(24)
    assert emitted(step) == [(Group(0, "a", 10), [1]), (Group(15, "a", 25), [2])]
    step.restore(2)
    step.process(batch([Row("a", 4, 8)]), 24)  # joins both: still closed, so emitted at once
    assert emitted(step) == [(Group(0, "a", 25), [1, 2, 4])]
    step.process(batch([Row("a", 8, 20)]), 24)  # longer than that
    assert emitted(step) == []
    step.on_watermark(29)
    assert emitted(step) == [(Group(0, "a", 30), [1, 2, 4, 8])]
    step.on_watermark(59)
    assert step.held_rows == 0


def test_updates_delete_what_grows_and_what_is_merged(tmp_path: Path) -> None:
    step = Subtasks(spec(update_every_ms=0), tmp_path)
    step.process(batch([Row("a", 1, 0), Row("a", 2, 18)]), WATERMARK_MIN)
    assert sorted(changed(step)) == [(INSERT, 0, 10, 1), (INSERT, 18, 28, 2)]
    step.process(batch([Row("a", 4, 0)]), WATERMARK_MIN)
    assert changed(step) == [(UPDATE_BEFORE, 0, 10, 1), (UPDATE_AFTER, 0, 10, 5)]
    step.restore(2)
    step.process(batch([Row("a", 8, 9)]), WATERMARK_MIN)
    assert sorted(changed(step)) == [(INSERT, 0, 28, 15), (DELETE, 0, 10, 5), (DELETE, 18, 28, 2)]
    step.on_watermark(WATERMARK_MAX)
    assert changed(step) == []
    assert step.held_rows == 0


def test_updates_by_period_come_when_event_time_passes_a_multiple_and_at_the_close(tmp_path: Path) -> None:
    step = Subtasks(spec(update_every_ms=5), tmp_path)
    step.process(batch([Row("a", 1, 0)]), WATERMARK_MIN)
    step.on_watermark(1)
    assert changed(step) == [(INSERT, 0, 10, 1)]
    step.process(batch([Row("a", 2, 3)]), 1)
    step.on_watermark(4)
    assert changed(step) == []
    step.restore(2)
    step.on_watermark(5)
    assert sorted(changed(step)) == [(INSERT, 0, 13, 3), (DELETE, 0, 10, 1)]
    step.process(batch([Row("a", 4, 3)]), 5)
    step.on_watermark(12)
    assert changed(step) == [(UPDATE_BEFORE, 0, 13, 3), (UPDATE_AFTER, 0, 13, 7)]


def test_no_key_is_one_global_group(tmp_path: Path) -> None:
    step = Subtasks(replace(spec(), key=()), tmp_path)
    step.process(batch([Row("a", 1, 0), Row("b", 2, 5)]), WATERMARK_MIN)
    step.restore(3)
    step.process(batch([Row("c", 4, 14), Row("d", 8, 40)]), WATERMARK_MIN)
    step.on_watermark(WATERMARK_MAX)
    assert sorted(step.main().select("n", "total").rows()) == [(1, 8), (3, 7)]


@pytest.mark.parametrize("watermark", [WATERMARK_MIN, 10], ids=["in-any-order", "in-order"])
def test_rows_that_fail_are_isolated(tmp_path: Path, watermark: int) -> None:
    tried = replace(spec(), plan=plan(n="sum(cast(k as int))"), key=())
    rows = batch([Row("1", 1, 0), Row("x", 2, 8), Row("3", 1, 16)])
    with pytest.raises(RecordFailed, match=r'aggregate n failed on {"k": "x", "v": 2}'):
        Subtasks(tried, tmp_path).process(rows, watermark)
    step = Subtasks(replace(tried, errors="dlq"), tmp_path)
    step.process(rows, watermark)
    [errors] = [output.frame for output in step.outputs if output.tag == "errors"]
    assert errors.get_column("value").to_list() == [b'{"k": "x", "v": 2}']
    step.on_watermark(WATERMARK_MAX)
    assert sorted(step.main().get_column("n").to_list()) == ([1, 3] if watermark == WATERMARK_MIN else [3])


def test_a_result_that_cannot_be_computed_fails_the_step(tmp_path: Path) -> None:
    step = Subtasks(replace(spec(), plan=plan(n="cast(sum(v) as tinyint)")), tmp_path)
    step.process(batch([Row("a", 1000, 0)]), WATERMARK_MIN)
    with pytest.raises(ResultFailed):
        step.on_watermark(WATERMARK_MAX)


def test_a_row_without_event_time_is_a_defect(tmp_path: Path) -> None:
    frame = batch([Row("a", 1, 0)]).with_columns(pl.lit(None, dtype=pl.Int64).alias(TIME))
    with pytest.raises(MissingEventTime):
        Subtasks(spec(), tmp_path).process(frame, WATERMARK_MIN)
