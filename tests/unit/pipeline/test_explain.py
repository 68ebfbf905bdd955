"""The plan as people read it, and the JSON Schema editors read."""
# ruff: noqa: E501 — a message stands on one line, as a user reads it

from __future__ import annotations

import json
import re

from inline_snapshot import snapshot

from streamproc.pipeline.explain import explain, explain_json
from streamproc.pipeline.json_schema import json_schema
from streamproc.pipeline.spec import duration_text, parse_duration
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


def test_the_json_schema_knows_every_section() -> None:
    schema = json_schema()
    assert schema["required"] == ["version", "pipeline", "sources", "sinks"]
    assert schema["additionalProperties"] is False
    definitions = schema["$defs"]
    assert definitions["CheckpointSpec"]["properties"]["every"]["default"] == "10s"
    assert definitions["KafkaSourceSpec"]["properties"]["schema"]["additionalProperties"] == {
        "$ref": "#/$defs/FieldType"
    }
    references = re.findall(r'"\$ref": "#/\$defs/(\w+)"', json.dumps(schema))
    assert set(references) <= set(definitions)


def test_the_json_schemas_durations_are_the_loaders() -> None:
    pattern = json_schema()["$defs"]["CheckpointSpec"]["properties"]["every"]["pattern"]
    for text in ("500ms", "10s", "1m", "2h", "1d"):
        assert re.fullmatch(pattern, text)
        assert duration_text(parse_duration(text)) == text
    for text in ("0s", "10", "1 m", "-1s", "1w"):
        assert not re.fullmatch(pattern, text)
    assert [duration_text(ms) for ms in (0, 90_000, 1_001)] == ["0s", "90s", "1001ms"]
