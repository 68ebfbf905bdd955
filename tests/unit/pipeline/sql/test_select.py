"""Projections, groups, unions and expressions of one query."""

from __future__ import annotations

import pytest

from tests.unit.pipeline.sql.translated import all_steps, only_step, steps

_TUMBLE = "TABLE(TUMBLE(TABLE bid, DESCRIPTOR(rowtime), INTERVAL '10' SECOND))"


def test_a_star_alone_changes_nothing() -> None:
    assert only_step("SELECT * FROM bid") == {"input": "bid"}


def test_filter_and_projection_are_one_step() -> None:
    step = only_step(
        "SELECT b.auction, price * 2 AS twice FROM bid AS b WHERE price > 10 AND (auction = 1 OR auction = 2)"
    )
    assert step == {
        "input": "bid",
        "where": "price > 10 and (auction = 1 OR auction = 2)",
        "select": {"auction": "auction", "twice": "price * 2"},
    }


def test_rowtime_is_the_event_time_where_no_column_is_called_so() -> None:
    assert only_step("SELECT rowtime FROM bid")["select"] == {"rowtime": "ts"}
    assert "rowtime" not in str(only_step("SELECT *, 1 AS one FROM bid"))


def test_a_star_brings_the_event_time_along() -> None:
    assert only_step("SELECT rowtime FROM (SELECT * FROM bid WHERE price > 1)")["select"] == {"rowtime": "ts"}
    step = only_step(
        """SELECT auction, rowtime FROM (
            SELECT *, ROW_NUMBER() OVER (PARTITION BY auction ORDER BY rowtime ASC) AS n FROM bid
        ) WHERE n = 1"""
    )
    assert step["select"] == {"auction": "auction", "rowtime": "ts"}


def test_a_column_without_a_name_is_called_as_in_flink() -> None:
    assert list(only_step("SELECT price + 1, price, 'x' FROM bid")["select"]) == ["EXPR$0", "price", "EXPR$2"]


def test_names_after_an_alias() -> None:
    step = only_step("SELECT x + 1 AS y FROM (SELECT auction, price FROM bid) AS t(x, z) WHERE z > 1")
    assert step == {"input": "bid", "where": "price > 1", "select": {"y": "auction + 1"}}
    assert only_step("WITH t(x) AS (SELECT auction FROM bid) SELECT x FROM t")["select"] == {"x": "auction"}


def test_a_spread_of_integers_is_an_integer() -> None:
    step = only_step("SELECT auction, VAR_POP(price) AS v, STDDEV_POP(price * 1e0) AS s FROM bid GROUP BY auction")
    assert step["aggregate"]["v"].startswith("CAST((")
    assert step["aggregate"]["v"].endswith("AS BIGINT)")
    assert step["aggregate"]["s"] == "stddev_pop(price * 1e0)"


@pytest.mark.parametrize("number", ["n BETWEEN 2 AND 4", "n > 1 AND n <= 4", "n BETWEEN 1 AND 4 AND n >= 2"])
def test_numbers_in_the_middle_of_a_ranking(number: str) -> None:
    found = steps(
        f"""SELECT auction, price, n FROM (
            SELECT *, ROW_NUMBER() OVER (PARTITION BY auction ORDER BY price DESC) AS n FROM bid
        ) WHERE {number}"""
    )
    (step,) = [step for step in found.values() if "top" in step]
    assert step["top"]["n"] == 4
    assert "n" in step["having"]


@pytest.mark.parametrize(
    ("flink", "step"),
    [
        ("0.908 * price", "CAST('0.908' AS decimal(3,3)) * price"),
        ("price * 1.5e0", "price * 1.5e0"),
        ("MOD(auction, 10)", "mod(auction, 10)"),
        ("CHAR_LENGTH(channel)", "length(channel)"),
        ("LOCATE('a', channel)", "strpos(channel, 'a')"),
        ("CAST(ts AS TIMESTAMP_LTZ(3))", "CAST(ts AS timestamp_ms)"),
        ("CAST(price AS DOUBLE)", "CAST(price AS float64)"),
        ("CAST(ts AS STRING)", "date_format(ts, 'yyyy-MM-dd HH:mm:ss.SSS')"),
        ("CAST(price > 1 AS VARCHAR)", "upper(CAST(price > 1 AS string))"),
        ("TO_TIMESTAMP_LTZ(price, 3)", "epoch_ms(price)"),
        ("FLOOR(ts TO HOUR)", "date_trunc('hour', ts)"),
        ("FLOOR(price)", "floor(price)"),
        ("DAYOFWEEK(ts)", "date_part('dow', ts)"),
        ("TIMESTAMPDIFF(MINUTE, ts, ts)", "((epoch_ms(ts) - epoch_ms(ts)) / 60000)"),
        ("TIMESTAMPADD(HOUR, -2, ts)", "(ts - INTERVAL '2' HOUR)"),
        ("`channel` || 'x'", "channel || 'x'"),
        ("EXTRACT(HOUR FROM ts)", "EXTRACT(HOUR FROM ts)"),
        ("SPLIT_INDEX(channel, ',', 1)", "split_index(channel, ',', 1)"),
        ("POSITION('a' IN channel)", "strpos(channel, 'a')"),
        ("CAST(channel AS INT)", "CAST(trim(channel) AS int32)"),
        ("CAST(ts AS TIMESTAMP(0))", "date_trunc('second', CAST(ts AS timestamp_ms))"),
        ("TIMESTAMPADD(MONTH, 2, ts)", "(ts + INTERVAL '2' MONTH)"),
        ("TO_DATE(channel)", "TRY_CAST(channel AS date)"),
        ("TO_TIMESTAMP(channel, 'dd.MM.yyyy')", "parse_timestamp(channel, 'dd.MM.yyyy')"),
        ("UNIX_TIMESTAMP(channel)", "epoch(TRY_CAST(channel AS timestamp_ms))"),
        ("FROM_UNIXTIME(price)", "date_format(to_timestamp(price), 'yyyy-MM-dd HH:mm:ss')"),
        (
            "CEIL(ts TO HOUR)",
            "CASE WHEN date_trunc('hour', ts) = ts THEN ts ELSE date_trunc('hour', ts) + INTERVAL '1' HOUR END",
        ),
        ("ts + INTERVAL '5' SECOND(3)", "ts + INTERVAL '5' SECOND"),
    ],
)
def test_flinks_words(flink: str, step: str) -> None:
    assert only_step(f"SELECT {flink} AS x FROM bid")["select"] == {"x": step}


@pytest.mark.parametrize(
    ("average", "step"),
    [
        ("AVG(small)", "(sum(small) / count(small))"),
        ("AVG(weight)", "avg(weight)"),
        ("AVG(price)", "(CAST(sum(price) AS decimal(38,6)) / count(price))"),
        (
            "AVG(small) FILTER (WHERE small > 1)",
            "(sum(small) FILTER(WHERE small > 1) / count(small) FILTER(WHERE small > 1))",
        ),
    ],
)
def test_an_average_has_the_type_of_its_values(average: str, step: str) -> None:
    assert only_step(f"SELECT {average} AS a FROM prices")["aggregate"] == {"a": step}


def test_groups_without_a_window_keep_state_for_the_ttl() -> None:
    step = only_step("SELECT auction, COUNT(*) AS n FROM bid GROUP BY auction HAVING SUM(price) > 5", ttl="2h")
    assert step == {
        "input": "bid",
        "key": ["auction"],
        "ttl": "2h",
        "aggregate": {"n": "count(*)", "aggregate_2": "sum(price)"},
        "having": "aggregate_2 > 5",
        "select": ["auction", "n"],
    }


def test_a_computed_key_has_a_step_before() -> None:
    found = steps(
        "SELECT MOD(auction, 10) AS rest, MAX(price) - MIN(price) AS spread FROM bid GROUP BY MOD(auction, 10)"
    )
    assert found["q.bid"]["select"]["rest"] == "mod(auction, 10)"
    assert found["q"]["key"] == ["rest"]
    assert found["q"]["select"] == {"rest": "rest", "spread": "aggregate_1 - aggregate_2"}


@pytest.mark.parametrize(
    ("function", "window"),
    [
        ("TUMBLE(TABLE bid, DESCRIPTOR(ts), INTERVAL '1' MINUTE)", {"tumble": "1m"}),
        (
            "TUMBLE(TABLE bid, DESCRIPTOR(ts), INTERVAL '1' HOUR, INTERVAL '5' MINUTES)",
            {"tumble": "1h", "offset": "5m"},
        ),
        (
            "HOP(TABLE bid, DESCRIPTOR(ts), INTERVAL '2' SECOND, INTERVAL '10' SECOND)",
            {"hop": {"size": "10s", "every": "2s"}},
        ),
        (
            "CUMULATE(TABLE bid, DESCRIPTOR(ts), INTERVAL '1' HOUR, INTERVAL '1' DAY)",
            {"cumulate": {"size": "1d", "every": "1h"}},
        ),
        ("SESSION(TABLE bid PARTITION BY auction, DESCRIPTOR(ts), INTERVAL '0.5' SECOND)", {"session": "500ms"}),
    ],
)
def test_window_functions(function: str, window: object) -> None:
    query = f"SELECT auction, COUNT(*) AS n FROM TABLE({function}) GROUP BY auction, window_start, window_end"
    assert only_step(query)["window"] == window


def test_windows_chain() -> None:
    query = f"""
        SELECT window_end, MAX(n) AS most FROM (
            SELECT auction, COUNT(*) AS n, window_start, window_end
            FROM {_TUMBLE} GROUP BY auction, window_start, window_end
        ) AS counts GROUP BY window_start, window_end"""
    found = steps(query)
    assert list(found) == ["q.counts", "q"]
    assert found["q"]["window"] == "input"


def test_rows_of_windows_that_are_not_grouped_by_them() -> None:
    found = only_step(f"SELECT auction, window_start, window_time FROM {_TUMBLE} WHERE price > 5")
    assert found == {
        "input": "bid",
        "where": "price > 5",
        "window": {"tumble": "10s"},
        "select": {
            "auction": "auction",
            "window_start": "window_start",
            "window_time": "window_end - INTERVAL '1' MILLISECOND",
        },
    }


def test_distinct_is_deduplication_or_a_group_where_rows_are_taken_back() -> None:
    assert only_step("SELECT DISTINCT auction FROM bid")["deduplicate"] == {"key": ["auction"], "keep": "first"}
    assert only_step("SELECT DISTINCT id FROM totals")["aggregate"] == {"rows_in_group": "count(*)"}


def test_a_union_takes_the_names_of_its_first_query() -> None:
    found = steps(
        "SELECT auction AS item FROM bid UNION ALL SELECT id FROM auction UNION ALL SELECT seller FROM auction"
    )
    assert found["q.2"] == {"input": "auction", "select": {"item": "id"}}
    assert found["q"]["input"] == ["q.1", "q.2", "q.3"]


def test_a_common_table_expression_may_be_read_twice() -> None:
    query = """
        WITH totals_of AS (SELECT auction, SUM(price) AS total FROM bid GROUP BY auction)
        SELECT a.auction FROM totals_of AS a JOIN totals_of AS b ON a.total = b.auction"""
    found = steps(query)
    assert list(found) == ["q.a", "q"]
    assert (found["q"]["join"]["left"], found["q"]["join"]["right"]) == ("q.a", "q.a")


def test_names_of_inner_steps_do_not_change_with_another_part_of_the_query() -> None:
    inner = "SELECT auction, MAX(price) AS best FROM bid GROUP BY auction"
    before = all_steps(f"SELECT b.best FROM ({inner}) AS b JOIN auction AS a ON a.id = b.auction")
    after = all_steps(f"SELECT b.best FROM ({inner}) AS b JOIN auction AS a ON a.id = b.auction WHERE a.category = 3")
    assert before[0].name == "q.b"
    assert before[0].mapping in [step.mapping for step in after if step.name == "q.b"]


def test_every_part_of_a_step_has_its_place_in_the_query() -> None:
    query = "SELECT auction, MAX(price) AS best\nFROM bid\nWHERE channel = 'x'\nGROUP BY auction"
    [step] = all_steps(query)
    assert query[step.places["where",] :].startswith("channel = 'x'")
    assert query[step.places["aggregate", "best"] :].startswith("MAX(price)")
    assert query[step.places["select", "auction"] :].startswith("auction, MAX")
