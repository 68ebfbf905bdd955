"""What is wrong with sources, sinks, connections and the job around them."""
# ruff: noqa: E501 — a message stands on one line, as a user reads it

from __future__ import annotations

from inline_snapshot import snapshot

from tests.unit.pipeline.files import HEAD, ORDERS, faults


def test_connections() -> None:
    text = (
        HEAD
        + """\
connections:
  main: {brokers: ["kafka:9092", kafka, "http://k:9092", ""]}
  open: {brokers: ["k:9092"], security: {sasl: {mechanism: PLAIN, username: u, password: p}}}
  forced: {brokers: ["k:9092"], security: {sasl: {mechanism: PLAIN, username: u, password: p, allow_without_tls: true}}}
  safe: {brokers: ["k:9092"], security: {sasl: {mechanism: PLAIN, username: u, password: p}, tls: true}}
  scram: {brokers: ["k:9092"], security: {sasl: {mechanism: SCRAM-SHA-256}}}
  oauth: {brokers: ["k:9092"], security: {sasl: {mechanism: OAUTHBEARER}}}
  none: {brokers: []}
sources:
  a: {type: kafka, connection: mian, topic: t, schema: {id: int64}}
  b: {type: kafka, topic: t, schema: {id: int64}}
  c: {type: kafka, connection: main, brokers: ["k:1"], topic: t, schema: {id: int64}}
  d: {type: kafka, brokers: ["k:99999"], topic: t, schema: {id: int64}, security: {sasl: {mechanism: PLAIN}}}
sinks:
  out: {type: kafka, topic: t, input: [a, b, c, d]}
"""
    )
    assert faults(text) == snapshot(
        [
            "shop.yaml:4:34: connections.main.brokers[1]: 'kafka' is not a broker's address: it is written host:port, for example kafka:9092",
            "shop.yaml:4:41: connections.main.brokers[2]: 'http://k:9092' is not a broker's address: it is written host:port, for example kafka:9092",
            "shop.yaml:4:58: connections.main.brokers[3]: '' gives no address: a broker is written host:port",
            "shop.yaml:5:60: connections.open.security.sasl.mechanism: PLAIN without TLS sends the password readable over the network; add `tls: true`, or in full knowledge `allow_without_tls: true`",
            "shop.yaml:8:43: connections.scram.security.sasl: 'username' is missing: SCRAM-SHA-256 needs it",
            "shop.yaml:8:43: connections.scram.security.sasl: 'password' is missing: SCRAM-SHA-256 needs it",
            "shop.yaml:9:43: connections.oauth.security.sasl: 'token' is missing: OAUTHBEARER needs it",
            "shop.yaml:10:19: connections.none.brokers: must not be empty",
            "shop.yaml:12:32: sources.a.connection: unknown connection 'mian'; did you mean 'main'?",
            "shop.yaml:13:3: sources.b: needs 'connection' or 'brokers'",
            "shop.yaml:14:38: sources.c.brokers: 'brokers' belongs to the connection 'main'; give one of the two",
            "shop.yaml:15:30: sources.d.brokers[0]: 'k:99999' is not a broker's address: it is written host:port, for example kafka:9092",
            "shop.yaml:15:84: sources.d.security.sasl: 'username' is missing: PLAIN needs it",
            "shop.yaml:15:84: sources.d.security.sasl: 'password' is missing: PLAIN needs it",
            "shop.yaml:15:102: sources.d.security.sasl.mechanism: PLAIN without TLS sends the password readable over the network; add `tls: true`, or in full knowledge `allow_without_tls: true`",
            "shop.yaml:17:3: sinks.out: needs 'connection' or 'brokers'",
        ]
    )


def test_types_of_columns() -> None:
    text = (
        HEAD
        + """\
sources:
  a:
    type: file
    path: a
    schema:
      a: int
      b: str
      c: decimal
      d: decimal(50,2)
      e: list[strin]
      f: {x: flaot64, y: {z: datetime}}
      g: {}
      h:
      i: 5
      j: blorb
      __k: int64
      l: list[decimal(10,2)]
sinks:
  out: {type: print, input: a}
"""
    )
    assert faults(text) == snapshot(
        [
            "shop.yaml:8:10: sources.a.schema.a: 'int' is not a type; did you mean int64?",
            "shop.yaml:9:10: sources.a.schema.b: 'str' is not a type; did you mean string?",
            "shop.yaml:10:10: sources.a.schema.c: 'decimal' is not a type; did you mean decimal(p,s)?",
            "shop.yaml:11:10: sources.a.schema.d: decimal(50,2): precision is 1 to 38, scale at most the precision; for example decimal(10,2)",
            "shop.yaml:12:10: sources.a.schema.e: 'strin' is not a type; did you mean string?",
            "shop.yaml:13:14: sources.a.schema.f.x: 'flaot64' is not a type; did you mean float64?",
            "shop.yaml:13:30: sources.a.schema.f.y.z: 'datetime' is not a type; did you mean timestamp?",
            "shop.yaml:14:10: sources.a.schema.g: a struct needs at least one field",
            "shop.yaml:15:7: sources.a.schema.h: nothing is written here; types are boolean, int8, int16, int32, int64, float32, float64, string, bytes, date, timestamp_s, timestamp_ms, timestamp_us, timestamp, decimal(p,s), list[T] and nested mappings",
            "shop.yaml:16:10: sources.a.schema.i: the number 5 is not a type; types are boolean, int8, int16, int32, int64, float32, float64, string, bytes, date, timestamp_s, timestamp_ms, timestamp_us, timestamp, decimal(p,s), list[T] and nested mappings",
            "shop.yaml:17:10: sources.a.schema.j: 'blorb' is not a type; types are boolean, int8, int16, int32, int64, float32, float64, string, bytes, date, timestamp_s, timestamp_ms, timestamp_us, timestamp, decimal(p,s), list[T] and nested mappings",
            "shop.yaml:18:7: sources.a.schema.__k: a column cannot be called '__k': names that begin with __ are reserved",
        ]
    )


def test_event_time() -> None:
    text = (
        HEAD
        + """\
sources:
  a: {type: file, path: a, schema: {at: timestamp, id: int64}, event_time: {column: att}}
  b: {type: file, path: a, schema: {at: int64}, event_time: {column: at}}
  c: {type: file, path: a, schema: {at: string}, event_time: {column: at}}
  d: {type: file, path: a, schema: {at: timestamp_s, day: date}, event_time: {column: day}}
  e: {type: file, path: a, schema: {at: boolean}, event_time: {column: at}}
  f: {type: kafka, brokers: ["k:1"], topic: t, schema: {id: int64}, metadata: {ts: timestamp}, event_time: {column: ts}}
sinks:
  out: {type: blackhole, input: [a]}
  o2: {type: blackhole, input: [b, b.late]}
  o3: {type: blackhole, input: [c]}
  o4: {type: blackhole, input: [d]}
  o5: {type: blackhole, input: [e]}
  o6: {type: blackhole, input: [f]}
"""
    )
    assert faults(text) == snapshot(
        [
            "shop.yaml:4:85: sources.a.event_time.column: unknown column 'att'; did you mean 'at'?",
            "shop.yaml:5:70: sources.b.event_time.column: 'at' is int64, not a timestamp; where it counts milliseconds since 1970, declare `at: timestamp_ms` (or timestamp_s, timestamp_us)",
            "shop.yaml:6:71: sources.c.event_time.column: 'at' is string, not a timestamp; where it is ISO-8601 text, declare `at: timestamp`",
            "shop.yaml:7:87: sources.d.event_time.column: 'day' is date, not a timestamp; there is at",
            "shop.yaml:8:72: sources.e.event_time.column: 'at' is boolean, not a timestamp; declare a column as timestamp",
            "shop.yaml:12:36: sinks.o2.input[1]: 'b' is a source: only a step with a window has late rows",
        ]
    )


def test_metadata_columns() -> None:
    text = (
        HEAD
        + """\
sources:
  a: {type: kafka, brokers: ["k:1"], topic: t, schema: {offset: int64}, metadata: {k: kye}}
  b: {type: kafka, brokers: ["k:1"], topic: t, schema: {offset: int64}, metadata: {offset: offset, __p: partition}}
sinks:
  out: {type: blackhole, input: a}
  o2: {type: blackhole, input: b}
"""
    )
    assert faults(text) == snapshot(
        [
            "shop.yaml:4:87: sources.a.metadata.k: must be key, partition, offset, timestamp, topic or headers, not the text 'kye'; did you mean 'key'?",
            "shop.yaml:5:84: sources.b.metadata.offset: the schema has a column 'offset' already; give the offset another name, for example kafka_offset",
            "shop.yaml:5:100: sources.b.metadata.__p: a column cannot be called '__p': names that begin with __ are reserved",
        ]
    )


def test_where_kafka_starts() -> None:
    text = (
        HEAD
        + """\
sources:
  a: {type: kafka, brokers: ["k:1"], topic: t, schema: {id: int64}, start: {timestamp: 2026-01-01T00:00:00Z}}
  b: {type: kafka, brokers: ["k:1"], topic: t, schema: {id: int64}, start: {timestamp: yesterday}}
  c: {type: kafka, brokers: ["k:1"], topic: t, schema: {id: int64}, start: {timestamp: 2026-01-01}}
  d: {type: kafka, brokers: ["k:1"], topic: t, schema: {id: int64}, start: {timestamp: 1767225600}}
  e: {type: kafka, brokers: ["k:1"], topic: t, schema: {id: int64}, start: {time: x}, stop: lastest}
sinks:
  out: {type: blackhole, input: [a, b, c, d, e]}
"""
    )
    assert faults(text) == snapshot(
        [
            "shop.yaml:5:88: sources.b.start.timestamp: 'yesterday' is not a timestamp; write it like 2026-01-01T00:00:00Z",
            "shop.yaml:6:88: sources.c.start.timestamp: '2026-01-01' has no time zone; write it like 2026-01-01T00:00:00Z, with Z for UTC",
            "shop.yaml:7:88: sources.d.start.timestamp: must be text, not the number 1767225600; write it like 2026-01-01T00:00:00Z",
            "shop.yaml:8:77: sources.e.start.time: unknown field 'time'; did you mean 'timestamp'?",
            "shop.yaml:8:83: sources.e.start.timestamp: 'x' is not a timestamp; write it like 2026-01-01T00:00:00Z",
            "shop.yaml:8:93: sources.e.stop: must be never or latest, not the text 'lastest'; did you mean 'latest'?",
        ]
    )


def test_formats() -> None:
    text = (
        HEAD
        + """\
sources:
  a: {type: kafka, brokers: ["k:1"], topic: t, format: parquet, schema: {id: int64}}
  b: {type: file, path: b.csv, format: csv, schema: {id: int64, tags: "list[string]", who: {name: string}}}
  c: {type: file, path: c.parquet, format: parquet, follow: true, schema: {id: int64}}
  d: {type: file, path: d.json, schema: {id: int64, tags: "list[string]"}}
sinks:
  o1: {type: kafka, brokers: ["k:1"], topic: t, format: parquet, input: [a, c]}
  o2: {type: file, path: out, format: {type: csv, delimiter: ";;"}, input: d}
  o3: {type: print, format: csv, input: d}
  o4: {type: print, format: parquet, input: b}
  o5: {type: file, path: out, format: parquet, input: d}
"""
    )
    assert faults(text) == snapshot(
        [
            "shop.yaml:4:56: sources.a.format: parquet is a format of files: a Kafka record cannot hold it",
            "shop.yaml:5:71: sources.b.schema.tags: CSV cannot hold list[string]; use json, or declare it as string",
            "shop.yaml:5:92: sources.b.schema.who: CSV cannot hold {name: string}; use json, or declare it as string",
            "shop.yaml:6:61: sources.c.follow: a Parquet file cannot be followed: its end says what is in it",
            "shop.yaml:9:57: sinks.o1.format: parquet is a format of files, not of kafka",
            "shop.yaml:10:39: sinks.o2.format: CSV cannot hold lists and structs: tags; use json, or leave them out with `select`",
            "shop.yaml:10:62: sinks.o2.format.delimiter: must be one character, not the text ';;'",
            "shop.yaml:11:29: sinks.o3.format: CSV cannot hold lists and structs: tags; use json, or leave them out with `select`",
            "shop.yaml:12:29: sinks.o4.format: parquet is a format of files, not of print",
        ]
    )


def test_urls() -> None:
    text = (
        HEAD
        + """\
job: {checkpoint: {storage: s4://bucket/x}}
sources:
  a: {type: file, path: "", schema: {id: int64}}
  b: {type: file, path: htps://host/x.json, schema: {id: int64}}
  c: {type: file, path: s3://, schema: {id: int64}}
sinks:
  out: {type: file, path: "file:", input: [a, b, c]}
"""
    )
    assert faults(text) == snapshot(
        [
            "shop.yaml:3:29: job.checkpoint.storage: unknown kind of URL 's4:'",
            "shop.yaml:5:25: sources.a.path: must be a path or a URL, not empty",
            "shop.yaml:6:25: sources.b.path: unknown kind of URL 'htps:'; did you mean 'https'?",
            "shop.yaml:7:25: sources.c.path: names no folder; write s3://bucket/folder",
            "shop.yaml:9:27: sinks.out.path: names no folder; write file:some/folder",
        ]
    )


def test_sinks_of_kafka() -> None:
    text = (
        HEAD
        + "job: {checkpoint: {timeout: 20m}}\n"
        + ORDERS.replace("type: file", "type: file\n    errors: dlq")
        + """\
connections: {main: {brokers: ["k:9092"]}}
sinks:
  a: {type: kafka, connection: main, topic: a, input: orders, key: [contry, id, id]}
  b: {type: kafka, connection: main, topic: b, input: orders, key: []}
  c: {type: kafka, connection: main, topic: c, input: orders, transaction_timeout: 30m}
  d: {type: kafka, connection: main, topic: d, input: orders, delivery: at_least_once, transaction_timeout: 1s}
  f: {type: kafka, connection: main, topic: d, input: orders, transaction_timeout: 1s}
  e: {type: kafka, connection: main, topic: e, input: orders.errors, key: [source], format: csv}
"""
    )
    assert faults(text) == snapshot(
        [
            "shop.yaml:3:29: job.checkpoint.timeout: 20m is longer than Kafka sinks keep a transaction open (15m): the broker could drop results before they are committed; at most 15m, or `delivery: at_least_once`",
            "shop.yaml:13:69: sinks.a.key[0]: unknown column 'contry'; did you mean 'country'?",
            "shop.yaml:13:81: sinks.a.key[2]: 'id' is named twice",
            "shop.yaml:14:68: sinks.b.key: must name at least one column; leave it out to spread records evenly",
            "shop.yaml:15:84: sinks.c.transaction_timeout: 30m is more than brokers allow (15m)",
            "shop.yaml:17:84: sinks.f.transaction_timeout: 1s is shorter than job.checkpoint.timeout (20m): the broker could drop results before they are committed; raise it (at most 15m), or lower job.checkpoint.timeout",
            "shop.yaml:18:70: sinks.e.key: errors streams go to Kafka with their original keys: there is no key to choose",
            "shop.yaml:18:85: sinks.e.format: errors streams go to Kafka as the original records: there is no format to choose",
        ]
    )


def test_datagen() -> None:
    text = (
        HEAD
        + """\
sources:
  a: {type: datagen, table: bids}
  b: {type: datagen}
  c: {type: datagen, table: bid, columns: {id: {sequence: 0}}}
  d: {type: datagen, columns: {}}
  e: {type: datagen, columns: {__id: {sequence: {}}}, rate: 0}
  f: {type: datagen, columns: {id: {sequence: {strat: 1}}, x: {unifrom: [1, 2]}, y: {uniform: [2, 1]}, z: 5, at: {time: {}}}}
sinks:
  out: {type: print, input: [a, b, c, d, e, f]}
"""
    )
    assert faults(text) == snapshot(
        [
            "shop.yaml:4:29: sources.a.table: must be bid, auction or person, not the text 'bids'; did you mean 'bid'?",
            "shop.yaml:5:3: sources.b: needs 'table' or 'columns', and not both; there are the tables bid, auction and person",
            "shop.yaml:6:3: sources.c: needs 'table' or 'columns', and not both; there are the tables bid, auction and person",
            "shop.yaml:7:31: sources.d.columns: must not be empty",
            "shop.yaml:8:32: sources.e.columns.__id: a column cannot be called '__id': names that begin with __ are reserved",
            "shop.yaml:8:61: sources.e.rate: must be at least 1, not 0",
            "shop.yaml:9:55: sources.f.columns.id.sequence.strat: strat is not an option; there are start, step",
            "shop.yaml:9:73: sources.f.columns.x.unifrom: unifrom is not a kind of column; there are sequence, uniform, normal, choice, zipf, time, constant, text",
            "shop.yaml:9:95: sources.f.columns.y.uniform: the lowest value 2 is above the highest 1",
            "shop.yaml:9:107: sources.f.columns.z: a column is written as one of sequence, uniform, normal, choice, zipf, time, constant, text, as in {uniform: [1, 100]}",
        ]
    )


def test_restart_strategies() -> None:
    text = HEAD + ORDERS + "sinks: {out: {type: print, input: orders}}\njob:\n  restart: "
    assert faults(text + "{strategy: none, attempts: 3}") == snapshot(
        ["shop.yaml:11:29: job.restart.attempts: 'attempts' belongs to `strategy: fixed`, not to none"]
    )
    assert faults(text + "{strategy: fixed, initial: 1s, attempts: -1}") == snapshot(
        [
            "shop.yaml:11:30: job.restart.initial: 'initial' belongs to `strategy: backoff`, not to fixed",
            "shop.yaml:11:53: job.restart.attempts: must be at least 0, not -1",
        ]
    )
    assert faults(text + "{initial: 2m, max: 1m}") == snapshot(
        ["shop.yaml:11:22: job.restart.initial: 2m is more than max (1m)"]
    )
    assert faults(text + "{strategy: backof}") == snapshot(
        [
            "shop.yaml:11:23: job.restart.strategy: must be backoff, fixed or none, not the text 'backof'; did you mean 'backoff'?"
        ]
    )


def test_texts_of_a_format_that_are_not_as_they_must_be() -> None:
    text = (
        HEAD
        + """\
sources:
  a:
    type: kafka
    brokers: ["k:9092"]
    topic: t
    format: {type: protobuf, registry: "registry:8081", message: "shop/Order"}
    schema: {id: int64}
sinks:
  out: {type: blackhole, input: a}
"""
    )
    assert faults(text) == snapshot(
        [
            "shop.yaml:8:40: sources.a.format.registry: must be a URL that begins with http:// or https://",
            "shop.yaml:8:66: sources.a.format.message: must be the name of a message: letters, digits and _, in parts with dots between them",
        ]
    )
