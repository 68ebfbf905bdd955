"""References are replaced once, inside texts; what they gave is never shown."""
# ruff: noqa: E501 — a message stands on one line, as a user reads it

from __future__ import annotations

import json
from pathlib import Path

from inline_snapshot import snapshot

from streamproc.pipeline.explain import explain, explain_json
from streamproc.pipeline.spec import FileSourceSpec, KafkaSourceSpec
from tests.unit.pipeline.files import HEAD, check, faults, graph_of

SECRET = "hunter2-'quoted'-secret"


def test_references_are_replaced_and_never_read_again() -> None:
    text = (
        HEAD
        + """\
sources:
  a: {type: file, path: "data/${env:DAY}/${env:DAY}.json", schema: {id: int64}}
sinks:
  out: {type: print, input: a}
"""
    )
    graph = graph_of(text, environment={"DAY": "${env:OTHER}: [1]", "OTHER": "never"})
    config = graph.sources["a"].config
    assert isinstance(config, FileSourceSpec)
    assert config.path == "data/${env:OTHER}: [1]/${env:OTHER}: [1].json"


def test_files_lie_beside_the_pipeline_and_lose_their_last_newline(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("two words\n")
    text = (
        HEAD
        + """\
sources:
  a:
    type: kafka
    brokers: ["${env:BROKERS}"]
    security: {sasl: {mechanism: PLAIN, username: u, password: "${file:password}"}, tls: true}
    topic: t
    schema: {id: int64}
sinks:
  out: {type: print, input: a}
"""
    )
    graph, found = check(text, environment={"BROKERS": "one:9092, two:9092"}, folder=tmp_path)
    assert graph is not None, found
    connection = graph.sources["a"].connection
    assert connection is not None
    assert connection.brokers == ["one:9092", "two:9092"]
    assert connection.security.sasl is not None
    assert connection.security.sasl.password == "two words"
    assert {"two words", "one:9092, two:9092"} <= set(graph.secrets)
    assert isinstance(graph.sources["a"].config, KafkaSourceSpec)
    assert "two words" not in repr(graph)


def test_references_that_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "large").write_text("x" * 100_000)
    text = (
        HEAD
        + """\
sources:
  a: {type: file, path: "${env:NOPE}", schema: {id: int64}}
  b: {type: file, path: "${file:absent}", schema: {id: int64}}
  c: {type: file, path: "${HOME}/x", schema: {id: int64}}
  d: {type: file, path: "${vault:x}", schema: {id: "${env:NOPE}"}}
  e: {type: file, path: "${file:binary}", schema: {id: int64}, parallelism: "${env:NOPE}"}
  f: {type: file, path: "${file:large}", schema: {id: int64}}
steps:
  result: {input: [a, b, c, d, e, f], where: "id = ${env:NOPE}", select: {x: "${env:NOPE}"}}
  after: {input: result, where: unknown > 1}
sinks:
  out: {type: print, input: after}
"""
    )
    assert faults(text, folder=tmp_path) == snapshot(
        [
            "shop.yaml:4:25: sources.a.path: ${env:NOPE}: the environment variable NOPE is not set",
            "shop.yaml:5:25: sources.b.path: ${file:absent}: the file cannot be read (no such file or directory)",
            "shop.yaml:6:25: sources.c.path: ${HOME} is not a reference: there are ${env:NAME} and ${file:PATH}; for an environment variable write ${env:HOME}",
            "shop.yaml:7:25: sources.d.path: ${vault:x} is not a reference: there are ${env:NAME} and ${file:PATH}",
            "shop.yaml:7:52: sources.d.schema.id: ${env:NOPE}: the environment variable NOPE is not set",
            "shop.yaml:8:25: sources.e.path: ${file:binary}: the file is not UTF-8 text",
            "shop.yaml:8:77: sources.e.parallelism: ${env:NOPE}: the environment variable NOPE is not set",
            "shop.yaml:9:25: sources.f.path: ${file:large}: the file is larger than 65536 bytes",
            "shop.yaml:11:46: steps.result.where: ${env:NOPE}: the environment variable NOPE is not set",
            "shop.yaml:11:78: steps.result.select.x: ${env:NOPE}: the environment variable NOPE is not set",
            "shop.yaml:12:33: steps.after.where: unknown column 'unknown'",
        ]
    )


def test_what_a_reference_gave_is_in_no_message() -> None:
    text = (
        HEAD.replace("shop", '"${env:S}"')
        + """\
job: {parallelism: "${env:S}", errors: "${env:S}", checkpoint: {every: "${env:S}", storage: "${env:S}://x"}}
connections: {main: {brokers: ["${env:S}", "${env:S}:9092"]}}
sources:
  a:
    type: kafka
    connection: "${env:S}"
    topic: t
    format: "${env:S}"
    start: {timestamp: "${env:S}"}
    schema: {id: "${env:S}", x: "list[${env:S}]"}
    event_time: {column: "${env:S}"}
  b: {type: "${env:S}"}
  c: {type: file, path: x, schema: {id: int64}}
  d: {type: kafka, connection: main, topic: t, schema: {id: int64}, metadata: {y: "${env:S}"}}
steps:
  s: {input: c, where: "${env:S}", key: ["${env:S}"], window: {tumble: "${env:S}"}, aggregate: {n: "${env:S}(id)"}}
  t: {input: ["${env:S}", "c.${env:S}"], was: "${env:S}"}
  u: {input: c, select: ["${env:S}"], add: {n: "id + ${env:S}"}}
sinks:
  out: {type: kafka, connection: main, topic: t, input: [s, t, u], key: ["${env:S}"], delivery: "${env:S}"}
"""
    )
    found = faults(text, environment={"S": SECRET})
    said = "\n".join(found)
    assert "hunter2" not in said
    assert "quoted" not in said
    assert found == snapshot(
        [
            "shop.yaml:2:11: pipeline: must be lower-case letters, digits and -, beginning with a letter, at most 63 characters",
            "shop.yaml:3:20: job.parallelism: must be a whole number, not the text '${env:S}'; a reference always gives text",
            "shop.yaml:3:40: job.errors: must be fail, skip or dlq, not the text '${env:S}'",
            'shop.yaml:3:72: job.checkpoint.every: "${env:S}" is not a duration: write 500ms, 10s, 1m, 2h or 1d',
            "shop.yaml:4:32: connections.main.brokers[0]: '${env:S}' is not a broker's address: it is written host:port, for example kafka:9092",
            "shop.yaml:8:17: sources.a.connection: unknown connection '${env:S}'; there is main",
            "shop.yaml:10:13: sources.a.format: unknown type '${env:S}'; there are json, csv, parquet, avro, protobuf and debezium-json",
            "shop.yaml:11:24: sources.a.start.timestamp: '${env:S}' is not a timestamp; write it like 2026-01-01T00:00:00Z",
            "shop.yaml:12:18: sources.a.schema.id: '${env:S}' does not give a type; types are boolean, int8, int16, int32, int64, float32, float64, string, bytes, date, timestamp_s, timestamp_ms, timestamp_us, timestamp, decimal(p,s), list[T] and nested mappings",
            "shop.yaml:12:33: sources.a.schema.x: 'list[${env:S}]' does not give a type; types are boolean, int8, int16, int32, int64, float32, float64, string, bytes, date, timestamp_s, timestamp_ms, timestamp_us, timestamp, decimal(p,s), list[T] and nested mappings",
            "shop.yaml:13:26: sources.a.event_time.column: unknown column '${env:S}'; there are id and x",
            "shop.yaml:14:13: sources.b.type: unknown type '${env:S}'; there are kafka, file and datagen",
            "shop.yaml:16:83: sources.d.metadata.y: must be key, partition, offset, timestamp, topic or headers, not the text '${env:S}'",
            "shop.yaml:18:24: steps.s.where: the expression '${env:S}' does not compile once its references are replaced",
            "shop.yaml:18:42: steps.s.key[0]: unknown column '${env:S}'; there is id",
            "shop.yaml:18:55: steps.s.window: a window needs event time, but the source 'c' declares none; declare a timestamp column in sources.c and name it in `event_time: {column: …}`",
            'shop.yaml:18:72: steps.s.window.tumble: "${env:S}" is not a duration: write 500ms, 10s, 1m, 2h or 1d',
            "shop.yaml:18:100: steps.s.aggregate.n: the expression '${env:S}(id)' does not compile once its references are replaced",
            "shop.yaml:19:15: steps.t.input[0]: unknown input '${env:S}'; there are a, b, c, d, s, t and u",
            "shop.yaml:19:27: steps.t.input[1]: 'c' has no output '${env:S}'; there is c.errors",
            "shop.yaml:20:26: steps.u.select[0]: unknown column '${env:S}'; a list keeps columns by name; for expressions write a mapping {name: expression}",
            "shop.yaml:20:48: steps.u.add.n: the expression 'id + ${env:S}' does not compile once its references are replaced",
            "shop.yaml:22:74: sinks.out.key[0]: unknown column '${env:S}'; there is n",
            "shop.yaml:22:97: sinks.out.delivery: must be exactly_once or at_least_once, not the text '${env:S}'",
        ]
    )


def test_short_values_do_not_shred_messages() -> None:
    text = (
        HEAD
        + """\
sources:
  a: {type: file, path: a, schema: {id: "${env:ONE}"}}
sinks:
  out: {type: print, input: b}
"""
    )
    assert faults(text, environment={"ONE": "a"}) == snapshot(
        [
            "shop.yaml:4:41: sources.a.schema.id: '${env:ONE}' does not give a type; types are boolean, int8, int16, int32, int64, float32, float64, string, bytes, date, timestamp_s, timestamp_ms, timestamp_us, timestamp, decimal(p,s), list[T] and nested mappings",
            "shop.yaml:6:29: sinks.out.input: unknown input 'b'; there is a",
        ]
    )


def test_a_plan_shows_no_values() -> None:
    text = (
        HEAD
        + """\
sources:
  a: {type: kafka, brokers: ["${env:S}:9092"], topic: "${env:S}", schema: {id: int64, name: string}}
steps:
  result: {input: a, where: "name = '${env:S}'", add: {tag: "'x${env:S}y'"}}
sinks:
  out: {type: file, path: "/x/${env:S}", input: result}
"""
    )
    graph = graph_of(text, environment={"S": "hunter2"})
    assert "hunter2" not in explain(graph)
    assert "hunter2" not in json.dumps(explain_json(graph))
    assert "where ***" in explain(graph)
