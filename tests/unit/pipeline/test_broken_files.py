"""Broken files as newcomers and testers write them: every fault at once, each at its place, and no other.

The expected lines are what `streamproc validate` prints behind the file's name.
"""
# ruff: noqa: E501 — a message stands on one line, as a user reads it

from __future__ import annotations

import pytest

from tests.unit.pipeline.files import HEAD, OUT, check, faults

ORDERS = """\
sources:
  orders:
    type: kafka
    brokers: ["kafka:9092"]
    topic: orders
    schema: {id: int64, country: string, amount: float64, tags: "list[string]", at: timestamp_ms}
    event_time: {column: at, out_of_order: 10s}
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            HEAD
            + """\
sources:
\torders: {type: file}
""",
            [
                "4:1: is not valid YAML: found character '\\t' that cannot start any token; YAML indents with spaces, not tabs",
            ],
            id="a tab indents",
        ),
        pytest.param(
            HEAD
            + """\
sources:
  orders: {type: file, path: x, schema: {id: int64}
sinks:
  out: {type: print, input: orders}
""",
            [
                "4:11: is not valid YAML: '{' is not closed",
            ],
            id="a brace is not closed",
        ),
        pytest.param(
            HEAD
            + """\
sources:
  orders: {type: file, path: "x, schema: {id: int64}}
sinks:
  out: {type: print, input: orders}
""",
            [
                "4:30: is not valid YAML: a quote is not closed",
            ],
            id="a quote is not closed",
        ),
        pytest.param(
            HEAD
            + """\
sources:
  orders:
    type: file
   path: x
""",
            [
                "6:4: is not valid YAML: the indentation of this line fits none above; names of one level begin in the same column",
            ],
            id="a line is indented like no other",
        ),
        pytest.param(
            HEAD
            + """\
sources:
  orders
    type: file
    path: x
""",
            [
                "4:3: is not valid YAML: a ':' is missing after 'orders'",
            ],
            id="a colon is missing",
        ),
        pytest.param(
            HEAD
            + """\
sources:
  orders:
  type: file
  path: x
  schema: {id: int64}
sinks:
  out: {type: print, input: orders}
""",
            [
                "4:3: sources.orders: nothing is written under it; its fields begin further right than its name",
                "7:3: sources.schema: 'type' is missing; there are kafka, file and datagen",
            ],
            id="fields stand beside their part",
        ),
        pytest.param(
            HEAD
            + ORDERS
            + """\
steps:
  a:
    input: orders
    where: id > 1
    where: id > 2
steps:
  result: {input: a, where: amnt > 1}
"""
            + OUT,
            [
                "14:5: steps.a.where: 'where' is here twice; the first is on line 13",
                "15:1: steps: 'steps' is here twice; the first is on line 10",
                "16:29: steps.result.where: unknown column 'amnt'; did you mean 'amount'?",
            ],
            id="keys are there twice",
        ),
        pytest.param(
            """\
version: "1"
pipeline: My Shop
step: {}
"""
            + ORDERS
            + """\
sinks:
  out: {type: print, input: orders}
""",
            [
                "1:10: version: must be 1, not the text '1'; write it without quotes",
                "2:11: pipeline: must be lower-case letters, digits and -, beginning with a letter, at most 63 characters",
                "3:1: step: unknown field 'step'; did you mean 'steps'?",
            ],
            id="the head is wrong",
        ),
        pytest.param(
            """\
version: 2
""",
            [
                "1:1: 'pipeline' is missing",
                "1:1: 'sources' is missing: a pipeline needs at least one source",
                "1:1: 'sinks' is missing: a pipeline needs at least one sink",
                "1:10: version: must be 1, not the number 2",
            ],
            id="almost everything is missing",
        ),
        pytest.param(
            HEAD
            + ORDERS
            + """\
steps:
  result:
    imput: orders
    wher: amnt > 1
    key: [country]
    windw: {tumble: 1m}
    agregate: {n: count(*), s: sum(amnt)}
sinks:
  out: {type: kafka, brokers: ["kafka:9092"], topic: t, input: result, kee: x, key: [contry]}
""",
            [
                "12:5: steps.result.imput: unknown field 'imput'; did you mean 'input'?",
                "13:5: steps.result.wher: unknown field 'wher'; did you mean 'where'?",
                "13:11: steps.result.where: unknown column 'amnt'; did you mean 'amount'?",
                "15:5: steps.result.windw: unknown field 'windw'; did you mean 'window'?",
                "16:5: steps.result.agregate: unknown field 'agregate'; did you mean 'aggregate'?",
                "16:36: steps.result.aggregate.s: unknown column 'amnt'; did you mean 'amount'?",
                "18:72: sinks.out.kee: unknown field 'kee'; did you mean 'key'?",
                "18:86: sinks.out.key[0]: unknown column 'contry'; did you mean 'country'?",
            ],
            id="fields are misspelt",
        ),
        pytest.param(
            HEAD
            + """\
job: {parallelism: two, max_parallelism: 0, checkpoint: {every: 10, keep: -1, storage: "nonsense://x"}, restart: {strategy: never, attempts: 1}, errors: ignore}
sources:
  orders: {type: kafka, brokers: "kafka:9092", topic: [t], start: now, schema: {id: int, at: timestamp_ms}, metadata: {o: ofset}, event_time: {column: att, idle_after: 0s}}
steps:
  result: {input: orders, where: [id], key: id, window: 5m, aggregate: {n: [1], m: count(*)}, late: drop, having: mm > 1, parallelism: -1, emit: on_open}
sinks:
  out: {type: file, path: 5, input: result, format: xml}
""",
            [
                "3:20: job.parallelism: must be a whole number, not the text 'two'",
                "3:42: job.max_parallelism: must be at least 1, not 0",
                "3:65: job.checkpoint.every: 10 is not a duration: write 500ms, 10s, 1m, 2h or 1d",
                "3:75: job.checkpoint.keep: must be at least 1, not -1",
                "3:88: job.checkpoint.storage: unknown kind of URL 'nonsense:'",
                "3:125: job.restart.strategy: must be backoff, fixed or none, not the text 'never'",
                "3:154: job.errors: must be fail, skip or dlq, not the text 'ignore'",
                "5:34: sources.orders.brokers: must be a list, not the text 'kafka:9092'; a list of one is written [\"kafka:9092\"]",
                "5:55: sources.orders.topic: must be text, not a list",
                "5:67: sources.orders.start: must be earliest, latest or a mapping {timestamp: …}, not the text 'now'",
                "5:85: sources.orders.schema.id: 'int' is not a type; did you mean int64?",
                "5:123: sources.orders.metadata.o: must be key, partition, offset, timestamp, topic or headers, not the text 'ofset'; did you mean 'offset'?",
                "5:152: sources.orders.event_time.column: unknown column 'att'; did you mean 'at'?",
                "5:169: sources.orders.event_time.idle_after: '0s': this duration must be more than zero",
                "7:34: steps.result.where: must be text, not a list",
                "7:45: steps.result.key: must be a list, not the text 'id'; a list of one is written [\"id\"]",
                "7:57: steps.result.window: must be input or a mapping {tumble: …, hop: …, …}, not the text '5m'; for example {tumble: 1m}",
                "7:76: steps.result.aggregate.n: must be text, not a list",
                "7:101: steps.result.late: must be a mapping {accept_for: …, then: …}, not the text 'drop'; write {then: drop}",
                "7:115: steps.result.having: unknown column 'mm'; did you mean 'm'?",
                "7:136: steps.result.parallelism: must be at least 1, not -1",
                "7:146: steps.result.emit: must be on_close, on_update or a mapping {every: …}, not the text 'on_open'; did you mean 'on_close'?",
                '9:27: sinks.out.path: must be text, not the number 5; write it in quotes: "5"',
                "9:53: sinks.out.format: unknown type 'xml'; there are json, csv, parquet, avro, protobuf and debezium-json",
            ],
            id="every value is of the wrong kind",
        ),
        pytest.param(
            HEAD
            + ORDERS
            + """\
steps:
  a: {input: orders, window: {tumble: 10}, aggregate: {n: count(*)}}
  b: {input: orders, window: {tumble: -10s}, aggregate: {n: count(*)}}
  c: {input: orders, window: {hop: {size: 1h30m, every: 10 s}}, late: {accept_for: forever}, aggregate: {n: count(*)}}
sinks:
  out: {type: print, input: [a, b, c]}
""",
            [
                "11:39: steps.a.window.tumble: 10 is not a duration: write 500ms, 10s, 1m, 2h or 1d",
                "12:39: steps.b.window.tumble: '-10s': this duration must be more than zero",
                "13:43: steps.c.window.hop.size: '1h30m' is not a duration: write 500ms, 10s, 1m, 2h or 1d",
                "13:57: steps.c.window.hop.every: '10 s' is not a duration: write 500ms, 10s, 1m, 2h or 1d",
                "13:84: steps.c.late.accept_for: 'forever' is not a duration: write 500ms, 10s, 1m, 2h or 1d",
            ],
            id="durations",
        ),
        pytest.param(
            HEAD
            + ORDERS
            + """\
steps:
  both: {input: orders, window: {tumble: 1m, hop: {size: 1m, every: 1s}}, aggregate: {n: count(*)}}
  gaps: {input: orders, window: {hop: {size: 1m, every: 2m}}, aggregate: {n: count(*)}}
  sizeless: {input: orders, window: {hop: {every: 1m}}, aggregate: {n: count(*)}}
  later: {input: orders, window: {session: 1m}, aggregate: {n: count(*), s: sum(amnt)}}
  rows: {input: orders, window: {tumble: 1m}, where: amnt > 1}
  endless: {input: orders, key: [cuntry], aggregate: {n: count(*)}}
sinks:
  out: {type: print, input: [both, gaps, sizeless]}
  out2: {type: print, input: later}
  out3: {type: print, input: rows}
  out4: {type: kafka, brokers: ["kafka:9092"], topic: t, input: endless, key: [country, n, nn]}
""",
            [
                "11:25: steps.both.window: has both 'tumble' and 'hop': give one",
                "12:57: steps.gaps.window.hop.every: 2m is more than the size (1m): rows between windows would be lost",
                "13:38: steps.sizeless.window.hop: 'size' is missing",
                "14:81: steps.later.aggregate.s: unknown column 'amnt'; did you mean 'amount'?",
                "15:54: steps.rows.where: unknown column 'amnt'; did you mean 'amount'?",
                "16:34: steps.endless.key[0]: unknown column 'cuntry'; did you mean 'country'?",
                "16:43: steps.endless.aggregate: an aggregate over input that never ends needs a window: its state would grow for ever; for example `window: {tumble: 1m}`; or say for how long a key counts: `ttl: 1h`, or `ttl: forever`",
                "21:92: sinks.out4.key[2]: unknown column 'nn'; did you mean 'n'?",
            ],
            id="windows",
        ),
        pytest.param(
            HEAD
            + """\
sources:
  a: {type: file, path: x, schema: {id: int64, at: timestamp}}
  b: {type: file, path: x, schema: {id: int64, at: timestamp}, event_time: {column: id}}
  c: {type: file, path: x, schema: {id: int64, at: timestmp}, event_time: {column: at, out_of_order: 5}}
  d: {type: file, path: x, schema: {id: int64, at: timestamp}, event_time: {out_of_order: 5s}}
steps:
  result: {input: [a, b, c, d], window: {tumble: 1m}, key: [idd], aggregate: {n: count(*), last: max(at) + 1}}
"""
            + OUT,
            [
                "5:85: sources.b.event_time.column: 'id' is int64, not a timestamp; where it counts milliseconds since 1970, declare `id: timestamp_ms` (or timestamp_s, timestamp_us)",
                "6:52: sources.c.schema.at: 'timestmp' is not a type; did you mean timestamp?",
                "6:102: sources.c.event_time.out_of_order: 5 is not a duration: write 500ms, 10s, 1m, 2h or 1d",
                "7:64: sources.d.event_time: 'column' is missing",
                "9:33: steps.result.window: a window needs event time, but the source 'a' declares none; add `event_time: {column: at}` to sources.a",
                "9:61: steps.result.key[0]: unknown column 'idd'; did you mean 'id'?",
            ],
            id="a window without event time",
        ),
        pytest.param(
            HEAD
            + ORDERS
            + """\
steps:
  result:
    input: orders
    where: amnt > 0 and count(*) > 1 and nofn(idd) and id + country > 1
    add: {a: upper(id) || amnt, b: "'x' > id or id in (select 1)", c: cast(amnt as intt)}
"""
            + OUT,
            [
                "13:12: steps.result.where: unknown column 'amnt'; did you mean 'amount'?",
                "13:25: steps.result.where: aggregate count(…) is not allowed here; aggregates stand under `aggregate`",
                "13:42: steps.result.where: unknown function 'nofn'",
                "13:47: steps.result.where: unknown column 'idd'; did you mean 'id'?",
                "13:56: steps.result.where: int64 + string is not defined; write cast(… as float64)",
                "14:14: steps.result.add.a: upper(text): argument 1 is int64",
                "14:27: steps.result.add.a: unknown column 'amnt'; did you mean 'amount'?",
                "14:37: steps.result.add.b: cannot compare 'x' > id: string and int64 do not go together; write cast(… as float64) or cast(… as string)",
                "14:63: steps.result.add.b: a subquery is not supported in an expression",
                "14:76: steps.result.add.c: unknown column 'amnt'; did you mean 'amount'?",
                "14:84: steps.result.add.c: unknown type 'intt'; did you mean 'int'?",
            ],
            id="several faults of one expression",
        ),
        pytest.param(
            HEAD
            + ORDERS
            + """\
steps:
  result:
    input: orders
    where: id > 1 and
    add:
      a: (id + 1
      b: id + 1)
      c: id; amount
      d: select id
      e: "`id`"
      f: country = "FR"
      g: id = 'x
      h: row_number() over ()
      i: regexp_like(country, '(')
      j: case when id > 1 then 2
      k: now()
"""
            + OUT,
            [
                "13:19: steps.result.where: not a SQL expression: something is missing after 'and'",
                "15:10: steps.result.add.a: not a SQL expression: a parenthesis is not closed",
                "16:16: steps.result.add.b: not a SQL expression: unexpected ')'",
                "17:12: steps.result.add.c: not a SQL expression: unexpected ';'",
                "18:10: steps.result.add.d: a query is not an expression: write only the value",
                "19:11: steps.result.add.e: not a SQL expression: names are quoted with double quotes, not `",
                "20:20: steps.result.add.f: unknown column 'FR'; text is written in single quotes: 'FR'",
                "21:10: steps.result.add.g: not a SQL expression: a quote or a comment is not closed",
                "22:10: steps.result.add.h: over (…) is not supported: windows are declared with `window:`",
                "23:10: steps.result.add.i: '(' is not a regular expression: unclosed group",
                "24:10: steps.result.add.j: not a SQL expression: a case ends with `end`",
                "25:10: steps.result.add.k: now(…) is not available: results must not depend on when they are computed; use the event time column",
            ],
            id="what is not SQL",
        ),
        pytest.param(
            HEAD
            + ORDERS
            + """\
steps:
  clean: {input: orders, where: amnt > 0, add: {eur: amount * rate, kind: upper(id), ok: amount}}
  sums:
    input: clean
    key: [country, kind, regoin]
    window: {tumble: 1m}
    aggregate: {n: count(*), total: sum(eur), top: max(eurr)}
    having: totl > 5 and n > 'x' and total > 'x'
    late: {accept_for: 1x}
  result: {input: sums, select: {c: country, t: total * 2, k: kind || 'x', w: window_strt}}
sinks:
  out: {type: kafka, brokers: ["kafka:9092"], topic: t, input: result, key: [c, country], delivery: twice}
""",
            [
                "11:33: steps.clean.where: unknown column 'amnt'; did you mean 'amount'?",
                "11:63: steps.clean.add.eur: unknown column 'rate'; did you mean 'at'?",
                "11:75: steps.clean.add.kind: upper(text): argument 1 is int64",
                "14:26: steps.sums.key[2]: unknown column 'regoin'; there are id, country, amount, tags, at, eur, kind and ok",
                "16:56: steps.sums.aggregate.top: unknown column 'eurr'; did you mean 'eur'?",
                "17:13: steps.sums.having: unknown column 'totl'; did you mean 'total'?",
                "17:26: steps.sums.having: cannot compare n > 'x': int64 and string do not go together; write cast(… as float64) or cast(… as string)",
                "18:24: steps.sums.late.accept_for: '1x' is not a duration: write 500ms, 10s, 1m, 2h or 1d",
                "19:79: steps.result.select.w: unknown column 'window_strt'; did you mean 'window_start'?",
                "21:81: sinks.out.key[1]: unknown column 'country'; there are c, t, k and w",
                "21:101: sinks.out.delivery: must be exactly_once or at_least_once, not the text 'twice'",
            ],
            id="columns go on under their names",
        ),
        pytest.param(
            HEAD
            + ORDERS
            + """\
steps:
  result:
    input: orders
    key: [country, tags]
    window: {tumble: 1m}
    aggregate:
      a: sum(max(amount))
      b: amount
      c: sum(country)
      d: count()
      e: first(amnt)
      f: 5 + cnt
      country: count(*)
      window_end: max(at)
      __x: count(*)
    having: count(*) > 5
"""
            + OUT,
            [
                "13:20: steps.result.key[1]: 'tags' is a list: it cannot be a key",
                "16:14: steps.result.aggregate.a: aggregate max(…) is not allowed inside an aggregate",
                "17:10: steps.result.aggregate.b: column 'amount' must stand inside an aggregate or be a key",
                "18:10: steps.result.aggregate.c: sum takes numbers, not string",
                "19:10: steps.result.aggregate.d: count takes *, one expression or distinct and one expression",
                "20:10: steps.result.aggregate.e: unknown function 'first'; did you mean 'first_value'?",
                "20:16: steps.result.aggregate.e: unknown column 'amnt'; did you mean 'amount'?",
                "21:14: steps.result.aggregate.f: unknown column 'cnt'; did you mean 'country'?",
                "22:7: steps.result.aggregate.country: 'country' is a key column already: give the aggregate another name",
                "23:7: steps.result.aggregate.window_end: 'window_end' is a column of the window already: give the aggregate another name",
                "24:7: steps.result.aggregate.__x: a column cannot be called '__x': names that begin with __ are reserved",
                "25:13: steps.result.having: aggregate count(…) is not allowed here; aggregates stand under `aggregate`",
            ],
            id="aggregates",
        ),
        pytest.param(
            HEAD
            + ORDERS
            + """\
steps:
  a: {input: orders, select: []}
  b: {input: orders, select: [id, idd, id, amount * 2], add: {x: amount}}
  c: {input: orders, select: {a: id, a: amount, b: }}
  d: {input: []}
  e:
sinks:
  out: {type: kafka, brokers: ["kafka:9092"], topic: t, input: b, key: [x, y]}
  out2: {type: print, input: [a, c, d, e]}
""",
            [
                "11:30: steps.a.select: must not be empty",
                "12:35: steps.b.select[1]: unknown column 'idd'; did you mean 'id'?",
                "12:40: steps.b.select[2]: 'id' is named twice",
                "12:44: steps.b.select[3]: unknown column 'amount * 2'; a list keeps columns by name; for expressions write a mapping {name: expression}",
                "13:38: steps.c.select.a: 'a' is here twice; the first is on line 13",
                "13:49: steps.c.select.b: nothing is written here: it must be text",
                "14:14: steps.d.input: must name at least one input",
                "15:3: steps.e: nothing is written under it; its fields begin further right than its name",
                "17:76: sinks.out.key[1]: unknown column 'y'; there are id, idd, amount and x",
            ],
            id="selections",
        ),
        pytest.param(
            HEAD
            + ORDERS
            + """\
steps:
  a: {input: b, where: "id >"}
  b: {input: a}
  c: {where: amnt > nofn(id)}
  d: {input: ordrs, select: {x: id}}
  e: {input: d, where: x > 1 and y > 1}
  orders: {input: orders, where: cntry = 'x'}
sinks:
  out: {type: print, input: [orders, orders]}
  out2: {type: print, input: [a, c]}
  e: {type: print, input: e}
  out3: {type: print, input: out}
""",
            [
                "11:14: steps.a.input: steps read each other in a circle: a → b → a",
                "11:28: steps.a.where: not a SQL expression: something is missing after '>'",
                "13:3: steps.c: 'input' is missing",
                "13:21: steps.c.where: unknown function 'nofn'",
                "14:14: steps.d.input: unknown input 'ordrs'; did you mean 'orders'?",
                "15:34: steps.e.where: unknown column 'y'",
                "16:3: steps.orders: the name 'orders' is taken by a source: sources, steps and sinks share their names",
                "16:34: steps.orders.where: unknown column 'cntry'; did you mean 'country'?",
                "18:38: sinks.out.input[1]: 'orders' is named twice",
                "20:3: sinks.e: the name 'e' is taken by a step: sources, steps and sinks share their names",
                "21:30: sinks.out3.input: 'out' is a sink: nothing can be read from it",
            ],
            id="inputs",
        ),
        pytest.param(
            HEAD
            + ORDERS
            + """\
steps:
  kept: {input: orders, window: {tumble: 1m}, aggregate: {n: count(*)}, late: {then: side_output}}
  dropped: {input: orders, window: {tumble: 1m}, aggregate: {n: count(*)}}
  bad: {input: orders, errors: dlq}
sinks:
  out: {type: blackhole, input: [kept, dropped]}
  out2: {type: kafka, brokers: ["kafka:9092"], topic: t, input: dropped.late, key: [n]}
  out3: {type: print, input: bad}
  out4: {type: print, input: orders.errors}
  out5: {type: print, input: bad.lost}
""",
            [
                "11:86: steps.kept.late.then: late rows are kept for a side output that nothing reads; read 'kept.late' in a step or sink, or remove `then: side_output`",
                "13:32: steps.bad.errors: bad records go to an errors stream that nothing reads; read 'bad.errors' or \"*.errors\" in a sink, or choose skip or fail",
                "16:65: sinks.out2.input: 'dropped' drops its late rows; add `late: {then: side_output}` to steps.dropped",
                "16:85: sinks.out2.key[0]: unknown column 'n'; there are id, country, amount, tags and at",
                "18:30: sinks.out4.input: 'orders' has no errors stream; add `errors: dlq` to sources.orders",
                "19:30: sinks.out5.input: 'bad' has no output 'lost'; did you mean 'bad.errors'?",
            ],
            id="side outputs",
        ),
        pytest.param(
            HEAD
            + """\
sources:
  a: {type: file, path: x, schema: {id: int64, v: string, w: nonsense}}
  b: {type: file, path: x, schema: {id: int32, v: string, w: int64, x: int64}}
  c: {type: file, path: x, schema: {v: string, w: string, id: int64}}
steps:
  result: {input: [a, b, c], where: w > 1 and x > 1 and v > 1 and z}
"""
            + OUT,
            [
                "4:62: sources.a.schema.w: 'nonsense' is not a type; types are boolean, int8, int16, int32, int64, float32, float64, string, bytes, date, timestamp_s, timestamp_ms, timestamp_us, timestamp, decimal(p,s), list[T] and nested mappings",
                "8:23: steps.result.input[1]: inputs need the same columns: unlike 'a', 'b' has a column 'x' more, column 'id' is int32, not int64; make them alike in a step with `select`",
                "8:57: steps.result.where: cannot compare v > 1: string and int64 do not go together; write cast(… as float64) or cast(… as string)",
                "8:67: steps.result.where: unknown column 'z'",
            ],
            id="unions",
        ),
        pytest.param(
            HEAD
            + """\
connections:
  main: {type: kafka, brokers: ["${env:NOT_SET}"], security: {sasl: {mechanism: SCRAM}}}
  spare: {type: kafka}
sources:
  a: {type: kafka, connection: mian, topic: t, schema: {id: int64}}
  b: {type: kafka, topic: my topic, schema: {id: int64}}
  c: {type: kafka, brokers: [localhost], topic: t, schema: {id: int64}, security: {sasl: {mechanism: PLAIN, username: u}, tls: {caa: x}}}
sinks:
  out: {type: kafka, connection: main, input: [a, b, c], key: [idd], format: parquet, transaction_timeout: 1h}
  out2: {type: kafka, connection: main, brokers: ["kafka:9092"], topic: "", input: a, key: []}
  out3: {type: postgres, input: a}
""",
            [
                "4:33: connections.main.brokers[0]: ${env:NOT_SET}: the environment variable NOT_SET is not set",
                "4:81: connections.main.security.sasl.mechanism: must be PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER, not the text 'SCRAM'",
                "5:3: connections.spare: 'brokers' is missing",
                "7:32: sources.a.connection: unknown connection 'mian'; did you mean 'main'?",
                "8:3: sources.b: needs 'connection' or 'brokers'",
                "8:27: sources.b.topic: 'my topic' cannot be a topic: its name is 1 to 249 letters, digits, '.', '_' and '-'",
                "9:30: sources.c.brokers[0]: 'localhost' is not a broker's address: it is written host:port, for example kafka:9092",
                "9:84: sources.c.security.sasl: 'password' is missing: PLAIN needs it",
                "9:129: sources.c.security.tls.caa: unknown field 'caa'; did you mean 'ca'?",
                "11:3: sinks.out: 'topic' is missing",
                "11:64: sinks.out.key[0]: unknown column 'idd'; did you mean 'id'?",
                "11:78: sinks.out.format: parquet is a format of files, not of kafka",
                "11:108: sinks.out.transaction_timeout: 1h is more than brokers allow (15m)",
                "12:41: sinks.out2.brokers: 'brokers' belongs to the connection 'main'; give one of the two",
                "12:73: sinks.out2.topic: '' cannot be a topic: its name is 1 to 249 letters, digits, '.', '_' and '-'",
                "12:92: sinks.out2.key: must name at least one column; leave it out to spread records evenly",
                "13:16: sinks.out3.type: the sink postgres is not supported yet; there are kafka, file, print and blackhole",
            ],
            id="connections",
        ),
        pytest.param(
            HEAD
            + """\
sources:
  a: {type: file, path: "s4://bucket/x", format: csv, schema: {id: int64, tags: "list[string]", price: decimal(10,2)}}
  b: {type: kafka, brokers: ["kafka:9092"], topic: t, format: parquet, schema: {id: bigint, id2: decimal(5)}, metadata: {id: offset, p: partiton, q: partition}}
steps:
  result: {input: b, where: id > 1 and q > 'x' and p and r}
sinks:
  out: {type: print, input: a, format: csv}
  out2: {type: file, path: out, input: result, format: {type: csv, delimiter: tab}}
""",
            [
                "4:25: sources.a.path: unknown kind of URL 's4:'",
                "4:81: sources.a.schema.tags: CSV cannot hold list[string]; use json, or declare it as string",
                "4:104: sources.a.schema.price: 'decimal(10' is not a type; inside { } a comma needs quotes: \"decimal(10,2)\"",
                "5:63: sources.b.format: parquet is a format of files: a Kafka record cannot hold it",
                "5:85: sources.b.schema.id: 'bigint' is not a type; did you mean int64?",
                "5:98: sources.b.schema.id2: 'decimal(5)' is not a type; for example decimal(10,2)",
                "5:122: sources.b.metadata.id: the schema has a column 'id' already; give the offset another name, for example kafka_offset",
                "5:137: sources.b.metadata.p: must be key, partition, offset, timestamp, topic or headers, not the text 'partiton'; did you mean 'partition'?",
                "7:40: steps.result.where: cannot compare q > 'x': int32 and string do not go together; write cast(… as float64) or cast(… as string)",
                "7:58: steps.result.where: unknown column 'r'",
                "9:40: sinks.out.format: CSV cannot hold lists and structs: tags; use json, or leave them out with `select`",
                "10:79: sinks.out2.format.delimiter: must be one character, not the text 'tab'",
            ],
            id="formats and types",
        ),
        pytest.param(
            HEAD
            + """\
sources:
  a: {type: datagen}
  b: {type: datagen, table: bidd, rows: -1}
  c: {type: datagen, columns: {id: {sequnce: {}}, x: {uniform: [5, 1]}, y: {choice: []}}, event_time: {column: id}}
  d: {type: datagen, table: bid, seed: x, event_time: {column: dateTim}}
steps:
  result: {input: c, where: id > 1 and z > 1}
sinks:
  out: {type: print, input: [a, b]}
  out2: {type: print, input: [result]}
  out3: {type: print, input: [d]}
""",
            [
                "4:3: sources.a: needs 'table' or 'columns', and not both; there are the tables bid, auction and person",
                "5:29: sources.b.table: must be bid, auction or person, not the text 'bidd'; did you mean 'bid'?",
                "5:41: sources.b.rows: must be at least 0, not -1",
                "6:46: sources.c.columns.id.sequnce: sequnce is not a kind of column; there are sequence, uniform, normal, choice, zipf, time, constant, text",
                "6:64: sources.c.columns.x.uniform: the lowest value 5 is above the highest 1",
                "6:85: sources.c.columns.y.choice: write the values to choose from as a list",
                "7:40: sources.d.seed: must be a whole number, not the text 'x'",
                "7:64: sources.d.event_time.column: unknown column 'dateTim'; did you mean 'dateTime'?",
                "9:40: steps.result.where: unknown column 'z'",
            ],
            id="datagen",
        ),
        pytest.param(
            HEAD
            + """\
job:
  parallelism: 4
  max_parallelism: 2
  checkpoint: {every: 0s, storage: "nonsense://x/y", timeout: 20m}
  restart: {strategy: fixed, initial: 5s, delay: -1s}
  paralelism: 4
"""
            + ORDERS
            + """\
steps:
  result: {input: orders, parallelism: 0, where: amnt > 0}
  more: {input: orders, parallelism: 9}
sinks:
  out: {type: kafka, brokers: ["kafka:9092"], topic: t, input: [result, more]}
""",
            [
                "4:16: job.parallelism: 4 is more than max_parallelism (2)",
                "6:23: job.checkpoint.every: '0s': this duration must be more than zero",
                "6:36: job.checkpoint.storage: unknown kind of URL 'nonsense:'",
                "6:63: job.checkpoint.timeout: 20m is longer than Kafka sinks keep a transaction open (15m): the broker could drop results before they are committed; at most 15m, or `delivery: at_least_once`",
                "7:30: job.restart.initial: 'initial' belongs to `strategy: backoff`, not to fixed",
                "7:50: job.restart.delay: '-1s': this duration cannot be negative",
                "8:3: job.paralelism: unknown field 'paralelism'; did you mean 'parallelism'?",
                "17:40: steps.result.parallelism: must be at least 1, not 0",
                "17:50: steps.result.where: unknown column 'amnt'; did you mean 'amount'?",
                "18:38: steps.more.parallelism: 9 is more than the job's max_parallelism (2)",
            ],
            id="the job",
        ),
        pytest.param(
            HEAD
            + ORDERS
            + """\
tests: []
steps:
  joined: {join: {left: orders, right: orders, match: left.id = right.id}, select: {x: left.id, y: nofn(right.id)}}
  queried: {input: orders, sql: select 1}
  result: {input: joined, where: z > 1}
sinks:
  out: {type: print, input: result, format: avro}
  out2: {type: print, input: queried}
""",
            [
                "12:12: steps.joined.join: a join without 'within', 'window', 'as_of', 'lookup' or 'ttl' keeps every row for ever; add `within: [-5m, 5m]`, `window: {tumble: 1m}`, `as_of: true`, `lookup: …`, `ttl: 1h`, or in full knowledge `ttl: forever`",
                "12:100: steps.joined.select.y: unknown function 'nofn'",
                "13:40: steps.queried.sql: FROM is missing",
                "14:34: steps.result.where: unknown column 'z'",
                "16:37: sinks.out.format: 'registry' is missing",
            ],
            id="a join, a query and a format",
        ),
        pytest.param(
            HEAD
            + ORDERS
            + """\
  spare: {type: file, path: x, schema: {id: int64}}
steps:
  unread: {input: orders}
  result: {input: orders, window: {tumble: 1m}, aggregate: {n: count(*)}, parallelism: 4}
"""
            + OUT,
            [
                "10:3: warning: sources.spare: nothing reads this source, so it is not run",
                "12:3: warning: steps.unread: nothing reads this step, so it is not run",
                "13:75: warning: steps.result.parallelism: without 'key' there is one group: it runs in one subtask",
            ],
            id="what nothing reads is a warning",
        ),
        pytest.param(
            HEAD
            + """\
sources:
  a: {type: kafka, brokers: ["${env:SECRET}"], topic: "${file:not-there}", schema: {id: int64}}
  b: {type: file, path: "${HOME}/x", schema: {id: "${env:SECRET}"}}
steps:
  result: {input: a, where: "${env:SECRET} > 1", add: {x: idd}}
sinks:
  out: {type: print, input: [result, b]}
""",
            [
                "4:30: sources.a.brokers[0]: '${env:SECRET}' is not a broker's address: it is written host:port, for example kafka:9092",
                "4:55: sources.a.topic: ${file:not-there}: the file cannot be read (no such file or directory)",
                "5:25: sources.b.path: ${HOME} is not a reference: there are ${env:NAME} and ${file:PATH}; for an environment variable write ${env:HOME}",
                "5:51: sources.b.schema.id: '${env:SECRET}' does not give a type; types are boolean, int8, int16, int32, int64, float32, float64, string, bytes, date, timestamp_s, timestamp_ms, timestamp_us, timestamp, decimal(p,s), list[T] and nested mappings",
                "7:29: steps.result.where: the expression '${env:SECRET} > 1' does not compile once its references are replaced",
                "7:59: steps.result.add.x: unknown column 'idd'; did you mean 'id'?",
                "9:38: sinks.out.input[1]: inputs need the same columns: unlike 'result', 'b' has no column 'x'; make them alike in a step with `select`",
            ],
            id="references",
        ),
    ],
)
def test_every_fault_of_a_broken_file(text: str, expected: list[str]) -> None:
    found = faults(text, environment={"SECRET": "hunter22"})
    assert [line.removeprefix("shop.yaml:") for line in found] == expected


def test_a_fault_as_json_has_its_place_and_its_words() -> None:
    _, (fault,) = check(HEAD + ORDERS + "sinks:\n  out: {type: print, input: ordrs}\n")
    assert fault.as_json() == {
        "file": "shop.yaml",
        "line": 11,
        "column": 29,
        "path": "sinks.out.input",
        "message": "unknown input 'ordrs'",
        "hint": "did you mean 'orders'?",
        "severity": "error",
    }
