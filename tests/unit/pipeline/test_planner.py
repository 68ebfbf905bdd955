"""What a right file means: columns, operators in order, exchanges, what is inherited and resolved."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from operators.connector import ERRORS_SCHEMA
from operators.join.interval import IntervalJoinSpec
from operators.slices import Window
from operators.stateless import FilterSpec, ProjectSpec
from operators.window import WindowAggregateSpec
from streamproc.pipeline.faults import InvalidPipeline
from streamproc.pipeline.logical import EventTime, LogicalStep, StreamRef
from streamproc.pipeline.planner import check_pipeline, load_pipeline
from tests.unit.pipeline.files import HEAD, ORDERS, OUT, faults, graph_of, of_steps

TIMESTAMP = pl.Datetime("ms", "UTC")

# The first example of the contract, word for word.
CONTRACT = """\
version: 1
pipeline: revenue-by-country            # [a-z][a-z0-9-]{0,62}

job:                                    # all optional; these are the defaults unless noted
  parallelism: 1                        # subtasks of every step that does not say otherwise
  max_parallelism: 128                  # key groups; fixed for the life of the state
  checkpoint: {every: 10s, timeout: 10m, keep: 3, tolerate_failures: 3, storage: file:.streamproc/checkpoints}
  restart: {strategy: backoff, initial: 1s, max: 1m, reset_after: 10m}  # or fixed, or none
  batch: {max_rows: 16384, max_delay: 50ms}
  errors: fail                          # fail | skip | dlq; a source or step may override

connections:
  main:
    type: kafka
    brokers: ["${env:BROKERS}"]
    security:
      sasl: {mechanism: SCRAM-SHA-512, username: svc, password: "${file:kafka}"}
      tls: {ca: /etc/ca.pem}

sources:
  orders:
    type: kafka
    connection: main                    # or brokers: [...] inline
    topic: orders
    start: earliest
    stop: never
    format: json
    schema: {id: int64, country: string, amount: float64, created_at: timestamp_ms}
    event_time: {column: created_at, out_of_order: 10s, idle_after: 1m}
    metadata: {kafka_offset: offset}    # column: key | partition | offset | timestamp | topic | headers
  payments: {type: kafka, connection: main, topic: payments, format: json, schema: {order_id: int64,
    paid_at: timestamp_ms, fx: float64}, event_time: {column: paid_at, out_of_order: 30s}}

steps:
  paid:
    join: {left: orders, right: payments, kind: inner, match: left.id = right.order_id, within: [-5m, 1h]}
    select: {id: left.id, country: left.country, eur: left.amount * right.fx}
  revenue:
    input: paid
    where: eur > 0
    key: [country]
    window: {tumble: 1m}
    aggregate: {orders: count(*), eur: sum(eur)}
    emit: on_close
    late: {accept_for: 5m, then: side_output}     # then: drop | side_output; both are counted
    parallelism: 4

sinks:
  out:  {type: kafka, connection: main, input: revenue, topic: revenue, key: [country], format: json,
    delivery: exactly_once}
  late: {type: kafka, connection: main, input: revenue.late, topic: revenue-late}
  dead: {type: kafka, connection: main, input: "*.errors", topic: revenue-dlq}
"""


def operators_of(step: LogicalStep) -> tuple[list[str], list[str]]:
    return [spec.describe() for spec in step.inputs[0].before], [spec.describe() for spec in step.operators]


def test_the_contracts_example(tmp_path: Path) -> None:
    (tmp_path / "kafka").write_text("secret")
    (tmp_path / "revenue.yaml").write_text(CONTRACT)
    graph, found = check_pipeline(tmp_path / "revenue.yaml", environment={"BROKERS": "one:9092,two:9092"})
    assert graph is not None, found
    assert [str(fault).rpartition("/")[2] for fault in found] == [
        "revenue.yaml:52:3: warning: sinks.dead: nothing has `errors: dlq`, so this sink gets no rows and is not run",
    ]
    assert list(graph.sources) == ["orders", "payments"]
    orders, paid, revenue = graph.sources["orders"], graph.steps["paid"], graph.steps["revenue"]
    assert orders.connection is not None
    assert orders.connection.brokers == ["one:9092", "two:9092"]
    assert orders.schema == {
        "id": pl.Int64(),
        "country": pl.String(),
        "amount": pl.Float64(),
        "created_at": TIMESTAMP,
        "kafka_offset": pl.Int64(),
    }
    assert list(orders.fields) == ["id", "country", "amount", "created_at"]
    assert orders.event_time == EventTime("created_at", 10_000, 60_000)
    assert not orders.bounded
    left, right = paid.inputs
    assert (left.streams, left.key) == ((StreamRef("orders"),), ("left.id",))
    assert (right.streams, right.key) == ((StreamRef("payments"),), ("right.order_id",))
    assert list(left.before[-1].schema) == ["left.id", "left.country", "left.amount"]  # what is read later
    assert list(right.before[-1].schema) == ["right.order_id", "right.fx"]
    join, _ = paid.operators
    assert isinstance(join, IntervalJoinSpec)
    assert (join.shape.kind, join.lower_ms, join.upper_ms) == ("inner", -300_000, 3_600_000)
    assert paid.schema == {"id": pl.Int64(), "country": pl.String(), "eur": pl.Float64()}
    assert paid.changelog is None
    assert revenue.streams == (StreamRef("paid"),)
    assert revenue.inputs[0].key == ("country",)
    assert revenue.parallelism == 4
    assert list(revenue.schema) == ["country", "window_start", "window_end", "orders", "eur"]
    # Late rows leave with every column of the input, so nothing is narrowed away before the exchange.
    assert operators_of(revenue)[0] == ["where eur > 0"]
    assert list(graph.sinks["late"].schema) == ["id", "country", "eur"]
    assert list(graph.sinks) == ["out", "late"]
    assert set(graph.secrets) == {"secret", "one:9092,two:9092"}


def test_a_step_runs_in_sqls_order() -> None:
    graph = graph_of(
        of_steps("""
        result:
          add: {share: total / n}
          select: {country: country, total: total, n: n}
          having: n > 1
          aggregate: {n: count(*), total: sum(amount)}
          window: {hop: {size: 1h, every: 10m}, offset: 5m}
          key: [country]
          where: id > 0 and amount is not null
          input: orders
    """)
    )
    step = graph.steps["result"]
    assert operators_of(step)[0] == ["where id > 0 and amount is not null", "select country, amount"]
    kinds = [type(spec) for spec in step.operators]
    assert kinds == [WindowAggregateSpec, FilterSpec, ProjectSpec, ProjectSpec]
    aggregate = step.operators[0]
    assert isinstance(aggregate, WindowAggregateSpec)
    assert aggregate.window == Window(3_600_000, 600_000, 300_000)
    assert aggregate.input_schema == {"country": pl.String(), "amount": pl.Float64()}
    assert list(step.schema) == ["country", "total", "n", "share"]
    assert graph.sinks["out"].schema == step.schema


def test_add_keeps_places_and_may_replace() -> None:
    graph = graph_of(of_steps("result: {input: orders, add: {country: upper(country), twice: amount * 2.0, one: 1}}"))
    schema = graph.steps["result"].schema
    assert list(schema) == ["id", "country", "amount", "tags", "at", "twice", "one"]
    assert graph.steps["result"].inputs[0].key is None
    assert graph.steps["result"].inputs[0].before == ()


def test_a_count_of_everything_sends_no_columns() -> None:
    graph = graph_of(
        of_steps("result: {input: orders, window: {tumble: 1s}, aggregate: {n: count(*)}, parallelism: 1}")
    )
    step = graph.steps["result"]
    assert step.inputs[0].key == ()
    assert step.parallelism == 1
    assert list(step.schema) == ["window_start", "window_end", "n"]
    assert step.inputs[0].before[-1].schema == {}


def test_unions_take_the_first_inputs_order() -> None:
    text = (
        HEAD
        + """\
sources:
  a: {type: file, path: a, schema: {id: int64, name: string}}
  b: {type: file, path: b, schema: {name: string, id: int64}}
steps:
  result: {input: [a, b], where: id > 0}
  same: {input: [a, result], where: id > 0}
sinks:
  out: {type: print, input: [b, same]}
"""
    )
    graph = graph_of(text)
    assert operators_of(graph.steps["result"])[1] == ["select id, name", "where id > 0"]
    assert operators_of(graph.steps["same"])[1] == ["where id > 0"]
    assert list(graph.sinks["out"].schema) == ["name", "id"]


def test_policies_and_parallelism_are_inherited() -> None:
    text = (
        HEAD
        + "job: {errors: dlq, parallelism: 3}\n"
        + ORDERS
        + """\
steps:
  result: {input: orders, where: id > 0, errors: skip, was: former}
  more: {input: result, add: {x: id}, parallelism: 2}
sinks:
  out: {type: print, input: more, parallelism: 1}
  dead: {type: kafka, brokers: ["k:9092"], topic: dead, input: "*.errors"}
"""
    )
    graph = graph_of(text)
    result, more = graph.steps["result"], graph.steps["more"]
    assert (result.errors, more.errors, graph.sources["orders"].errors) == ("skip", "dlq", "dlq")
    assert isinstance(result.operators[0], FilterSpec)
    assert result.operators[0].errors == "skip"
    assert (result.parallelism, more.parallelism, graph.sinks["out"].parallelism) == (3, 2, 1)
    assert result.was == "former"
    dead = graph.sinks["dead"]
    assert dead.carries_errors
    assert dead.schema == ERRORS_SCHEMA
    assert dead.streams == (StreamRef("orders", "errors"), StreamRef("more", "errors"))


def test_metadata_types_and_bounds() -> None:
    text = (
        HEAD
        + """\
sources:
  a:
    type: kafka
    brokers: ["k:9092"]
    topic: t
    stop: latest
    start: {timestamp: 2026-01-01T00:00:00+01:00}
    schema: {id: int64, who: {name: string, tags: "list[string]"}, price: "decimal(10,2)"}
    metadata: {k: key, p: partition, o: offset, t: timestamp, name: topic, h: headers}
    event_time: {column: t}
  b: {type: file, path: b, follow: true, schema: {id: int64}}
  c: {type: file, path: c.parquet, format: parquet, schema: {id: int64}}
  d: {type: datagen, table: bid, rows: 10}
  e: {type: datagen, table: bid}
  f: {type: datagen, rows: 5, columns: {id: {sequence: {}}, at: {time: {step: 10ms}}}, event_time: {column: at}}
sinks:
  out: {type: blackhole, input: a}
  ids: {type: blackhole, input: [b, c]}
  bids: {type: blackhole, input: [d, e]}
  made: {type: blackhole, input: f}
"""
    )
    graph = graph_of(text)
    assert graph.sources["a"].schema == {
        "id": pl.Int64(),
        "who": pl.Struct({"name": pl.String(), "tags": pl.List(pl.String())}),
        "price": pl.Decimal(10, 2),
        "k": pl.Binary(),
        "p": pl.Int32(),
        "o": pl.Int64(),
        "t": TIMESTAMP,
        "name": pl.String(),
        "h": pl.List(pl.Struct({"key": pl.String(), "value": pl.Binary()})),
    }
    assert {name: source.bounded for name, source in graph.sources.items()} == {
        "a": True,
        "b": False,
        "c": True,
        "d": True,
        "e": False,
        "f": True,
    }
    assert graph.sources["f"].schema == {"id": pl.Int64(), "at": TIMESTAMP}
    assert {"auction", "bidder", "price", "dateTime"} <= set(graph.sources["d"].schema)


def test_windows_chain() -> None:
    graph = graph_of(
        of_steps("""
        minutes: {input: orders, key: [country], window: {tumble: 1m}, aggregate: {n: count(*)}}
        result: {input: minutes, key: [country], window: {tumble: 1h}, aggregate: {n: sum(n)}, having: n > 1}
    """)
    )
    assert list(graph.steps["result"].schema) == ["country", "window_start", "window_end", "n"]


def test_numbers_and_truths_are_expressions() -> None:
    graph = graph_of(of_steps("result: {input: orders, where: true, add: {one: 1, half: 0.5, yes: true}}"))
    assert graph.steps["result"].schema["yes"] == pl.Boolean()


def test_order_in_the_file_means_nothing() -> None:
    swapped = HEAD + OUT + "steps:\n  result: {input: first}\n  first: {input: orders}\n" + ORDERS
    straight = HEAD + ORDERS + "steps:\n  first: {input: orders}\n  result: {input: first}\n" + OUT
    assert graph_of(swapped) == graph_of(straight)


def test_loading_raises_with_every_fault(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(HEAD + ORDERS + "steps:\n  result: {input: ordes, wher: x}\n" + OUT)
    with pytest.raises(InvalidPipeline) as raised:
        load_pipeline(path)
    assert raised.value.acts == "user"
    assert not raised.value.retry_helps
    assert [fault.path for fault in raised.value.faults] == ["steps.result.input", "steps.result.wher"]
    assert str(raised.value).count("\n") == 1
    assert raised.value.faults[0].as_json() == {
        "file": str(path),
        "line": 10,
        "column": 19,
        "path": "steps.result.input",
        "message": "unknown input 'ordes'",
        "hint": "did you mean 'orders'?",
        "severity": "error",
    }
    with pytest.raises(InvalidPipeline, match="cannot be read"):
        load_pipeline(tmp_path / "absent.yaml")


def test_a_good_file_loads(tmp_path: Path) -> None:
    path = tmp_path / "good.yaml"
    path.write_text(HEAD + ORDERS + "steps:\n  result: {input: orders}\n" + OUT)
    assert load_pipeline(path).pipeline == "shop"
    assert faults(path.read_text()) == []
