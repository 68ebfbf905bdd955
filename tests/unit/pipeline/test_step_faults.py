"""What is wrong inside a step: columns, expressions, windows, fields that do not go together."""
# ruff: noqa: E501 — a message stands on one line, as a user reads it

from __future__ import annotations

from inline_snapshot import snapshot

from tests.unit.pipeline.files import HEAD, OUT, faults, of_steps


def test_expressions_name_the_character() -> None:
    text = of_steps("""
        result:
          input: orders
          where: amout > 10 and country = 'FR'
          add:
            eur: "amount * ratee"
            big: amount > 'x'
            text: >
              upper(
              countri)
    """)
    assert faults(text) == snapshot(
        [
            "shop.yaml:12:12: steps.result.where: unknown column 'amout'; did you mean 'amount'?",
            "shop.yaml:14:22: steps.result.add.eur: unknown column 'ratee'",
            "shop.yaml:15:12: steps.result.add.big: cannot compare amount > 'x': float64 and string do not go together; write cast(… as float64) or cast(… as string)",
            "shop.yaml:18:9: steps.result.add.text: unknown column 'countri'; did you mean 'country'?",
        ]
    )


def test_all_faults_of_all_steps_at_once_and_none_that_follow() -> None:
    text = of_steps("""
        first: {input: orders, select: {id: idd}}
        second: {input: first, where: nothing_is_known_here > 1, key: [x], window: {tumble: 1m}, aggregate: {n: count(y)}}
        third: {input: second, window: {tumble: 1m, hop: {size: 1s, every: 2s}}}
        other: {input: orders, where: amount + 1}
        result: {input: [third, other], select: [a]}
    """)
    assert faults(text) == snapshot(
        [
            "shop.yaml:10:39: steps.first.select.id: unknown column 'idd'; did you mean 'id'?",
            "shop.yaml:11:33: steps.second.where: unknown column 'nothing_is_known_here'",
            "shop.yaml:11:66: steps.second.key[0]: unknown column 'x'; there is id",
            "shop.yaml:11:113: steps.second.aggregate.n: unknown column 'y'",
            "shop.yaml:12:26: steps.third.window: has both 'tumble' and 'hop': give one",
            "shop.yaml:13:33: steps.other.where: a condition must be a boolean, this is float64",
            "shop.yaml:14:44: steps.result.select[0]: unknown column 'a'; did you mean 'at'?",
        ]
    )


def test_fields_that_need_an_aggregate() -> None:
    text = of_steps("""
        result:
          input: orders
          key: [id]
          window: {tumble: 1m}
          emit: on_close
          late: {accept_for: 1m}
          having: n > 1
    """)
    assert faults(text) == snapshot(
        [
            "shop.yaml:12:5: steps.result.key: 'key' needs 'aggregate' in the same step; 'deduplicate', 'top' and 'process' have it inside",
            "shop.yaml:14:5: steps.result.emit: 'emit' needs 'aggregate' in the same step",
            "shop.yaml:15:5: steps.result.late: 'late' needs 'aggregate' or 'top' in the same step",
            "shop.yaml:16:5: steps.result.having: 'having' needs a verb in the same step; conditions on rows go to `where`",
        ]
    )


def test_an_aggregate_over_endless_input_needs_a_window() -> None:
    text = (
        HEAD
        + """\
sources:
  file: {type: file, path: a, schema: {id: int64}}
  live: {type: file, path: a, follow: true, schema: {id: int64}}
steps:
  a: {input: [file, live], key: [id], aggregate: {n: count(*)}}
  b: {input: [file, live], key: [id], window: , aggregate: {n: count(*)}}
sinks:
  out: {type: print, input: [a, b]}
"""
    )
    assert faults(text) == snapshot(
        [
            "shop.yaml:7:39: steps.a.aggregate: an aggregate over input that never ends needs a window: its state would grow for ever; for example `window: {tumble: 1m}`; or say for how long a key counts: `ttl: 1h`, or `ttl: forever`",
            "shop.yaml:8:39: steps.b.window: nothing is written here: give it a value, or leave it out",
        ]
    )


def test_windows() -> None:
    text = of_steps("""
        a: {input: orders, window: {}, aggregate: {n: count(*)}}
        b: {input: orders, window: {tumble: 1m, hop: {size: 1m, every: 1s}}, aggregate: {n: count(*)}}
        c: {input: orders, window: {hop: {size: 1m, every: 2m}}, aggregate: {n: count(*)}}
        d: {input: orders, window: {hop: {size: 365d, every: 1ms}}, aggregate: {n: count(*)}}
        e: {input: orders, window: {tumble: 0s}, aggregate: {n: count(*)}}
        f: {input: orders, window: {tumble: 1m, offset: 1m}, aggregate: {n: count(*)}}
        g: {input: orders, window: {hop: {size: 10m, every: 7m}, offset: 6m}, aggregate: {n: count(*)}}
        result: {input: [a, b, c, d, e, f, g]}
    """)
    assert faults(text) == snapshot(
        [
            "shop.yaml:10:22: steps.a.window: needs 'tumble', 'hop', 'session' or 'cumulate'; for example {tumble: 1m}",
            "shop.yaml:11:22: steps.b.window: has both 'tumble' and 'hop': give one",
            "shop.yaml:12:54: steps.c.window.hop.every: 2m is more than the size (1m): rows between windows would be lost",
            "shop.yaml:13:56: steps.d.window.hop.every: a row would belong to 31536000000 windows; at most 100000 are allowed",
            "shop.yaml:14:39: steps.e.window.tumble: '0s': this duration must be more than zero",
            "shop.yaml:15:51: steps.f.window.offset: 1m is not less than the distance of windows (1m)",
        ]
    )


def test_a_window_needs_event_time_in_every_source_behind_it() -> None:
    text = (
        HEAD
        + """\
sources:
  timed: {type: file, path: a, schema: {id: int64, at: timestamp}, event_time: {column: at}}
  could: {type: file, path: b, schema: {id: int64, at: timestamp}, errors: dlq}
  never: {type: file, path: c, schema: {id: int64, at: string}}
steps:
  all: {input: [timed, could]}
  ids: {input: never, select: {id: id, at: cast(at as timestamp)}}
  both: {input: [all, ids]}
  result: {input: both, window: {tumble: 1m}, aggregate: {n: count(*)}}
  again: {input: result, window: {tumble: 1h}, aggregate: {n: sum(n)}}
  bad: {input: could.errors, window: {tumble: 1m}, aggregate: {n: count(*)}}
sinks:
  out: {type: print, input: [again, bad]}
"""
    )
    assert faults(text) == snapshot(
        [
            "shop.yaml:11:25: steps.result.window: a window needs event time, but the source 'could' declares none; add `event_time: {column: at}` to sources.could",
            "shop.yaml:11:25: steps.result.window: a window needs event time, but the source 'never' declares none; declare a timestamp column in sources.never and name it in `event_time: {column: …}`",
            "shop.yaml:13:30: steps.bad.window: a window needs event time, which 'could.errors' does not have",
        ]
    )


def test_keys() -> None:
    text = of_steps("""
        sums: {input: orders, key: [county, id, id, tags], window: {tumble: 1m}, aggregate: {n: count(*)}}
        fine: {input: orders, key: [id], window: {tumble: 1m}, aggregate: {n: count(*)}}
        result: {input: fine, key: [window_start], window: {tumble: 1m}, aggregate: {n: count(*)}}
        more: {input: [sums, result]}
    """)
    assert faults(text) == snapshot(
        [
            "shop.yaml:10:31: steps.sums.key[0]: unknown column 'county'; did you mean 'country'?",
            "shop.yaml:10:43: steps.sums.key[2]: 'id' is named twice",
            "shop.yaml:10:47: steps.sums.key[3]: 'tags' is a list: it cannot be a key",
            "shop.yaml:12:31: steps.result.key[0]: a window gives a column 'window_start' of its own; rename it in a step before, with `select`",
            "shop.yaml:13:3: warning: steps.more: nothing reads this step, so it is not run",
        ]
    )


def test_names_of_aggregates() -> None:
    text = of_steps("""
        result:
          input: orders
          key: [country]
          window: {tumble: 1m}
          aggregate: {country: count(*), window_end: max(at), __n: count(*), "*": count(*), "": count(*)}
    """)
    assert faults(text) == snapshot(
        [
            "shop.yaml:14:17: steps.result.aggregate.country: 'country' is a key column already: give the aggregate another name",
            "shop.yaml:14:36: steps.result.aggregate.window_end: 'window_end' is a column of the window already: give the aggregate another name",
            "shop.yaml:14:57: steps.result.aggregate.__n: a column cannot be called '__n': names that begin with __ are reserved",
            "shop.yaml:14:72: steps.result.aggregate.*: a column cannot be called '*'",
            "shop.yaml:14:87: steps.result.aggregate.: a column cannot be called ''",
        ]
    )


def test_aggregates_and_what_follows() -> None:
    text = of_steps("""
        a: {input: orders, key: [id], window: {tumble: 1m}, aggregate: {n: coutn(*), s: sum(amont), t: amount, u: sum(country)}}
        b: {input: orders, key: [id], window: {tumble: 1m}, aggregate: {n: count(*)}, having: amount > 1, select: [id, amount]}
        c: {input: orders, where: sum(amount) > 1}
        result: {input: [a, b, c]}
    """)
    assert faults(text) == snapshot(
        [
            "shop.yaml:10:70: steps.a.aggregate.n: unknown function 'coutn'; did you mean 'count'?",
            "shop.yaml:10:87: steps.a.aggregate.s: unknown column 'amont'; did you mean 'amount'?",
            "shop.yaml:10:98: steps.a.aggregate.t: column 'amount' must stand inside an aggregate or be a key",
            "shop.yaml:10:109: steps.a.aggregate.u: sum takes numbers, not string",
            "shop.yaml:11:89: steps.b.having: unknown column 'amount'",
            "shop.yaml:11:114: steps.b.select[1]: unknown column 'amount'; there are id, window_start, window_end and n",
            "shop.yaml:12:29: steps.c.where: aggregate sum(…) is not allowed here; aggregates stand under `aggregate`",
            "shop.yaml:13:26: steps.result.input[2]: inputs need the same columns: unlike 'a', 'c' has no column 'window_start', has no column 'window_end', has no column 'n', and 7 more; make them alike in a step with `select`",
        ]
    )


def test_selecting() -> None:
    text = of_steps("""
        a: {input: orders, select: [id, id, amount * 2, contry]}
        b: {input: orders, add: {__x: id, at: amount}}
        c: {input: b, where: nonsense}
        d: {input: orders, select: {id: id}, add: {more: id + 1, less: amount}}
        result: {input: [a, c, d]}
    """)
    assert faults(text) == snapshot(
        [
            "shop.yaml:10:35: steps.a.select[1]: 'id' is named twice",
            "shop.yaml:10:39: steps.a.select[2]: unknown column 'amount * 2'; a list keeps columns by name; for expressions write a mapping {name: expression}",
            "shop.yaml:10:51: steps.a.select[3]: unknown column 'contry'; did you mean 'country'?",
            "shop.yaml:11:28: steps.b.add.__x: a column cannot be called '__x': names that begin with __ are reserved",
            "shop.yaml:12:24: steps.c.where: unknown column 'nonsense'",
            "shop.yaml:13:66: steps.d.add.less: unknown column 'amount'",
        ]
    )


def test_parallelism_is_at_most_the_key_groups() -> None:
    text = (
        HEAD
        + """\
job: {max_parallelism: 4, parallelism: 5}
sources:
  orders: {type: file, path: a, schema: {id: int64}, parallelism: 4}
steps:
  result: {input: orders, parallelism: 8}
"""
        + OUT
    )
    assert faults(text) == snapshot(
        [
            "shop.yaml:3:40: job.parallelism: 5 is more than max_parallelism (4)",
            "shop.yaml:7:40: steps.result.parallelism: 8 is more than the job's max_parallelism (4)",
        ]
    )


def test_one_global_group_runs_in_one_subtask() -> None:
    text = of_steps("""
        result: {input: orders, window: {tumble: 1m}, aggregate: {n: count(*)}, parallelism: 4}
    """)
    assert faults(text) == snapshot(
        ["shop.yaml:10:75: warning: steps.result.parallelism: without 'key' there is one group: it runs in one subtask"]
    )


def test_columns_computed_side_by_side() -> None:
    text = of_steps("""
        sums: {input: orders, window: {tumble: 1m}, aggregate: {n: count(*), half: n / 2}}
        result: {input: sums, add: {a: n * 2, b: a + 1, c: c + 1}}
    """)
    assert faults(text) == snapshot(
        [
            "shop.yaml:10:78: steps.sums.aggregate.half: unknown column 'n'; columns computed side by side do not see each other: use 'n' in a further step",
            "shop.yaml:11:44: steps.result.add.b: unknown column 'a'; columns computed side by side do not see each other: use 'a' in a further step",
            "shop.yaml:11:54: steps.result.add.c: unknown column 'c'",
        ]
    )
