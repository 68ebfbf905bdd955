"""Window functions in all their spellings, and what may follow a window."""

from __future__ import annotations

import pytest

from tests.unit.pipeline.sql.translated import only_step, steps

_ENDS = "window_start, window_end"


def _table(table: str) -> str:
    return f"(SELECT * FROM TABLE(TUMBLE(TABLE {table}, DESCRIPTOR(rowtime), INTERVAL '10' SECOND)))"


def test_arguments_may_be_named() -> None:
    named = """TABLE(HOP(DATA => TABLE bid, TIMECOL => DESCRIPTOR(ts), SIZE => INTERVAL '10' SECOND,
        SLIDE => INTERVAL '2' SECOND, `OFFSET` => INTERVAL '1' SECOND))"""
    step = only_step(f"SELECT COUNT(*) AS n FROM {named} GROUP BY {_ENDS}")
    assert step["window"] == {"hop": {"size": "10s", "every": "2s"}, "offset": "1s"}


@pytest.mark.parametrize(
    ("window", "columns", "written"),
    [
        ("TUMBLE(ts, INTERVAL '10' SECOND)", "TUMBLE", {"tumble": "10s"}),
        ("HOP(ts, INTERVAL '2' SECOND, INTERVAL '10' SECOND)", "HOP", {"hop": {"size": "10s", "every": "2s"}}),
        ("SESSION(ts, INTERVAL '2' SECOND)", "SESSION", {"session": "2s"}),
    ],
)
def test_windows_in_group_by(window: str, columns: str, written: object) -> None:
    arguments = window.partition("(")[2]
    step = only_step(
        f"""SELECT bidder, {columns}_START({arguments} AS s, {columns}_ROWTIME({arguments} AS t, COUNT(*) AS n
            FROM bid GROUP BY bidder, {window}"""
    )
    assert step["window"] == written
    assert step["key"] == ["bidder"]
    assert step["select"]["s"] == "window_start"
    assert step["select"]["t"] == "window_end - INTERVAL '1' MILLISECOND"


def test_a_key_may_be_computed() -> None:
    found = steps(f"SELECT price / 10 AS tens, COUNT(*) AS n FROM {_table('bid')} GROUP BY price / 10, {_ENDS}")
    assert found["q"]["key"] == ["tens"]
    assert found["q"]["select"] == ["tens", "n"]


def test_one_end_of_a_fixed_window_tells_the_other() -> None:
    step = only_step(
        "SELECT window_end, COUNT(*) AS n FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(ts), INTERVAL '1' SECOND)) "
        "GROUP BY window_end"
    )
    assert step["window"] == {"tumble": "1s"}


def test_the_time_of_a_window_under_another_name_is_event_time() -> None:
    found = steps(
        f"""WITH small AS (
            SELECT window_time AS moment, COUNT(*) AS n
            FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(ts), INTERVAL '5' SECOND)) GROUP BY {_ENDS}, window_time
        )
        SELECT SUM(n) AS n FROM TABLE(TUMBLE(TABLE small, DESCRIPTOR(moment), INTERVAL '20' SECOND)) GROUP BY {_ENDS}"""
    )
    assert found["q"]["window"] == {"tumble": "20s"}


@pytest.mark.parametrize(
    ("condition", "kind", "match"),
    [
        ("L.id IN (SELECT seller FROM {} R WHERE {})", "semi", "left.id = right.seller"),
        (
            "L.id NOT IN (SELECT seller FROM {} R WHERE {})",
            "anti",
            "(left.id = right.seller OR left.id IS NULL OR right.seller IS NULL)",
        ),
        ("NOT EXISTS (SELECT 1 FROM {} R WHERE L.id = R.seller AND {})", "anti", "left.id = right.seller"),
    ],
)
def test_half_joins_within_windows(condition: str, kind: str, match: str) -> None:
    ends = "L.window_start = R.window_start AND L.window_end = R.window_end"
    found = steps(f"SELECT L.id FROM {_table('person')} L WHERE {condition.format(_table('auction'), ends)}")
    join = found["q"]["join"]
    assert (join["kind"], join["window"]) == (kind, "input")
    assert match in join["match"]


def test_the_window_of_the_other_side_is_null_where_there_is_no_other_side() -> None:
    ends = "L.window_start = R.window_start AND L.window_end = R.window_end"
    join = f"{_table('person')} L {{}} JOIN {_table('auction')} R ON L.id = R.seller AND {ends}"
    selected = "SELECT L.window_start AS l, R.window_start AS r FROM "
    assert steps(selected + join.format("LEFT"))["q"]["select"] == {"l": "left.window_start", "r": "right.window_start"}
    assert steps(selected + join.format("INNER"))["q"]["select"] == {"l": "left.window_start", "r": "left.window_start"}


def test_using_names_its_columns_once() -> None:
    found = steps("SELECT * FROM (SELECT id, name FROM person) JOIN (SELECT id, category FROM auction) USING (id)")
    assert found["q"]["join"]["match"] == "left.id = right.id"
    assert found["q"]["select"] == {"id": "left.id", "name": "left.name", "category": "right.category"}
