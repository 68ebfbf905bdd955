"""What an upgrade would do to every node and its state: the difference of two revisions, pure.

What becomes of state is not decided here but asked of `checkpoint.compatibility`, as a restore does: what is said to
be kept is never refused, and what is said to be lost is what a restore must be allowed to lose. For a running
pipeline that is asked of the savepoint it would take, as far as it can be known: which states it will hold.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from operators.element import CheckpointId
from state.key_group import range_of_subtask
from streamproc.checkpoint.compatibility import describes
from streamproc.checkpoint.manifest import Manifest, StepPart
from streamproc.checkpoint.positions import misfit, sample_splits
from streamproc.pipeline.logical import LogicalGraph
from streamproc.pipeline.physical import plan_physical
from streamproc.pipeline.references import Redaction
from streamproc.service.api import ServiceFault
from streamproc.service.plan_nodes import Upgrade
from streamproc.service.plan_words import differences, job_fields, sink_fields, source_fields, step_fields
from streamproc.service.views import PlanView


class StorageMoved(ServiceFault):
    """409: checkpoints would be looked for where there are none."""

    def __init__(self, was: str, now: str) -> None:
        detail = (
            f"the pipeline's checkpoints are in {was}, and job.checkpoint.storage is {now} now: an upgrade goes on "
            "from its checkpoint and cannot move it. Undo that; or stop the pipeline, copy its folder there, delete it "
            "here and apply the file anew"
        )
        super().__init__(409, "storage-moved", "Checkpoints cannot be moved by an upgrade", detail)


def make_plan(
    *,
    pipeline: str,
    revision: int | None,
    old: LogicalGraph | None,
    new: LogicalGraph,
    stored: Manifest | None,
    running: bool,
    committed: bool = True,
) -> PlanView:
    """What going on with `new` in place of `old` would do. `stored`: the newest checkpoint that can be gone on from
    (it may be of an older revision than `old`). `running`: a savepoint of `old` is taken first. `committed`: the
    sinks are known to have committed `stored`. Raises StorageMoved."""
    running = running and old is not None
    held = _savepoint_of(old, stored) if running and old is not None else stored
    if held is not None and old is not None and (was := old.job.checkpoint.storage) != new.job.checkpoint.storage:
        raise StorageMoved(_redacted(old, was), _redacted(new, new.job.checkpoint.storage))
    upgrade = Upgrade(old, new, held, committed=committed or running)
    changes = tuple(upgrade.changes())
    job_changes = (
        () if old is None else tuple(str(each) for each in differences(job_fields(old.job), job_fields(new.job)))
    )
    drops = any(each.state in ("rebuilt", "dropped") for each in changes)
    nothing = not job_changes and not drops and all(each.change == "unchanged" for each in changes)
    secrets = dict.fromkeys((*new.secrets, *(old.secrets if old is not None else ())), "***")
    redact = Redaction(secrets, short_alone=True)
    plan = PlanView(
        id="",
        pipeline=pipeline,
        revision=revision,
        action="create" if old is None else "nothing" if nothing else "upgrade",
        drops_state=drops,
        checkpoint=stored.checkpoint if stored is not None and not running else None,
        changes=tuple(each.model_copy(update={"says": tuple(map(redact, each.says))}) for each in changes),
        job_changes=tuple(map(redact, job_changes)),
        warnings=(*new.warnings, *_finished_warning(held)),
    )
    return plan.model_copy(update={"id": _identity(plan, new, redact)})


def dropped_names(plan: PlanView) -> frozenset[str]:
    """What a restore must be allowed to lose, by the names that the checkpoint has."""
    return frozenset(each.was or each.name for each in plan.changes if each.state in ("rebuilt", "dropped"))


def _redacted(graph: LogicalGraph, text: str) -> str:
    return Redaction(dict.fromkeys(graph.secrets, "***"), short_alone=True)(text)


def _savepoint_of(graph: LogicalGraph, stored: Manifest | None) -> Manifest:
    """The savepoint a running graph will take, as far as a plan asks for it."""
    groups = graph.job.max_parallelism
    known = stored.steps if stored is not None else {}
    described = describes(plan_physical(graph))

    def parts(name: str) -> list[StepPart]:
        operator = known[name][0].operator if known.get(name) else {}
        count = graph.steps[name].parallelism
        return [StepPart(described[name], range_of_subtask(i, count, groups), operator, {}) for i in range(count)]

    def splits(name: str) -> Mapping[str, Any]:
        source, seen = graph.sources[name], {} if stored is None else stored.sources.get(name, {})
        return seen if seen and misfit(source, seen) is None else sample_splits(source)

    return Manifest(
        pipeline=graph.pipeline,
        checkpoint=CheckpointId(0),
        attempt=0,
        created_ms=0,
        kind="savepoint",
        max_parallelism=groups,
        sources={name: splits(name) for name in graph.sources},
        steps={name: parts(name) for name in described},
        sinks={},
    )


def _finished_warning(held: Manifest | None) -> Iterator[str]:
    if held is not None and held.kind == "finished":
        yield (
            f"checkpoint {held.checkpoint} is the end of the pipeline's input: what goes on from it ends at once. To "
            "run over the input again, delete the pipeline and apply the file under another name"
        )


def _identity(plan: PlanView, new: LogicalGraph, redact: Redaction) -> str:
    """The same for the same question and answer. Words, and which checkpoint is the newest, are not part of it."""
    nodes = {
        **{name: source_fields(source) for name, source in new.sources.items()},
        **{name: {**step_fields(step), "was": step.was or ""} for name, step in new.steps.items()},
        **{name: sink_fields(sink) for name, sink in new.sinks.items()},
        "": job_fields(new.job),
    }
    content = {name: {label: redact(text) for label, text in fields.items()} for name, fields in nodes.items()}
    verdicts = [[each.name, each.kind, each.change, each.state, each.was] for each in plan.changes]
    whole = [plan.pipeline, plan.revision, plan.action, content, verdicts]
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()
