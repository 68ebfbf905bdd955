"""What an upgrade would do, node by node: what differs, what becomes of state, and why; pure.

A node is told of under the name it has now; what is gone under the name it had.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from typing import Final, Literal

from streamproc.checkpoint.compatibility import Loss, describes, losses, renames, unreadable
from streamproc.checkpoint.manifest import Manifest, StepPart
from streamproc.checkpoint.positions import misfit
from streamproc.pipeline.logical import LogicalGraph, LogicalSource, LogicalStep
from streamproc.pipeline.physical import plan_physical
from streamproc.pipeline.spec import FileSourceSpec, KafkaSinkSpec, KafkaSourceSpec, StartTimestamp
from streamproc.service.plan_words import (
    Difference,
    before_state,
    differences,
    sink_fields,
    source_fields,
    step_differences,
    step_fields,
)
from streamproc.service.views import Change, StepChange, Verdict

NodeKind = Literal["source", "step", "sink"]


@dataclass(slots=True)
class Upgrade:
    """Both graphs, what the checkpoint holds, and what of it would be lost."""

    old: LogicalGraph | None
    new: LogicalGraph
    held: Manifest | None
    committed: bool
    lost: Mapping[tuple[NodeKind, str], Loss] = field(init=False)
    held_as: Mapping[str, str] = field(init=False)  # step of now → its name in the checkpoint
    other_rows: set[str] = field(init=False, default_factory=set)  # nodes that give other rows than before

    def __post_init__(self) -> None:
        graph, held = plan_physical(self.new), self.held
        found = [] if held is None else losses(graph, held, committed=self.committed)
        self.lost = {(loss.kind, loss.name): loss for loss in found}
        self.held_as = {} if held is None else {now: was for was, now in renames(self.new, held.steps.keys()).items()}

    def changes(self) -> Iterator[StepChange]:
        """Sources, steps in the order of the flow, sinks; of each first what there is, then what is gone."""
        for name in self.new.sources:
            yield self._source(name)
        yield from self._gone("source")
        for step in self._in_order():
            yield self._step(step)
        yield from self._gone("step")
        for name in self.new.sinks:
            yield self._sink(name)
        yield from self._gone("sink")

    # -- sources

    def _source(self, name: str) -> StepChange:
        source = self.new.sources[name]
        before = None if self.old is None else self.old.sources.get(name)
        found = [] if before is None else differences(source_fields(before), source_fields(source))
        if any(each.label == "type" for each in found):
            found = [each for each in found if each.label == "type"]
        if any(each.of_rows for each in found):
            self.other_rows.add(name)
        splits = {} if self.held is None else self.held.sources.get(name, {})
        state: Verdict = "none"
        says = [str(each) for each in found]
        if ("source", name) in self.lost:
            state = "rebuilt"
            reason = misfit(source, splits)
            says.append(f"it cannot go on from its positions ({reason}): it {_begins(source)}")
        elif splits:
            state = "kept"
            says += _source_notes(source, found)
        elif self.held is not None:
            says.append(f"it {_begins(source)}")
        return StepChange(name=name, kind="source", change=_change(before, found), state=state, says=tuple(says))

    # -- steps

    def _step(self, step: LogicalStep) -> StepChange:
        before, renamed_from = self._before(step)
        found = [] if before is None else step_differences(step_fields(before), step_fields(step))
        inside = self._inside(step)
        if any(each.of_rows for each in found) or inside:
            self.other_rows.add(step.name)
        state, reasons = self._step_state(step, before, found)
        held_as = self.held_as.get(step.name, step.name)
        was = renamed_from or (held_as if held_as != step.name else None)
        says = [*map(str, found), *inside, *reasons]
        change = "renamed" if renamed_from is not None else _change(before, [*found, *inside])
        if was is None and step.was is not None and before is None and self.old is not None:
            says.append(f"`was: {step.was}` finds nothing: there is neither such a step nor state by that name")
        return StepChange(name=step.name, kind="step", change=change, state=state, was=was, says=tuple(says))

    def _before(self, step: LogicalStep) -> tuple[LogicalStep | None, str | None]:
        """The step as it was, and the name it had where that was another."""
        if self.old is None:
            return None, None
        if step.name in self.old.steps:
            return self.old.steps[step.name], None
        if step.was is not None and step.was in self.old.steps:
            return self.old.steps[step.was], step.was
        return None, None

    def _step_state(
        self, step: LogicalStep, before: LogicalStep | None, found: Sequence[Difference]
    ) -> tuple[Verdict, list[str]]:
        """What becomes of the state of a step, and why."""
        name = self.held_as.get(step.name, step.name)
        parts = () if self.held is None else self.held.steps.get(name, ())
        if not parts:
            begins = self.held is not None and _stateful(step)
            return "none", ["its state begins empty: rows that were read before do not count"] if begins else []
        assert self.held is not None
        loss = self.lost.get(("step", name))
        if loss is not None and loss.removed:
            return "dropped", ["it keeps no state any more: what it has collected so far is lost"]
        if loss is not None:
            return "rebuilt", self._why_rebuilt(step, parts[0], found)
        notes = self._still_holds(step, before)
        migrates = []
        if name != step.name:
            migrates.append(f"its state is read under the new name; `was: {name}` may go from the file afterwards")
        if len(parts) != step.parallelism:
            migrates.append(f"its state is spread from {_subtasks(len(parts))} over {step.parallelism}")
        return ("migrated" if migrates else "kept"), [*migrates, *notes]

    def _why_rebuilt(self, step: LogicalStep, part: StepPart, found: Sequence[Difference]) -> list[str]:
        assert self.held is not None
        empty = "it starts empty, what it has collected so far is lost"
        groups, groups_now = self.held.max_parallelism, self.new.job.max_parallelism
        if groups != groups_now:
            return [f"job.max_parallelism is fixed for the life of state ({groups}, and not {groups_now}): {empty}"]
        because = f"its state cannot be read that way: {empty}"
        if (reason := unreadable(plan_physical(self.new), step.name, [part])) is not None:
            return [reason, because]
        if any(each.label != "parallelism" for each in found):
            return [because]
        now = describes(plan_physical(self.new))[step.name]
        return [f"its state holds: {part.describe}", f"it would have to hold: {now}", because]

    def _still_holds(self, step: LogicalStep, before: LogicalStep | None) -> list[str]:
        """What state that is kept was made from, where that has changed."""
        notes = []
        if before is not None and (own := differences(before_state(before), before_state(step))):
            labels = ", ".join(each.label for each in own)
            notes.append(
                f"what it has collected so far was chosen the old way ({labels}); rows from now on the new way"
            )
        if changed := [name for name in self._upstream(step.name) if name in self.other_rows]:
            notes.append(f"what it has collected so far came from {', '.join(changed)} as before the change")
        return notes

    def _upstream(self, name: str) -> list[str]:
        """Every node whose rows come to a step, itself left out, nearest first."""
        found: list[str] = []
        waiting = [name]
        while waiting:
            step = self.new.steps.get(waiting.pop(0))
            for ref in step.streams if step is not None else ():
                if ref.node not in found:
                    found.append(ref.node)
                    waiting.append(ref.node)
        return found

    def _in_order(self) -> Iterator[LogicalStep]:
        """Steps after those they read. Those of a query that keep no state are told with the query."""
        steps = self.new.steps
        order = TopologicalSorter({name: [ref.node for ref in step.streams] for name, step in steps.items()})
        for name in order.static_order():
            if name in steps and not _is_inside(steps[name]):
                yield steps[name]

    def _inside(self, step: LogicalStep) -> list[str]:
        """What has changed in the parts of a query that keep no state; told with the query's last step."""
        if step.query != step.name or self.old is None or step.name not in self.old.steps:
            return []
        was, now = (
            {s.name: s for s in graph.steps.values() if s.query == step.name and _is_inside(s)}
            for graph in (self.old, self.new)
        )
        says = [f"{name}: new" for name in now if name not in was]
        for name in now.keys() & was.keys():
            says += [f"{name}: {each}" for each in step_differences(step_fields(was[name]), step_fields(now[name]))]
        return sorted([*says, *(f"{name}: gone" for name in was if name not in now)])

    # -- sinks

    def _sink(self, name: str) -> StepChange:
        sink = self.new.sinks[name]
        before = None if self.old is None else self.old.sinks.get(name)
        found = [] if before is None else differences(sink_fields(before), sink_fields(sink))
        says = [str(each) for each in found]
        lost = ("sink", name) in self.lost
        if lost:
            says += _GONE["sink"]
        elif isinstance(sink.config, KafkaSinkSpec):
            says += _kafka_sink_notes({each.label: each for each in found})
        elif any(each.label == "path" for each in found):
            says.append("what it has written stays where it is")
        state: Verdict = "dropped" if lost else "none"
        return StepChange(name=name, kind="sink", change=_change(before, found), state=state, says=tuple(says))

    # -- what is gone

    def _gone(self, kind: NodeKind) -> Iterator[StepChange]:
        was, now = _nodes(self.old, kind), _nodes(self.new, kind)
        taken = {step.was for step in self.new.steps.values() if self._before(step)[1] is not None}
        taken |= {held for name, held in self.held_as.items() if name != held}
        gone = [name for name in was if name not in now and not (kind == "step" and name in taken)]
        known = {*gone, *now, *taken}
        gone += [name for of, name in self.lost if of == kind and name not in known]
        for name in gone:
            step = self.old.steps.get(name) if self.old is not None and kind == "step" else None
            lost = (kind, name) in self.lost
            if step is not None and _is_inside(step) and not lost:
                continue
            says = _GONE[kind] if lost else ()
            claims = [each.name for each in self.new.steps.values() if each.was == name]
            if lost and kind == "step" and claims:
                says = (f"its state goes with it: {claims[0]} has state of its own, and `was: {name}` changes nothing",)
            if kind == "sink" and not lost:
                says = ("what it has written stays, and is committed with the checkpoint",)
            if name not in was:
                says = ("a revision that has not run since the checkpoint has left it out", *says)
            state: Verdict = "dropped" if lost else "none"
            yield StepChange(name=name, kind=kind, change="removed", state=state, says=says)


_GONE: Final[Mapping[NodeKind, tuple[str, ...]]] = {
    "source": ("its positions go with it: a source of another name begins at its own `start`",),
    "step": ("its state goes with it; a step that is to have it says `was:` and the old name",),
    "sink": (
        "it has prepared results that may not be committed yet: start the pipeline as it was, once, and they are",
    ),
}


def _nodes(graph: LogicalGraph | None, kind: NodeKind) -> Mapping[str, object]:
    if graph is None:
        return {}
    return {"source": graph.sources, "step": graph.steps, "sink": graph.sinks}[kind]


def _change(before: object, found: Sequence[object]) -> Change:
    return "added" if before is None else "changed" if found else "unchanged"


def _stateful(step: LogicalStep) -> bool:
    return any(spec.stateful for spec in step.operators)


def _is_inside(step: LogicalStep) -> bool:
    """A part of a query that the user has not named and that keeps nothing."""
    return step.query is not None and step.query != step.name and not _stateful(step)


def _subtasks(count: int) -> str:
    return "1 subtask" if count == 1 else f"{count} subtasks"


def _begins(source: LogicalSource) -> str:
    """Where a source without positions begins."""
    match source.config:
        case KafkaSourceSpec(start=StartTimestamp(timestamp=timestamp)):
            return f"begins at {timestamp}"
        case KafkaSourceSpec(start=start):
            return f"begins at `start: {start}`"
        case FileSourceSpec():
            return "reads every file from its beginning"
        case _:
            return "begins with its first row"


def _source_notes(source: LogicalSource, found: Sequence[Difference]) -> Iterator[str]:
    """What a change means for a source that goes on from its positions."""
    labels = {each.label for each in found}
    first = {label.partition(".")[0] for label in labels}
    if "start" in first:
        yield "`start` counts only where there is no position: it goes on where it has come to"
    if "connection.brokers" in labels:
        yield (
            "its positions are offsets of one cluster: the new addresses must be of the same; to read another one from "
            "`start`, give the source another name"
        )
    if isinstance(source.config, FileSourceSpec) and "path" in labels:
        yield "files are known by their names below the folder: what has been read of one is not read again"
    if first & {"format", "schema", "metadata"}:
        yield "from where it has come to, records are read the new way"
    if "event_time" in first:
        yield "its watermark goes on from where it is, by the new rule"
    if "parallelism" in first:
        yield "its splits are shared out anew"


def _kafka_sink_notes(found: Mapping[str, Difference]) -> Iterator[str]:
    if any(label == "topic" or label.startswith("connection") for label in found):
        yield "what it has written so far stays, and is committed, in the old place"
    if "key" in found:
        yield "rows of a key may go to another partition than before"
    if (delivery := found.get("delivery")) is not None and delivery.now == "at_least_once":
        yield "rows are visible at once from now on, and some twice after a failure"
