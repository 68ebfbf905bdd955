"""What is wrong with steps whose rows are updated and taken back, and with who reads them."""
# ruff: noqa: E501 — a message stands on one line, as a user reads it

from __future__ import annotations

from inline_snapshot import snapshot

from operators.deduplicate import KeepFirstSpec, KeepLastSpec
from operators.top import TopSpec
from operators.totals import TotalsSpec
from operators.windowed_top import WindowedTopSpec
from streamproc.pipeline.logical import Changelog
from tests.unit.pipeline.files import HEAD, ORDERS, faults, graph_of, of_steps

ENDLESS = ORDERS.replace("orders/*.json", "orders/*.json\n    follow: true")


def endless(steps: str) -> str:
    return of_steps(steps).replace("    path: orders/*.json\n", "    path: orders/*.json\n    follow: true\n")


def test_state_that_would_grow_for_ever() -> None:
    text = endless("""
        newest: {input: orders, deduplicate: {key: [id], keep: last}}
        best: {input: orders, top: {n: 3, by: [amount desc]}}
        sums: {input: orders, key: [id], aggregate: {n: count(*)}, emit: on_update}
        result: {input: orders}
    """)
    assert faults(text) == snapshot(
        [
            "shop.yaml:11:27: steps.newest.deduplicate: remembers every key of input that never ends: its state would grow for ever; say for how long a key counts, for example `ttl: 1h`, or `ttl: forever`",
            "shop.yaml:12:25: steps.best.top: keeps the best rows of every key of input that never ends: its state would grow for ever; bound it with a window (`window: {tumble: 1m}`) or a time to live (`ttl: 1h`, or `ttl: forever`)",
            "shop.yaml:13:36: steps.sums.aggregate: an aggregate over input that never ends needs a window: its state would grow for ever; for example `window: {tumble: 1m}`; or say for how long a key counts: `ttl: 1h`, or `ttl: forever`",
        ]
    )


def test_deduplicate() -> None:
    text = of_steps("""
        result: {input: orders, deduplicate: {key: [idd, id, id, tags], keep: newest}}
    """)
    assert faults(text) == snapshot(
        [
            "shop.yaml:10:47: steps.result.deduplicate.key[0]: unknown column 'idd'; did you mean 'id'?",
            "shop.yaml:10:56: steps.result.deduplicate.key[2]: 'id' is named twice",
            "shop.yaml:10:60: steps.result.deduplicate.key[3]: 'tags' is a list: it cannot be a key",
            "shop.yaml:10:73: steps.result.deduplicate.keep: must be first or last, not the text 'newest'",
        ]
    )


def test_top() -> None:
    text = of_steps("""
        first: {input: orders, top: {n: 0, by: [amount desc]}}
        second: {input: orders, top: {n: 1, by: ["amout desc", tags, amount nulls last, "1 +"], key: [country], rank: country}}
        third: {input: orders, late: {accept_for: 1m}, top: {n: 1, by: [id], window: {tumble: 1m}, rank: window_end, ttl: 1h}}
        fourth: {input: orders, top: {n: 1, by: [id], window: {session: 1m}}}
        fifth: {input: orders, late: {accept_for: 1m}, top: {n: 1, by: [id], window: input}}
        result: {input: orders}
    """)
    assert faults(text) == snapshot(
        [
            "shop.yaml:10:35: steps.first.top.n: must be at least 1, not 0",
            "shop.yaml:11:45: steps.second.top.by[0]: unknown column 'amout'; did you mean 'amount'?",
            "shop.yaml:11:58: steps.second.top.by[1]: rows cannot be ranked by a list[string]",
            "shop.yaml:11:64: steps.second.top.by[2]: 'nulls last' cannot be chosen; nulls are the lowest values: first ascending, last descending",
            "shop.yaml:11:86: steps.second.top.by[3]: not a SQL expression: something is missing after '+'",
            "shop.yaml:11:113: steps.second.top.rank: 'country' is a column of the input already: give the rank another name",
            "shop.yaml:12:45: steps.third.late.accept_for: top gives each window once, when it closes: late rows cannot change it; leave 'accept_for' out, or allow more disorder with `out_of_order` at the source",
            "shop.yaml:12:100: steps.third.top.rank: 'window_end' is a column of the window already: give the rank another name",
            "shop.yaml:12:112: steps.third.top.ttl: a window forgets its rows when it closes: there is no 'ttl' beside it",
            "shop.yaml:13:58: steps.fourth.top.window.session: top knows no sessions of its own; aggregate the sessions in a step before, and rank its rows with `window: input`",
            "shop.yaml:14:45: steps.fifth.late.accept_for: top gives each window once, when it closes: late rows cannot change it; leave 'accept_for' out, or allow more disorder with `out_of_order` at the source",
            "shop.yaml:14:80: steps.fifth.top.window: the input carries no windows: it has no column 'window_start' and 'window_end'; they come from a step with a window; keep both columns in its `select`",
        ]
    )


def test_aggregates_without_a_window() -> None:
    text = of_steps("""
        first: {input: orders, key: [county], aggregate: {country: count(*)}, late: {accept_for: 1m}}
        second: {input: orders, key: [id], aggregate: {id: count(*), n: summ(amount)}, ttl: 1h, emit: on_close}
        result: {input: orders}
    """)
    assert faults(text) == snapshot(
        [
            "shop.yaml:10:32: steps.first.key[0]: unknown column 'county'; did you mean 'country'?",
            "shop.yaml:10:73: steps.first.late: without a window no row is late; add a `window`, or leave 'late' out",
            "shop.yaml:11:50: steps.second.aggregate.id: 'id' is a key column already: give the aggregate another name",
            "shop.yaml:11:67: steps.second.aggregate.n: unknown function 'summ'; did you mean 'sum'?",
            "shop.yaml:11:97: steps.second.emit: without a window a group with a 'ttl' never closes; write `emit: on_update`, or `emit: {every: 10s}`",
        ]
    )


def test_windows_and_deduplicate_take_no_changelog() -> None:
    text = of_steps("""
        newest: {input: orders, deduplicate: {key: [id], keep: last}}
        again: {input: newest, deduplicate: {key: [country]}}
        best: {input: newest, top: {n: 1, by: [id], window: {tumble: 1m}}}
        result: {input: newest, key: [id], window: {tumble: 1m}, aggregate: {n: count(*)}}
    """)
    assert faults(text) == snapshot(
        [
            "shop.yaml:11:26: steps.again.deduplicate: deduplicate cannot read 'newest': its rows are updated and taken back; its rows may be unique already: read it without `deduplicate`",
            "shop.yaml:12:47: steps.best.top.window: a window cannot read 'newest': its rows are updated and taken back; rank it without a window",
            "shop.yaml:13:38: steps.result.window: a window cannot read 'newest': its rows are updated and taken back; aggregate it without a window",
        ]
    )


SINKS = """
steps:
  newest: {input: orders, deduplicate: {key: [id, country], keep: last}}
  best: {input: orders, top: {n: 3, by: [amount desc]}}
  once: {input: orders, deduplicate: {key: [id]}}
sinks:
  file: {type: file, path: out, input: newest}
  keyless: {type: kafka, brokers: ["b:9092"], topic: a, input: newest}
  no_key: {type: kafka, brokers: ["b:9092"], topic: b, input: best}
  too_few: {type: kafka, brokers: ["b:9092"], topic: c, input: newest, key: [country]}
  right: {type: kafka, brokers: ["b:9092"], topic: d, input: newest, key: [country, id]}
  asserted: {type: kafka, brokers: ["b:9092"], topic: e, input: best, key: [id]}
  printed: {type: print, input: newest}
  gone: {type: blackhole, input: newest}
  appended: {type: file, path: once, input: once}
"""


def test_sinks_that_cannot_take_updates() -> None:
    assert faults(HEAD + ORDERS + SINKS) == snapshot(
        [
            "shop.yaml:15:40: sinks.file.input: a file only grows, and rows of 'newest' are updated and taken back; write it to a Kafka sink with a `key`, or give final rows only: with a window and `emit: on_close`",
            "shop.yaml:16:64: sinks.keyless.input: rows of 'newest' are updated and taken back, which a topic can only take by key; name the columns that tell rows apart: `key: [id, country]`",
            "shop.yaml:17:63: sinks.no_key.input: rows of 'best' are updated and taken back, which a topic can only take by key; name the columns that tell rows apart in `key`",
            "shop.yaml:18:72: sinks.too_few.key: rows that differ in 'id' would overwrite each other; write `key: [country, id]`",
        ]
    )


def test_what_the_steps_come_to() -> None:
    graph = graph_of(
        endless("""
        last: {input: orders, deduplicate: {key: [id], keep: last, ttl: 1h}}
        first: {input: orders, deduplicate: {key: [id], ttl: forever}}
        ranked: {input: orders, top: {n: 3, by: ["amount * 2 desc", at], key: [country], rank: place, ttl: 1h}}
        one: {input: orders, top: {n: 1, by: [at desc], key: [country], ttl: 1h}}
        tied: {input: orders, top: {n: 3, by: [amount], rank: place, ties: true, ttl: 1h}}
        windowed: {input: orders, top: {n: 3, by: [amount], window: {hop: {size: 1m, every: 10s}}, rank: place}}
        sums: {input: last, key: [country], aggregate: {n: count(*)}, ttl: forever}
        all: {input: sums, aggregate: {n: sum(n)}, emit: {every: 10s}, ttl: 1d}
        result: {input: all}
    """).replace(
            "  out: {type: print, input: result}",
            "  out: {type: print, input: result}\n"
            + "".join(
                f"  {name}_out: {{type: print, input: {name}}}\n"
                for name in ("first", "ranked", "one", "tied", "windowed")
            ),
        )
    )
    steps = {name: (step.operators[-1], step.changelog) for name, step in graph.steps.items() if step.operators}
    assert {name: changelog for name, (_, changelog) in steps.items()} == {
        "last": Changelog(("id",)),
        "first": None,
        "ranked": Changelog(("country", "place")),
        "one": Changelog(("country",)),
        "tied": Changelog(None),
        "windowed": None,
        "sums": Changelog(("country",)),
        "all": Changelog(()),
    }
    assert isinstance(steps["last"][0], KeepLastSpec)
    assert isinstance(steps["first"][0], KeepFirstSpec)
    assert steps["first"][0].ttl_ms is None
    ranked = steps["ranked"][0]
    assert isinstance(ranked, TopSpec)
    assert (list(ranked.schema), str(ranked.ranking)) == (
        ["id", "country", "amount", "tags", "at", "place"],
        "3 by __by0 desc, at asc",
    )
    windowed = steps["windowed"][0]
    assert isinstance(windowed, WindowedTopSpec)
    assert list(windowed.schema)[-3:] == ["window_start", "window_end", "place"]
    sums, everything = steps["sums"][0], steps["all"][0]
    assert isinstance(sums, TotalsSpec)
    assert isinstance(everything, TotalsSpec)
    assert (sums.retracting, sums.update_every_ms, sums.ttl_ms) == (True, 0, None)
    assert (everything.retracting, everything.update_every_ms, everything.ttl_ms) == (True, 10_000, 86_400_000)


def test_bounded_input_gives_final_rows() -> None:
    graph = graph_of(of_steps("result: {input: orders, key: [country], aggregate: {n: count(*)}}"))
    [totals] = graph.steps["result"].operators
    assert isinstance(totals, TotalsSpec)
    assert totals.update_every_ms is None
    assert graph.steps["result"].changelog is None
