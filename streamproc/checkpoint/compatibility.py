"""What of a checkpoint a pipeline, as it is now, has no place for: pure.

State is never ignored silently. What would be lost is a list of losses; a restore that was not told that it may
lose just these is refused.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from operators.element import WATERMARK_MAX, WATERMARK_MIN
from state.failure import Failure
from streamproc.checkpoint.manifest import Manifest, StepPart
from streamproc.checkpoint.positions import misfit, unfinishable
from streamproc.observability.ledger import StepLedger
from streamproc.pipeline.logical import LogicalGraph
from streamproc.pipeline.physical import PhysicalGraph


class IncompatibleCheckpoint(Failure):
    """The checkpoint holds state that the pipeline, as it is now, has no place for."""

    acts = "user"


@dataclass(frozen=True, slots=True)
class Loss:
    """Something of a checkpoint that the graph cannot take over. `name` as the checkpoint has it; `removed`: the node
    is gone, else it has changed so that its state cannot be read."""

    kind: Literal["source", "step", "sink"]
    name: str
    removed: bool
    says: str
    remedy: str = "start anew with another place for its checkpoints, or undo the change"


def renames(graph: LogicalGraph, stored: Collection[str]) -> Mapping[str, str]:
    """What each step of a checkpoint is called now. A `was:` that has done its work changes nothing any more: where
    the checkpoint holds the new name too, the old one stands for itself."""
    now = {step.was: step.name for step in graph.steps.values() if step.was is not None and step.name not in stored}
    return {name: now.get(name, name) for name in stored}


def describes(graph: PhysicalGraph) -> Mapping[str, str]:
    """What the stored state of each stateful step depends on."""
    return {s.step: s.spec.describe() for v in graph.vertices for s in v.stages if s.spec.stateful}


def unreadable(graph: PhysicalGraph, step: str, parts: Sequence[StepPart]) -> str | None:
    """Why the state of a step cannot be read, where its description is what it was; None: it can. Only code of the
    user's can differ so."""
    stages = (s for v in graph.vertices for s in v.stages if s.step == step and s.spec.stateful)
    ask = next((getattr(s.spec, "unreadable", None) for s in stages), None)
    reasons = (ask(part.operator) for part in parts) if ask is not None else ()
    return next((reason for reason in reasons if reason is not None), None)


def losses(graph: PhysicalGraph, manifest: Manifest, *, committed: bool) -> list[Loss]:
    """Everything of `manifest` that `graph` has no place for. `committed`: its sinks are known to have committed."""
    logical = graph.logical
    found: list[Loss] = []
    now = describes(graph)
    names = renames(logical, manifest.steps.keys())
    groups, groups_now = manifest.max_parallelism, logical.job.max_parallelism
    for name, parts in manifest.steps.items():
        step = names[name]
        if not parts:
            continue
        if step not in now:
            says = f"checkpoint {manifest.checkpoint} holds state of step {step}, which the pipeline has no more"
            found.append(Loss("step", name, True, says))
        elif groups != groups_now:
            says = (
                f"job.max_parallelism is {groups_now}, but checkpoint {manifest.checkpoint} holds state of step {step} "
                f"for {groups} key groups: their number is fixed for the life of the state"
            )
            found.append(Loss("step", name, False, says))
        elif parts[0].describe != now[step]:
            says = (
                f"step {step} has changed since checkpoint {manifest.checkpoint} (then: {parts[0].describe}; "
                f"now: {now[step]}), its state cannot be read that way"
            )
            found.append(Loss("step", name, False, says))
        elif (reason := unreadable(graph, step, parts)) is not None:
            says = f"step {step}: {reason}, its state cannot be read that way"
            found.append(Loss("step", name, False, says))
    for name, splits in manifest.sources.items():
        if name in logical.sources and (reason := misfit(logical.sources[name], splits)) is not None:
            says = f"source {name} cannot go on from the positions of checkpoint {manifest.checkpoint}: {reason}"
            found.append(Loss("source", name, False, says))
    if not committed:
        for name, prepared in manifest.sinks.items():
            if name in logical.sinks and (reason := unfinishable(logical.sinks[name], prepared)) is not None:
                says = f"sink {name} cannot commit the results that checkpoint {manifest.checkpoint} holds: {reason}"
                found.append(Loss("sink", name, False, says, "start the pipeline as it was, once, and they are"))
    gone = [("source", name) for name, splits in manifest.sources.items() if splits and name not in logical.sources]
    if not committed:
        gone += [("sink", name) for name, prepared in manifest.sinks.items() if prepared and name not in logical.sinks]
    for kind, name in gone:
        says = f"checkpoint {manifest.checkpoint} holds the progress of {kind} {name}, which the pipeline has no more"
        found.append(Loss("source" if kind == "source" else "sink", name, True, says))
    return found


def fitted(
    graph: PhysicalGraph, manifest: Manifest, *, committed: bool, dropped: Collection[str] = frozenset()
) -> Manifest:
    """`manifest` under the names of now, without what may be `dropped` (names of nodes) and has no place. Raises
    IncompatibleCheckpoint when more than that would be lost."""
    lost = losses(graph, manifest, committed=committed)
    for loss in lost:
        if loss.name not in dropped:
            raise IncompatibleCheckpoint(f"{loss.says}; {loss.remedy}")
    without = {(loss.kind, loss.name) for loss in lost}
    names = renames(graph.logical, manifest.steps.keys())
    return replace(
        manifest,
        sources={name: splits for name, splits in manifest.sources.items() if ("source", name) not in without},
        steps={
            names[name]: _reopened(parts) for name, parts in manifest.steps.items() if ("step", name) not in without
        },
        sinks={name: prepared for name, prepared in manifest.sinks.items() if ("sink", name) not in without},
        ledger=_carried_on(graph.logical, manifest.ledger),
    )


def _carried_on(graph: LogicalGraph, ledger: Mapping[str, StepLedger]) -> Mapping[str, StepLedger]:
    """The accounts of the nodes that are still there."""
    names = renames(graph, ledger.keys())
    nodes = {*graph.sources, *graph.steps, *graph.sinks}
    return {names[node]: account for node, account in ledger.items() if names[node] in nodes}


def _reopened(parts: Sequence[StepPart]) -> Sequence[StepPart]:
    """Draining brought event time to its end; whatever checkpoint saw that, also one that came before the drain's own.
    What goes on from there begins where the splits are, or every row that comes would be late. Where the input itself
    has ended, its source brings event time to its end again."""
    return [
        replace(part, operator={**part.operator, "watermark": WATERMARK_MIN})
        if part.operator.get("watermark") == WATERMARK_MAX
        else part
        for part in parts
    ]
