"""Windows in small scenarios: what closes when, what is late, what is kept, and how memory stays bounded."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from operators import partials
from operators.element import (
    INSERT,
    KIND,
    ROW_WATERMARK,
    TIME,
    UPDATE_AFTER,
    UPDATE_BEFORE,
    WATERMARK_MAX,
    WATERMARK_MIN,
)
from operators.row_errors import RecordFailed
from operators.slices import Window
from operators.window import (
    CARRIED,
    WINDOW_TYPE,
    MissingEventTime,
    MissingWindow,
    ResultFailed,
    WindowAggregateSpec,
)
from state.memory import MemoryBlockState
from tests.unit.operators.windowed import SCHEMA, Group, Row, Subtasks, batch, plan, results, spec

TUMBLE = Window(10, 10)
HOP = Window(10, 5)


def by_start(step: Subtasks) -> list[tuple[Group, list[int]]]:
    """All results in order, without the ends of their windows."""
    return [(Group(group.start, group.key), values) for group, values in results(step.main())]


def emitted(step: Subtasks) -> list[tuple[Group, list[int]]]:
    """What came out since the last call."""
    found = by_start(step)
    step.outputs = [output for output in step.outputs if output.tag != "main"]
    return sorted(found, key=repr)


def test_a_window_closes_when_the_watermark_reaches_its_last_instant(tmp_path: Path) -> None:
    step = Subtasks(spec(TUMBLE, plan()), tmp_path)
    step.process(batch([Row("a", 1, 0), Row("a", 2, 9), Row("a", 4, 10)]), WATERMARK_MIN)
    step.on_watermark(8)
    assert emitted(step) == []
    step.on_watermark(9)
    assert emitted(step) == [(Group(0, "a"), [1, 2])]
    step.on_watermark(18)
    assert emitted(step) == []
    step.on_watermark(WATERMARK_MAX)
    assert emitted(step) == [(Group(10, "a"), [4])]
    assert step.held_rows == 0


def test_output_columns_are_key_window_and_aggregates(tmp_path: Path) -> None:
    tried = spec(Window(60_000, 60_000), plan())
    step = Subtasks(tried, tmp_path)
    step.process(batch([Row(None, 3, 1_767_225_601_000)]), WATERMARK_MIN)
    step.on_watermark(WATERMARK_MAX)
    [output] = step.outputs
    assert output.frame.schema == pl.Schema({**tried.schema, TIME: pl.Int64()})
    assert list(tried.schema) == ["k", "window_start", "window_end", "n", "total", "items"]
    start, end = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, 0, 1, tzinfo=UTC)
    assert output.frame.rows() == [(None, start, end, 1, 3, [3], 1_767_225_659_999)]


def test_hopping_windows_overlap_and_close_in_ascending_order(tmp_path: Path) -> None:
    step = Subtasks(spec(HOP, plan()), tmp_path)
    step.process(batch([Row("a", 1, 3), Row("a", 2, 7), Row("a", 4, 12)]), WATERMARK_MIN)
    step.on_watermark(WATERMARK_MAX)
    assert by_start(step) == [
        (Group(-5, "a"), [1]),
        (Group(0, "a"), [1, 2]),
        (Group(5, "a"), [2, 4]),
        (Group(10, "a"), [4]),
    ]


def test_a_late_row_is_counted_and_leaves_as_it_came(tmp_path: Path) -> None:
    step = Subtasks(spec(TUMBLE, plan()), tmp_path)
    step.on_watermark(19)
    rows = batch([Row("a", 1, 9), Row("b", 2, 25), Row("c", 4, 19)], [19, 19, 19])
    step.process(rows, 19)
    [late] = [output.frame for output in step.outputs if output.tag == "late"]
    assert late.equals(rows[[0, 2]])
    step.on_watermark(WATERMARK_MAX)
    assert emitted(step) == [(Group(20, "b"), [2])]
    step.close()
    assert step.late_count == 2


def test_lateness_is_each_row_s_own(tmp_path: Path) -> None:
    step = Subtasks(spec(TUMBLE, plan()), tmp_path)
    rows = [Row("a", 1, 5), Row("a", 2, 30), Row("a", 4, 6)]
    step.process(batch(rows, [WATERMARK_MIN, 5, 30]), WATERMARK_MIN)
    step.on_watermark(30)
    assert emitted(step) == [(Group(0, "a"), [1])]
    assert step.late() == [Row("a", 4, 6)]


def test_a_row_late_for_its_first_window_only_is_not_counted_there(tmp_path: Path) -> None:
    """The first window is still open when the batch arrives: only the row's own watermark closes it."""
    step = Subtasks(spec(HOP, plan()), tmp_path)
    step.process(batch([Row("a", 1, 6), Row("a", 2, 14), Row("a", 4, 7)], [WATERMARK_MIN, 6, 9]), WATERMARK_MIN)
    step.restore(2)
    step.on_watermark(14)
    assert emitted(step) == [(Group(0, "a"), [1]), (Group(5, "a"), [1, 2, 4])]
    assert step.late() == []


def test_a_row_waits_for_the_window_it_missed_though_an_earlier_one_is_closed(tmp_path: Path) -> None:
    step = Subtasks(spec(Window(15, 5), plan()), tmp_path)
    step.process(batch([Row("a", 1, 0)]), WATERMARK_MIN)
    step.on_watermark(4)
    assert emitted(step) == [(Group(-10, "a"), [1])]
    step.process(batch([Row("a", 2, 11), Row("a", 4, 2)], [4, 11]), 4)  # 2 is in −10 and −5, both past at 11, and 0
    step.on_watermark(14)
    assert emitted(step) == [(Group(-5, "a"), [1]), (Group(0, "a"), [1, 2, 4])]


def test_an_accepted_late_row_emits_its_keys_again(tmp_path: Path) -> None:
    step = Subtasks(spec(TUMBLE, plan(), accept_for=10), tmp_path)
    step.process(batch([Row("a", 1, 1), Row("b", 2, 2), Row(None, 3, 3)]), WATERMARK_MIN)
    step.on_watermark(9)
    assert len(emitted(step)) == 3
    step.process(batch([Row("a", 4, 5), Row(None, 5, 5), Row("c", 6, 5)]), 9)
    assert emitted(step) == [(Group(0, "a"), [1, 4]), (Group(0, "c"), [6]), (Group(0, None), [3, 5])]
    step.on_watermark(19)
    assert emitted(step) == []
    step.process(batch([Row("a", 8, 5)]), 19)
    assert step.late() == [Row("a", 8, 5)]
    assert step.held_rows == 0


def test_an_update_finds_what_was_spilled(tmp_path: Path) -> None:
    step = Subtasks(spec(HOP, plan(), accept_for=100), tmp_path, rocks=True, memory_rows_max=1)
    step.process(batch([Row("a", 1, 1), Row("b", 2, 6)]), WATERMARK_MIN)
    step.on_watermark(14)
    emitted(step)
    step.process(batch([Row("b", 4, 4)]), 14)
    assert emitted(step) == [(Group(-5, "b"), [4]), (Group(0, "b"), [2, 4])]
    step.close()


def test_order_and_lists_survive_spilling_and_restoring(tmp_path: Path) -> None:
    aggregates = plan(first="first_value(v)", last="last_value(v)", middle="median(v)")
    step = Subtasks(spec(HOP, aggregates), tmp_path, rocks=True, memory_rows_max=1)
    for parallelism, value in enumerate([7, 3, 5, 1], start=1):
        step.process(batch([Row("a", value, parallelism), Row("b", -value, 6)]), WATERMARK_MIN)
        step.restore(parallelism)
    step.on_watermark(WATERMARK_MAX)
    found = step.main().sort("window_start", "k").select("k", "first", "last", "middle")
    a, b = ("a", 7, 1, 4.0), ("b", -7, -1, -4.0)
    assert found.rows() == [a, a, b, b]
    step.close()


def test_a_row_that_cannot_be_aggregated_follows_the_error_policy(tmp_path: Path) -> None:
    rows = batch([Row("1", 1, 0), Row("x", 2, 1), Row("3", 4, 2), Row("4", 8, 12)])
    tried = spec(TUMBLE, plan(n="sum(cast(k as bigint))"), key=())
    with pytest.raises(RecordFailed, match=r'aggregate n failed on {"k": "x", "v": 2}'):
        Subtasks(tried, tmp_path).process(rows, WATERMARK_MIN)
    step = Subtasks(replace(tried, errors="dlq"), tmp_path)
    step.process(rows, WATERMARK_MIN)
    [errors] = [output.frame for output in step.outputs if output.tag == "errors"]
    assert errors.get_column("value").to_list() == [b'{"k": "x", "v": 2}']
    step.on_watermark(WATERMARK_MAX)
    assert step.main().get_column("n").to_list() == [4, 4]


def test_a_result_that_cannot_be_computed_fails_the_step(tmp_path: Path) -> None:
    step = Subtasks(spec(TUMBLE, plan(n="cast(sum(v) as tinyint)")), tmp_path)
    step.process(batch([Row("a", 1000, 0)]), WATERMARK_MIN)
    with pytest.raises(ResultFailed, match="step step: aggregates could not be computed") as caught:
        step.on_watermark(WATERMARK_MAX)
    assert caught.value.acts == "user"


def test_rows_between_windows_are_filtered_not_late(tmp_path: Path) -> None:
    step = Subtasks(spec(Window(3, 10), plan()), tmp_path)
    step.process(batch([Row("a", 1, 2), Row("a", 2, 3), Row("a", 4, 9)]), WATERMARK_MIN)
    step.on_watermark(WATERMARK_MAX)
    assert emitted(step) == [(Group(0, "a"), [1])]
    step.close()
    assert (step.filtered_count, step.late_count) == (2, 0)


def test_no_key_is_one_global_group(tmp_path: Path) -> None:
    step = Subtasks(spec(TUMBLE, plan(), key=()), tmp_path)
    for first in (0, 10):
        step.process(batch([Row("a", 1, first), Row("b", 2, first + 5), Row("c", 4, first + 12)]), WATERMARK_MIN)
        step.restore(3 if first == 0 else 1)
    step.on_watermark(WATERMARK_MAX)
    found = step.main()
    assert found.columns == ["window_start", "window_end", "n", "total", "items", TIME]
    assert found.select("n", "total").rows() == [(2, 3), (3, 7), (1, 4)]


def test_a_row_without_event_time_is_a_defect(tmp_path: Path) -> None:
    step = Subtasks(spec(TUMBLE, plan()), tmp_path)
    frame = batch([Row("a", 1, 0)]).with_columns(pl.lit(None, dtype=pl.Int64).alias(TIME))
    with pytest.raises(MissingEventTime):
        step.process(frame, WATERMARK_MIN)


def test_a_row_whose_watermark_is_null_takes_the_step_s(tmp_path: Path) -> None:
    step = Subtasks(spec(TUMBLE, plan()), tmp_path)
    frame = batch([Row("a", 1, 0), Row("b", 2, 0)], [9, 0])
    step.process(frame.with_columns(pl.Series(ROW_WATERMARK, [9, None], dtype=pl.Int64)), 0)
    assert step.late() == [Row("a", 1, 0)]


def test_closed_windows_stay_closed_after_a_restore(tmp_path: Path) -> None:
    step = Subtasks(spec(TUMBLE, plan(), accept_for=5), tmp_path, rocks=True)
    step.process(batch([Row(key, 1, time) for key in "abcdef" for time in (1, 11)]), WATERMARK_MIN)
    step.on_watermark(10)
    assert {group.start for group, _ in emitted(step)} == {0}
    for parallelism in (2, 3, 1):
        step.restore(parallelism)
    step.on_watermark(13)
    assert emitted(step) == []
    step.on_watermark(19)
    assert emitted(step) == [(Group(10, key), [1]) for key in "abcdef"]
    step.close()


def test_partials_are_written_once_and_only_what_is_new(tmp_path: Path) -> None:
    step = Subtasks(spec(TUMBLE, plan()), tmp_path)
    step.process(batch([Row("a", 1, 0), Row("b", 2, 10)]), WATERMARK_MIN)
    [(_, first, _)] = step.checkpoint()
    [(_, second, _)] = step.checkpoint()
    files = [path.name for path in first.iterdir()]
    assert [(first / name).read_bytes() for name in files] == [(second / name).read_bytes() for name in files]
    assert step.held_rows == 2, "clean partials stay in memory"
    step.process(batch([Row("a", 4, 1)]), WATERMARK_MIN)
    step.checkpoint()
    step.on_watermark(WATERMARK_MAX)
    assert emitted(step) == [(Group(0, "a"), [1, 4]), (Group(10, "b"), [2])]


@pytest.mark.parametrize("memory_rows_max", [1, 10**6], ids=["spilled", "in-memory"])
def test_state_grows_with_the_keys_not_with_the_checkpoints(
    tmp_path: Path, memory_rows_max: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys that get rows all day, as before every checkpoint of a long window."""
    monkeypatch.setattr(partials, "REWRITE_WEIGHT", 1_000)
    monkeypatch.setattr(partials, "BUCKET_ROWS", 100)
    aggregates = plan(first="first_value(v)", last="last_value(v)", n="count(*)")
    step = Subtasks(spec(TUMBLE, aggregates), tmp_path, memory_rows_max=memory_rows_max)
    sizes = []
    for value in range(60):
        step.process(batch([Row(str(key), value, 0) for key in range(100)]), WATERMARK_MIN)
        sizes.append(sum(file.stat().st_size for _, files, _ in step.checkpoint() for file in files.iterdir()))
        if value % 25 == 24:
            step.restore(2 if value == 24 else 1)
    assert max(sizes[30:]) < 1.5 * max(sizes[:30])
    assert min(sizes[20:]) < sizes[3]
    step.on_watermark(WATERMARK_MAX)
    assert sorted(step.main().select("k", "first", "last", "n").rows()) == sorted(
        (str(key), 0, 59, 60) for key in range(100)
    )


def test_keys_that_hardly_repeat_are_not_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partials, "REWRITE_WEIGHT", 500)
    replaced: list[int] = []
    monkeypatch.setattr(MemoryBlockState, "replace", lambda self, namespace, blocks: replaced.append(namespace))
    step = Subtasks(spec(TUMBLE, plan(n="count(*)")), tmp_path)
    for first in range(0, 2_000, 100):
        step.process(batch([Row(str(key), 1, 0) for key in range(first, first + 100)]), WATERMARK_MIN)
        step.checkpoint()
    assert not replaced
    step.on_watermark(WATERMARK_MAX)
    assert step.main().height == 2_000


def test_partials_of_one_key_are_merged_as_they_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partials, "MERGE_ROWS", 1_000)
    step = Subtasks(spec(TUMBLE, plan(n="count(*)")), tmp_path)
    held = []
    for _ in range(100):
        step.process(batch([Row("a", 1, 0)]), WATERMARK_MIN)
        held.append(step.held_rows)
    assert 5 < max(held) < 50
    assert min(held[20:]) < 5
    step.on_watermark(WATERMARK_MAX)
    assert step.main().get_column("n").to_list() == [100]


def test_thousands_of_slices_in_a_batch_close_together(tmp_path: Path) -> None:
    step = Subtasks(spec(Window(1000, 1000), plan()), tmp_path)
    seconds = range(0, 40_000_000, 10_000)
    step.process(batch([Row("a", index, 1000 * second) for index, second in enumerate(seconds)]), WATERMARK_MIN)
    step.on_watermark(WATERMARK_MAX)
    found = by_start(step)
    assert found == [(Group(1000 * second, "a"), [index]) for index, second in enumerate(seconds)]
    assert len(step.outputs) < 10, "each window left in a frame of its own"


@pytest.mark.parametrize("rows_max", [100_000, 10_000_000], ids=["spilled", "in-memory"])
@pytest.mark.parametrize("window", [Window(100, 100), Window(100, 50)], ids=str)
def test_a_window_of_many_keys_closes_bucket_by_bucket(
    tmp_path: Path, window: Window, rows_max: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partials, "BUCKET_ROWS", 100_000)
    keys = 300_000
    step = Subtasks(spec(window, plan()), tmp_path, rocks=True, memory_rows_max=rows_max)
    highest = 0
    for first in range(0, 2 * keys, 20_000):
        texts = [str(index % keys) for index in range(first, first + 20_000)]
        frame = pl.DataFrame({"k": texts, "v": 1, TIME: 50 + first // keys}, schema_overrides={"v": pl.Int64})
        step.process(frame, WATERMARK_MIN)
        highest = max(highest, step.held_rows)
        if first == keys:
            step.restore(2)
    assert highest <= 2 * rows_max
    step.on_watermark(WATERMARK_MAX)
    step.close()
    windows = window.size_ms // window.slide_ms
    found = step.main()
    assert found.height == windows * keys
    assert found.select("k", "window_start").n_unique() == windows * keys
    assert (found.get_column("total") == 2).all()
    assert max(output.frame.height for output in step.outputs) <= 65_536
    assert all(output.frame.get_column("window_start").n_unique() == 1 for output in step.outputs)


def changed(step: Subtasks) -> list[tuple[int, int, str | None, int]]:
    """Kind, start, key and total of the changes since the last call."""
    frames = [output.frame for output in step.outputs if output.tag == "main"]
    step.outputs = []
    columns = [pl.col(KIND), pl.col("window_start").cast(pl.Int64), pl.col("k"), pl.col("total")]
    return [row for frame in frames for row in frame.select(columns).rows()]


def test_each_update_takes_back_what_it_replaces(tmp_path: Path) -> None:
    step = Subtasks(spec(TUMBLE, plan(), accept_for=10, update_every_ms=0), tmp_path)
    step.process(batch([Row("a", 1, 1), Row(None, 2, 2)]), WATERMARK_MIN)
    assert sorted(changed(step), key=repr) == [(INSERT, 0, "a", 1), (INSERT, 0, None, 2)]
    step.restore(2)
    step.process(batch([Row("a", 4, 3), Row("a", 8, 11)]), WATERMARK_MIN)
    assert changed(step) == [(UPDATE_BEFORE, 0, "a", 1), (UPDATE_AFTER, 0, "a", 5), (INSERT, 10, "a", 8)]
    step.on_watermark(12)
    assert changed(step) == [], "a window that closes has said everything"
    step.process(batch([Row(None, 16, 5)]), 12)
    assert changed(step) == [(UPDATE_BEFORE, 0, None, 2), (UPDATE_AFTER, 0, None, 18)]
    step.on_watermark(WATERMARK_MAX)
    assert step.held_rows == 0


def test_a_change_without_a_difference_says_nothing(tmp_path: Path) -> None:
    step = Subtasks(spec(TUMBLE, plan(total="max(v)"), update_every_ms=0), tmp_path)
    step.process(batch([Row("a", 5, 1)]), WATERMARK_MIN)
    assert changed(step) == [(INSERT, 0, "a", 5)]
    step.process(batch([Row("a", 3, 2)]), WATERMARK_MIN)
    assert changed(step) == []


def test_updates_by_period_come_when_event_time_passes_a_multiple_and_at_the_close(tmp_path: Path) -> None:
    step = Subtasks(spec(TUMBLE, plan(), accept_for=10, update_every_ms=4), tmp_path)
    step.process(batch([Row("a", 1, 1)]), WATERMARK_MIN)
    step.on_watermark(3)
    assert changed(step) == [(INSERT, 0, "a", 1)]
    step.process(batch([Row("a", 2, 5)]), 3)
    step.process(batch([Row("a", 4, 5)]), 3)
    assert changed(step) == []
    step.restore(2)
    step.on_watermark(4)
    assert changed(step) == [(UPDATE_BEFORE, 0, "a", 1), (UPDATE_AFTER, 0, "a", 7)]
    step.process(batch([Row("b", 8, 9)]), 4)
    step.on_watermark(8)
    step.process(batch([Row("b", 16, 9)]), 8)
    assert changed(step) == [(INSERT, 0, "b", 8)]
    step.on_watermark(9)
    assert changed(step) == [(UPDATE_BEFORE, 0, "b", 8), (UPDATE_AFTER, 0, "b", 24)]


def test_cumulating_windows_say_how_far_things_have_come(tmp_path: Path) -> None:
    step = Subtasks(spec(Window(12, 4, cumulates=True), plan()), tmp_path)
    step.process(batch([Row("a", 1, 1), Row("a", 2, 9), Row("b", 4, 14)]), WATERMARK_MIN)
    step.on_watermark(WATERMARK_MAX)
    assert results(step.main()) == [
        (Group(0, "a", 4), [1]),
        (Group(0, "a", 8), [1]),
        (Group(0, "a", 12), [1, 2]),
        (Group(12, "b", 16), [4]),
        (Group(12, "b", 20), [4]),
        (Group(12, "b", 24), [4]),
    ]


def carried_spec() -> WindowAggregateSpec:
    schema = SCHEMA | dict.fromkeys(("window_start", "window_end"), WINDOW_TYPE)
    return replace(spec(CARRIED, plan()), input_schema=schema, carried=True)


def in_windows(rows: list[Row], windows: list[tuple[int | None, int | None]]) -> pl.DataFrame:
    starts, ends = zip(*windows, strict=True)
    return batch(rows).with_columns(
        pl.Series("window_start", starts, dtype=pl.Int64).cast(WINDOW_TYPE),
        pl.Series("window_end", ends, dtype=pl.Int64).cast(WINDOW_TYPE),
    )


def test_carried_windows_that_end_together_are_two(tmp_path: Path) -> None:
    step = Subtasks(carried_spec(), tmp_path)
    rows = [Row("a", 1, 9), Row("a", 2, 9), Row("a", 4, 9), Row("a", 8, 19)]
    step.process(in_windows(rows, [(0, 10), (5, 10), (0, 10), (10, 20)]), WATERMARK_MIN)
    step.restore(2)
    step.on_watermark(9)
    assert sorted(results(step.main())) == [(Group(0, "a", 10), [1, 4]), (Group(5, "a", 10), [2])]
    step.process(in_windows([Row("b", 16, 30)], [(0, 10)]), 9)  # late by its window, whatever its own time is
    assert step.late() == [Row("b", 16, 30)]


def test_a_row_that_carries_no_window_is_told_about(tmp_path: Path) -> None:
    with pytest.raises(MissingWindow, match="without window_start or window_end reached `window: input`"):
        Subtasks(carried_spec(), tmp_path).process(in_windows([Row("a", 1, 9)], [(0, None)]), WATERMARK_MIN)
