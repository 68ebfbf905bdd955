"""Joins in small scenes: TTL, times of results, hot keys, conditions that fail, what is promised downstream."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from operators.connector import ErrorPolicy
from operators.element import (
    DELETE,
    INSERT,
    KIND,
    ROW_WATERMARK,
    TIME,
    UPDATE_AFTER,
    UPDATE_BEFORE,
    WATERMARK_MAX,
    EventTimeMs,
)
from operators.expression import compile_predicate
from operators.join.as_of import AsOfJoin, AsOfJoinSpec
from operators.join.interval import IntervalJoinSpec
from operators.join.pairs import PAIRS
from operators.join.regular import RegularJoinSpec
from operators.join.shape import JoinKind, JoinShape
from operators.join.window import WindowJoin, WindowJoinSpec
from operators.row_errors import RecordFailed
from operators.slices import Window
from operators.window import MissingEventTime
from tests.unit.operators.join.joined import LEFT, RIGHT, JoinStep, Result, Row, frame, results, shape

LEFT_A, RIGHT_A = ("a", 1), ("a", 2)


def test_an_interval_includes_both_ends(tmp_path: Path) -> None:
    step = JoinStep(IntervalJoinSpec(shape("inner"), -5, 10), tmp_path)
    step.process(0, frame(0, [Row("a", 1, 100)]), 0)
    step.process(1, frame(1, [Row("a", time, time) for time in (94, 95, 110, 111)]), 0)
    assert [(r.right, r.time) for r in results(step.main())] == [(("a", 95), 100), (("a", 110), 110)]
    step.close()


def test_a_left_row_waits_until_its_last_partner_may_have_come(tmp_path: Path) -> None:
    step = JoinStep(IntervalJoinSpec(shape("left"), -5, 10), tmp_path)
    step.process(0, frame(0, [Row("a", 1, 100)]), 0)
    step.on_watermark(109)
    assert results(step.main()) == []
    step.on_watermark(110)
    assert results(step.main()) == [Result(LEFT_A, None, 100)]
    step.close()


def test_who_waits_is_decided_by_the_watermark_before_the_later_row(tmp_path: Path) -> None:
    """The step itself has not heard of that watermark yet."""
    step = JoinStep(IntervalJoinSpec(shape("left"), -50, 10), tmp_path)
    step.process(0, frame(0, [Row("a", 1, 100), Row("b", 2, 100)]), 0)
    step.process(1, frame(1, [Row("a", 3, 105), Row("b", 4, 105)], [109, 110]), 0)
    assert [(r.left, r.right) for r in results(step.main())] == [(LEFT_A, ("a", 3))]
    step.process(0, frame(0, [Row("c", 5, 100)], [109]), 0)
    assert len(step.main()) == 1, "a partner may still come"
    step.process(0, frame(0, [Row("d", 6, 100)], [110]), 0)
    assert results(step.main())[1:] == [Result(("d", 6), None, 100)]
    step.close()


@pytest.mark.parametrize(
    ("kind", "held_back"), [("inner", 0), ("semi", 10), ("left", 10), ("anti", 10), ("right", 5), ("full", 10)]
)
def test_what_is_promised_downstream(tmp_path: Path, kind: JoinKind, held_back: int) -> None:
    step = JoinStep(IntervalJoinSpec(shape(kind), -5, 10), tmp_path)
    [operator] = step.operators
    assert operator.output_watermark(EventTimeMs(1_000)) == 1_000 - held_back
    assert operator.output_watermark(WATERMARK_MAX) == WATERMARK_MAX
    step.close()


def test_a_late_pair_says_so(tmp_path: Path) -> None:
    step = JoinStep(IntervalJoinSpec(shape("inner"), -50, 50), tmp_path)
    step.process(0, frame(0, [Row("a", 1, 100)]), 0)
    step.on_watermark(120)
    step.process(1, frame(1, [Row("a", 2, 110)], [120]), 120)
    [result] = step.main()
    assert result.select(TIME, ROW_WATERMARK).rows() == [(110, 120)]
    step.close()


@pytest.mark.parametrize("kind", ["inner", "full", "semi", "anti"])
def test_a_hot_key_leaves_in_pieces(tmp_path: Path, kind: JoinKind) -> None:
    rows = 700
    step = JoinStep(IntervalJoinSpec(shape(kind), 0, 10), tmp_path)
    step.process(0, frame(0, [Row("a", n, 5) for n in range(rows)]), 0)
    step.process(1, frame(1, [Row("a", n, 6) for n in range(rows)]), 0)
    step.on_watermark(WATERMARK_MAX)
    assert (
        sum(each.height for each in step.main()) == {"inner": rows**2, "full": rows**2, "semi": rows, "anti": 0}[kind]
    )
    assert max((each.height for each in step.main()), default=0) <= PAIRS
    step.close()


def test_rows_without_event_time_are_refused(tmp_path: Path) -> None:
    untimed = frame(0, [Row("a", 1, 5)]).with_columns(pl.lit(None, dtype=pl.Int64).alias(TIME))
    for spec in (
        IntervalJoinSpec(shape("inner"), 0, 1),
        WindowJoinSpec(shape("inner"), Window(10, 10)),
        AsOfJoinSpec(shape("inner")),
    ):
        step = JoinStep(spec, tmp_path)
        with pytest.raises(MissingEventTime):
            step.process(0, untimed, 0)
        step.close()


def failing(errors: ErrorPolicy) -> JoinShape:
    condition = compile_predicate("cast(left.k as int64) < right.v", {**LEFT, **RIGHT})
    return replace(shape("inner"), residual=condition, text="left.k = right.k and …", errors=errors)


def test_a_pair_on_which_the_condition_fails_follows_the_error_policy(tmp_path: Path) -> None:
    lefts = frame(0, [Row("7", 1, 5), Row("x", 2, 5), Row("8", 3, 5)])
    rights = frame(1, [Row("x", 10, 5), Row("8", 11, 5)])
    step = JoinStep(IntervalJoinSpec(failing("dlq"), 0, 1), tmp_path)
    step.process(0, lefts, 0)
    step.process(1, rights, 0)
    assert [result.left for result in results(step.main())] == [("8", 3)]
    [errors] = [output.frame for output in step.outputs if output.tag == "errors"]
    assert errors.get_column("value").to_list() == [b'{"left.k": "x", "left.v": 2, "right.k": "x", "right.v": 10}']
    step.close()
    step = JoinStep(IntervalJoinSpec(failing("fail"), 0, 1), tmp_path)
    step.process(0, lefts, 0)
    with pytest.raises(RecordFailed, match=r"join on left\.k = right\.k"):
        step.process(1, rights, 0)
    step.close()


def test_no_error_waits_for_the_next_batch(tmp_path: Path) -> None:
    """Else it would be lost where the job crashes between the two."""
    sided = replace(failing("dlq"), left=replace(shape("inner").left, changelog=True))
    step = JoinStep(RegularJoinSpec(sided), tmp_path)
    step.process(0, frame(0, [Row("x", 2, 5)], kinds=[INSERT]), 0)
    step.process(1, frame(1, [Row("x", 10, 5)]), 0)
    assert [output.tag for output in step.outputs] == ["errors"]
    step.process(0, frame(0, [Row("x", 2, 6)], kinds=[DELETE]), 0)
    assert [output.tag for output in step.outputs] == ["errors", "errors"]
    step.close()


def test_keys_agree_by_value_whatever_their_width(tmp_path: Path) -> None:
    left = replace(shape("inner").left, schema={"left.k": pl.Int64(), "left.v": pl.Int64()})
    right = replace(shape("inner").right, schema={"right.k": pl.Int32(), "right.v": pl.Int64()})
    step = JoinStep(IntervalJoinSpec(replace(shape("inner"), left=left, right=right), 0, 1), tmp_path)
    step.process(0, pl.DataFrame({"left.k": [1, 2], "left.v": [1, 2], TIME: [5, 5]}), 0)
    right_rows = pl.DataFrame(
        {"right.k": [2, 3], "right.v": [7, 8], TIME: [5, 5]}, schema_overrides={"right.k": pl.Int32}
    )
    step.process(1, right_rows, 0)
    [result] = step.main()
    assert result.select("left.k", "right.k", "right.v").rows() == [(2, 2, 7)]
    step.close()


def kinds_of(step: JoinStep) -> list[tuple[int, tuple[object, object]]]:
    return [
        (kind, (result.left, result.right))
        for each in step.main()
        for kind, result in zip(each.get_column(KIND).to_list(), results([each]), strict=True)
    ]


def test_a_padded_row_is_taken_back_before_the_pair_is_given(tmp_path: Path) -> None:
    step = JoinStep(RegularJoinSpec(shape("left", changelogs=(False, True))), tmp_path)
    step.process(0, frame(0, [Row("a", 1, 5)]), 0)
    step.process(1, frame(1, [Row("a", 2, 6)], None, [INSERT]), 0)
    step.process(1, frame(1, [Row("a", 2, 7)], None, [DELETE]), 0)
    assert kinds_of(step) == [
        (INSERT, (LEFT_A, None)),
        (DELETE, (LEFT_A, None)),
        (INSERT, (LEFT_A, RIGHT_A)),
        (DELETE, (LEFT_A, RIGHT_A)),
        (INSERT, (LEFT_A, None)),
    ]
    step.close()


def test_an_update_that_keeps_a_partner_gives_nothing_alone(tmp_path: Path) -> None:
    step = JoinStep(RegularJoinSpec(shape("left", changelogs=(False, True))), tmp_path)
    step.process(0, frame(0, [Row("a", 1, 5)]), 0)
    step.process(1, frame(1, [Row("a", 2, 6)], None, [INSERT]), 0)
    step.outputs.clear()
    step.process(1, frame(1, [Row("a", 2, 6), Row("a", 3, 7)], None, [UPDATE_BEFORE, UPDATE_AFTER]), 0)
    assert kinds_of(step) == [(DELETE, (LEFT_A, RIGHT_A)), (INSERT, (LEFT_A, ("a", 3)))]
    step.close()


def test_of_equal_rows_as_many_go_as_are_taken_back(tmp_path: Path) -> None:
    step = JoinStep(RegularJoinSpec(shape("inner", changelogs=(True, False))), tmp_path)
    step.process(1, frame(1, [Row("a", 2, 5)]), 0)
    step.process(0, frame(0, [Row("a", 1, 5)] * 3), 0)
    step.outputs.clear()
    step.process(0, frame(0, [Row("a", 1, 6)] * 2, None, [DELETE] * 2), 0)
    assert kinds_of(step) == [(DELETE, (LEFT_A, RIGHT_A))] * 2
    step.close()


def test_what_a_batch_gives_and_takes_back_is_neither(tmp_path: Path) -> None:
    step = JoinStep(RegularJoinSpec(shape("full", changelogs=(True, True))), tmp_path)
    rows = [Row("a", 1, 5), Row(None, 2, 5), Row("a", 1, 6), Row(None, 2, 6)]
    step.process(0, frame(0, rows, None, [INSERT, INSERT, DELETE, DELETE]), 0)
    assert step.main() == []
    step.close()


def test_ttl_by_event_time(tmp_path: Path) -> None:
    step = JoinStep(RegularJoinSpec(shape("inner"), ttl_ms=10), tmp_path)
    step.process(0, frame(0, [Row("a", 1, 100), Row("a", 2, 105)]), 0)
    step.process(1, frame(1, [Row("a", 9, 112)], [110]), 100)  # whether or not the step has seen the watermark
    assert [result.left for result in results(step.main())] == [("a", 2)]
    step.on_watermark(121)
    step.restore(2)
    assert sum(len(operator._left.rows) for operator in step.operators) == 0
    assert sum(len(operator._right.rows) for operator in step.operators) == 1
    step.close()


def test_ttl_by_the_clock_where_there_is_no_event_time(tmp_path: Path) -> None:
    step = JoinStep(RegularJoinSpec(shape("left", timed=False), ttl_ms=1_000), tmp_path)
    untimed = [frame(side, [Row("a", side + 1, 0)]).drop(TIME) for side in (0, 1)]
    step.on_processing_time(50_000)
    step.process(0, untimed[0], 0)
    step.on_processing_time(50_999)
    step.process(1, untimed[1], 0)
    step.on_processing_time(51_000)
    step.restore(2)
    step.process(1, untimed[1], 0)
    step.on_processing_time(51_999)
    counts = [each.get_column(KIND).to_list() for each in step.main()]
    assert counts == [[INSERT], [DELETE], [INSERT]], "the left row is gone without a word"
    assert sum(len(operator._left.rows) for operator in step.operators) == 0
    step.close()


def test_the_time_of_a_semi_join_s_row_is_not_behind_its_partner(tmp_path: Path) -> None:
    step = JoinStep(RegularJoinSpec(shape("semi")), tmp_path)
    step.process(0, frame(0, [Row("a", 1, 100)]), 0)
    step.process(1, frame(1, [Row("a", 2, 500), Row("a", 3, 400)]), 300)
    step.process(0, frame(0, [Row("a", 4, 450)]), 300)
    assert [(r.left, r.time) for r in results(step.main())] == [(("a", 1), 500), (("a", 4), 500)]
    step.close()


@pytest.mark.parametrize(
    ("kind", "left", "right", "timed"),
    [
        ("inner", True, False, True),
        ("left", False, True, False),
        ("right", False, True, True),
        ("full", True, False, False),
    ],
)
def test_results_have_event_time_where_every_one_does(
    tmp_path: Path, kind: JoinKind, left: bool, right: bool, timed: bool
) -> None:
    both = shape(kind)
    both = replace(both, left=replace(both.left, timed=left), right=replace(both.right, timed=right))
    assert both.timed == timed
    step = JoinStep(RegularJoinSpec(both), tmp_path)
    step.process(0, frame(0, [Row("a", 1, 5), Row("b", 1, 5)]).drop([] if left else [TIME]), 0)
    step.process(1, frame(1, [Row("a", 2, 6), Row("c", 1, 5)]).drop([] if right else [TIME]), 0)
    assert all((TIME in each.columns) == timed for each in step.main())
    step.close()


def test_of_versions_of_one_time_the_later_arrival_counts(tmp_path: Path) -> None:
    step = JoinStep(AsOfJoinSpec(shape("left")), tmp_path)
    step.process(1, frame(1, [Row("a", 1, 10), Row("a", 2, 10), Row("a", 3, 11)]), 0)
    step.process(0, frame(0, [Row("a", 1, 10), Row("a", 2, 9)]), 0)
    step.on_watermark(10)
    assert results(step.main()) == [Result(("a", 2), None, 9), Result(("a", 1), ("a", 2), 10)]
    step.close()


def test_a_left_row_at_the_watermark_is_late_and_meets_the_current_version(tmp_path: Path) -> None:
    step = JoinStep(AsOfJoinSpec(shape("inner")), tmp_path)
    step.process(1, frame(1, [Row("a", 1, 5), Row("a", 2, 10)]), 0)
    step.process(0, frame(0, [Row("a", 7, 10), Row("a", 8, 9)], [10, 10]), 0)
    assert results(step.main()) == [Result(("a", 7), ("a", 2), 10)], "the version before the current one may be gone"
    step.close()
    assert step.late == 1


def test_state_does_not_grow_with_time(tmp_path: Path) -> None:
    specs = (
        IntervalJoinSpec(shape("full"), -20, 20),
        WindowJoinSpec(shape("full"), Window(40, 20)),
        AsOfJoinSpec(shape("left")),
        RegularJoinSpec(shape("inner"), ttl_ms=40),
    )
    rng = np.random.default_rng(1)
    for spec in specs:
        step = JoinStep(spec, tmp_path)
        [operator] = step.operators
        for start in range(0, 1_000, 20):
            for side in (0, 1):
                rows = [Row("abc"[int(n)], start, start + i) for i, n in enumerate(rng.integers(0, 3, 20))]
                step.process(side, frame(side, rows), start - 1)
            step.on_watermark(start + 19)
            assert held_rows(operator) <= 160
        step.close()


def held_rows(operator: Any) -> int:
    if isinstance(operator, WindowJoin):
        return sum(sum(map(side.rows.rows_of, side.rows.slices)) for side in (operator._left, operator._right))
    if isinstance(operator, AsOfJoin):
        return len(operator._waiting) + len(operator._versions)
    return len(operator._left.rows) + len(operator._right.rows)
