"""What is wrong with a join: its sides, its condition, how long rows may be kept."""
# ruff: noqa: E501 — a message stands on one line, as a user reads it

from __future__ import annotations

from textwrap import dedent

from inline_snapshot import snapshot

from streamproc.pipeline.logical import Changelog
from tests.unit.pipeline.files import HEAD, faults, graph_of

SOURCES = """\
sources:
  orders: {type: file, path: o, follow: true, schema: {id: int64, name: string, x: float64, at: timestamp_ms}, event_time: {column: at}}
  payments: {type: file, path: p, follow: true, schema: {order_id: int32, name: string, y: float64, at: timestamp_ms}, event_time: {column: at}}
"""
RATES = """\
  rates: {type: file, path: r, follow: true, schema: {name: string, rate: float64, since: timestamp_ms}}
"""
SINK = """\
sinks:
  out: {type: blackhole, input: result}
"""


def of(steps: str, sources: str = SOURCES) -> str:
    lines = dedent(steps).strip().splitlines()
    return HEAD + sources + "steps:\n" + "".join(f"  {line}\n" for line in lines) + SINK


def joins(*joins: str) -> str:
    """Steps with these joins, all of which are read."""
    steps = [
        f"s{n}: {{join: {{left: orders, right: payments, {join}}}, select: {{a: left.id}}}}"
        for n, join in enumerate(joins)
    ]
    return of("\n".join([*steps, f"result: {{input: [{', '.join(f's{n}' for n in range(len(joins)))}]}}"]))


def test_a_join_that_keeps_every_row() -> None:
    assert faults(joins("match: left.id = right.order_id")) == snapshot(
        [
            "shop.yaml:7:8: steps.s0.join: a join without 'within', 'window', 'as_of', 'lookup' or 'ttl' keeps every row for ever; add `within: [-5m, 5m]`, `window: {tumble: 1m}`, `as_of: true`, `lookup: …`, `ttl: 1h`, or in full knowledge `ttl: forever`"
        ]
    )


def test_bounded_inputs_need_no_ttl() -> None:
    step = "result: {join: {left: orders, right: payments, match: left.id = right.order_id}, select: {id: left.id}}"
    assert faults(of(step, SOURCES.replace("follow: true, ", ""))) == []


def test_conditions() -> None:
    assert faults(
        joins(
            "match: left.idd = right.order_id, within: [0s, 1m]",
            "match: left.id = right.ordr_id and lft.x > 1, within: [0s, 1m]",
            "match: left.id > right.order_id, within: [0s, 1m]",
            "match: left.id = 1 and left.x = left.id, ttl: 1h",
            "match: left.id = right.name, ttl: 1h",
            "match: left.id, ttl: 1h",
            "match: left.id = right.order_id or left.name = right.name, as_of: true",
            "within: [0s, 1m]",
        )
    ) == snapshot(
        [
            "shop.yaml:7:53: steps.s0.join.match: unknown column 'left.idd'; did you mean 'left.id'?",
            "shop.yaml:8:63: steps.s1.join.match: unknown column 'right.ordr_id'; did you mean 'right.order_id'?",
            "shop.yaml:8:81: steps.s1.join.match: unknown column 'lft.x'; did you mean 'left.x'?",
            "shop.yaml:9:53: steps.s2.join.match: needs an equality between the sides: by it partners are found; for example left.id = right.order_id",
            "shop.yaml:10:53: steps.s3.join.match: needs an equality between the sides: by it partners are found; for example left.id = right.order_id",
            "shop.yaml:11:53: steps.s4.join.match: cannot compare left.id = right.name: int64 and string do not go together; write cast(… as float64) or cast(… as string)",
            "shop.yaml:12:53: steps.s5.join.match: a condition must be a boolean, this is int64",
            "shop.yaml:13:53: steps.s6.join.match: needs an equality between the sides: by it partners are found; for example left.id = right.order_id",
            "shop.yaml:14:8: steps.s7.join: 'match' is missing",
        ]
    )


def test_forms() -> None:
    assert faults(
        joins(
            "match: left.id = right.order_id, within: [1h, -5m]",
            "match: left.id = right.order_id, within: [0s, 1m], window: {tumble: 1m}",
            "match: left.id = right.order_id, within: [0s, 1m], ttl: 1h",
            "match: left.id = right.order_id, as_of: true, kind: full",
            "match: left.id = right.order_id, window: {session: 1m}",
            "match: left.id = right.order_id, window: {hop: {size: 1m, every: 2m}}",
            "match: left.id = right.order_id, window: input",
            "match: left.id = right.order_id, within: [1h]",
            "match: left.id = right.order_id, kind: outer, ttl: 1h",
        )
    ) == snapshot(
        [
            "shop.yaml:7:87: steps.s0.join.within: no time is both at least 1h and at most -5m; write [-5m, 1h]",
            "shop.yaml:8:97: steps.s1.join.window: 'within' is here already: a join has one of them",
            "shop.yaml:9:97: steps.s2.join.ttl: 'ttl' is for a regular join: 'within' says how long rows are kept",
            "shop.yaml:10:98: steps.s3.join.kind: an as-of join is inner or left, not full; inner leaves out left rows without a version, left keeps them",
            "shop.yaml:11:97: steps.s4.join.window.session: sessions of two streams do not end together: a join has no session windows; join with `within`, or aggregate each side in sessions first",
            "shop.yaml:12:111: steps.s5.join.window.hop.every: 2m is more than the size (1m): rows between windows would be lost",
            "shop.yaml:13:87: steps.s6.join.window: the input carries no windows: it has no column 'window_start' and 'window_end'; they come from a step with a window; keep both columns in its `select`",
            "shop.yaml:14:87: steps.s7.join.within: must have 2 entries; for example [-5m, 1h]",
            "shop.yaml:15:85: steps.s8.join.kind: must be inner, left, right, full, semi or anti, not the text 'outer'",
        ]
    )


def test_sides() -> None:
    text = of("""
        a: {join: {left: orders, right: rates, match: left.name = right.name, as_of: true}, select: {id: left.id}}
        b: {join: {left: orders, right: paymnts, match: left.name = right.name, ttl: 1h}, select: {id: left.id}}
        c: {join: {left: orders, match: left.name = right.name, ttl: 1h}, select: {id: left.id}}
        d: {join: {left: orders, right: payments, kind: full, match: left.name = right.name, ttl: 1h}, select: {id: left.id}}
        e: {join: {left: d, right: payments, match: left.id = right.order_id, within: [0s, 1s]}, select: {id: left.id}}
        result: {input: [a, b, c, e]}
    """)
    assert faults(text.replace("steps:", RATES + "steps:")) == snapshot(
        [
            "shop.yaml:8:73: steps.a.join.as_of: an as-of join needs event time, but the source 'rates' declares none; add `event_time: {column: since}` to sources.rates",
            "shop.yaml:9:35: steps.b.join.right: unknown input 'paymnts'; did you mean 'payments'?",
            "shop.yaml:10:7: steps.c.join: 'right' is missing",
            "shop.yaml:12:73: steps.e.join.within: an interval join cannot read 'd': its rows are updated and taken back; join it with `ttl` instead: a regular join takes updates",
        ]
    )


def test_columns_of_the_result() -> None:
    text = of("""
        a: {join: {left: orders, right: payments, match: left.id = right.order_id, ttl: 1h}}
        b: {join: {left: orders, right: payments, kind: semi, match: left.id = right.order_id, ttl: 1h}, where: right.y > 1, select: {id: left.id}}
        c: {join: {left: orders, right: payments, match: left.id = right.order_id, ttl: 1h}, where: x > 1, select: {id: left.idd, y: right.y}}
        result: {input: [b, c]}
        other: {input: a}
    """)
    assert faults(text.replace("input: result", "input: [result, other]")) == snapshot(
        [
            "shop.yaml:7:7: steps.a.join: both sides have a column 'name' and 'at'; choose and name the columns with `select`",
            "shop.yaml:8:107: steps.b.where: unknown column 'right.y'",
            "shop.yaml:9:95: steps.c.where: unknown column 'x'; did you mean 'left.x'?",
            "shop.yaml:9:115: steps.c.select.id: unknown column 'left.idd'; did you mean 'left.id'?",
            "shop.yaml:10:23: steps.result.input[1]: inputs need the same columns: unlike 'b', 'c' has a column 'y' more; make them alike in a step with `select`",
        ]
    )


def test_plain_names_and_the_equal_column_once() -> None:
    sources = SOURCES.replace("y: float64, at: timestamp_ms}, event_time: {column: at}", "y: float64}")
    graph = graph_of(
        of("result: {join: {left: orders, right: payments, match: left.name = right.name, ttl: 1h}}", sources)
    )
    assert list(graph.steps["result"].schema) == ["id", "name", "x", "at", "order_id", "y"]
    semi = graph_of(
        of("result: {join: {left: orders, right: payments, kind: semi, match: left.name = right.name, ttl: 1h}}")
    )
    assert list(semi.steps["result"].schema) == ["id", "name", "x", "at"]


def test_only_what_is_read_later_is_kept() -> None:
    step = graph_of(
        of(
            "result: {join: {left: orders, right: payments, match: left.id + 1 = right.order_id and left.x > right.y, ttl: 1h},"
            " where: length(left.name) > 1, select: {at: right.at}}"
        )
    ).steps["result"]
    assert [list(each.before[-1].schema) for each in step.inputs] == [
        ["left.name", "left.x", "__left_key0"],
        ["right.y", "right.at", "__right_key0"],
    ]
    assert [each.key for each in step.inputs] == [("__left_key0",), ("__right_key0",)]


def test_which_joins_are_changelogs() -> None:
    def changelog(join: str) -> Changelog | None:
        graph = graph_of(
            of(
                f"result: {{join: {{left: orders, right: payments, match: left.id = right.order_id, {join}}}, select: {{id: left.id}}}}"
            )
        )
        return graph.steps["result"].changelog

    assert changelog("ttl: forever") is None
    assert changelog("kind: semi, ttl: 1h") is None
    assert changelog("kind: left, ttl: 1h") == Changelog(None)
    assert changelog("kind: anti, ttl: 1h") == Changelog(None)
    assert changelog("kind: full, within: [0s, 1m]") is None


def test_a_window_join_may_have_no_other_equality() -> None:
    graph = graph_of(
        of("""
            per: {input: orders, key: [name], window: {tumble: 1m}, aggregate: {n: count(*)}}
            most: {input: per, window: input, aggregate: {n: max(n)}}
            result: {join: {left: per, right: most, match: left.n >= right.n, window: input}, select: {name: left.name}}
            other: {join: {left: orders, right: payments, match: left.x > right.y, window: {tumble: 1m}}, select: {n: left.name}}
        """)
        .replace("input: result", "input: [result, other]")
        .replace("{n: left.name}", "{name: left.name}")
    )
    assert [each.key for each in graph.steps["result"].inputs] == [
        ("left.window_start", "left.window_end"),
        ("right.window_start", "right.window_end"),
    ]
    assert [each.key for each in graph.steps["other"].inputs] == [(), ()]
