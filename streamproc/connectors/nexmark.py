"""The tables of the Nexmark benchmark: an online auction's persons, auctions and bids.

Of every 50 events one is a person, three are auctions and 46 are bids; 10,000 events happen in a second.
Hot keys, prices, auctions in flight and record sizes follow the generator of Apache Beam; only the texts
differ, which are drawn from seeded pools. Row i of a table is a pure function of (seed, i).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from operators.element import Schema
from streamproc.connectors.counter_random import CounterRandom, Rows

Table = Literal["person", "auction", "bid"]

_EVENTS_PER_EPOCH: Final = 50
_PERSONS, _AUCTIONS, _BIDS = 1, 3, 46
_EVENTS_PER_SECOND: Final = 10_000
_BASE_MS: Final = 1_700_000_000_000
_FIRST_ID: Final = 1000
_FIRST_CATEGORY, _CATEGORIES = 10, 5
_AUCTIONS_IN_FLIGHT: Final = 100
_ACTIVE_PERSONS: Final = 1000
_LEAD: Final = 10  # ids that are referred to before they exist
_HOT_EVERY: Final = 100
_PERSON_BYTES, _AUCTION_BYTES = 200, 500  # of an average record
_COLD_CHANNELS: Final = 10_000
_HOT_CHANNELS: Final = ("Google", "Facebook", "Baidu", "Apple")
_STATES: Final = ("AZ", "CA", "ID", "OR", "WA", "WY")
_CITIES: Final = (
    *("Phoenix", "Los Angeles", "San Francisco", "Boise", "Portland"),
    *("Bend", "Redmond", "Seattle", "Kent", "Cheyenne"),
)
_FIRST_NAMES: Final = ("Peter", "Paul", "Luke", "John", "Saul", "Vicky", "Kate", "Julie", "Sarah", "Deiter", "Walter")
_LAST_NAMES: Final = ("Shultz", "Abrams", "Spencer", "White", "Bartels", "Walton", "Smith", "Jones", "Noris")

_INT, _TEXT, _TIME = pl.Int64(), pl.String(), pl.Datetime("ms", "UTC")
SCHEMAS: Final[dict[Table, Schema]] = {
    "person": {
        "id": _INT,
        "name": _TEXT,
        "emailAddress": _TEXT,
        "creditCard": _TEXT,
        "city": _TEXT,
        "state": _TEXT,
        "dateTime": _TIME,
        "extra": _TEXT,
    },
    "auction": {
        "id": _INT,
        "itemName": _TEXT,
        "description": _TEXT,
        "initialBid": _INT,
        "reserve": _INT,
        "dateTime": _TIME,
        "expires": _TIME,
        "seller": _INT,
        "category": _INT,
        "extra": _TEXT,
    },
    "bid": {
        "auction": _INT,
        "bidder": _INT,
        "price": _INT,
        "channel": _TEXT,
        "url": _TEXT,
        "dateTime": _TIME,
        "extra": _TEXT,
    },
}


def generator(table: Table, seed: int) -> Callable[[Rows], pl.DataFrame]:
    """A function from row numbers to rows of the table."""
    make = {"person": _persons, "auction": _auctions, "bid": _bids}[table]
    return lambda rows: make(CounterRandom(seed, ("person", "auction", "bid").index(table)), _pools(seed), rows)


class _Pools:
    """Texts to draw from."""

    def __init__(self, seed: int) -> None:
        self._random = CounterRandom(seed, 0xA11CE)
        self._streams = iter(range(0, 1 << 20, 2))
        self.bid_extra = self._words(1 << 14, 54, 82)
        self.long = self._words(1 << 10, 700, 701)
        self.item = self._words(1 << 12, 3, 20)
        self.description = self._words(1 << 12, 3, 100)
        self.mail = self._words(1 << 12, 3, 7) + "@" + self._words(1 << 12, 3, 5) + ".com"
        self.name = pl.Series([f"{first} {last}" for first in _FIRST_NAMES for last in _LAST_NAMES])
        self.city, self.state = pl.Series(_CITIES), pl.Series(_STATES)
        channels = len(_HOT_CHANNELS) + _COLD_CHANNELS
        a, b, c = (self._words(channels, 3, 5) for _ in range(3))
        self.channel = pl.Series([*_HOT_CHANNELS, *(f"channel-{i}" for i in range(_COLD_CHANNELS))])
        self.url = "https://www.nexmark.com/" + a + "/" + b + "/" + c + "/item.htm?query=1" + self._channel_ids()

    def _words(self, count: int, shortest: int, longest: int) -> pl.Series:
        """`count` texts of `shortest` to `longest` − 1 letters."""
        stream, rows = next(self._streams), np.arange(count)
        lengths = shortest + self._random.below(stream, rows, longest - shortest)
        return _cut(self._random.letters(stream, rows, longest - 1), lengths)

    def _channel_ids(self) -> pl.Series:
        """A parameter that nine of ten cold channels carry in their URL: the channel's number, bits reversed."""
        numbers = np.arange(_COLD_CHANNELS)
        reversed_bits = [abs(_signed(int(f"{i:032b}"[::-1], 2))) for i in numbers.tolist()]
        carried = (self._random.below(next(self._streams), numbers, 10) > 0).tolist()
        cold = [f"&channel_id={bits}" if has else "" for bits, has in zip(reversed_bits, carried, strict=True)]
        return pl.Series([""] * len(_HOT_CHANNELS) + cold)


_pools = cache(_Pools)


def _persons(random: CounterRandom, pools: _Pools, rows: Rows) -> pl.DataFrame:
    name = _draw(random, 0, rows, pools.name)
    mail = _draw(random, 1, rows, pools.mail)
    city = _draw(random, 2, rows, pools.city)
    state = _draw(random, 3, rows, pools.state)
    digits = [pl.Series(random.below(4 + i, rows, 10_000)).cast(pl.String).str.zfill(4) for i in range(4)]
    card = digits[0] + " " + digits[1] + " " + digits[2] + " " + digits[3]
    used = 8 + 19 + sum(text.str.len_bytes().to_numpy().astype(np.int64) for text in (name, mail, city, state))
    return _frame(
        "person",
        rows + _FIRST_ID,
        name,
        mail,
        card,
        city,
        state,
        _time_of(rows * _EVENTS_PER_EPOCH),
        _extra(random, 8, rows, pools, np.asarray(used), _PERSON_BYTES),
    )


def _auctions(random: CounterRandom, pools: _Pools, rows: Rows) -> pl.DataFrame:
    epoch = rows // _AUCTIONS
    event = epoch * _EVENTS_PER_EPOCH + _PERSONS + rows % _AUCTIONS
    is_hot = random.below(0, rows, 4) > 0
    seller = np.where(is_hot, epoch // _HOT_EVERY * _HOT_EVERY, _some_person(random, 1, rows, epoch))
    initial = _price(random, 2, rows)
    item, description = _draw(random, 3, rows, pools.item), _draw(random, 4, rows, pools.description)
    time = _time_of(event)
    horizon = _time_of(event + _AUCTIONS_IN_FLIGHT * _EVENTS_PER_EPOCH // _AUCTIONS) - time
    used = 48 + (item.str.len_bytes() + description.str.len_bytes()).to_numpy().astype(np.int64)
    return _frame(
        "auction",
        rows + _FIRST_ID,
        item,
        description,
        initial,
        initial + _price(random, 5, rows),
        time,
        time + 1 + random.below(6, rows, np.maximum(horizon * 2, 1)),
        seller + _FIRST_ID,
        _FIRST_CATEGORY + random.below(7, rows, _CATEGORIES),
        _extra(random, 8, rows, pools, used, _AUCTION_BYTES),
    )


def _bids(random: CounterRandom, pools: _Pools, rows: Rows) -> pl.DataFrame:
    epoch = rows // _BIDS
    event = epoch * _EVENTS_PER_EPOCH + _PERSONS + _AUCTIONS + rows % _BIDS
    last = epoch * _AUCTIONS + _AUCTIONS - 1
    first = np.maximum(last - _AUCTIONS_IN_FLIGHT, 0)
    in_flight = first + random.below(0, rows, last - first + 1 + _LEAD)
    auction = np.where(random.below(1, rows, 2) > 0, last // _HOT_EVERY * _HOT_EVERY, in_flight)
    hot_bidder = epoch // _HOT_EVERY * _HOT_EVERY + 1
    bidder = np.where(random.below(2, rows, 4) > 0, hot_bidder, _some_person(random, 3, rows, epoch))
    hot = len(_HOT_CHANNELS)
    channel = np.where(
        random.below(4, rows, 2) > 0, random.below(5, rows, hot), hot + random.below(6, rows, _COLD_CHANNELS)
    )
    return _frame(
        "bid",
        auction + _FIRST_ID,
        bidder + _FIRST_ID,
        _price(random, 7, rows),
        pools.channel.gather(channel),
        pools.url.gather(channel),
        _time_of(event),
        _draw(random, 8, rows, pools.bid_extra),
    )


def _frame(table: Table, *columns: pl.Series | npt.NDArray[np.int64]) -> pl.DataFrame:
    schema = SCHEMAS[table]
    return pl.DataFrame([pl.Series(n, c).cast(schema[n]) for n, c in zip(schema, columns, strict=True)])


def _time_of(event: Rows) -> Rows:
    return _BASE_MS + event * 1000 // _EVENTS_PER_SECOND


def _draw(random: CounterRandom, stream: int, rows: Rows, pool: pl.Series) -> pl.Series:
    return pool.gather(random.below(stream, rows, len(pool)))


def _price(random: CounterRandom, stream: int, rows: Rows) -> Rows:
    return np.rint(np.power(10.0, random.uniform(stream, rows) * 6.0) * 100.0).astype(np.int64)


def _some_person(random: CounterRandom, stream: int, rows: Rows, epoch: Rows) -> Rows:
    """One of the persons active by then, or one soon to come."""
    known = epoch + 1
    active = np.minimum(known, _ACTIVE_PERSONS)
    return known - active + random.below(stream, rows, active + _LEAD)


def _extra(random: CounterRandom, stream: int, rows: Rows, pools: _Pools, used: Rows, average: int) -> pl.Series:
    """Filler, so that a record has `average` bytes, give or take a fifth of the filler."""
    wanted = np.maximum(average - used, 0)
    spread = np.rint(wanted * 0.2).astype(np.int64)
    lengths = wanted - spread + random.below(stream, rows, 2 * spread)
    return _cut(_draw(random, stream + 1, rows, pools.long), lengths)


def _cut(texts: pl.Series, lengths: Rows) -> pl.Series:
    frame = pl.DataFrame({"text": texts, "length": lengths})
    return frame.select(pl.col("text").str.slice(0, pl.col("length"))).to_series()


def _signed(bits: int) -> int:
    return bits - (1 << 32) if bits >> 31 else bits
