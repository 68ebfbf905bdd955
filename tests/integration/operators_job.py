"""One pipeline with every stateful operator, from two topics to two, and what must come out, by plain polars.

Orders and payments are functions of their numbers. All rows of an item lie in one partition, in order of their
numbers, so what depends on the order of arrival is known, too. Every result is a row (of, key, value): append-only
ones go to one topic, changelogs to another, by key.
"""

# ruff: noqa: E501 — a pipeline's line is a line

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import polars as pl
from confluent_kafka import Producer

from tests.broker import Broker

PARTITIONS: Final = 3
BASE_MS: Final = 1_767_225_600_000  # 2026-01-01T00:00:00Z
_FAR_MS: Final = 10**10

_CODE = '''
import asyncio
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from streamproc import Context, MapState, ProcessFunction, ValueState

WINDOW = timedelta(seconds=5)


def grade(row: dict[str, Any]) -> dict[str, Any] | None:
    return None if row["amount"] % 7 == 0 else {"graded": row["grade"] * 2}


async def rate(row: dict[str, Any]) -> dict[str, Any]:
    if row["id"] % 97 == 0:
        await asyncio.sleep(0.001)
    return {"rated": row["amount"] + row["graded"]}


class Spans(ProcessFunction):
    """Orders of each five seconds once they are over, and how many there were in all by then."""

    orders = MapState("timestamp", "int64", ttl="1h")
    reported = ValueState("int64", default=0, ttl="forever")

    def process(self, row: dict[str, Any], ctx: Context) -> None:
        start = datetime.fromtimestamp(int(row["at"].timestamp()) // 5 * 5, tz=row["at"].tzinfo)
        self.orders.set(start, self.orders.get(start, 0) + 1)
        ctx.timer(start + WINDOW)

    def on_timer(self, time: datetime, ctx: Context) -> Iterator[dict[str, Any]]:
        start = time - WINDOW
        orders = self.orders.get(start)
        self.orders.delete(start)
        self.reported.set(self.reported.get() + orders)
        yield {"item": ctx.key, "start": start, "orders": orders, "reported": self.reported.get()}
'''

_PIPELINE = """
version: 1
pipeline: {name}
job:
  parallelism: {parallelism}
  checkpoint: {{every: {every}, storage: "file:{storage}"}}
  restart: {restart}
  batch: {{max_rows: {max_rows}}}
connections:
  main: {{type: kafka, brokers: ["{brokers}"]}}
sources:
  raw-orders:
    type: kafka
    connection: main
    topic: {topics}-orders
    stop: {stop}
    schema: {{id: int64, account: int64, item: int64, grade: int64, amount: int64, at: timestamp_ms}}
    event_time: {{column: at, out_of_order: 2s}}
  raw-payments:
    type: kafka
    connection: main
    topic: {topics}-payments
    stop: {stop}
    schema: {{pid: int64, order_id: int64, account: int64, item: int64, fx: int64, at: timestamp_ms}}
    event_time: {{column: at, out_of_order: 3s}}
steps:
  orders: {{input: raw-orders, where: id >= 0}}
  payments: {{input: raw-payments, where: pid >= 0}}

  paying: {{join: {{left: orders, right: payments, kind: left, match: left.id = right.order_id, within: [-2s, 3s]}}, select: {{id: left.id, account: left.account, pid: right.pid}}}}
  paid: {{input: paying, select: {{of: "'paid'", key: "~id", value: "~pid"}}}}
  # results of the join that come late, by its watermark: none of them may be dropped
  paid-windows: {{input: paying, key: [account], window: {{tumble: 10s}}, aggregate: {{rows: count(*), paid: count(pid)}}, select: {{of: "'paid-windows'", key: "concat(~account, ' ', ~window_start)", value: "concat(~rows, ' ', ~paid)"}}}}
  met: {{join: {{left: orders, right: payments, kind: full, match: left.item = right.item and left.amount > right.fx, window: {{tumble: 2s}}}}, select: {{of: "'met'", key: "~window_start", value: "concat(~left.id, ' ', ~right.pid)"}}}}
  priced: {{join: {{left: orders, right: payments, kind: left, match: left.item = right.item, as_of: true}}, select: {{of: "'priced'", key: "~left.id", value: "~right.pid"}}}}
  sessions: {{input: orders, key: [item], window: {{session: 800ms}}, aggregate: {{rows: count(*), amount: sum(amount)}}, select: {{of: "'sessions'", key: "concat(~item, ' ', ~window_start, ' ', ~window_end)", value: "concat(~rows, ' ', ~amount)"}}}}
  firsts: {{input: orders, deduplicate: {{key: [item, grade], ttl: forever}}, select: {{of: "'firsts'", key: "concat(~item, ' ', ~grade)", value: "~id"}}}}
  best-of-window: {{input: orders, top: {{n: 2, by: [amount desc, id], key: [account], window: {{tumble: 10s}}, rank: place}}, select: {{of: "'best-of-window'", key: "concat(~account, ' ', ~window_start, ' ', ~place)", value: "~id"}}}}
  spans: {{input: orders, process: {{call: "shop.py:Spans", key: [item], columns: {{item: int64, start: timestamp_ms, orders: int64, reported: int64}}}}, select: {{of: "'spans'", key: "concat(~item, ' ', cast(epoch_ms(start) as string))", value: "concat(cast(orders as string), ' ', cast(reported as string))"}}}}
  graded: {{input: orders, python: {{call: "shop.py:grade", mode: row, columns: {{graded: int64}}}}}}
  rated: {{input: graded, python: {{call: "shop.py:rate", mode: async, columns: {{rated: int64}}}}, select: {{of: "'rated'", key: "~id", value: "cast(rated as string)"}}}}

  ledger: {{join: {{left: orders, right: payments, kind: left, match: left.id = right.order_id, ttl: forever}}, select: {{of: "'ledger'", key: "concat(~left.id, ' ', ~right.pid)", value: "~left.grade"}}}}
  newest: {{input: orders, deduplicate: {{key: [item, grade], keep: last, ttl: forever}}}}
  newest-orders: {{input: newest, select: {{of: "'newest'", key: "concat(~item, ' ', ~grade)", value: "~id"}}}}
  best: {{input: orders, top: {{n: 3, by: [amount desc, id], key: [item], rank: place, ttl: 365d}}, select: {{of: "'best'", key: "concat(~item, ' ', ~place)", value: "~id"}}}}
  totals: {{input: payments, key: [item], aggregate: {{payments: count(*), fx: sum(fx), most: max(fx), kinds: count(distinct fx)}}, ttl: forever, emit: on_update}}
  totals-rows: {{input: totals, select: {{of: "'totals'", key: "~item", value: "concat(cast(payments as string), ' ', ~fx, ' ', cast(most as string), ' ', cast(kinds as string))"}}}}
  # changelogs on both sides, and totals over totals
  whole: {{join: {{left: newest, right: totals, kind: left, match: left.item = right.item, ttl: forever}}, select: {{of: "'whole'", key: "concat(~left.item, ' ', ~left.grade)", value: "concat(~left.id, ' ', ~right.fx)"}}}}
  accounts: {{input: newest, key: [account], aggregate: {{rows: count(*), amount: sum(amount), least: min(amount)}}, ttl: forever, emit: on_update, select: {{of: "'accounts'", key: "~account", value: "concat(~rows, ' ', ~amount, ' ', cast(least as string))"}}}}
sinks:
  rows: {{type: kafka, connection: main, topic: {name}-rows, input: [paid, paid-windows, met, priced, sessions, firsts, best-of-window, spans, rated]}}
  state: {{type: kafka, connection: main, topic: {name}-state, input: [ledger, newest-orders, best, totals-rows, whole, accounts], key: [of, key]}}
"""
_TEXT: Final = re.compile(r"~([a-z_.]+)")  # ~x: the column as text, - for null


def _text(found: re.Match[str]) -> str:
    name = found[1]
    return f"coalesce(cast({f'epoch_ms({name})' if name.startswith('window_') else name} as string), '-')"


def orders_until(count: int, first: int = 0) -> pl.DataFrame:
    """The orders from `first` to before `count`: about 5 ms apart, up to 2 s out of order, some items now and then silent."""
    n = pl.int_range(first, count, eager=True).alias("id").to_frame()
    item = (n["id"] * 13 % 199).alias("item")
    return n.with_columns(
        item,
        (item % 17).alias("account"),
        (pl.col("id") * 7 % 5).alias("grade"),
        (pl.col("id") * 7919 % 1000).alias("amount"),
        (BASE_MS + pl.col("id") * 5 - pl.col("id") * 313 % 2000).alias("at"),
    )


def payments_until(count: int, first: int = 0) -> pl.DataFrame:
    """The payments from `first` to before `count`: of orders a little before, of some twice, of some never, some too late for them."""
    n = pl.int_range(first, count, eager=True).alias("pid").to_frame()
    n = n.with_columns((pl.col("pid") - pl.col("pid") * pl.col("pid") % 7).clip(0).alias("order_id"))
    item = (n["order_id"] * 13 % 199).alias("item")
    return n.with_columns(
        item,
        (item % 17).alias("account"),
        (pl.col("pid") * 31 % 500).alias("fx"),
        (BASE_MS + pl.col("pid") * 5 + pl.col("pid") * 211 % 3000).alias("at"),
    )


def expected_rows(count: int) -> Counter[tuple[str, str, str]]:
    """What the append-only results of the first `count` orders and payments are."""
    orders, payments = orders_until(count), payments_until(count)
    paying = _paying(orders, payments)
    found = {
        "paid": paying.select("id", "pid"),
        "paid-windows": paying.group_by("account", start=_start(pl.col("time"), 10_000)).agg(rows=pl.len(), paid=pl.count("pid")),
        "met": _met(orders, payments),
        "priced": orders.sort("at").join_asof(payments.sort("at"), on="at", by="item", check_sortedness=False).select("id", "pid"),
        "sessions": _sessions(orders),
        "firsts": orders.sort("at", maintain_order=True).group_by("item", "grade", maintain_order=True).first().select("item", "grade", "id"),
        "best-of-window": _best(orders.with_columns(start=_start(pl.col("at"), 10_000)), ["account", "start"], 2),
        "spans": orders.group_by("item", start=_start(pl.col("at"), 5_000)).agg(orders=pl.len()).sort("start")
        .with_columns(reported=pl.col("orders").cum_sum().over("item")),
        "rated": orders.filter(pl.col("amount") % 7 != 0).select("id", pl.col("amount") + pl.col("grade") * 2),
    }  # fmt: skip
    return Counter(row for of, frame in found.items() for row in _texts(of, frame).rows())


def expected_state(count: int) -> dict[tuple[str, str], str]:
    """What the changelogs come to."""
    orders, payments = orders_until(count), payments_until(count)
    newest = orders.sort("at", maintain_order=True).group_by("item", "grade").last()
    totals = payments.group_by("item").agg(n=pl.len(), fx=pl.sum("fx"), most=pl.max("fx"), kinds=pl.n_unique("fx"))
    found = {
        "ledger": orders.join(payments, left_on="id", right_on="order_id", how="left").select("id", "pid", "grade"),
        "newest": newest.select("item", "grade", "id"),
        "best": _best(orders, ["item"], 3),
        "totals": totals,
        "whole": newest.join(totals, on="item", how="left").select("item", "grade", "id", "fx"),
        "accounts": newest.group_by("account").agg(n=pl.len(), amount=pl.sum("amount"), least=pl.min("amount")),
    }
    return {(of, key): value for o, frame in found.items() for of, key, value in _texts(o, frame).rows()}


_KEYS: Final = {
    "paid-windows": 2,
    "sessions": 3,
    "firsts": 2,
    "best-of-window": 3,
    "spans": 2,
    "ledger": 2,
    "newest": 2,
    "best": 2,
    "whole": 2,
}  # fmt: skip  columns of the key, where there are several


def _texts(of: str, frame: pl.DataFrame) -> pl.DataFrame:
    """As (of, key, value): the first columns are the key."""
    texts = [pl.col(name).cast(pl.String).fill_null("-") for name in frame.columns]
    keys = _KEYS.get(of, 1)
    return frame.select(
        pl.lit(of),
        pl.concat_str(texts[:keys], separator=" ").alias("k"),
        pl.concat_str(texts[keys:], separator=" ").alias("v"),
    )


def _start(time: pl.Expr, size_ms: int) -> pl.Expr:
    return time // size_ms * size_ms


def _paying(orders: pl.DataFrame, payments: pl.DataFrame) -> pl.DataFrame:
    """The interval join: pairs at the later of both times, and orders without one."""
    pairs = orders.join(payments, left_on="id", right_on="order_id", suffix="_paid")
    pairs = pairs.filter((pl.col("at_paid") - pl.col("at")).is_between(-2000, 3000))
    pairs = pairs.select("id", "account", "pid", time=pl.max_horizontal("at", "at_paid"))
    alone = orders.join(pairs, on="id", how="anti")
    return pl.concat([pairs, alone.select("id", "account", pid=pl.lit(None, dtype=pl.Int64), time="at")])


def _met(orders: pl.DataFrame, payments: pl.DataFrame) -> pl.DataFrame:
    left = orders.with_columns(start=_start(pl.col("at"), 2_000))
    right = payments.with_columns(start=_start(pl.col("at"), 2_000))
    pairs = left.join(right, on=["item", "start"]).filter(pl.col("amount") > pl.col("fx")).select("start", "id", "pid")
    nobody = pl.lit(None, dtype=pl.Int64)
    alone = left.join(pairs, on="id", how="anti").select("start", "id", pid=nobody)
    unmet = right.join(pairs, on="pid", how="anti").select("start", id=nobody, pid="pid")
    return pl.concat([pairs, alone, unmet])


def _sessions(orders: pl.DataFrame) -> pl.DataFrame:
    ordered = orders.sort("item", "at")
    begins = (pl.col("at") - pl.col("at").shift(1)).over("item").fill_null(_FAR_MS) > 800
    sessions = ordered.with_columns(session=begins.cum_sum()).group_by("item", "session")
    found = sessions.agg(start=pl.min("at"), end=pl.max("at") + 800, rows=pl.len(), amount=pl.sum("amount"))
    return found.select("item", "start", "end", "rows", "amount")


def _best(orders: pl.DataFrame, key: list[str], n: int) -> pl.DataFrame:
    place = pl.int_range(1, pl.len() + 1).over(key)
    ranked = orders.sort(["amount", "id"], descending=[True, False]).with_columns(place=place)
    return ranked.filter(pl.col("place") <= n).select(*key, "place", "id")


class Operators:
    """Topics, the pipeline file, a producer; what came out is read when it is asked for."""

    def __init__(self, kafka: Broker, directory: Path, name: str, topics: str | None = None) -> None:
        """`topics`: the name of another one whose input this reads, too."""
        self._kafka = kafka
        self._directory = directory
        self.name, self._topics = name, topics or name
        self.file = directory / f"{name}.yaml"
        self.count = 0
        (directory / "shop.py").write_text(_CODE)
        if topics is None:
            for topic in ("orders", "payments"):
                kafka.create_topic(f"{name}-{topic}", PARTITIONS)
        for topic in ("rows", "state"):
            kafka.create_topic(f"{name}-{topic}", PARTITIONS)
        self._producer = Producer(
            {
                "bootstrap.servers": kafka.bootstrap,
                "enable.idempotence": True,
                "linger.ms": 5,
                "queue.buffering.max.messages": 1_000_000,
                "reconnect.backoff.max.ms": 1_000,
                "message.timeout.ms": 900_000,
                "log_level": 0,
            }
        )

    def write(
        self,
        parallelism: int,
        *,
        max_rows: int = 16_384,
        stop: str = "never",
        every: str = "500ms",
        restart: str = "{strategy: none}",
    ) -> None:
        """The pipeline file."""
        text = _PIPELINE.format(
            name=self.name, topics=self._topics, parallelism=parallelism, brokers=self._kafka.bootstrap,
            storage=self._directory / f"checkpoints-{self.name}",
            max_rows=max_rows, stop=stop, every=every, restart=restart,
        )  # fmt: skip
        self.file.write_text(_TEXT.sub(_text, text))

    def produce(self, count: int) -> None:
        """The next orders and as many payments; does not wait for the broker."""
        for topic, rows in (("orders", orders_until), ("payments", payments_until)):
            for row in rows(self.count + count, self.count).iter_rows(named=True):
                self._send(topic, row["account"] % PARTITIONS, row)
        self.count += count
        self._producer.poll(0)

    def close_windows(self) -> None:
        """A far later row in each partition, which `where` drops, moves watermarks past all windows."""
        far = {"id": -1, "pid": -1, "at": BASE_MS + _FAR_MS}
        for topic in ("orders", "payments"):
            for partition in range(PARTITIONS):
                self._send(topic, partition, far)
        assert self._producer.flush(120) == 0

    def rows(self) -> Counter[tuple[str, str, str]]:
        """The append-only results there are."""
        rows = map(json.loads, self._kafka.values(f"{self.name}-rows"))
        return Counter((row["of"], row["key"], row["value"]) for row in rows)

    def written(self) -> int:
        """How many append-only results a reader has been able to see so far."""
        return len(self._kafka.values(f"{self.name}-rows"))

    def state(self) -> dict[tuple[str, str], str]:
        """What whoever keeps the newest record of each key has. Only what was written is deleted."""
        found: dict[tuple[str, str], str] = {}
        for message in self._kafka.read(f"{self.name}-state"):
            key, value = message.key(), message.value()
            assert isinstance(key, bytes)
            parsed = json.loads(key)
            at = parsed["of"], parsed["key"]
            if value is None:
                assert found.pop(at, None) is not None, f"a tombstone for {at}, which is not there"
            else:
                found[at] = json.loads(value)["value"]
        return found

    def check(self) -> None:
        """All that came out is exactly what should have, once."""
        self.compare(self.rows(), expected_rows(self.count))
        state, expected = self.state(), expected_state(self.count)
        self.compare(
            Counter((*at, value) for at, value in state.items()),
            Counter((*at, value) for at, value in expected.items()),
        )

    @staticmethod
    def compare(found: Counter[tuple[str, str, str]], expected: Counter[tuple[str, str, str]]) -> None:
        """Tells what is missing and what is too much, a few of each."""
        missing, surplus = expected - found, found - expected
        assert not missing, f"missing: {_told(missing)}; too much: {_told(surplus)}"
        assert not surplus, f"too much: {_told(surplus)}"

    def _send(self, topic: str, partition: int, row: dict[str, Any]) -> None:
        value = json.dumps(row).encode()
        while True:
            try:
                return self._producer.produce(f"{self._topics}-{topic}", value, partition=partition)
            except BufferError:
                self._producer.poll(0.1)


def _told(rows: Counter[tuple[str, str, str]]) -> str:
    per = Counter(of for of, _, _ in rows.elements())
    few: Iterator[tuple[str, str, str]] = (next(row for row in rows if row[0] == of) for of in per)
    return f"{dict(per)}, such as {list(few)}"
