"""A pipeline with every verb, and the code that its steps call."""
# ruff: noqa: E501 — a step stands on one line

from __future__ import annotations

from pathlib import Path

CODE = """\
import polars as pl
from streamproc import ProcessFunction, ValueState, MapState


def score(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.select(risk=pl.lit(0.5))


async def ask(row: dict[str, object]) -> dict[str, object]:
    return {"name": "x"}


class Counter(ProcessFunction):
    count = ValueState("int64", ttl="1h")
    seen = MapState("int64", "int64", ttl="forever")

    def process(self, row, ctx):
        return None
"""
EVERY_VERB = """\
version: 1
pipeline: shop
sources:
  orders:
    type: kafka
    brokers: ["kafka:9092"]
    topic: orders
    schema: {id: int64, country: string, amount: float64, at: timestamp_ms}
    event_time: {column: at, out_of_order: 10s}
  payments:
    type: kafka
    brokers: ["kafka:9092"]
    topic: payments
    schema: {order_id: int64, fx: float64, paid_at: timestamp_ms}
    event_time: {column: paid_at, out_of_order: 30s}
steps:
  paid:
    join: {left: orders, right: payments, match: left.id = right.order_id and right.fx > 0, within: [-5m, 1h]}
    select: {id: left.id, country: left.country, eur: left.amount * right.fx}
  together:
    join: {left: orders, right: payments, kind: left, match: left.id = right.order_id, window: {hop: {size: 10m, every: 1m}}}
    select: [left.id, right.fx, window_start, window_end]
  priced:
    join: {left: orders, right: payments, match: left.id = right.order_id, as_of: true}
    select: [left.id, right.fx]
  open:
    join: {left: orders, right: payments, kind: anti, match: left.id + 0 = right.order_id, ttl: 7d}
  named:
    join: {left: orders, match: left.country = right.code, lookup: {file: countries.csv, format: csv, schema: {code: string, name: string}}}
    select: [left.id, right.name]
  once: {input: orders, deduplicate: {key: [id], ttl: 1d}}
  latest: {input: orders, deduplicate: {key: [country], keep: last, ttl: 30d}}
  best: {input: orders, top: {n: 3, by: [amount * 2 desc, at], key: [country], rank: place, ttl: 1d}}
  visits: {input: orders, key: [country], window: {session: 30m}, aggregate: {n: count(*)}, late: {accept_for: 5m}}
  growing: {input: orders, window: {cumulate: {size: 1h, every: 1m}}, aggregate: {n: count(*)}, emit: on_update}
  counts: {input: orders, key: [country], window: {tumble: 1m}, aggregate: {n: count(*)}}
  hottest: {input: counts, top: {n: 1, by: [n desc], window: input, ties: true}, late: {then: side_output}}
  totals: {input: latest, key: [country], aggregate: {eur: sum(amount)}, emit: {every: 10s}, ttl: forever}
  scored: {input: orders, python: {call: "shop.py:score", columns: {risk: float64}}}
  asked: {input: orders, python: {call: "shop.py:ask", mode: async, columns: {name: string}}}
  counted: {input: orders, process: {call: "shop.py:Counter", key: [id], columns: {n: int64}, outputs: {odd: {id: int64}}}}
  queried:
    sql: |
      select country, window_start, count(*) as n
      from table(tumble(table orders, descriptor(at), interval '1' minute))
      where amount > 0
      group by country, window_start, window_end
  paired:
    sql: |
      select o.id, p.fx from (select id, at from orders where amount > 1) as o
      join payments as p on o.id = p.order_id and p.paid_at between o.at and o.at + interval '1' hour
sinks:
  to_paid: {type: blackhole, input: paid}
  to_together: {type: blackhole, input: together}
  to_priced: {type: blackhole, input: priced}
  to_open: {type: blackhole, input: open}
  to_named: {type: blackhole, input: named}
  to_once: {type: blackhole, input: once}
  to_best: {type: print, input: best}
  to_visits: {type: blackhole, input: visits}
  to_growing: {type: blackhole, input: growing}
  to_hottest: {type: blackhole, input: hottest}
  to_totals: {type: kafka, brokers: ["kafka:9092"], topic: totals, input: totals, key: [country]}
  to_scored: {type: blackhole, input: scored}
  to_asked: {type: blackhole, input: asked}
  to_counted: {type: blackhole, input: counted}
  to_queried: {type: blackhole, input: queried}
  to_paired: {type: blackhole, input: paired}
  late: {type: blackhole, input: hottest.late}
  odd: {type: blackhole, input: counted.odd}
"""


def with_code(folder: Path) -> Path:
    """The folder, in which the code now is."""
    (folder / "shop.py").write_text(CODE)
    return folder
