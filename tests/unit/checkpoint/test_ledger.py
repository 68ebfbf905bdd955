"""The record ledger in the manifest: added up over subtasks and attempts, carried on by those who are still there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import structlog

from operators.element import CheckpointId
from state.store import CheckpointStore
from streamproc.checkpoint.compatibility import fitted
from streamproc.checkpoint.driver import CheckpointDriver
from streamproc.checkpoint.manifest import Manifest, _checksum, assemble
from streamproc.observability.ledger import StepLedger
from streamproc.observability.metrics import MetricRegistry, PipelineMetrics
from streamproc.observability.status import JobObserver, JobStatus
from streamproc.pipeline.physical import plan_physical
from streamproc.pipeline.planner import load_pipeline
from streamproc.pipeline.spec import CheckpointSpec

_PIPELINE = """
version: 1
pipeline: p
sources:
  bids: {type: datagen, table: bid, rows: 10}
steps:
  costly: {was: dear, input: bids, where: "price > 1000"}
sinks:
  out: {type: blackhole, input: costly}
"""


def parts(*accounts: dict[str, StepLedger]) -> list[dict[str, Any]]:
    return [{"ledger": {node: account.as_json() for node, account in of.items()}} for of in accounts]


def manifest(before: dict[str, StepLedger], *accounts: dict[str, StepLedger]) -> Manifest:
    return assemble("p", CheckpointId(1), 1, 0, "periodic", 128, parts(*accounts), before)


def test_subtasks_and_the_attempts_before_add_up() -> None:
    before = {"a": StepLedger(5, 3, filtered=2, sent=5)}
    first = {"a": StepLedger(10, 6, filtered=4, sent=10), "b": StepLedger(sent=6)}
    second = {"b": StepLedger(6, 1, late=1, errors=1, held=3)}
    ledger = manifest(before, first, second).ledger
    assert ledger == {
        "a": StepLedger(15, 9, filtered=6, sent=15),
        "b": StepLedger(6, 1, late=1, errors=1, held=3, sent=6),
    }
    assert [account.unaccounted for account in ledger.values()] == [0, 0]


@pytest.mark.parametrize(
    ("account", "unaccounted"),
    [
        (StepLedger(9, 9, sent=10), 1),  # lost on the way
        (StepLedger(11, 11, sent=10), -1),  # came twice
        (StepLedger(10, 5, filtered=3, sent=10), 2),  # lost in the node
        (StepLedger(10, 8, held=3, sent=10), -1),  # out, and held too
    ],
)
def test_what_is_missing_or_too_much(account: StepLedger, unaccounted: int) -> None:
    assert account.unaccounted == unaccounted


def test_a_stored_manifest_has_it_and_an_older_one_begins_at_nothing() -> None:
    stored = manifest({}, {"a": StepLedger(10, 6, filtered=4, held=-2, sent=10)})
    assert Manifest.from_bytes(stored.to_bytes(), "m") == stored
    body = json.loads(stored.to_bytes())["body"]
    del body["ledger"]
    older = Manifest.from_bytes(json.dumps({"sha256": _checksum(body), "body": body}).encode(), "m")
    assert older.ledger == {}


def test_a_renamed_step_carries_on_and_what_is_gone_goes(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(_PIPELINE)
    stored = manifest({}, {"bids": StepLedger(1, 1), "dear": StepLedger(2, 2), "gone": StepLedger(3, 3)})
    taken = fitted(plan_physical(load_pipeline(file)), stored, committed=True)
    assert taken.ledger == {"bids": StepLedger(1, 1), "costly": StepLedger(2, 2)}


async def test_an_account_that_does_not_balance_is_told_once(tmp_path: Path) -> None:
    status, registry = JobStatus("p"), MetricRegistry()
    observer = JobObserver(PipelineMetrics(registry, "p"), status)
    store = CheckpointStore.open(str(tmp_path))
    before = {"a": StepLedger(1, 1, sent=1)}
    driver = CheckpointDriver("p", 1, 128, CheckpointSpec(), store, [], CheckpointId(1), observer, before)
    with structlog.testing.capture_logs() as logs:
        for checkpoint, rows in ((1, 10), (2, 12), (3, 12)):
            account = StepLedger(rows, 10, sent=rows)
            await driver._create_manifest(CheckpointId(checkpoint), [{"alignment_s": 0.0, **parts({"a": account})[0]}])
            await driver._complete(CheckpointId(checkpoint))
    errors = [entry for entry in logs if entry["log_level"] == "error"]
    assert [(entry["checkpoint"], entry["node"], entry["unaccounted"]) for entry in errors] == [(2, "a", 2)]
    assert status.ledger == {"a": StepLedger(13, 11, sent=13)}
    assert b'streamproc_ledger_unaccounted_records{pipeline="p",step="a"} 2.0' in registry.render()
