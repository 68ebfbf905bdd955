from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from streamproc.connectors.nexmark import SCHEMAS, Table, generator

ROWS = 46_000  # bids of a thousand epochs: 5 s of event time
BASE_MS = 1_700_000_000_000


@pytest.fixture(scope="module")
def bids() -> pl.DataFrame:
    return generator("bid", 1)(np.arange(ROWS))


@pytest.mark.parametrize("table", ["person", "auction", "bid"])
def test_any_row_can_be_drawn_alone(table: Table) -> None:
    generate = generator(table, 5)
    together = generate(np.arange(100))
    assert dict(together.schema) == SCHEMAS[table]
    assert generate(np.array([57])).equals(together.slice(57, 1))
    assert not generator(table, 6)(np.arange(100)).equals(together)


def test_bids_are_46_of_50_events_at_ten_thousand_events_a_second(bids: pl.DataFrame) -> None:
    times = bids["dateTime"].to_physical()
    assert times.is_sorted()
    assert times[0] == BASE_MS
    assert times[ROWS - 1] == BASE_MS + (ROWS // 46 * 50 - 1) // 10
    expected = BASE_MS + (46 // 46 * 50 + 4) // 10  # the first bid of the second epoch is event 54
    assert times[46] == expected


def test_half_the_bids_go_to_the_hot_auction_and_three_quarters_come_from_the_hot_bidder(bids: pl.DataFrame) -> None:
    late = bids.tail(4600)  # all of one hundred epochs: persons 900 to 999, auctions 2700 to 2999
    assert (late["auction"] % 100 == 0).mean() == pytest.approx(0.5, abs=0.03)
    assert (late["bidder"] == 1000 + 901).mean() == pytest.approx(0.75, abs=0.03)
    assert late["auction"].is_between(1000 + 2700 - 100, 1000 + 3010).all()


def test_prices_are_spread_over_six_magnitudes(bids: pl.DataFrame) -> None:
    assert bids["price"].is_between(100, 10**8).all()
    assert bids["price"].log10().mean() == pytest.approx(5.0, abs=0.05)


def test_an_auction_opens_before_it_expires_and_is_sold_by_a_known_person() -> None:
    auctions = generator("auction", 1)(np.arange(3000))
    assert auctions["id"].to_list() == list(range(1000, 4000))
    assert (auctions["expires"] > auctions["dateTime"]).all()
    assert (auctions["reserve"] > auctions["initialBid"]).all()
    assert auctions["category"].is_between(10, 14).all()
    epoch = pl.Series(np.arange(3000) // 3)
    assert (auctions["seller"] - 1000 <= epoch + 10).all()


def test_persons_have_names_cards_and_records_of_two_hundred_bytes() -> None:
    persons = generator("person", 1)(np.arange(2000))
    assert persons["id"].to_list() == list(range(1000, 3000))
    assert persons["creditCard"].str.contains(r"^\d{4} \d{4} \d{4} \d{4}$").all()
    texts = ("name", "emailAddress", "creditCard", "city", "state", "extra")
    assert 8 + sum(persons[text].str.len_bytes().mean() for text in texts) == pytest.approx(200, abs=3)  # type: ignore[misc]
