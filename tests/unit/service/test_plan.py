"""What an upgrade would do: one small edit of a file a test, and the plan as people read it."""
# ruff: noqa: E501 — a plan's line stands on one line, as a user reads it

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from inline_snapshot import snapshot

from operators.element import CheckpointId
from state.key_group import range_of_subtask
from streamproc.checkpoint.compatibility import IncompatibleCheckpoint, describes, fitted
from streamproc.checkpoint.manifest import Manifest, StepPart
from streamproc.checkpoint.positions import sample_splits
from streamproc.pipeline.logical import LogicalGraph
from streamproc.pipeline.physical import plan_physical
from streamproc.service.plan import StorageMoved, dropped_names, make_plan
from streamproc.service.views import PlanView
from tests.unit.pipeline.files import graph_of

SHOP = """
version: 1
pipeline: shop
job: {parallelism: 2}
sources:
  orders:
    type: kafka
    brokers: ["kafka:9092"]
    topic: orders
    schema: {id: int64, country: string, amount: float64, at: timestamp_ms}
    event_time: {column: at, out_of_order: 10s}
  visits:
    type: file
    path: visits/*.csv
    format: csv
    schema: {id: int64, page: string, at: timestamp_ms}
    event_time: {column: at}
steps:
  paid: {input: orders, where: amount > 0, add: {cents: amount * 100}}
  revenue: {input: paid, key: [country], window: {tumble: 1m}, aggregate: {n: count(*), eur: sum(amount)}}
  seen: {join: {left: paid, right: visits, match: left.id = right.id, within: [0s, 1h]}, select: {id: left.id, page: right.page}}
sinks:
  out: {type: kafka, brokers: ["kafka:9092"], topic: revenue, input: revenue, key: [country]}
  log: {type: file, path: out, input: seen}
"""


def edited(*edits: tuple[str, str], text: str = SHOP) -> str:
    for old, new in edits:
        assert old in text, old
        text = text.replace(old, new)
    return text


def planned(*edits: tuple[str, str], **more: Any) -> PlanView:
    """The plan from SHOP, while it runs, to SHOP with these texts replaced."""
    new = graph_of(edited(*edits))
    asked: dict[str, Any] = {"old": graph_of(SHOP), "stored": None, "running": True} | more
    return make_plan(pipeline="shop", revision=1, new=new, **asked)


def told(plan: PlanView) -> str:
    """What differs, a node a paragraph."""
    lines = [plan.action + (", drops state" if plan.drops_state else "")]
    for each in plan.changes:
        if each.change != "unchanged" or each.says:
            was = f" (was {each.was})" if each.was else ""
            lines.append(f"{each.kind} {each.name}{was}: {each.change}, {each.state}")
            lines += [f"    {line}" for line in each.says]
    return "\n".join([*lines, *plan.job_changes, *(f"warning: {each}" for each in plan.warnings)])


def checkpoint_of(graph: LogicalGraph, *, kind: Any = "stop", steps: Mapping[str, str] | None = None) -> Manifest:
    """What a checkpoint of this graph would hold; `steps`: under other names."""
    described = describes(plan_physical(graph))
    groups = graph.job.max_parallelism
    return Manifest(
        pipeline=graph.pipeline,
        checkpoint=CheckpointId(7),
        attempt=1,
        created_ms=0,
        kind=kind,
        max_parallelism=groups,
        sources={name: sample_splits(source) for name, source in graph.sources.items()},
        steps={
            (steps or {}).get(name, name): [StepPart(text, range_of_subtask(i, 2, groups), {}, {}) for i in range(2)]
            for name, text in described.items()
        },
        sinks={},
    )


def test_the_same_file_is_nothing_to_do() -> None:
    plan = planned()
    assert told(plan) == snapshot("nothing")
    assert {each.state for each in plan.changes if each.name in ("orders", "visits", "revenue", "seen")} == {"kept"}


def test_a_new_pipeline() -> None:
    plan = make_plan(pipeline="shop", revision=None, old=None, new=graph_of(SHOP), stored=None, running=False)
    assert told(plan) == snapshot("""\
create
source orders: added, none
source visits: added, none
step paid: added, none
step revenue: added, none
step seen: added, none
sink out: added, none
sink log: added, none\
""")


def test_a_new_pipeline_goes_on_from_a_checkpoint_that_is_there() -> None:
    """After it was deleted, and created again."""
    graph = graph_of(SHOP)
    plan = make_plan(pipeline="shop", revision=None, old=None, new=graph, stored=checkpoint_of(graph), running=False)
    assert told(plan) == snapshot("""\
create
source orders: added, kept
source visits: added, kept
step paid: added, none
step revenue: added, kept
step seen: added, kept
sink out: added, none
sink log: added, none\
""")
    assert plan.checkpoint == 7


@pytest.mark.parametrize(
    ("edits", "expected"),
    [
        pytest.param(edits, expected, id=name)
        for name, edits, expected in [
            (
                "another condition upstream",
                [("amount > 0", "amount > 10")],
                snapshot("""\
upgrade
step paid: changed, none
    where: amount > 0 → amount > 10
step revenue: unchanged, kept
    what it has collected so far came from paid as before the change
step seen: unchanged, kept
    what it has collected so far came from paid as before the change\
"""),
            ),
            (
                "another expression",
                [("amount * 100", "amount * 1000")],
                snapshot("""\
upgrade
step paid: changed, none
    column cents: amount * 100 → amount * 1000
step revenue: unchanged, kept
    what it has collected so far came from paid as before the change
step seen: unchanged, kept
    what it has collected so far came from paid as before the change\
"""),
            ),
            (
                "another window",
                [("tumble: 1m", "tumble: 5m")],
                snapshot("""\
upgrade, drops state
step revenue: changed, rebuilt
    does: window tumble 1m by country → window tumble 5m by country
    its state cannot be read that way: it starts empty, what it has collected so far is lost\
"""),
            ),
            (
                "another aggregate",
                [("eur: sum(amount)", "eur: avg(amount)")],
                snapshot("""\
upgrade, drops state
step revenue: changed, rebuilt
    eur: sum(amount) → avg(amount)
    its state cannot be read that way: it starts empty, what it has collected so far is lost\
"""),
            ),
            (
                "a condition of its own",
                [("{input: paid, key", "{input: paid, where: id > 5, key")],
                snapshot("""\
upgrade
step revenue: changed, kept
    where: id > 5, new
    what it has collected so far was chosen the old way (where); rows from now on the new way\
"""),
            ),
            (
                "late rows",
                [("eur: sum(amount)}", "eur: sum(amount)}, late: {accept_for: 1h}")],
                snapshot("""\
upgrade, drops state
step revenue: changed, rebuilt
    late: dropped → accepted for 1h, then dropped
    its state cannot be read that way: it starts empty, what it has collected so far is lost\
"""),
            ),
            (
                "having",
                [("eur: sum(amount)}", "eur: sum(amount)}, having: n > 1")],
                snapshot("""\
upgrade
step revenue: changed, kept
    having: n > 1, new\
"""),
            ),
            (
                "another column of a joined side",
                [("page: right.page", "page: right.page, c: left.country")],
                snapshot("""\
upgrade, drops state
step seen: changed, rebuilt
    left column country: country, new
    column c: left.country, new
    its state cannot be read that way: it starts empty, what it has collected so far is lost
sink log: changed, none
    column c: string, new\
"""),
            ),
            (
                "renamed",
                [("revenue: {", "turnover: {was: revenue, "), ("input: revenue", "input: turnover")],
                snapshot("""\
upgrade
step turnover (was revenue): renamed, migrated
    its state is read under the new name; `was: revenue` may go from the file afterwards
sink out: changed, none
    input: revenue → turnover\
"""),
            ),
            (
                "renamed without saying so",
                [("revenue: {", "turnover: {"), ("input: revenue", "input: turnover")],
                snapshot("""\
upgrade, drops state
step turnover: added, none
    its state begins empty: rows that were read before do not count
step revenue: removed, dropped
    its state goes with it; a step that is to have it says `was:` and the old name
sink out: changed, none
    input: revenue → turnover\
"""),
            ),
            (
                "parallelism of a step",
                [("revenue: {", "revenue: {parallelism: 4, ")],
                snapshot("""\
upgrade
step revenue: changed, migrated
    parallelism: 2 → 4
    its state is spread from 2 subtasks over 4\
"""),
            ),
            (
                "parallelism of all",
                [("parallelism: 2", "parallelism: 3")],
                snapshot("""\
upgrade
source orders: changed, kept
    parallelism: 2 → 3
    its splits are shared out anew
source visits: changed, kept
    parallelism: 2 → 3
    its splits are shared out anew
step paid: changed, none
    parallelism: 2 → 3
step revenue: changed, migrated
    parallelism: 2 → 3
    its state is spread from 2 subtasks over 3
step seen: changed, migrated
    parallelism: 2 → 3
    its state is spread from 2 subtasks over 3
sink out: changed, none
    parallelism: 2 → 3
sink log: changed, none
    parallelism: 2 → 3
job.parallelism: 2 → 3\
"""),
            ),
            (
                "key groups",
                [("parallelism: 2", "parallelism: 2, max_parallelism: 256")],
                snapshot("""\
upgrade, drops state
step revenue: unchanged, rebuilt
    job.max_parallelism is fixed for the life of state (128, and not 256): it starts empty, what it has collected so far is lost
step seen: unchanged, rebuilt
    job.max_parallelism is fixed for the life of state (128, and not 256): it starts empty, what it has collected so far is lost
job.max_parallelism: 128 → 256\
"""),
            ),
            (
                "a topic",
                [("topic: orders", "topic: orders-v2")],
                snapshot("""\
upgrade, drops state
source orders: changed, rebuilt
    topic: orders → orders-v2
    it cannot go on from its positions (they are offsets of topic orders): it begins at `start: earliest`
step revenue: unchanged, kept
    what it has collected so far came from orders as before the change
step seen: unchanged, kept
    what it has collected so far came from orders as before the change\
"""),
            ),
            (
                "brokers",
                [("kafka:9092", "kafka-2:9092")],
                snapshot("""\
upgrade
source orders: changed, kept
    connection.brokers: kafka:9092 → kafka-2:9092
    its positions are offsets of one cluster: the new addresses must be of the same; to read another one from `start`, give the source another name
sink out: changed, none
    connection.brokers: kafka:9092 → kafka-2:9092
    what it has written so far stays, and is committed, in the old place\
"""),
            ),
            (
                "where to start",
                [("topic: orders", "topic: orders\n    start: latest")],
                snapshot("""\
upgrade
source orders: changed, kept
    start: earliest → latest
    `start` counts only where there is no position: it goes on where it has come to\
"""),
            ),
            (
                "a column more",
                [("country: string", "country: string, shop: string")],
                snapshot("""\
upgrade
source orders: changed, kept
    schema.shop: string, new
    from where it has come to, records are read the new way
step paid: changed, none
    column shop: shop, new
step revenue: unchanged, kept
    what it has collected so far came from paid, orders as before the change
step seen: unchanged, kept
    what it has collected so far came from paid, orders as before the change\
"""),
            ),
            (
                "out of order",
                [("out_of_order: 10s", "out_of_order: 1m")],
                snapshot("""\
upgrade
source orders: changed, kept
    event_time.out_of_order: 10s → 1m
    its watermark goes on from where it is, by the new rule\
"""),
            ),
            (
                "bad records",
                [("topic: orders", "topic: orders\n    errors: skip")],
                snapshot("""\
upgrade
source orders: changed, kept
    errors: fail → skip\
"""),
            ),
            (
                "a path",
                [("visits/*.csv", "archive/*.csv")],
                snapshot("""\
upgrade
source visits: changed, kept
    path: visits/*.csv → archive/*.csv
    files are known by their names below the folder: what has been read of one is not read again
step seen: unchanged, kept
    what it has collected so far came from visits as before the change\
"""),
            ),
            (
                "a type",
                [
                    ("path: visits/*.csv\n    format: csv", 'topic: visits\n    brokers: ["kafka:9092"]'),
                    ("type: file\n", "type: kafka\n"),
                ],
                snapshot("""\
upgrade, drops state
source visits: changed, rebuilt
    type: file → kafka
    it cannot go on from its positions (they are not of a Kafka topic): it begins at `start: earliest`
step seen: unchanged, kept
    what it has collected so far came from visits as before the change\
"""),
            ),
            (
                "a step more",
                [
                    ("steps:\n", "steps:\n  daily: {input: orders, aggregate: {n: count(*)}, window: {tumble: 1d}}\n"),
                    ("sinks:\n", "sinks:\n  all: {type: print, input: daily}\n"),
                ],
                snapshot("""\
upgrade
step daily: added, none
    its state begins empty: rows that were read before do not count
sink all: added, none\
"""),
            ),
            (
                "a branch less",
                [("  log: {type: file, path: out, input: seen}\n", "")],
                snapshot("""\
upgrade, drops state
source visits: removed, dropped
    its positions go with it: a source of another name begins at its own `start`
step seen: removed, dropped
    its state goes with it; a step that is to have it says `was:` and the old name
sink log: removed, none
    what it has written stays, and is committed with the checkpoint
warning: shop.yaml:12:3: warning: sources.visits: nothing reads this source, so it is not run
warning: shop.yaml:21:3: warning: steps.seen: nothing reads this step, so it is not run\
"""),
            ),
            (
                "a sink's topic",
                [("topic: revenue", "topic: turnover")],
                snapshot("""\
upgrade
sink out: changed, none
    topic: revenue → turnover
    what it has written so far stays, and is committed, in the old place\
"""),
            ),
            (
                "a sink's key and delivery",
                [("key: [country]}", "delivery: at_least_once}")],
                snapshot("""\
upgrade
sink out: changed, none
    delivery: exactly_once → at_least_once
    key: gone, was country
    rows of a key may go to another partition than before
    rows are visible at once from now on, and some twice after a failure\
"""),
            ),
            (
                "a sink's folder",
                [("path: out", "path: elsewhere")],
                snapshot("""\
upgrade
sink log: changed, none
    path: out → elsewhere
    what it has written stays where it is\
"""),
            ),
            (
                "the job",
                [("{parallelism: 2}", "{parallelism: 2, checkpoint: {every: 1m}, restart: {strategy: none}}")],
                snapshot("""\
upgrade
job.checkpoint.every: 10s → 1m
job.restart.strategy: backoff → none\
"""),
            ),
        ]
    ],
)
def test_one_edit(edits: list[tuple[str, str]], expected: str) -> None:
    assert told(planned(*edits)) == expected


def test_a_was_that_has_done_its_work_is_harmless() -> None:
    renamed = edited(("revenue: {", "turnover: {was: revenue, "), ("input: revenue", "input: turnover"))
    graph = graph_of(renamed)
    plan = make_plan(pipeline="shop", revision=2, old=graph, new=graph, stored=checkpoint_of(graph), running=False)
    assert told(plan) == snapshot("nothing")
    without = graph_of(renamed.replace("was: revenue, ", ""))
    plan = make_plan(pipeline="shop", revision=2, old=graph, new=without, stored=None, running=True)
    assert told(plan) == snapshot("nothing")


def test_a_was_whose_new_name_has_state_of_its_own_takes_nothing_over() -> None:
    both = edited(
        (
            "  seen: {",
            "  turnover: {input: paid, key: [country], window: {tumble: 1m}, aggregate: {n: count(*), eur: sum(amount)}}\n  seen: {",
        ),
        ("sinks:\n", "sinks:\n  more: {type: print, input: turnover}\n"),
    )
    one = edited(("revenue: {", "turnover: {was: revenue, "), ("input: revenue", "input: turnover"))
    plan = make_plan(pipeline="shop", revision=1, old=graph_of(both), new=graph_of(one), stored=None, running=True)
    assert told(plan) == snapshot("""\
upgrade, drops state
step revenue: removed, dropped
    its state goes with it: turnover has state of its own, and `was: revenue` changes nothing
sink out: changed, none
    input: revenue → turnover
sink more: removed, none
    what it has written stays, and is committed with the checkpoint\
""")
    assert dropped_names(plan) == {"revenue"}


def test_a_was_that_names_nothing_says_so() -> None:
    plan = planned(
        ("steps:\n", "steps:\n  daily: {was: dayly, input: orders, aggregate: {n: count(*)}, window: {tumble: 1d}}\n"),
        ("sinks:\n", "sinks:\n  all: {type: print, input: daily}\n"),
    )
    assert [each.says for each in plan.changes if each.name == "daily"] == snapshot(
        [
            (
                "its state begins empty: rows that were read before do not count",
                "`was: dayly` finds nothing: there is neither such a step nor state by that name",
            )
        ]
    )


def test_a_stopped_pipeline_is_judged_by_its_checkpoint_and_not_by_its_last_revision() -> None:
    """Revision 2 dropped `seen` and renamed `revenue`, but has not run: the checkpoint is of revision 1."""
    first = graph_of(SHOP)
    second = edited(
        ("revenue: {", "turnover: {was: revenue, "),
        ("input: revenue", "input: turnover"),
        ("  log: {type: file, path: out, input: seen}\n", ""),
    )
    stored = checkpoint_of(first)
    third = graph_of(second.replace("amount > 0", "amount > 5"))
    plan = make_plan(pipeline="shop", revision=2, old=graph_of(second), new=third, stored=stored, running=False)
    assert told(plan) == snapshot("""\
upgrade, drops state
source visits: removed, dropped
    a revision that has not run since the checkpoint has left it out
    its positions go with it: a source of another name begins at its own `start`
step paid: changed, none
    where: amount > 0 → amount > 5
step turnover (was revenue): unchanged, migrated
    its state is read under the new name; `was: revenue` may go from the file afterwards
    what it has collected so far came from paid as before the change
step seen: removed, dropped
    a revision that has not run since the checkpoint has left it out
    its state goes with it; a step that is to have it says `was:` and the old name
warning: shop.yaml:12:3: warning: sources.visits: nothing reads this source, so it is not run
warning: shop.yaml:21:3: warning: steps.seen: nothing reads this step, so it is not run\
""")
    assert dropped_names(plan) == {"seen", "visits"}


def test_without_any_checkpoint_there_is_nothing_to_lose() -> None:
    plan = planned(("tumble: 1m", "tumble: 5m"), running=False)
    assert not plan.drops_state
    assert {each.state for each in plan.changes} == {"none"}


def test_checkpoints_are_not_moved() -> None:
    with pytest.raises(StorageMoved) as refused:
        planned(("{parallelism: 2}", '{parallelism: 2, checkpoint: {storage: "s3://bucket/elsewhere"}}'))
    assert str(refused.value) == snapshot(
        "the pipeline's checkpoints are in file:.streamproc/checkpoints, and job.checkpoint.storage is s3://bucket/elsewhere now: an upgrade goes on from its checkpoint and cannot move it. Undo that; or stop the pipeline, copy its folder there, delete it here and apply the file anew"
    )
    assert refused.value.status == 409


def test_the_end_of_the_input_is_told() -> None:
    stored = checkpoint_of(graph_of(SHOP), kind="finished")
    assert planned(stored=stored, running=False).warnings == snapshot(
        (
            "checkpoint 7 is the end of the pipeline's input: what goes on from it ends at once. To run over the input again, delete the pipeline and apply the file under another name",
        )
    )


def test_results_that_a_removed_sink_has_prepared_are_not_forgotten() -> None:
    graph = graph_of(SHOP)
    stored = checkpoint_of(graph)
    stored.sinks["out"] = [{"final": "part-1"}]  # type: ignore[index]
    edit = [
        (
            '  out: {type: kafka, brokers: ["kafka:9092"], topic: revenue, input: revenue, key: [country]}\n',
            "  other: {type: print, input: revenue}\n",
        )
    ]
    plan = planned(*edit, stored=stored, running=False, committed=False)
    assert told(plan) == snapshot("""\
upgrade, drops state
sink other: added, none
sink out: removed, dropped
    it has prepared results that may not be committed yet: start the pipeline as it was, once, and they are\
""")
    assert dropped_names(plan) == {"out"}
    assert not planned(*edit, stored=stored, running=False, committed=True).drops_state


_OUT = 'out: {type: kafka, brokers: ["kafka:9092"], topic: revenue, input: revenue, key: [country]}'
_TRANSACTION = {"transactional_id": "streamproc.shop.out.0.0", "topic": "revenue"}
_PART = {"folder": "out", "pending": ".shop.log.0.inprogress", "final": "part-0", "bytes": 1}


@pytest.mark.parametrize(
    ("edit", "lost"),
    [
        ((_OUT, "out: {type: print, input: revenue}"), {"out"}),
        ((_OUT, "out: {type: file, path: revenue, input: revenue}"), {"out"}),
        ((_OUT, _OUT.replace("kafka:9092", "elsewhere:9092")), set()),
        ((_OUT, _OUT.replace("topic: revenue", "topic: other")), set()),
        (("log: {type: file, path: out,", "log: {type: blackhole,"), {"log"}),
        (("log: {type: file, path: out,", "log: {type: file, path: other,"), set()),
    ],
)
def test_results_are_not_handed_to_a_sink_that_cannot_commit_them(edit: tuple[str, str], lost: set[str]) -> None:
    stored = replace(checkpoint_of(graph_of(SHOP)), sinks={"out": [_TRANSACTION], "log": [_PART]})
    plan = planned(edit, stored=stored, running=False, committed=False)
    assert dropped_names(plan) == lost
    assert plan.drops_state == bool(lost)
    assert not planned(edit, stored=stored, running=False, committed=True).drops_state
    graph = plan_physical(graph_of(edited(edit)))
    if lost:
        with pytest.raises(IncompatibleCheckpoint, match="start the pipeline as it was, once"):
            fitted(graph, stored, committed=False)
    assert fitted(graph, stored, committed=False, dropped=lost).sinks.keys() == {"out", "log"} - lost


QUERY = """
version: 1
pipeline: shop
sources:
  orders:
    type: kafka
    brokers: ["kafka:9092"]
    topic: orders
    schema: {id: int64, country: string, amount: float64, at: timestamp_ms}
    event_time: {column: at}
steps:
  best:
    input: orders
    sql: |
      SELECT country, eur FROM (
        SELECT country, SUM(amount) AS eur, TUMBLE_START(at, INTERVAL '1' MINUTE) AS begins
        FROM orders WHERE amount > 0 GROUP BY country, TUMBLE(at, INTERVAL '1' MINUTE)
      ) AS minutes WHERE eur > 10
sinks:
  out: {type: print, input: best}
"""


def test_a_query_is_told_by_its_steps() -> None:
    changed = graph_of(QUERY.replace("amount > 0", "amount > 1").replace("eur > 10", "eur > 100"))
    plan = make_plan(pipeline="shop", revision=1, old=graph_of(QUERY), new=changed, stored=None, running=True)
    assert told(plan) == snapshot("""\
upgrade
step best: changed, kept
    where: amount > 0 → amount > 1
    having: eur > 10 → eur > 100
    what it has collected so far was chosen the old way (where); rows from now on the new way\
""")
    renamed = graph_of(QUERY.replace("  best:\n", "  top:\n    was: best\n").replace("input: best", "input: top"))
    plan = make_plan(pipeline="shop", revision=1, old=graph_of(QUERY), new=renamed, stored=None, running=True)
    assert told(plan) == snapshot("""\
upgrade
step top (was best): renamed, migrated
    its state is read under the new name; `was: best` may go from the file afterwards
sink out: changed, none
    input: best → top\
""")


COUNTER = """
from streamproc import ProcessFunction, ValueState

class Counter(ProcessFunction):
    seen = ValueState("int64", ttl="1h")

    def process(self, row, ctx):
        yield {"id": row["id"]}
"""


def test_user_code_whose_state_is_another_kind_now(tmp_path: Path) -> None:
    text = edited(
        (
            "  paid: {input: orders",
            '  counted: {input: orders, process: {call: "shop.py:Counter", key: [id], columns: {id: int64}}}\n  paid: {input: orders',
        ),
        ("sinks:\n", "sinks:\n  ids: {type: print, input: counted}\n"),
    )
    (tmp_path / "shop.py").write_text(COUNTER)
    graph = graph_of(text, folder=tmp_path)
    stored = checkpoint_of(graph)
    parts = [replace(part, operator={"states": {"seen": "value int64"}}) for part in stored.steps["counted"]]
    stored = replace(stored, steps={**stored.steps, "counted": parts})
    assert not make_plan(pipeline="shop", revision=1, old=graph, new=graph, stored=stored, running=True).drops_state
    (tmp_path / "shop.py").write_text(COUNTER.replace('ValueState("int64"', 'ValueState("string"'))
    again = graph_of(text, folder=tmp_path)
    for running in (True, False):
        plan = make_plan(pipeline="shop", revision=1, old=graph, new=again, stored=stored, running=running)
        assert told(plan) == snapshot("""\
upgrade, drops state
step counted: unchanged, rebuilt
    state 'seen' of shop.py:Counter was a value int64 and is declared as a value string now
    its state cannot be read that way: it starts empty, what it has collected so far is lost\
""")
        assert dropped_names(plan) == {"counted"}


def test_secrets_are_not_shown() -> None:
    def graph(password: str) -> LogicalGraph:
        security = 'security: {sasl: {mechanism: SCRAM-SHA-512, username: svc, password: "${env:PASSWORD}"}}'
        text = edited(
            ("    topic: orders\n", f"    topic: orders\n    {security}\n"), ("amount > 0", '"amount > ${env:LEAST}"')
        )
        return graph_of(text, environment={"PASSWORD": password, "LEAST": f"{len(password)}000"})

    plan = make_plan(
        pipeline="shop", revision=1, old=graph("swordfish"), new=graph("hunter2"), stored=None, running=True
    )
    assert told(plan) == snapshot("""\
upgrade
source orders: changed, kept
    connection.security.sasl.password: changed
step paid: changed, none
    where: *** → ***
step revenue: unchanged, kept
    what it has collected so far came from paid as before the change
step seen: unchanged, kept
    what it has collected so far came from paid as before the change\
""")


def test_the_id_stands_for_the_question_and_the_answer() -> None:
    plans = {
        "as it is": planned(),
        "another revision": planned().model_copy(),
        "a condition": planned(("amount > 0", "amount > 10")),
        "another condition": planned(("amount > 0", "amount > 11")),
        "no state yet": planned(("amount > 0", "amount > 10"), running=False),
        "a setting": planned(("{parallelism: 2}", "{parallelism: 2, batch: {max_rows: 7}}")),
    }
    plans["another revision"] = make_plan(
        pipeline="shop", revision=2, old=graph_of(SHOP), new=graph_of(SHOP), stored=None, running=True
    )
    assert len({plan.id for plan in plans.values()}) == len(plans)
    assert planned().id == plans["as it is"].id
    stored = checkpoint_of(graph_of(SHOP))
    assert planned(("amount > 0", "amount > 10"), stored=stored, running=False).id == plans["a condition"].id
