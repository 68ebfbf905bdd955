"""What a newcomer reads when the shape of a file is wrong."""
# ruff: noqa: E501 — a message stands on one line, as a user reads it

from __future__ import annotations

from inline_snapshot import snapshot

from tests.unit.pipeline.files import HEAD, ORDERS, faults, of_steps


def test_an_empty_mapping_lacks_everything() -> None:
    assert faults("{}") == snapshot(
        [
            "shop.yaml:1:1: 'version' is missing",
            "shop.yaml:1:1: 'pipeline' is missing",
            "shop.yaml:1:1: 'sources' is missing: a pipeline needs at least one source",
            "shop.yaml:1:1: 'sinks' is missing: a pipeline needs at least one sink",
        ]
    )


def test_a_list_is_no_pipeline() -> None:
    assert faults("- version: 1") == snapshot(
        ["shop.yaml:1:1: must be a mapping that begins with `version: 1`, not a list"]
    )


def test_sections_without_entries() -> None:
    assert faults(HEAD + "sources: {}\nsteps:\nsinks: []") == snapshot(
        [
            "shop.yaml:3:1: sources: nothing is written under it: give at least one source",
            "shop.yaml:4:1: steps: nothing is written under it: give at least one step, or leave 'steps' out",
            "shop.yaml:5:1: sinks: nothing is written under it: give at least one sink",
        ]
    )


def test_version_and_name() -> None:
    text = 'version: "1"\npipeline: Shop_1\nowner: me\njbo: {}\n'
    assert faults(text + ORDERS + "sinks:\n  out: {type: print, input: orders}") == snapshot(
        [
            "shop.yaml:1:10: version: must be 1, not the text '1'; write it without quotes",
            "shop.yaml:2:11: pipeline: must be lower-case letters, digits and -, beginning with a letter, at most 63 characters",
            "shop.yaml:3:1: owner: unknown field 'owner'; there are version, pipeline, job, connections, sources, steps, sinks and tests",
            "shop.yaml:4:1: jbo: unknown field 'jbo'; did you mean 'job'?",
        ]
    )


def test_version_of_the_future() -> None:
    assert faults("version: 2\npipeline: shop\n" + ORDERS + "sinks:\n  o: {type: print, input: orders}") == snapshot(
        ["shop.yaml:1:10: version: must be 1, not the number 2"]
    )


def test_unknown_fields_have_near_names() -> None:
    text = of_steps("""
        result:
          input: orders
          wher: amount > 1
          group_by: [country]
          agregate: {n: count(*)}
          windw: {tumble: 1m}
    """)
    assert faults(text) == snapshot(
        [
            "shop.yaml:12:5: steps.result.wher: unknown field 'wher'; did you mean 'where'?",
            "shop.yaml:13:5: steps.result.group_by: unknown field 'group_by'; did you mean 'key'?",
            "shop.yaml:14:5: steps.result.agregate: unknown field 'agregate'; did you mean 'aggregate'?",
            "shop.yaml:15:5: steps.result.windw: unknown field 'windw'; did you mean 'window'?",
        ]
    )


def test_wrong_kinds_of_values() -> None:
    text = (
        HEAD
        + """\
job:
  parallelism: "4"
  checkpoint: {every: 10, keep: three, storage: null}
  batch: [1]
sources:
  orders:
    type: kafka
    topic: 42
    brokers: kafka:9092
    start: begining
    format: {type: csv, delimeter: ";", header: yes}
    schema: {id: int64}
    event_time: {column: at, out_of_order: 5 minutes}
  payments:
    type: file
    path: a.json
    follow: on
    parallelism: 0
    schema: [id]
sinks:
  out: {type: print, input: {orders: payments}, format: jsn}
"""
    )
    assert faults(text) == snapshot(
        [
            "shop.yaml:4:16: job.parallelism: must be a whole number, not the text '4'; write it without quotes",
            "shop.yaml:5:23: job.checkpoint.every: 10 is not a duration: write 500ms, 10s, 1m, 2h or 1d",
            "shop.yaml:5:33: job.checkpoint.keep: must be a whole number, not the text 'three'",
            "shop.yaml:5:40: job.checkpoint.storage: nothing is written here: it must be text",
            "shop.yaml:6:10: job.batch: must be a mapping {max_rows: …, max_delay: …}, not a list",
            'shop.yaml:10:12: sources.orders.topic: must be text, not the number 42; write it in quotes: "42"',
            "shop.yaml:11:14: sources.orders.brokers: must be a list, not the text 'kafka:9092'; a list of one is written [\"kafka:9092\"]",
            "shop.yaml:12:12: sources.orders.start: must be earliest, latest or a mapping {timestamp: …}, not the text 'begining'",
            "shop.yaml:13:25: sources.orders.format.delimeter: unknown field 'delimeter'; did you mean 'delimiter'?",
            "shop.yaml:13:49: sources.orders.format.header: must be true or false, not the text 'yes'; write true",
            "shop.yaml:15:26: sources.orders.event_time.column: unknown column 'at'; there is id",
            "shop.yaml:15:44: sources.orders.event_time.out_of_order: '5 minutes' is not a duration: write 500ms, 10s, 1m, 2h or 1d",
            "shop.yaml:19:13: sources.payments.follow: must be true or false, not the text 'on'; write true",
            "shop.yaml:20:18: sources.payments.parallelism: must be at least 1, not 0",
            "shop.yaml:21:13: sources.payments.schema: must be a mapping, not a list",
            "shop.yaml:23:29: sinks.out.input: must be text or a list, not a mapping",
            "shop.yaml:23:57: sinks.out.format: unknown type 'jsn'; did you mean 'json'?",
        ]
    )


def test_missing_and_unknown_types() -> None:
    text = (
        HEAD
        + """\
sources:
  a: {type: kafa, topic: t}
  b: {path: x.json}
  c: {type: print}
  d:
  e: {type: 5}
sinks:
  out: {type: kafka, input: a}
  pg: {type: postgres, input: b}
  gen: {type: datagen, input: c}
"""
    )
    assert faults(text) == snapshot(
        [
            "shop.yaml:4:13: sources.a.type: unknown type 'kafa'; did you mean 'kafka'?",
            "shop.yaml:5:3: sources.b: 'type' is missing; there are kafka, file and datagen",
            "shop.yaml:6:13: sources.c.type: print cannot be a source; there are kafka, file and datagen",
            "shop.yaml:7:3: sources.d: nothing is written under it; its fields begin further right than its name",
            "shop.yaml:8:13: sources.e.type: must be kafka, file or datagen, not the number 5",
            "shop.yaml:10:3: sinks.out: 'topic' is missing",
            "shop.yaml:10:3: sinks.out: needs 'connection' or 'brokers'",
            "shop.yaml:11:14: sinks.pg.type: the sink postgres is not supported yet; there are kafka, file, print and blackhole",
            "shop.yaml:12:15: sinks.gen.type: datagen cannot be a sink; there are kafka, file, print and blackhole",
        ]
    )


def test_names() -> None:
    text = (
        HEAD
        + ORDERS
        + """\
steps:
  Big Orders: {input: orders}
  orders: {input: orders}
  9: {input: orders}
sinks:
  out: {type: print, input: orders}
"""
    )
    assert faults(text) == snapshot(
        [
            "shop.yaml:10:3: steps.Big Orders: 'Big Orders' cannot be a name: names are lower-case letters, digits, _ and -, beginning with a letter; 'big_orders' would do",
            "shop.yaml:11:3: steps.orders: the name 'orders' is taken by a source: sources, steps and sinks share their names",
            'shop.yaml:12:3: steps: a key must be text, not 9; write it in quotes: "9"',
        ]
    )


def test_union_fields_say_all_that_would_do() -> None:
    text = (
        HEAD
        + ORDERS
        + """\
steps:
  a: {input: orders, key: [country], window: {tumble: 1m}, aggregate: {n: count(*)}, emit: later}
  b: {input: orders, select: 5}
  c: {input: orders, select: [1, id]}
  d: {input: orders, add: {x: , y: [1]}}
  e: {input: orders, window: {hop: 5m}, aggregate: {n: count(*)}}
sinks:
  out: {type: kafka, brokers: ["k:9092"], topic: t, input: [a, b, c, d, e], security: {tls: yes}}
"""
    )
    assert faults(text) == snapshot(
        [
            "shop.yaml:10:92: steps.a.emit: must be on_close, on_update or a mapping {every: …}, not the text 'later'",
            "shop.yaml:11:30: steps.b.select: must be a mapping or a list, not the number 5",
            'shop.yaml:12:31: steps.c.select[0]: must be text, not the number 1; write it in quotes: "1"',
            "shop.yaml:13:28: steps.d.add.x: nothing is written here: it must be text",
            "shop.yaml:13:36: steps.d.add.y: must be text, not a list",
            "shop.yaml:14:36: steps.e.window.hop: must be a mapping {size: …, every: …}, not the text '5m'",
            "shop.yaml:16:67: sinks.out.input[2]: inputs need the same columns: unlike 'a', 'c' has no column 'country', has no column 'window_start', has no column 'window_end', and 2 more; make them alike in a step with `select`",
            "shop.yaml:16:70: sinks.out.input[3]: inputs need the same columns: unlike 'a', 'd' has no column 'window_start', has no column 'window_end', has no column 'n', and 6 more; make them alike in a step with `select`",
            "shop.yaml:16:73: sinks.out.input[4]: inputs need the same columns: unlike 'a', 'e' has no column 'country'; make them alike in a step with `select`",
            "shop.yaml:16:93: sinks.out.security.tls: must be a mapping {ca: …, certificate: …, …} or true or false, not the text 'yes'; write true",
        ]
    )


def test_a_comma_inside_an_expression_in_braces() -> None:
    text = of_steps("""
        result: {input: orders, window: {tumble: 1m}, aggregate: {p90: quantile_cont(amount, 0.9)}}
    """)
    assert faults(text) == snapshot(
        [
            'shop.yaml:10:88: steps.result.aggregate.0.9): nothing is written here: it must be text; inside { } an expression with a comma needs quotes: {name: "f(a, b)"}'
        ]
    )


def test_what_comes_later_is_called_by_name() -> None:
    text = (
        HEAD
        + ORDERS
        + """\
sinks:
  out: {type: postgres, input: orders, table: orders}
  other: {type: print, input: orders}
"""
    )
    assert faults(text) == snapshot(
        [
            "shop.yaml:10:15: sinks.out.type: the sink postgres is not supported yet; there are kafka, file, print and blackhole"
        ]
    )
