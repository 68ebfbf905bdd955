"""What a query cannot say is told with its place and a remedy."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamproc.pipeline.sql.dialect import tables_of
from streamproc.pipeline.sql.fault import SqlFault
from tests.unit.pipeline.sql.translated import fault_of, steps

_SESSION = "TABLE(SESSION(TABLE bid PARTITION BY bidder, DESCRIPTOR(ts), INTERVAL '1' SECOND))"


@pytest.mark.parametrize(
    ("query", "message", "place"),
    [
        ("SELECT auctoin FROM bid", "unknown column 'auctoin'; did you mean 'auction'?", "auctoin"),
        ("SELECT b.x FROM bid AS b", "unknown column 'b.x'", "b.x"),
        ("SELECT c.auction FROM bid AS b", "unknown table 'c'", "c.auction"),
        (
            "SELECT id FROM auction a, person p WHERE a.seller = p.id",
            "column 'id' is ambiguous: a.id and p.id",
            "id FROM",
        ),
        ("SELECT 1 AS x FROM bids", "unknown table 'bids'; did you mean 'bid'?", "bids"),
        ("SELECT price FROM bid GROUP BY auction", "column 'price' must stand inside an aggregate", "price"),
        ("SELECT price FROM bid WHERE COUNT(*) > 1", "an aggregate cannot stand in WHERE", "COUNT(*) >"),
        ("SELECT a.id FROM auction a JOIN bid b ON a.id > b.price", "no equality joins 'b'", "bid b ON"),
        ("SELECT auction FROM bid ORDER BY price", "ORDER BY without LIMIT", "price"),
        ("SELECT auction FROM bid LIMIT 5", "LIMIT without ORDER BY", "5"),
        ("SELECT auction, auction FROM bid", "two columns are called 'auction'", "auction"),
        ("SELECT SUM(price) OVER (ORDER BY ts) AS s FROM bid", "SUM … OVER is not supported", "SUM(price)"),
        (
            "SELECT * FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY auction ORDER BY ts) AS n FROM bid)",
            "write WHERE n <= 10",
            "ROW_NUMBER() OVER",
        ),
        ("SELECT id FROM person WHERE id NOT IN (SELECT seller FROM auction)", "write NOT EXISTS", "id NOT"),
        ("SELECT id FROM person WHERE id = 1 OR EXISTS (SELECT 1 FROM bid)", "a subquery can only be", "id = 1"),
        ("SELECT (SELECT 1 FROM bid) AS x FROM person", "a subquery cannot stand in an expression", "1 FROM"),
        ("SELECT id FROM person INTERSECT SELECT id FROM auction", "INTERSECT is not supported", "id FROM"),
        (f"SELECT COUNT(*) AS n FROM {_SESSION} GROUP BY window_start, window_end", "sessions are partitioned by", ""),
        (f"SELECT price FROM {_SESSION}", "known only once their rows are aggregated", ""),
        (
            "SELECT 1 AS x FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(price), INTERVAL '1' SECOND))",
            "'price' is not the event time",
            "price",
        ),
        (
            "SELECT 1 AS x FROM TABLE(TUMBLE(TABLE totals, DESCRIPTOR(rowtime), INTERVAL '1' SECOND))",
            "a window needs event time",
            "rowtime",
        ),
        (
            "SELECT 1 AS x FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(ts), INTERVAL '1' MONTH))",
            "an interval of a fixed length",
            "",
        ),
        ("SELECT 1 AS x FROM TABLE(SLIDE(TABLE bid, DESCRIPTOR(ts)))", "unknown table function 'SLIDE'", "SLIDE"),
        ("SELECT auction FROM bid GROUP BY CUBE (auction)", "GROUPING SETS, CUBE and ROLLUP", ""),
        ("SELECT auction FROM bid; SELECT 1", "only one query can stand here", "; SELECT 1"),
        ("INSERT INTO x SELECT auction FROM bid", "not a query", ""),
        ("SELECT auction FROM bid WHERE", "something is missing after 'WHERE'", "WHERE"),
        ("SELECT auction, FROM bid JOIN", "something is missing after 'JOIN'", "JOIN"),
        ("SELECT 'abc FROM bid", "a quote or a comment is not closed", ""),
        ("", "the query is empty", ""),
        ("SELECT LISTAGG(channel) AS l FROM bid GROUP BY auction", "the aggregate LISTAGG is not supported", "LISTAGG"),
        ("SELECT x FROM (SELECT auction FROM bid) AS t(x, y)", "2 names for 1 columns", ""),
        ("SELECT * FROM bid JOIN auction USING (price)", "'price' of USING is not in both tables", "price"),
        ("SELECT * FROM auction FULL JOIN person USING (id)", "not for a FULL JOIN", "id"),
        (
            "SELECT COUNT(*) AS n FROM bid GROUP BY SESSION(ts, INTERVAL '1' SECOND), price + 1",
            "the groups of a session are columns",
            "price + 1",
        ),
        (
            "SELECT HOP_START(ts, INTERVAL '1' SECOND) AS s FROM bid GROUP BY TUMBLE(ts, INTERVAL '1' SECOND)",
            "HOP_START of a TUMBLE window",
            "HOP_START",
        ),
        (
            "SELECT COUNT(*) AS n FROM bid b, auction a WHERE a.id = b.auction GROUP BY TUMBLE(b.ts, INTERVAL '1' DAY)",
            "a window in GROUP BY is over one table",
            "TUMBLE",
        ),
        (
            "SELECT id FROM person p WHERE id IN (SELECT seller FROM auction a, bid WHERE a.seller = p.id)",
            "the subquery of IN, where it names a table around it,",
            "",
        ),
    ],
)
def test_faults(query: str, message: str, place: str) -> None:
    said, at = fault_of(query)

    assert message in said
    assert at.startswith(place), at


def test_a_place_is_found_on_a_later_line() -> None:
    said, at = fault_of("SELECT auction,\n  prise\nFROM bid")
    assert at.startswith("prise\n")
    assert said == "unknown column 'prise'; did you mean 'price'?"


def test_tables_are_named_once_and_without_common_table_expressions() -> None:
    query = """WITH x AS (SELECT * FROM bid), y AS (SELECT * FROM x)
        SELECT 1 AS one FROM y JOIN `my-step` AS s ON s.a = y.auction JOIN counts.late AS l ON l.a = y.auction
        WHERE EXISTS (
            SELECT 1 FROM TABLE(TUMBLE(TABLE auction, DESCRIPTOR(ts), INTERVAL '1' SECOND)) AS w WHERE w.id = y.a
        )"""

    found = tables_of(query)

    assert sorted(name for name, _ in found) == ["auction", "bid", "counts.late", "my-step"]
    assert all(query[offset:].lstrip("`").startswith(name.partition(".")[0]) for name, offset in found)


_WORDS = """SELECT * , auction price FROM bid auction AS a WHERE GROUP BY HAVING COUNT(*) AND OR NOT IN EXISTS ( )
    JOIN LEFT ON = > a.id bid.price 1 0.5 'x' UNION ALL DISTINCT ORDER LIMIT OVER ROW_NUMBER() PARTITION INTERVAL TABLE(
    TUMBLE( WITH DESCRIPTOR(ts) CASE WHEN THEN END CAST( window_start window_end"""


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(_WORDS.split()), max_size=25))
def test_any_words_are_translated_or_refused(words: list[str]) -> None:
    query = " ".join(["SELECT", *words])
    offset = 0
    try:
        steps(query)
    except SqlFault as fault:
        offset = fault.offset
    assert 0 <= offset <= len(query)
