"""Every verb as a newcomer gets it wrong: each fault at its place with its remedy, none that follows from another."""
# ruff: noqa: E501 — a message stands on one line, as a user reads it

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

from inline_snapshot import snapshot

from tests.unit.pipeline.every_verb import EVERY_VERB, with_code
from tests.unit.pipeline.files import HEAD, faults, graph_of

SOURCES = """\
sources:
  orders: {type: file, path: o, follow: true, schema: {id: int64, country: string, amount: float64, at: timestamp_ms}, event_time: {column: at}}
  payments: {type: file, path: p, follow: true, schema: {order_id: int64, id: int64, paid: float64, at: timestamp_ms}, event_time: {column: at}}
"""


def of(steps: str, sinks: str = "") -> str:
    """A pipeline of these steps, each of which is read; the first step is on line 7."""
    lines = dedent(steps).strip("\n").splitlines()
    names = [line.partition(":")[0] for line in lines if line[:1].isalpha()]
    read = sinks or "".join(f"  to_{name}: {{type: blackhole, input: {name}}}\n" for name in names)
    both = "  to_sources: {type: blackhole, input: orders}\n  to_others: {type: blackhole, input: payments}\n"
    return HEAD + SOURCES + "steps:\n" + "".join(f"  {line}\n" for line in lines) + "sinks:\n" + read + both


def test_fields_beside_the_verb_that_has_them_inside() -> None:
    text = of("""
        a: {input: orders, deduplicate: {key: [id]}, ttl: 1h}
        b: {input: orders, window: {tumble: 1m}, key: [country], top: {n: 3, by: [amount desc]}}
        c: {join: {left: orders, right: payments, match: left.id = right.order_id}, window: {tumble: 1m}, select: {id: left.id}}
        d: {join: {left: orders, right: payments, match: left.id = right.order_id}, ttl: 1h, select: {id: left.id}}
        e: {input: orders, where: id > 1, ttl: 1h, key: [id]}
        f: {input: orders, key: [id], window: {tumble: 1m}, ttl: 1h, aggregate: {n: count(*)}}
        g: {input: orders, deduplicate: {key: [id], ttl: 1h}, emit: on_update, late: {then: side_output}, window: {tumble: 1m}}
    """)
    assert faults(text) == snapshot(
        [
            "shop.yaml:7:48: steps.a.ttl: 'ttl' has no place beside 'deduplicate'; write it inside: `deduplicate: {ttl: …}`",
            "shop.yaml:8:22: steps.b.window: 'window' has no place beside 'top'; write it inside: `top: {window: …}`",
            "shop.yaml:8:44: steps.b.key: 'key' has no place beside 'top'; write it inside: `top: {key: …}`",
            "shop.yaml:9:79: steps.c.window: 'window' has no place beside 'join'; write it inside: `join: {window: …}`",
            "shop.yaml:10:79: steps.d.ttl: 'ttl' has no place beside 'join'; write it inside: `join: {ttl: …}`",
            "shop.yaml:11:37: steps.e.ttl: 'ttl' needs 'aggregate' or 'sql' in the same step; 'deduplicate', 'top' and 'join' have it inside",
            "shop.yaml:11:46: steps.e.key: 'key' needs 'aggregate' in the same step; 'deduplicate', 'top' and 'process' have it inside",
            "shop.yaml:12:55: steps.f.ttl: a window forgets its rows when it closes: there is no 'ttl' beside it",
            "shop.yaml:13:57: steps.g.emit: 'emit' has no place beside 'deduplicate'; it belongs to 'aggregate'",
            "shop.yaml:13:74: steps.g.late: 'late' has no place beside 'deduplicate'; it belongs to 'aggregate' and 'top'",
            "shop.yaml:13:101: steps.g.window: 'window' has no place beside 'deduplicate'; it belongs to 'aggregate', 'top' and 'join'",
        ]
    )


def test_one_verb_to_a_step() -> None:
    text = of("""
        a: {input: orders, window: {tumble: 1m}, aggregate: {n: count(*)}, top: {n: 1, by: [n]}}
        b: {join: {left: orders, right: payments, match: left.id = right.order_id, ttl: 1h}, aggregate: {n: count(*)}, select: {id: left.id}}
        c: {input: orders, sql: select id from orders, deduplicate: {key: [id], ttl: 1h}}
        d: {input: orders, join: {left: orders, right: payments, match: left.id = right.order_id, ttl: 1h}, select: {id: left.id}}
        e: {sql: select id from orders, where: id > 1, select: [id]}
    """)
    assert faults(text) == snapshot(
        [
            "shop.yaml:7:70: steps.a.top: a step has one verb, and 'aggregate' is here already; put it into a further step that reads this one",
            "shop.yaml:8:88: steps.b.aggregate: a step has one verb, and 'join' is here already; put it into a further step that reads this one",
            "shop.yaml:9:22: steps.c.sql: a step has one verb, and 'deduplicate' is here already; put it into a further step that reads this one",
            "shop.yaml:10:7: steps.d.input: a join reads its 'left' and 'right': it has no 'input'",
            "shop.yaml:11:35: steps.e.where: 'where' has no place beside 'sql'; write it in the query",
            "shop.yaml:11:50: steps.e.select: 'select' has no place beside 'sql'; write it in the query",
        ]
    )


def test_words_of_other_systems_and_misspelt_ones() -> None:
    text = of("""
        a: {input: orders, window: {tumble: 1m}, agregate: {n: count(*)}}
        b: {input: orders, dedup: {key: [id], ttl: 1h}}
        c: {input: orders, topn: {limit: 3, order_by: [amount desc], partition_by: [country], ttl: 1h}}
        d: {input: orders, windows: {tumble: 1m}, aggregate: {n: count(*)}}
        e: {jion: {left: orders, right: payments, on: left.id = right.order_id, type: left, ttl: 1h}, select: {id: left.id}}
        f: {query: select id from orders}
        g: {input: orders, window: {hop: {size: 1h, slide: 1m}}, aggregate: {n: count(*)}}
    """)
    assert faults(text) == snapshot(
        [
            "shop.yaml:7:44: steps.a.agregate: unknown field 'agregate'; did you mean 'aggregate'?",
            "shop.yaml:8:22: steps.b.dedup: unknown field 'dedup'; did you mean 'deduplicate'?",
            "shop.yaml:9:22: steps.c.topn: unknown field 'topn'; did you mean 'top'?",
            "shop.yaml:10:22: steps.d.windows: unknown field 'windows'; did you mean 'window'?",
            "shop.yaml:11:7: steps.e.jion: unknown field 'jion'; did you mean 'join'?",
            "shop.yaml:12:7: steps.f.query: unknown field 'query'; did you mean 'sql'?",
            "shop.yaml:13:47: steps.g.window.hop.slide: unknown field 'slide'; did you mean 'every'?",
        ]
    )


def test_values_where_mappings_are() -> None:
    text = of("""
        a: {input: orders, key: [id], window: tumble 1m, aggregate: {n: count(*)}, emit: 10s}
        b: {input: orders, key: [id], window: {session: {gap: 1m}}, aggregate: {n: count(*)}, late: 5m}
        c: {input: orders, deduplicate: [id]}
        d: {input: orders, python: "shop.py:score"}
        e: {join: {left: orders, right: payments, match: left.id = right.order_id, within: 1h}, select: {id: left.id}}
        f: {input: orders, deduplicate: {key: [id], ttl: never}}
    """)
    assert faults(text) == snapshot(
        [
            "shop.yaml:7:41: steps.a.window: must be input or a mapping {tumble: …, hop: …, …}, not the text 'tumble 1m'; for example {tumble: 1m}",
            "shop.yaml:7:84: steps.a.emit: must be on_close, on_update or a mapping {every: …}, not the text '10s'; write {every: 10s}",
            "shop.yaml:8:51: steps.b.window.session: a mapping is not a duration: write 500ms, 10s, 1m, 2h or 1d",
            "shop.yaml:8:95: steps.b.late: must be a mapping {accept_for: …, then: …}, not the text '5m'; write {accept_for: 5m}",
            "shop.yaml:9:35: steps.c.deduplicate: must be a mapping {key: …, keep: …, …}, not a list; for example {key: [id]}",
            "shop.yaml:10:30: steps.d.python: must be a mapping {call: …, columns: …, …}, not the text 'shop.py:score'; for example {call: \"shop.py:score\", columns: {risk: float64}}",
            "shop.yaml:11:86: steps.e.join.within: must be a list, not the text '1h'; for example [-5m, 1h]",
            "shop.yaml:12:52: steps.f.deduplicate.ttl: 'never' is not a duration: write 500ms, 10s, 1m, 2h, 1d or forever",
        ]
    )


def test_sides_of_a_join() -> None:
    text = of("""
        a: {join: {left: orders, right: payments, match: amount = paid, ttl: 1h}, select: {id: left.id}}
        b: {join: {left: orders, right: payments, match: orders.country = payments.order_id, ttl: 1h}, select: {id: left.id}}
        c: {join: {left: orders, right: payments, match: left.order_id = right.country, ttl: 1h}, select: {id: left.id}}
        d: {join: {left: orders, right: payments, match: id = right.order_id, ttl: 1h}, select: {x: country, y: nothing}}
        e: {join: {left: orders, right: payments, match: left.id = right.order_id, ttl: 1h}, select: [country, right.paid, left.paid]}
        f: {join: {left: [orders], right: payments, match: left.id = right.order_id, ttl: 1h}, select: {id: left.id}}
    """)
    assert faults(text) == snapshot(
        [
            "shop.yaml:7:52: steps.a.join.match: unknown column 'amount'; did you mean 'left.amount'?",
            "shop.yaml:7:61: steps.a.join.match: unknown column 'paid'; did you mean 'right.paid'?",
            "shop.yaml:8:52: steps.b.join.match: unknown column 'orders.country'; did you mean 'left.country'?",
            "shop.yaml:8:69: steps.b.join.match: unknown column 'payments.order_id'; did you mean 'right.order_id'?",
            "shop.yaml:9:52: steps.c.join.match: unknown column 'left.order_id'; did you mean 'right.order_id'?",
            "shop.yaml:9:68: steps.c.join.match: unknown column 'right.country'; did you mean 'left.country'?",
            "shop.yaml:10:52: steps.d.join.match: unknown column 'id'; did you mean 'left.id' or 'right.id'?",
            "shop.yaml:10:95: steps.d.select.x: unknown column 'country'; did you mean 'left.country'?",
            "shop.yaml:10:107: steps.d.select.y: unknown column 'nothing'; columns of a join are called left.… and right.…",
            "shop.yaml:11:97: steps.e.select[0]: unknown column 'country'; did you mean 'left.country'?",
            "shop.yaml:11:118: steps.e.select[2]: unknown column 'left.paid'; did you mean 'right.paid'?",
            "shop.yaml:12:20: steps.f.join.left: must be text, not a list",
        ]
    )


def test_a_list_keeps_columns_of_a_join_by_their_own_names() -> None:
    join = "join: {left: orders, right: payments, match: left.id = right.order_id, ttl: 1h}"
    graph = graph_of(of(f"a: {{{join}, select: [right.paid, left.country], add: {{twice: paid * 2}}}}"))
    assert list(graph.steps["a"].schema) == ["paid", "country", "twice"]
    assert faults(of(f"a: {{{join}, select: [left.id, right.paid, right.id, left.id]}}")) == snapshot(
        [
            "shop.yaml:7:118: steps.a.select[2]: 'left.id' and 'right.id' would both be called 'id'; name one: `select: {id: left.id, other_id: right.id}`",
            "shop.yaml:7:128: steps.a.select[3]: 'left.id' is named twice",
        ]
    )


def test_rankings() -> None:
    text = of("""
        a: {input: orders, top: {n: 3, by: [amount down, country descending, at], ttl: 1h}}
        b: {input: orders, top: {n: "3", by: amount desc, ttl: 1h, rank: id}}
    """)
    assert faults(text) == snapshot(
        [
            "shop.yaml:7:39: steps.a.top.by[0]: 'down' is no direction; write `amount desc`, or `asc`",
            "shop.yaml:7:52: steps.a.top.by[1]: 'descending' is no direction; write `country desc`, or `asc`",
            "shop.yaml:8:31: steps.b.top.n: must be a whole number, not the text '3'; write it without quotes",
            "shop.yaml:8:40: steps.b.top.by: must be a list, not the text 'amount desc'; a list of one is written [\"amount desc\"]",
            "shop.yaml:8:68: steps.b.top.rank: 'id' is a column of the input already: give the rank another name",
        ]
    )


def test_updates_where_only_rows_can_be() -> None:
    text = of(
        """
        a: {input: orders, key: [country], window: {tumble: 1m}, aggregate: {n: count(*)}, emit: on_update}
        b: {input: a, window: {tumble: 1h}, aggregate: {n: sum(n)}}
        c: {input: a, window: input, aggregate: {n: sum(n)}}
        d: {input: a, deduplicate: {key: [n], ttl: 1h}}
        e: {join: {left: a, right: payments, match: left.n = right.id, within: [0s, 1m]}, select: {n: left.n}}
        f: {input: a, python: {call: "shop.py:score", columns: {risk: float64}}}
        """,
        """\
  append: {type: file, path: out, input: a}
  keyless: {type: kafka, brokers: ["k:1"], topic: t, input: a}
  rest: {type: blackhole, input: b}
  rest2: {type: blackhole, input: c}
  rest3: {type: blackhole, input: d}
  rest4: {type: blackhole, input: e}
  rest5: {type: blackhole, input: f}
""",
    )
    assert faults(text) == snapshot(
        [
            "shop.yaml:8:17: steps.b.window: a window cannot read 'a': its rows are updated and taken back; aggregate it without a window",
            "shop.yaml:9:17: steps.c.window: a window cannot read 'a': its rows are updated and taken back; aggregate it without a window",
            "shop.yaml:10:17: steps.d.deduplicate: deduplicate cannot read 'a': its rows are updated and taken back; its rows may be unique already: read it without `deduplicate`",
            "shop.yaml:11:66: steps.e.join.within: an interval join cannot read 'a': its rows are updated and taken back; join it with `ttl` instead: a regular join takes updates",
            "shop.yaml:12:17: steps.f.python: a python step cannot read 'a': its rows are updated and taken back; read the stream before it is aggregated or joined",
            "shop.yaml:12:32: steps.f.python.call: there is no file 'shop.py' in the pipeline's folder",
            "shop.yaml:14:42: sinks.append.input: a file only grows, and rows of 'a' are updated and taken back; write it to a Kafka sink with a `key`, or give final rows only: with a window and `emit: on_close`",
            "shop.yaml:15:61: sinks.keyless.input: rows of 'a' are updated and taken back, which a topic can only take by key; name the columns that tell rows apart: `key: [country, window_start, window_end]`",
        ]
    )


def test_side_outputs_nobody_reads(tmp_path: Path) -> None:
    text = EVERY_VERB.replace("  odd: {type: blackhole, input: counted.odd}\n", "")
    text = text.replace("  late: {type: blackhole, input: hottest.late}\n", "")
    text = text.replace("input: orders, python: {call", "input: orders, errors: dlq, python: {call", 1)
    assert faults(text, folder=with_code(tmp_path)) == snapshot(
        [
            "shop.yaml:37:95: steps.hottest.late.then: late rows are kept for a side output that nothing reads; read 'hottest.late' in a step or sink, or remove `then: side_output`",
            "shop.yaml:39:35: steps.scored.errors: bad records go to an errors stream that nothing reads; read 'scored.errors' or \"*.errors\" in a sink, or choose skip or fail",
            "shop.yaml:41:105: steps.counted.process.outputs.odd: nothing reads this side output; read 'counted.odd' in a step or sink, or remove it",
        ]
    )


def test_late_rows_of_steps_that_keep_none() -> None:
    text = of("""
        a: {input: orders, deduplicate: {key: [id], ttl: 1h}}
        b: {input: a.late}
        c: {input: orders, key: [id], ttl: 1h, aggregate: {n: count(*)}, late: {then: side_output}}
        d: {input: orders, late: {then: side_output}}
    """)
    assert faults(text) == snapshot(
        [
            "shop.yaml:8:14: steps.b.input: 'a' keeps no late rows: an aggregate or top with a window does",
            "shop.yaml:9:68: steps.c.late: without a window no row is late; add a `window`, or leave 'late' out",
            "shop.yaml:10:22: steps.d.late: 'late' needs 'aggregate' or 'top' in the same step",
        ]
    )


def test_places_inside_a_query_of_several_lines() -> None:
    text = of("""
        a:
          sql: |
            select o.id, p.paid

            from orders as o join payments as p
              on o.id = p.ordr_id and p.at between o.at and o.at + interval '1' hour
        b:
          sql: >-
            select country,
              summ(amount) as s
            from orders
        c: {sql: "select id\\
             , amuont from orders"}
        d:
          sql: |2

              select id
              from ordrs
    """)
    assert faults(text) == snapshot(
        [
            "shop.yaml:12:19: steps.a.sql: unknown column 'p.ordr_id'; did you mean 'order_id'?",
            "shop.yaml:16:9: steps.b.sql: unknown function 'summ'; did you mean 'sum'?",
            "shop.yaml:18:12: steps.c.sql: unknown column 'amuont'; did you mean 'amount'?",
            "shop.yaml:24:14: steps.d.sql: unknown input 'ordrs'; did you mean 'orders'?",
        ]
    )


def test_a_query_whose_state_would_grow_for_ever() -> None:
    text = of("""
        a: {sql: "select country, count(*) as n from orders group by country"}
        b: {sql: "select o.id, p.paid from orders o join payments p on o.id = p.order_id"}
        c: {sql: "select distinct country from orders"}
        d: {sql: "select id, amount from orders order by amount desc limit 3"}
    """)
    assert faults(text) == snapshot(
        [
            "shop.yaml:7:13: steps.a.sql: an aggregate over input that never ends needs a window: its state would grow for ever; group by the window of a table function, or write `ttl: 1h` (or `ttl: forever`) beside 'sql'",
            "shop.yaml:8:52: steps.b.sql: this join keeps every row for ever; bound the times of its sides in ON, join in windows, or write `ttl: 1h` beside 'sql'",
            "shop.yaml:9:13: steps.c.sql: remembers every key of input that never ends: its state would grow for ever; say for how long a key counts, for example `ttl: 1h` beside 'sql', or `ttl: forever`",
            "shop.yaml:10:52: steps.d.sql: keeps the best rows of every key of input that never ends: its state would grow for ever; rank in the windows of a table function, or write `ttl: 1h` (or `ttl: forever`) beside 'sql'",
        ]
    )


def test_user_code(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(
        dedent("""
            from streamproc import ProcessFunction, ValueState

            def score(frame):
                return frame

            class Counter(ProcessFunction):
                count = ValueState("int64")

                def process(self, row, ctx):
                    return None
        """)
    )
    text = of("""
        a: {input: orders, python: {call: "shop.py:scores", columns: {risk: float64}}}
        b: {input: orders, python: {call: "shops.py:score", columns: {risk: float}}}
        c: {input: orders, python: {call: "shop.py:score", columns: {risk: float64}, mode: async}}
        d: {input: orders, python: {call: shop.py, columns: {risk: float64}, mode: rows, timeout: 1s}}
        e: {input: orders, process: {call: "shop.py:Counter", key: [idd], columns: {n: int64}}}
        f: {input: orders, process: {call: "shop.py:Counter", columns: {n: int64}}}
        g: {input: orders, python: {call: "shop.py:score", columns: {risk: float64}, timeout: 1s}}
    """)
    assert faults(text, folder=tmp_path) == snapshot(
        [
            "shop.yaml:7:37: steps.a.python.call: 'shop.py' has no 'scores'; did you mean 'score'?",
            "shop.yaml:8:37: steps.b.python.call: there is no file 'shops.py' in the pipeline's folder; did you mean 'shop.py'?",
            "shop.yaml:8:71: steps.b.python.columns.risk: 'float' is not a type; did you mean float64?",
            "shop.yaml:9:37: steps.c.python.call: 'shop.py:score' is not an async function; write `async def score(row)`, or `mode: row`",
            "shop.yaml:10:78: steps.d.python.mode: must be batch, row or async, not the text 'rows'; did you mean 'row'?",
            "shop.yaml:11:38: steps.e.process.call: state 'count' of 'shop.py:Counter' would grow for ever over input that never ends; give it a `ttl='1h'`, or `ttl='forever'` where the function clears it itself",
            "shop.yaml:11:63: steps.e.process.key[0]: unknown column 'idd'; did you mean 'id'?",
            "shop.yaml:12:22: steps.f.process: 'key' is missing",
            "shop.yaml:12:38: steps.f.process.call: state 'count' of 'shop.py:Counter' would grow for ever over input that never ends; give it a `ttl='1h'`, or `ttl='forever'` where the function clears it itself",
            "shop.yaml:13:80: steps.g.python.timeout: 'timeout' is for `mode: async`; leave it out",
        ]
    )


def test_many_faults_and_none_that_follows_from_another() -> None:
    text = of("""
        a: {input: orders, where: amuont > 1}
        b: {join: {left: a, right: paymets, match: left.idd = right.order_id, within: [1h, -5m]}, select: {id: left.id, x: right.paid, y: left.zzz}}
        c: {input: b, deduplicate: {key: [idd]}}
        d: {input: c, top: {n: 0, by: [x desc], rank: id}}
        e: {input: d, key: [id], aggregate: {n: sum(x), m: sum(nope)}, emit: on_updat}
        f: {input: e, window: {tumble: 1m}, aggregate: {n: count(*)}, having: n >}
        g: {join: {left: f, match: left.n = right.cod, lookup: {file: c.csv, format: csv}}, where: left.m > 1}
    """)
    assert faults(text) == snapshot(
        [
            "shop.yaml:7:29: steps.a.where: unknown column 'amuont'; did you mean 'amount'?",
            "shop.yaml:8:30: steps.b.join.right: unknown input 'paymets'; did you mean 'payments'?",
            "shop.yaml:8:46: steps.b.join.match: unknown column 'left.idd'; did you mean 'left.id'?",
            "shop.yaml:8:81: steps.b.join.within: no time is both at least 1h and at most -5m; write [-5m, 1h]",
            "shop.yaml:8:133: steps.b.select.y: unknown column 'left.zzz'; did you mean 'left.id'?",
            "shop.yaml:9:17: steps.c.deduplicate: remembers every key of input that never ends: its state would grow for ever; say for how long a key counts, for example `ttl: 1h`, or `ttl: forever`",
            "shop.yaml:9:37: steps.c.deduplicate.key[0]: unknown column 'idd'; did you mean 'id'?",
            "shop.yaml:10:26: steps.d.top.n: must be at least 1, not 0",
            "shop.yaml:10:49: steps.d.top.rank: 'id' is a column of the input already: give the rank another name",
            "shop.yaml:11:28: steps.e.aggregate: an aggregate over input that never ends needs a window: its state would grow for ever; for example `window: {tumble: 1m}`; or say for how long a key counts: `ttl: 1h`, or `ttl: forever`",
            "shop.yaml:11:58: steps.e.aggregate.m: unknown column 'nope'",
            "shop.yaml:11:72: steps.e.emit: must be on_close, on_update or a mapping {every: …}, not the text 'on_updat'; did you mean 'on_update'?",
            "shop.yaml:12:75: steps.f.having: not a SQL expression: something is missing after '>'",
            "shop.yaml:13:50: steps.g.join.lookup: 'schema' is missing",
        ]
    )
