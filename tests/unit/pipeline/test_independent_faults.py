"""No fault hides another: whatever faults a file is given, each is reported, and at its own place."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.pipeline.every_verb import EVERY_VERB, with_code
from tests.unit.pipeline.files import check

SHOP = """\
version: 1
pipeline: shop
job: {parallelism: 2, max_parallelism: 64, checkpoint: {every: 10s, keep: 3}, errors: fail}
connections:
  main: {type: kafka, brokers: ["kafka:9092"]}
sources:
  orders:
    type: kafka
    connection: main
    topic: orders
    start: earliest
    schema: {id: int64, country: string, amount: float64, at: timestamp_ms, note: string}
    event_time: {column: at, out_of_order: 10s}
    metadata: {where_from: partition}
  more:
    type: file
    path: more/*.csv
    format: csv
    schema: {id: int64, eur: float64}
steps:
  clean:
    input: orders
    where: amount > 0 and note <> 'x'
    add: {eur: amount * 2, big: amount > 100, upper_note: upper(note)}
    parallelism: 4
  sums:
    input: clean
    where: big or where_from = 1
    key: [country, upper_note]
    window: {hop: {size: 10m, every: 1m}}
    aggregate: {n: count(*), total: sum(eur), longest: max(length(note))}
    late: {accept_for: 5m, then: side_output}
    having: total > 5
  shaped:
    input: sums
    select: {country: country, mean: total / n, until: window_end}
  both: {input: [more, small]}
  small: {input: clean, select: [id, eur]}
sinks:
  out: {type: kafka, connection: main, topic: sums, input: shaped, key: [country], delivery: exactly_once}
  late: {type: file, path: late, input: sums.late, format: json}
  rest: {type: print, input: both, parallelism: 1}
"""
FAULTS = [
    ("pipeline: shop", "pipeline: My Shop", "pipeline: must be"),
    ("max_parallelism: 64", "max_parallelism: many", "job.max_parallelism: must be"),
    ("every: 10s", "every: 10", "job.checkpoint.every: 10 is not a duration"),
    ("keep: 3", "keep: 0", "job.checkpoint.keep: must be"),
    ('"kafka:9092"', '"kafka"', "connections.main.brokers[0]: 'kafka' is not"),
    ("topic: orders", "topic: [orders]", "sources.orders.topic: must be text"),
    ("start: earliest", "start: erliest", "sources.orders.start: must be"),
    ("amount: float64", "amount: flaot64", "sources.orders.schema.amount: 'flaot64' is not a type"),
    ("note: string", "note: text", "sources.orders.schema.note: 'text' is not a type"),
    ("column: at", "column: att", "sources.orders.event_time.column: unknown column 'att'"),
    ("out_of_order: 10s", "out_of_order: -10s", "sources.orders.event_time.out_of_order: '-10s'"),
    ("where_from: partition", "where_from: partitoin", "sources.orders.metadata.where_from: must be"),
    ("format: csv", "fromat: csv", "sources.more.fromat: unknown field 'fromat'"),
    ("where: amount > 0", "where: amnt > 0", "steps.clean.where: unknown column 'amnt'"),
    ("note <> 'x'", "nte <> 'x'", "steps.clean.where: unknown column 'nte'"),
    ("eur: amount * 2", "eur: amount * ratee", "steps.clean.add.eur: unknown column 'ratee'"),
    ("big: amount > 100", "big: amount >", "steps.clean.add.big: not a SQL expression"),
    ("upper(note)", "uper(note)", "steps.clean.add.upper_note: unknown function 'uper'"),
    ("parallelism: 4", "parallelism: 0", "steps.clean.parallelism: must be at least 1"),
    ("where_from = 1", "count(*) = 1", "steps.sums.where: aggregate count(…) is not allowed here"),
    ("key: [country, upper", "key: [contry, upper", "steps.sums.key[0]: unknown column 'contry'"),
    ("size: 10m", "size: 10", "steps.sums.window.hop.size: 10 is not a duration"),
    ("sum(eur)", "sum(euro)", "steps.sums.aggregate.total: unknown column 'euro'"),
    ("max(length(note))", "max(count(note))", "steps.sums.aggregate.longest: aggregate count(…) is not allowed"),
    ("accept_for: 5m", "accept_for: 5", "steps.sums.late.accept_for: 5 is not a duration"),
    ("having: total", "having: totl", "steps.sums.having: unknown column 'totl'"),
    ("total / n,", "total / m,", "steps.shaped.select.mean: unknown column 'm'"),
    ("until: window_end", "until: window_and", "steps.shaped.select.until: unknown column 'window_and'"),
    ("select: [id, eur]", "select: [id, zzz]", "steps.small.select[1]: unknown column 'zzz'"),
    ("key: [country], delivery", "key: [region], delivery", "sinks.out.key[0]: unknown column 'region'"),
    ("delivery: exactly_once", "delivery: twice", "sinks.out.delivery: must be"),
    ("format: json", "format: jsn", "sinks.late.format: unknown type 'jsn'"),
    ("both, parallelism: 1", "both, parallelism: 99999", "sinks.rest.parallelism: must be at most"),
]


VERB_FAULTS = [
    ("kind: anti", "kind: outer", "steps.open.join.kind: must be"),
    (
        "left.id = right.order_id and right.fx > 0",
        "left.idd = right.order_id and right.fx > 0",
        "steps.paid.join.match: unknown column 'left.idd'",
    ),
    ("eur: left.amount * right.fx", "eur: left.amount * left.fx", "steps.paid.select.eur: unknown column 'left.fx'"),
    ("within: [-5m, 1h]", "within: [1h, -5m]", "steps.paid.join.within: no time is both"),
    (
        "{hop: {size: 10m, every: 1m}}}",
        "{hop: {size: 1m, every: 10m}}}",
        "steps.together.join.window.hop.every: 10m is more",
    ),
    ("as_of: true", "as_of: now", "steps.priced.join.as_of: must be"),
    ("left.id + 0 = right.order_id", "left.id + 0 > right.order_id", "steps.open.join.match: needs an equality"),
    (
        "match: left.country = right.code",
        "match: left.country = right.cod",
        "steps.named.join.match: unknown column 'right.cod'",
    ),
    ("code: string, name: string", "code: string, name: text", "steps.named.join.lookup.schema.name: 'text' is not"),
    ("deduplicate: {key: [id], ttl: 1d}", "deduplicate: {key: [id]}", "steps.once.deduplicate: remembers every key"),
    ("keep: last", "keep: newest", "steps.latest.deduplicate.keep: must be"),
    (
        "by: [amount * 2 desc, at]",
        "by: [amount * 2 descending, at]",
        "steps.best.top.by[0]: 'descending' is no direction",
    ),
    ("rank: place", "rank: id", "steps.best.top.rank: 'id' is a column"),
    ("{session: 30m}", "{session: 30}", "steps.visits.window.session: 30 is not a duration"),
    (
        "every: 1m}}, aggregate: {n: count(*)}, emit",
        "every: 7m}}, aggregate: {n: count(*)}, emit",
        "steps.growing.window.cumulate.every: the size",
    ),
    ("emit: on_update", "emit: on_updat", "steps.growing.emit: must be"),
    ("by: [n desc]", "by: [m desc]", "steps.hottest.top.by[0]: unknown column 'm'"),
    ("sum(amount)}, emit", "sum(amuont)}, emit", "steps.totals.aggregate.eur: unknown column 'amuont'"),
    ("shop.py:score", "shop.py:scores", "steps.scored.python.call: 'shop.py' has no 'scores'"),
    ("mode: async", "mode: asynchron", "steps.asked.python.mode: must be"),
    (
        "key: [id], columns: {n: int64}",
        "key: [idd], columns: {n: int64}",
        "steps.counted.process.key[0]: unknown column 'idd'",
    ),
    ("odd: {id: int64}", "odd: {id: int}", "steps.counted.process.outputs.odd.id: 'int' is not"),
    ("where amount > 0", "where amuont > 0", "steps.queried.sql: unknown column 'amuont'"),
    ("select o.id, p.fx", "select o.id, p.fxx", "steps.paired.sql: unknown column 'p.fxx'"),
    ("input: paid}", "input: pad}", "sinks.to_paid.input: unknown input 'pad'"),
    (
        "input: totals, key: [country]",
        "input: totals, key: [eur]",
        "sinks.to_totals.key: rows that differ in 'country'",
    ),
]


@settings(max_examples=40, deadline=None)
@given(injected=st.lists(st.sampled_from(VERB_FAULTS), min_size=1, max_size=8, unique=True))
def test_every_fault_of_a_verb_and_no_other(injected: list[tuple[str, str, str]], folder: Path) -> None:
    text = EVERY_VERB
    for right, wrong, _ in injected:
        assert text.count(right) == 1, right
        text = text.replace(right, wrong)
    said = [f"{fault.path}: {fault.message}" for fault in check(text, folder=folder)[1] if fault.severity == "error"]
    expected = [message for _, _, message in injected]
    assert [message for message in expected if not any(line.startswith(message) for line in said)] == []
    assert [line for line in said if not any(line.startswith(message) for message in expected)] == []


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the code of the pipeline with every verb is."""
    return with_code(tmp_path_factory.mktemp("pipeline"))


def test_the_file_is_right() -> None:
    graph, found = check(SHOP)
    assert graph is not None
    assert found == []


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(FAULTS), min_size=1, max_size=8, unique=True))
def test_every_fault_is_reported_at_its_place_and_no_other(injected: list[tuple[str, str, str]]) -> None:
    text = SHOP
    for right, wrong, _ in injected:
        assert text.count(right) == 1, right
        text = text.replace(right, wrong)
    _, found = check(text)
    said = [f"{fault.path}: {fault.message}" for fault in found]
    expected = [message for _, _, message in injected]
    for message in expected:
        assert any(line.startswith(message) for line in said), (message, said, text)
    for fault, line in zip(found, said, strict=True):
        assert any(line.startswith(message) for message in expected), (line, text)
        written = text.splitlines()[fault.line - 1]
        assert fault.column <= len(written) + 1, (line, written)


def test_all_faults_at_once() -> None:
    text = SHOP
    for right, wrong, _ in FAULTS:
        text = text.replace(right, wrong)
    said = [f"{fault.path}: {fault.message}" for fault in check(text)[1]]
    assert [m for _, _, m in FAULTS if not any(line.startswith(m) for line in said)] == []
    assert len(said) == len(FAULTS)
