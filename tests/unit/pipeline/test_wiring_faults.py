"""Who reads whom: names that lead nowhere, circles, side outputs nobody asked for or reads."""
# ruff: noqa: E501 — a message stands on one line, as a user reads it

from __future__ import annotations

from inline_snapshot import snapshot

from tests.unit.pipeline.files import HEAD, ORDERS, OUT, faults, graph_of, of_steps

WINDOWED = "input: orders, key: [country], window: {tumble: 1m}, aggregate: {n: count(*)}"


def test_unknown_inputs() -> None:
    text = (
        HEAD
        + ORDERS
        + f"""\
steps:
  sums: {{{WINDOWED}}}
  a: {{input: ordes}}
  b: {{input: [sum.late, sums.lat, sums.errors.x]}}
  c: {{input: out}}
  d: {{input: "*.late"}}
  e: {{input: zzzzzz}}
  f: {{input: []}}
sinks:
  out: {{type: blackhole, input: [a, b, c, d, e, f]}}
"""
    )
    assert faults(text) == snapshot(
        [
            "shop.yaml:11:14: steps.a.input: unknown input 'ordes'; did you mean 'orders'?",
            "shop.yaml:12:15: steps.b.input[0]: unknown input 'sum.late'; did you mean 'sums.late'?",
            "shop.yaml:12:25: steps.b.input[1]: 'sums' has no output 'lat'; did you mean 'sums.late'?",
            "shop.yaml:12:35: steps.b.input[2]: 'sums' has no output 'errors.x'; did you mean 'sums.errors'?",
            "shop.yaml:13:14: steps.c.input: 'out' is a sink: nothing can be read from it",
            "shop.yaml:14:14: steps.d.input: unknown input '*.late'; all errors streams together are \"*.errors\"",
            "shop.yaml:15:14: steps.e.input: unknown input 'zzzzzz'; there are orders, sums, a, b, c, d, e and f",
            "shop.yaml:16:14: steps.f.input: must name at least one input",
        ]
    )


def test_side_outputs_not_asked_for() -> None:
    text = (
        HEAD
        + ORDERS
        + f"""\
steps:
  sums: {{{WINDOWED}}}
  flat: {{input: orders}}
sinks:
  a: {{type: print, input: sums.late}}
  b: {{type: print, input: flat.late}}
  c: {{type: print, input: orders.late}}
  d: {{type: print, input: [orders.errors, sums.errors]}}
"""
    )
    assert faults(text) == snapshot(
        [
            "shop.yaml:13:27: sinks.a.input: 'sums' drops its late rows; add `late: {then: side_output}` to steps.sums",
            "shop.yaml:14:27: sinks.b.input: 'flat' keeps no late rows: an aggregate or top with a window does",
            "shop.yaml:15:27: sinks.c.input: 'orders' is a source: only a step with a window has late rows",
            "shop.yaml:16:28: sinks.d.input[0]: 'orders' has no errors stream; add `errors: dlq` to sources.orders",
            "shop.yaml:16:43: sinks.d.input[1]: 'sums' has no errors stream; add `errors: dlq` to steps.sums",
        ]
    )


def test_side_outputs_that_nothing_reads() -> None:
    text = of_steps(f"""
        result: {{{WINDOWED}, late: {{then: side_output}}, errors: dlq}}
    """)
    assert faults(text) == snapshot(
        [
            "shop.yaml:10:104: steps.result.late.then: late rows are kept for a side output that nothing reads; read 'result.late' in a step or sink, or remove `then: side_output`",
            "shop.yaml:10:126: steps.result.errors: bad records go to an errors stream that nothing reads; read 'result.errors' or \"*.errors\" in a sink, or choose skip or fail",
        ]
    )


def test_an_errors_policy_for_all_needs_a_reader_for_all() -> None:
    text = (
        HEAD
        + "job: {errors: dlq}\n"
        + ORDERS
        + """\
steps:
  result: {input: orders, errors: skip}
  other: {input: orders}
sinks:
  out: {type: print, input: [result, other]}
"""
    )
    assert faults(text) == snapshot(
        [
            "shop.yaml:3:15: job.errors: bad records go to errors streams that nothing reads: 'orders.errors' and 'other.errors'; read \"*.errors\" in a sink, or choose skip or fail"
        ]
    )
    assert faults(text + '  dead: {type: print, input: "*.errors"}\n') == []


def test_a_step_that_is_not_run_reads_nothing() -> None:
    text = of_steps(f"""
        result: {{{WINDOWED}, late: {{then: side_output}}}}
        unread: {{input: result.late}}
    """)
    assert faults(text) == snapshot(
        [
            "shop.yaml:10:104: steps.result.late.then: late rows are kept for a side output that nothing reads; read 'result.late' in a step or sink, or remove `then: side_output`",
            "shop.yaml:11:3: warning: steps.unread: nothing reads this step, so it is not run",
        ]
    )


def test_circles() -> None:
    text = of_steps(f"""
        a: {{input: [orders, c]}}
        b: {{input: a}}
        c: {{input: b}}
        self: {{input: [orders, self]}}
        after: {{input: c, where: nonsense}}
        result: {{{WINDOWED}, where: nonsense}}
    """)
    assert faults(text) == snapshot(
        [
            "shop.yaml:10:14: steps.a.input: steps read each other in a circle: a → b → c → a",
            "shop.yaml:13:17: steps.self.input: 'self' reads itself",
            "shop.yaml:14:28: steps.after.where: unknown column 'nonsense'",
            "shop.yaml:15:98: steps.result.where: unknown column 'nonsense'",
        ]
    )


def test_unread_parts_are_warnings_and_are_not_run() -> None:
    text = (
        HEAD
        + ORDERS.replace("sources:\n", "sources:\n  spare: {type: file, path: x, schema: {id: int64}}\n")
        + """\
steps:
  result: {input: orders}
  middle: {input: spare}
  end: {input: middle}
sinks:
  out: {type: print, input: result}
  dead: {type: print, input: "*.errors"}
"""
    )
    assert faults(text) == snapshot(
        [
            "shop.yaml:4:3: warning: sources.spare: nothing reads this source, so it is not run",
            "shop.yaml:12:3: warning: steps.middle: nothing reads this step, so it is not run",
            "shop.yaml:13:3: warning: steps.end: nothing reads this step, so it is not run",
            "shop.yaml:16:3: warning: sinks.dead: nothing has `errors: dlq`, so this sink gets no rows and is not run",
        ]
    )
    graph = graph_of(text)
    assert (list(graph.sources), list(graph.steps), list(graph.sinks)) == (["orders"], ["result"], ["out"])
    assert graph.warnings == tuple(faults(text))


def test_unread_parts_with_faults_are_faults() -> None:
    text = HEAD + ORDERS + "steps:\n  a: {input: orders, where: idd = 1}\nsinks:\n  out: {type: print, input: orders}\n"
    assert faults(text) == snapshot(["shop.yaml:10:29: steps.a.where: unknown column 'idd'; did you mean 'id'?"])


def test_unions_need_the_same_columns() -> None:
    text = (
        HEAD
        + """\
sources:
  a: {type: file, path: a, schema: {id: int64, name: string, at: timestamp}}
  b: {type: file, path: b, schema: {id: int32, nmae: string, at: timestamp_us}}
  c: {type: file, path: c, schema: {at: timestamp, name: string, id: int64}}
steps:
  result: {input: [a, b, c], where: nonsense}
  fine: {input: [a, c]}
sinks:
  out: {type: print, input: [result, fine]}
  mixed: {type: print, input: [c, a, a.errors, a]}
"""
    )
    assert faults(text) == snapshot(
        [
            "shop.yaml:8:23: steps.result.input[1]: inputs need the same columns: unlike 'a', 'b' has no column 'name', has a column 'nmae' more, column 'id' is int32, not int64; make them alike in a step with `select`",
            "shop.yaml:8:37: steps.result.where: unknown column 'nonsense'",
            "shop.yaml:12:38: sinks.mixed.input[2]: 'a' has no errors stream; add `errors: dlq` to sources.a",
            "shop.yaml:12:48: sinks.mixed.input[3]: 'a' is named twice",
        ]
    )


def test_a_star_in_a_step_leaves_out_its_own_errors() -> None:
    text = (
        HEAD
        + "job: {errors: dlq}\n"
        + ORDERS
        + """\
steps:
  result: {input: orders}
  bad: {input: "*.errors", where: source = 'orders'}
sinks:
  out: {type: print, input: result}
  dead: {type: print, input: bad}
  rest: {type: print, input: "*.errors"}
"""
    )
    graph = graph_of(text)
    assert [str(ref) for ref in graph.steps["bad"].streams] == ["orders.errors", "result.errors"]
    assert [str(ref) for ref in graph.sinks["rest"].streams] == ["orders.errors", "result.errors", "bad.errors"]
    assert graph.sinks["rest"].carries_errors


def test_names_are_shared_and_renames_are_unique() -> None:
    text = (
        HEAD
        + ORDERS
        + """\
steps:
  result: {input: orders}
  a: {input: orders, was: old}
  b: {input: orders, was: old}
  c: {input: orders, was: a}
  orders: {input: result}
sinks:
  result: {type: print, input: [a, b, c, result]}
"""
    )
    assert faults(text) == snapshot(
        [
            "shop.yaml:12:27: steps.b.was: the state of 'old' goes to 'a' already",
            "shop.yaml:13:27: steps.c.was: 'a' is still a step of this file: 'c' cannot have its state",
            "shop.yaml:14:3: steps.orders: the name 'orders' is taken by a source: sources, steps and sinks share their names",
            "shop.yaml:16:3: sinks.result: the name 'result' is taken by a step: sources, steps and sinks share their names",
        ]
    )


def test_nothing_that_runs_is_an_error() -> None:
    assert faults(HEAD + ORDERS + 'sinks:\n  dead: {type: print, input: "*.errors"}\n') == snapshot(
        [
            "shop.yaml:9:1: sinks: nothing would run: no source or step has an errors stream for the sinks to read; give a source or step `errors: dlq`, or add a sink that reads one"
        ]
    )


def test_unreadable_sources_make_no_noise_in_steps() -> None:
    assert faults(HEAD + "sources: [orders]\nsteps:\n  result: {input: orders, where: id = 1}\n" + OUT) == snapshot(
        ["shop.yaml:3:1: sources: must be a mapping of names, not a list"]
    )
