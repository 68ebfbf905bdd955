"""Nexmark's queries as Flink has them become the steps that one would write by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from operators.types import parse_type
from streamproc.pipeline.sql.rows import Stream
from tests.oracle.pipelines import _TABLES
from tests.unit.pipeline.sql.translated import steps

_QUERIES = Path(__file__).parents[3] / "oracle/queries"
_STREAMS = {
    name: Stream({column: parse_type(dtype).dtype for column, dtype in columns.items()}, "dateTime")
    for name, columns in _TABLES.items()
}


def _translated(name: str, ttl: str | None = "1h") -> dict[str, dict[str, Any]]:
    return steps((_QUERIES / f"{name}.sql").read_text(encoding="utf-8"), ttl=ttl, streams=_STREAMS)


@pytest.mark.parametrize("path", sorted(_QUERIES.glob("*.sql")), ids=lambda path: str(path.stem))
def test_every_query_is_translated(path: Path) -> None:
    translated = _translated(path.stem)

    assert list(translated)[-1] == "q"
    assert all(name == "q" or name.startswith("q.") for name in translated)


def test_q1_multiplies_with_an_exact_decimal() -> None:
    assert _translated("q1")["q"]["select"]["price"] == "CAST('0.908' AS decimal(3,3)) * price"


def test_q4_is_a_regular_join_and_two_totals() -> None:
    translated = _translated("q4")

    assert list(translated) == ["q.q.a_b", "q.q", "q"]
    assert translated["q.q.a_b"]["join"] == {
        "left": "auction",
        "right": "bid",
        "kind": "inner",
        "ttl": "1h",
        "match": "left.id = right.auction and right.dateTime BETWEEN left.dateTime AND left.expires",
    }
    assert translated["q.q"]["aggregate"] == {"final": "max(price)"}
    assert translated["q.q"]["ttl"] == translated["q"]["ttl"] == "1h"


def test_q5_counts_once_what_it_says_twice() -> None:
    translated = _translated("q5")

    assert list(translated) == ["q.auctionbids", "q.maxbids", "q"]
    assert translated["q.auctionbids"] == {
        "input": "bid",
        "key": ["auction"],
        "window": {"hop": {"size": "10s", "every": "2s"}},
        "aggregate": {"num": "count(*)"},
    }
    assert translated["q.maxbids"] == {
        "input": "q.auctionbids",
        "window": "input",
        "aggregate": {"maxn": "max(num)"},
    }
    assert translated["q"]["join"] == {
        "left": "q.auctionbids",
        "right": "q.maxbids",
        "kind": "inner",
        "window": "input",
        "match": "left.window_start = right.window_start and left.window_end = right.window_end "
        "and left.num >= right.maxn",
    }


def test_q7_is_an_interval_join_with_the_time_of_a_windows_result() -> None:
    join = _translated("q7")["q"]["join"]

    assert join == {
        "left": "bid",
        "right": "q.b1",
        "kind": "inner",
        "within": ["0s", "9999ms"],  # the result is at the last millisecond of its window
        "match": "left.price = right.maxprice",
    }


def test_q7w_and_q8_are_window_joins() -> None:
    bids = _translated("q7w")
    assert bids["q.b"] == {"input": "bid", "window": {"tumble": "10s"}}
    assert (bids["q"]["join"]["window"], bids["q"]["join"]["match"]) == ("input", "left.price = right.maxprice")

    persons = _translated("q8")
    assert persons["q"]["join"]["match"] == "left.id = right.seller"
    assert persons["q.p"]["key"] == ["id", "name"]


def test_q11_is_a_session_of_each_bidder() -> None:
    translated = _translated("q11")["q"]
    assert (translated["key"], translated["window"]) == (["bidder"], {"session": "10s"})


def test_q9_q18_and_q19_rank() -> None:
    assert _translated("q9")["q"]["top"] == {"n": 1, "by": ["price desc", "dateTime_2 asc"], "key": ["id"], "ttl": "1h"}
    assert _translated("q18")["q"]["deduplicate"] == {"key": ["bidder", "auction"], "keep": "last", "ttl": "1h"}
    assert _translated("q19", ttl=None)["q"]["top"] == {
        "n": 10,
        "by": ["price desc"],
        "key": ["auction"],
        "rank": "rank_number",
    }


def test_q20_filters_before_it_joins() -> None:
    translated = _translated("q20")
    assert translated["q.a"] == {"input": "auction", "where": "category = 10"}
    assert "where" not in translated["q"]
