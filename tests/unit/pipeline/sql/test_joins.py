"""Which join a query means, and the first rows of groups."""

from __future__ import annotations

import pytest

from tests.unit.pipeline.sql.translated import STREAMS, only_step, steps, stream

_ON = "FROM auction AS a JOIN bid AS b ON a.id = b.auction"
_WINDOWED = "TABLE(TUMBLE(TABLE bid, DESCRIPTOR(rowtime), INTERVAL '10' SECOND))"


def _join(query: str, ttl: str | None = None) -> dict[str, object]:
    found = steps(query, ttl=ttl)["q"]["join"]
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize(
    ("condition", "within"),
    [
        ("b.ts BETWEEN a.ts - INTERVAL '5' MINUTE AND a.ts + INTERVAL '1' HOUR", ["-5m", "1h"]),
        ("b.ts >= a.ts AND b.ts < a.ts + INTERVAL '1' HOUR", ["0s", "3599999ms"]),
        ("a.ts > b.ts - INTERVAL '1' SECOND AND a.ts <= b.ts", ["0s", "999ms"]),
        ("a.rowtime + INTERVAL '2' SECOND >= b.rowtime AND b.rowtime > a.rowtime", ["1ms", "2s"]),
    ],
)
def test_event_times_within_bounds_are_an_interval_join(condition: str, within: list[str]) -> None:
    for query in (f"SELECT a.id {_ON} AND {condition}", f"SELECT a.id {_ON} WHERE {condition}"):
        join = _join(query, ttl="1h")
        assert join["within"] == within
        assert join["match"] == "left.id = right.auction"
        assert "ttl" not in join


def test_one_bound_alone_is_a_regular_join() -> None:
    join = _join(f"SELECT a.id {_ON} AND b.ts >= a.ts", ttl="1h")
    assert join["match"] == "left.id = right.auction and right.ts >= left.ts"
    assert join["ttl"] == "1h"


def test_bounds_of_finer_times_are_checked_on_the_rows_too() -> None:
    query = """SELECT b.price FROM bid AS b JOIN prices AS p ON p.item = b.auction
        AND p.at > b.ts AND p.at < b.ts + INTERVAL '1' SECOND"""
    prices = stream(event_time="at", item="int64", at="timestamp_us")
    join = steps(query, streams=STREAMS | {"prices": prices})["q"]["join"]
    assert join["within"] == ["0s", "1s"]
    assert (
        join["match"] == "right.item = left.auction and right.at > left.ts and right.at < left.ts + INTERVAL '1' SECOND"
    )


def test_a_comma_joins_by_where() -> None:
    join = _join("SELECT a.id FROM auction a, person p WHERE a.seller = p.id AND a.reserve > p.id")
    assert join["match"] == "left.seller = right.id and left.reserve > right.id"


def test_what_reads_one_table_runs_before_the_join_only_where_that_is_the_same() -> None:
    where = "WHERE a.category = 1 AND b.price = 2"
    inner = steps(f"SELECT a.id {_ON} {where}")
    assert (inner["q.a"]["where"], inner["q.b"]["where"]) == ("category = 1", "price = 2")

    left = steps(f"SELECT a.id FROM auction AS a LEFT JOIN bid AS b ON a.id = b.auction AND b.bidder = 3 {where}")
    assert (left["q.a"]["where"], left["q.b"]["where"]) == ("category = 1", "bidder = 3")
    assert left["q"]["where"] == "right.price = 2"

    full = steps(f"SELECT a.id FROM auction AS a FULL JOIN bid AS b ON a.id = b.auction {where}")
    assert list(full) == ["q"]
    assert full["q"]["where"] == "left.category = 1 and right.price = 2"


def test_the_match_of_an_outer_join_keeps_conditions_on_the_side_that_stays() -> None:
    join = _join("SELECT a.id FROM auction AS a LEFT JOIN bid AS b ON a.id = b.auction AND a.category = 3")
    assert join["match"] == "left.id = right.auction and left.category = 3"


def test_three_tables_are_two_steps() -> None:
    found = steps(
        "SELECT p.name, b.price FROM bid b JOIN auction a ON b.auction = a.id JOIN person p ON a.seller = p.id"
    )
    assert list(found) == ["q.b_a", "q"]
    assert found["q.b_a"]["select"] == {"price": "left.price", "seller": "right.seller"}


def test_equal_windows_are_a_window_join() -> None:
    columns = "auction, window_start, window_end"
    counts = f"SELECT COUNT(*) AS n, {columns} FROM {_WINDOWED} GROUP BY {columns}"
    found = steps(f"""SELECT x.auction, y.n, y.window_start FROM ({counts}) x LEFT JOIN ({counts}) y
        ON x.auction = y.n AND x.window_start = y.window_start AND x.window_end = y.window_end""")
    assert list(found) == ["q.x", "q"]
    assert found["q"]["join"] == {
        "left": "q.x",
        "right": "q.x",
        "kind": "left",
        "window": "input",
        "match": "left.auction = right.n",
    }


def test_versions_are_as_of_and_not_filtered_before() -> None:
    found = steps("""SELECT b.price, a.category FROM bid b
        JOIN auction FOR SYSTEM_TIME AS OF b.rowtime AS a ON b.auction = a.id WHERE a.category = 3 AND b.price > 1""")
    assert found["q"]["join"]["as_of"] is True
    assert found["q"]["where"] == "right.category = 3"
    assert found["q.b"]["where"] == "price > 1"


def test_exists_and_in_are_semi_and_anti_joins() -> None:
    exists = "EXISTS (SELECT 1 FROM auction AS a WHERE a.seller = p.id AND a.category = 10)"
    semi = steps(f"SELECT p.name FROM person AS p WHERE {exists} AND p.state = 'OR'")
    assert semi["q.a"] == {"input": "auction", "where": "category = 10"}
    assert semi["q.p"] == {"input": "person", "where": "state = 'OR'"}
    assert semi["q"]["join"]["kind"] == "semi"
    assert _join(f"SELECT p.name FROM person AS p WHERE NOT {exists}")["kind"] == "anti"
    inside = _join("SELECT name FROM person WHERE id IN (SELECT seller FROM auction)")
    assert (inside["kind"], inside["match"]) == ("semi", "left.id = right.seller")
    outside = steps("SELECT name FROM person WHERE id NOT IN (SELECT seller FROM auction WHERE seller IS NOT NULL)")
    assert outside["q.person"]["where"] == "NOT id IS NULL"
    assert outside["q"]["join"]["kind"] == "anti"


def test_an_equality_of_expressions_becomes_one_of_columns() -> None:
    found = steps("SELECT b.price FROM bid b JOIN auction a ON MOD(b.auction, 10) = a.id")
    assert found["q.b"]["select"]["match_key"] == "mod(auction, 10)"
    assert found["q"]["join"]["match"] == "left.match_key = right.id"


def _first(order: str, limit: str, select: str = "auction") -> dict[str, object]:
    inner = f"SELECT *, ROW_NUMBER() OVER (PARTITION BY auction ORDER BY {order}) AS n FROM bid"
    return only_step(f"SELECT {select} FROM ({inner}) WHERE {limit}")


def test_one_row_by_time_is_deduplication() -> None:
    assert _first("rowtime ASC", "n = 1")["deduplicate"] == {"key": ["auction"], "keep": "first"}
    assert _first("ts DESC", "1 >= n")["deduplicate"] == {"key": ["auction"], "keep": "last"}
    assert _first("ts", "n = 1", "auction, n")["select"] == {"auction": "auction", "n": "1"}


def test_more_rows_are_a_top() -> None:
    assert _first("price DESC, ts", "n < 4")["top"] == {"n": 3, "by": ["price desc", "ts asc"], "key": ["auction"]}
    ranked = _first("price DESC", "n <= 3 AND price > 7", "auction, n")
    assert ranked["top"] == {"n": 3, "by": ["price desc"], "key": ["auction"], "rank": "n"}
    assert ranked["having"] == "price > 7"
    second = _first("price DESC", "n = 2")
    assert (second["top"], second["having"]) == (
        {"n": 2, "by": ["price desc"], "key": ["auction"], "rank": "n"},
        "n >= 2",
    )


def test_the_first_of_each_window() -> None:
    found = steps(f"""SELECT auction, window_end FROM (
        SELECT *, ROW_NUMBER() OVER (PARTITION BY window_start, window_end, channel ORDER BY price DESC) AS n
        FROM {_WINDOWED}
    ) WHERE n <= 2""")
    assert found["q"]["top"] == {"n": 2, "by": ["price desc"], "key": ["channel"], "window": "input"}


def test_order_and_limit_are_the_first_rows_so_far() -> None:
    assert only_step("SELECT auction, price FROM bid ORDER BY price DESC LIMIT 5")["top"] == {
        "n": 5,
        "by": ["price desc"],
    }
