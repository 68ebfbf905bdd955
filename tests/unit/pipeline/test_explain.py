"""The plan as people read it."""
# ruff: noqa: E501 — a message stands on one line, as a user reads it

from __future__ import annotations

import json
import re
from pathlib import Path

from inline_snapshot import snapshot

from streamproc.pipeline.explain import explain, explain_json
from tests.unit.pipeline.every_verb import EVERY_VERB, with_code
from tests.unit.pipeline.files import HEAD, graph_of

SHOP = (
    HEAD
    + """\
job: {parallelism: 2, checkpoint: {every: 500ms}}
sources:
  orders:
    type: kafka
    brokers: ["kafka:9092"]
    topic: orders
    stop: latest
    errors: dlq
    schema: {id: int64, country: string, amount: float64, at: timestamp_ms}
    event_time: {column: at, out_of_order: 10s, idle_after: 1m}
steps:
  big: {input: orders, where: amount > 100}
  revenue:
    input: big
    key: [country]
    window: {hop: {size: 10m, every: 1m}}
    aggregate: {orders: count(*), eur: sum(amount)}
    late: {accept_for: 5m, then: side_output}
    having: eur > 0
  total: {input: big, window: {tumble: 1d}, aggregate: {eur: sum(amount)}}
sinks:
  out: {type: kafka, brokers: ["kafka:9092"], topic: revenue, input: revenue, key: [country]}
  all: {type: file, path: out/total, format: csv, input: total, parallelism: 1}
  late: {type: print, input: revenue.late}
  dead: {type: kafka, brokers: ["kafka:9092"], topic: dead, input: "*.errors"}
"""
)


def test_the_plan_as_text() -> None:
    assert explain(graph_of(SHOP)) == snapshot("""\
pipeline shop
  checkpoints    every 500ms to file:.streamproc/checkpoints, the newest 3 are kept
  restart        after a failure, in 1s at first, then ever later, up to 1m
  key groups     128
  subtasks       9

what runs (→ inside a subtask, ⇒ between subtasks)
  orders → big   ×2   orders.errors ⇒ dead, forward
                      big           ⇒ revenue, hash by country
                      big           ⇒ total, all rows to one subtask
  revenue → out  ×2   revenue.late  ⇒ late, forward
  total → all    ×1
  late           ×2
  dead           ×2

source orders: Kafka topic orders from earliest, to what is there at the start
  format         json
  columns        id int64, country string, amount float64, at timestamp
  event time     at; the watermark is max(at) − 10s of each partition, the least counts; a partition silent for
                   1m does not count
  ends           yes, it is bounded
  bad records    go to its errors stream
  parallelism    2

step big
  reads          orders
  does           where amount > 100
  state          none
  columns        id int64, country string, amount float64, at timestamp
  bad records    fail the job
  parallelism    2

step revenue
  reads          big
  exchange       hash by country
  does           window hop 10m every 1m by country
                   orders = count(*)
                   eur = sum(amount)
                 having eur > 0
  late rows      accepted for 5m, then sent to revenue.late, counted
  state          partial aggregates per key and slice of 1m (10 to a window), kept 5m longer for late rows
  columns        country string, window_start timestamp, window_end timestamp, orders int64, eur float64
  bad records    fail the job
  parallelism    2

step total
  reads          big
  before         keep amount
  exchange       all rows to one subtask
  does           window tumble 1d
                   eur = sum(amount)
  late rows      dropped, counted
  state          partial aggregates per window
  columns        window_start timestamp, window_end timestamp, eur float64
  bad records    fail the job
  parallelism    1

sink out: Kafka topic revenue
  reads          revenue
  format         json
  key            country
  delivery       exactly once
  parallelism    2

sink all: files out/total
  reads          total
  format         csv
  delivery       exactly once: a finished file appears when its checkpoint completes
  parallelism    1

sink late: the terminal
  reads          revenue.late
  format         json
  delivery       at least once
  parallelism    2

sink dead: Kafka topic dead
  reads          orders.errors
  format         the original records, unchanged
  delivery       exactly once
  parallelism    2
""")


def test_a_hop_over_a_union() -> None:
    text = (
        HEAD
        + """\
job: {parallelism: 4, restart: {strategy: fixed}}
sources:
  eu: {type: kafka, brokers: ["k:1"], topic: eu, schema: {id: int64, country: string, amount: "decimal(10,2)", at: timestamp_ms}, event_time: {column: at}}
  us: {type: kafka, brokers: ["k:1"], topic: us, schema: {id: int64, country: string, amount: "decimal(10,2)", at: timestamp_ms}, event_time: {column: at}, parallelism: 2}
steps:
  all: {input: [eu, us], where: amount > 0, add: {big: amount > 100}}
  sums:
    input: all
    where: country is not null
    key: [country, big]
    window: {hop: {size: 10m, every: 4m}}
    aggregate: {n: count(*), p90: "quantile_cont(amount, 0.9)"}
    late: {accept_for: 5m}
    having: n > 5
    select: {country: country, p90: p90, "end": window_end}
sinks:
  out: {type: blackhole, input: sums}
"""
    )
    plan = explain(graph_of(text))
    overview, step = plan.partition("\n\nsource ")[0], plan[plan.index("step all") : plan.index("\nsink out")]
    assert overview == snapshot("""\
pipeline shop
  checkpoints    every 10s to file:.streamproc/checkpoints, the newest 3 are kept
  restart        after a failure, 3 times, 5s apart
  key groups     128
  subtasks       14

what runs (→ inside a subtask, ⇒ between subtasks)
  eu          ×4   eu  ⇒ all, forward
  us          ×2   us  ⇒ all, rebalance
  all         ×4   all ⇒ sums, hash by country, big
  sums → out  ×4\
""")
    assert step == snapshot("""\
step all
  reads          eu, us
  does           where amount > 0
                 add big = amount > 100
  state          none
  columns        id int64, country string, amount decimal(10,2), at timestamp, big boolean
  bad records    fail the job
  parallelism    4

step sums
  reads          all
  before         where country is not null
                 keep country, amount, big
  exchange       hash by country, big
  does           window hop 10m every 4m by country, big
                   n = count(*)
                   p90 = quantile_cont(amount, 0.9)
                 having n > 5
                 select country, p90, end = window_end
  late rows      accepted for 5m, then dropped, counted
  state          partial aggregates per key and slice of 2m (5 to a window), kept 5m longer for late rows
  columns        country string, p90 float64, end timestamp
  bad records    fail the job
  parallelism    4
""")


def test_every_verb(tmp_path: Path) -> None:
    plan = explain(graph_of(EVERY_VERB, folder=with_code(tmp_path))).replace(f"{tmp_path}/", "")
    steps = plan[plan.index("step paid") : plan.index("sink to_paid")]
    steps = re.sub(r"  (bad records|parallelism) .*\n", "", steps)
    assert steps == snapshot("""\
step paid
  left           orders
                 keep id, country, amount
                 hash by left.id
  right          payments
                 keep order_id, fx
                 hash by right.order_id
  does           inner join on left.id = right.order_id and right.fx > 0, right time within [-5m, 1h] of the left
                 select id = left.id, country = left.country, eur = left.amount * right.fx
  late rows      dropped, counted
  state          left rows until 1h after their time, right rows until 5m after theirs, by the watermark
  columns        id int64, country string, eur float64

step together
  left           orders
                 keep id
                 hash by left.id
  right          payments
                 keep order_id, fx
                 hash by right.order_id
  does           left join on left.id = right.order_id, in the same window hop 10m every 1m
                 select id = left.id, fx = right.fx, window_start, window_end
  late rows      dropped, counted
  state          rows of both sides until their last window closes
  columns        id int64, fx float64, window_start timestamp, window_end timestamp

step priced
  left           orders
                 keep id
                 hash by left.id
  right          payments
                 keep order_id, fx
                 hash by right.order_id
  does           inner join on left.id = right.order_id, the right side as of the left time
                 select id = left.id, fx = right.fx
  state          left rows until the watermark has passed them; right rows not yet passed, and the newest passed
                   one of each key for ever
  columns        id int64, fx float64

step open
  left           orders
                 keep id, country, amount, at
                 hash by left.id + 0
  right          payments
                 keep order_id
                 hash by right.order_id
  does           anti join on left.id + 0 = right.order_id, each change
                 select id = left.id, country = left.country, amount = left.amount, at = left.at
  state          rows of both sides, each for 7d of event time
  gives          updates; only the whole row tells which one is meant
  columns        id int64, country string, amount float64, at timestamp

step named
  reads          orders
  does           inner look-up join on left.country = right.code in file
                   countries.csv
                 select id = left.id, name = right.name
  waits          for answers from outside, on a thread of its own
  state          none
  columns        id int64, name string

step once
  reads          orders
  exchange       hash by id
  does           deduplicate by id: the first row
  late rows      dropped, counted
  state          keys, each for 1d of event time after its row, and rows until the watermark has passed them
  columns        id int64, country string, amount float64, at timestamp

step latest
  reads          orders
  exchange       hash by country
  does           deduplicate by country: the last row, each change
  late rows      dropped, counted
  state          the newest row of each country; a key for 30d of event time after its newest row
  gives          updates by country
  columns        id int64, country string, amount float64, at timestamp

step best
  reads          orders
  exchange       hash by country
  does           top 3 by amount * 2 desc, at asc of each country, rank as place, each change
  late rows      dropped, counted
  state          the 3 best rows of each country; a key for 1d of event time after its last row
  gives          updates by country, place
  columns        id int64, country string, amount float64, at timestamp, place int64

step visits
  reads          orders
  before         keep country
  exchange       hash by country
  does           window session 30m by country
                   n = count(*)
  late rows      accepted for 5m, then dropped, counted
  state          partial aggregates per key and session, kept 5m longer for late rows
  columns        country string, window_start timestamp, window_end timestamp, n int64

step growing
  reads          orders
  before         keep no column
  exchange       all rows to one subtask
  does           window cumulate 1h every 1m, each change
                   n = count(*)
  late rows      dropped, counted
  state          partial aggregates per slice of 1m (up to 60 to a window)
  gives          updates by window_start, window_end
  columns        window_start timestamp, window_end timestamp, n int64

step counts
  reads          orders
  before         keep country
  exchange       hash by country
  does           window tumble 1m by country
                   n = count(*)
  late rows      dropped, counted
  state          partial aggregates per key and window
  columns        country string, window_start timestamp, window_end timestamp, n int64

step scored
  reads          orders
  does           python shop.py:score (batch) → risk: float64
  state          none
  columns        id int64, country string, amount float64, at timestamp, risk float64

step asked
  reads          orders
  does           python shop.py:ask (async, 200 in flight) → name: string
  waits          for answers from outside, on a thread of its own
  state          none
  columns        id int64, country string, amount float64, at timestamp, name string

step counted
  reads          orders
  exchange       hash by id
  does           process shop.py:Counter by id
  state          count (a value, for 1h of event time), seen (a map, for ever), timers of each id
  columns        n int64

query queried
  steps          queried

step queried
  reads          orders
  before         where amount > 0
                 keep country
  exchange       hash by country
  does           window tumble 1m by country
                   n = count(*)
                 keep country, window_start, n
  late rows      dropped, counted
  state          partial aggregates per key and window
  columns        country string, window_start timestamp, n int64

query paired
  steps          paired.o, paired

step paired.o
  reads          orders
  does           where amount > 1
  state          none
  columns        id int64, country string, amount float64, at timestamp

step paired
  left           paired.o
                 keep id
                 hash by left.id
  right          payments
                 keep order_id, fx
                 hash by right.order_id
  does           inner join on left.id = right.order_id, right time within [0s, 1h] of the left
                 select id = left.id, fx = right.fx
  late rows      dropped, counted
  state          left rows until 1h after their time, right rows until 0s after theirs, by the watermark
  columns        id int64, fx float64

step totals
  reads          latest
  before         keep country, amount
  exchange       hash by country
  does           aggregate by country, changes every 10s
                   eur = sum(amount)
  state          aggregates of each country; a key for ever
  gives          updates by country
  columns        country string, eur float64

step hottest
  reads          counts
  exchange       all rows to one subtask
  does           top 1 by n desc with ties in window of the input
  late rows      sent to hottest.late, counted
  state          the best row per window
  columns        country string, window_start timestamp, window_end timestamp, n int64

""")
    assert plan[plan.index("sink to_best") : plan.index("sink to_visits")] == snapshot("""\
sink to_best: the terminal
  reads          best
  format         json
  updates        every row begins with what it does: op +I, -U, +U or -D
  delivery       at least once
  parallelism    1

""")
    assert plan[plan.index("sink to_totals") : plan.index("sink to_scored")] == snapshot("""\
sink to_totals: Kafka topic totals
  reads          totals
  format         json
  key            country
  updates        the newest row of each key, a tombstone where there is none any more
  delivery       exactly once
  parallelism    1

""")


def test_what_waits_and_what_is_updated_as_json(tmp_path: Path) -> None:
    steps = {step["name"]: step for step in explain_json(graph_of(EVERY_VERB, folder=with_code(tmp_path)))["steps"]}
    assert [name for name, step in steps.items() if step["waits"]] == ["named", "asked"]
    assert {name: step["updates"]["key"] for name, step in steps.items() if step["updates"]} == {
        "open": None,
        "latest": ["country"],
        "best": ["country", "place"],
        "growing": ["window_start", "window_end"],
        "totals": ["country"],
    }
    assert {name: step["query"] for name, step in steps.items() if step["query"]} == {
        "queried": "queried",
        "paired.o": "paired",
        "paired": "paired",
    }
    assert [each["side"] for each in steps["open"]["inputs"]] == ["left", "right"]
    assert steps["open"]["inputs"][0]["exchange"] == "hash by left.id + 0"
    stateless = {"named", "scored", "asked", "paired.o"}
    assert {name for name, step in steps.items() if step["state"] is None} == stateless


def test_the_plan_as_json() -> None:
    plan = explain_json(graph_of(SHOP))
    assert json.loads(json.dumps(plan)) == plan
    assert [step["name"] for step in plan["steps"]] == ["big", "revenue", "total"]
    assert plan["steps"][1]["exchange"] == "hash by country"
    assert plan["steps"][1]["columns"] == {
        "country": "string",
        "window_start": "timestamp",
        "window_end": "timestamp",
        "orders": "int64",
        "eur": "float64",
    }
