"""Whatever is done to a right file, checking it gives faults or a graph, never anything else."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from streamproc.pipeline.explain import explain
from tests.unit.pipeline.every_verb import EVERY_VERB, with_code
from tests.unit.pipeline.files import check, of_steps
from tests.unit.pipeline.test_explain import SHOP

WORDS = [
    "orders",
    "revenue",
    "revenue.late",
    "*.errors",
    "10s",
    "-1m",
    "1m",
    "kafka",
    "file",
    "datagen",
    "json",
    "csv",
    "parquet",
    "dlq",
    "id",
    "amount",
    "sum(amount)",
    "count(*)",
    "id>1",
    "timestamp",
    "list[int64]",
    "side_output",
    "${env:HOME}",
    "${env:NOPE}",
    "${file:x}",
    "tumble",
    "^x$",
    "__x",
    "at",
    "window_start",
    "latest",
    "paid",
    "latest",
    "counts",
    "counted.odd",
    "input",
    "on_update",
    "forever",
    "async",
    "left.id = right.order_id",
    "left.id",
    "right.fx",
    "shop.py:score",
    "shop.py:Counter",
    "amount desc",
    "select id from orders",
    "select country, count(*) as n from orders group by country",
    "full",
    "last",
]
SQL = [
    "id",
    "country",
    "amount",
    "at",
    "tags",
    "1",
    "'x'",
    "null",
    "true",
    "+",
    "-",
    "*",
    "/",
    "%",
    "||",
    "(",
    ")",
    ",",
    ".",
    "=",
    "<>",
    "<",
    "and",
    "or",
    "not",
    "is",
    "in",
    "like",
    "between",
    "case",
    "when",
    "then",
    "else",
    "end",
    "cast",
    "as",
    "int64",
    "interval",
    "'1'",
    "minute",
    "count",
    "sum",
    "min",
    "filter",
    "where",
    "distinct",
    "select",
    "from",
    ";",
    "::",
    "[",
    "]",
    "--",
    "/*",
    "*/",
    '"',
    "`",
    "\\",
    "${",
]
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(WORDS),
    st.just([]),
    st.just({}),
    st.lists(st.sampled_from(["orders", "id", "country", "big", "zzz"]), max_size=3),
    st.dictionaries(st.sampled_from(["id", "type", "tumble", "x", "every", "input"]), st.text(max_size=5), max_size=3),
)
FIELDS = """
input where join window select add errors late orders x is type aggregate deduplicate top python process sql ttl key
emit having match left right within as_of lookup kind n by rank call columns mode session was
"""
KEYS = st.sampled_from(["", *FIELDS.split()])
VERBS = list(yaml.safe_load(EVERY_VERB)["steps"])


def paths(node: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place of a tree."""
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [at, *(path for key, value in inner for path in paths(value, (*at, key)))]


@st.composite
def mutilated(draw: st.DrawFn, right: str, count: int = 4) -> str:
    tree = copy.deepcopy(yaml.load(right, Loader=yaml.CSafeLoader))
    for _ in range(draw(st.integers(1, count))):
        places = [path for path in paths(tree) if path]
        if not places:
            break
        *outer, last = draw(st.sampled_from(places))
        parent = tree
        for part in outer:
            parent = parent[part]
        match draw(st.sampled_from(["delete", "replace", "rename", "insert", "move"])):
            case "delete":
                del parent[last]
            case "replace":
                parent[last] = draw(VALUES)
            case "rename" if isinstance(parent, dict):
                parent[draw(KEYS)] = parent.pop(last)
            case "insert" if isinstance(parent, dict):
                parent[draw(KEYS)] = draw(VALUES)
            case "move":
                other = tree
                for part in draw(st.sampled_from(places)):
                    other = other[part] if isinstance(other, dict | list) and _within(other, part) else other
                parent[last] = copy.deepcopy(other)
    return str(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True))


def _within(node: Any, part: Any) -> bool:
    return part in node if isinstance(node, dict) else isinstance(part, int) and part < len(node)


@settings(max_examples=150, deadline=None)
@given(mutilated(SHOP))
def test_a_mutilated_file_gives_faults_or_a_graph(text: str) -> None:
    judge(text, Path())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the code of the pipeline with every verb is."""
    return with_code(tmp_path_factory.mktemp("pipeline"))


@settings(max_examples=60, deadline=None)
@given(text=mutilated(EVERY_VERB, 12))
def test_a_file_with_every_verb_mutilated(text: str, folder: Path) -> None:
    judge(text, folder)


@settings(max_examples=30, deadline=None)
@given(verb=st.sampled_from(VERBS), data=st.data())
def test_verbs_side_by_side(verb: str, data: st.DataObject, folder: Path) -> None:
    """Fields of one step in another, where they have no place."""
    tree = yaml.load(EVERY_VERB, Loader=yaml.CSafeLoader)
    steps = tree["steps"]
    for _ in range(data.draw(st.integers(1, 3))):
        field = data.draw(st.sampled_from([name for name in steps[verb] if name != "input"]))
        steps[data.draw(st.sampled_from(VERBS))][field] = steps[verb][field]
    judge(str(yaml.safe_dump(tree, sort_keys=False)), folder)


def judge(text: str, folder: Path) -> None:
    """Check a text, and that what is said of it can be said."""
    graph, found = check(text, environment={"HOME": "/home/secret-name"}, folder=folder)
    if graph is None:
        assert any(fault.severity == "error" for fault in found), text
        assert all(fault.line >= 1 and fault.column >= 1 and fault.message for fault in found)
        assert all(fault.line <= len(text.splitlines()) + 1 for fault in found)
        assert "secret-name" not in "".join(map(str, found))
    else:
        assert "secret-name" not in explain(graph)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, len(SHOP)), st.integers(0, 30), st.text(alphabet=" \n\t:-{}[]\"'*&!#|>%@`,?ax1", max_size=5))
def test_a_file_cut_anywhere_gives_faults_or_a_graph(start: int, length: int, inserted: str) -> None:
    graph, found = check(SHOP[:start] + inserted + SHOP[start + length :])
    assert (graph is None) == any(fault.severity == "error" for fault in found)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.sampled_from(SQL), max_size=12).map(" ".join), st.sampled_from(["where", "add", "aggregate", "having"])
)
def test_any_expression_gives_faults_or_a_graph(text: str, where: str) -> None:
    quoted = yaml.safe_dump(text, default_style='"', width=10_000).strip()
    field = {
        "where": f"where: {quoted}",
        "add": f"add: {{x: {quoted}}}",
        "aggregate": f"window: {{tumble: 1m}}, aggregate: {{x: {quoted}}}",
        "having": f"window: {{tumble: 1m}}, aggregate: {{id: count(*)}}, having: {quoted}",
    }[where]
    right = of_steps(f"result: {{input: orders, {field}}}")
    graph, found = check(right)
    assert (graph is None) == any(fault.severity == "error" for fault in found)
    graph, only_worse = check(right.replace("amount: float64", "amount: flaot64"))
    assert graph is None
    assert {fault.path for fault in only_worse} <= {fault.path for fault in found} | {"sources.orders.schema.amount"}


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60))
def test_any_text_gives_faults(text: str) -> None:
    graph, found = check(text)
    assert graph is None
    assert found
