"""Who reads whom: every input name resolved, circles found, what no sink reaches left aside.

Works on what the file says, not on what could be read as a model, so that a fault inside a step does
not make the steps around it look unread.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Any, Final

from operators.connector import ErrorPolicy
from operators.element import OutputTag
from streamproc.pipeline.document import FieldPath
from streamproc.pipeline.faults import FaultLog
from streamproc.pipeline.logical import StreamRef
from streamproc.pipeline.shape import Part, Shape
from streamproc.pipeline.spec import JobSpec, StepSpec
from streamproc.pipeline.sql.dialect import tables_of
from streamproc.pipeline.sql.fault import SqlFault
from streamproc.pipeline.suggest import did_you_mean, listed, near

ALL_ERRORS: Final = "*.errors"
_SIDE_OUTPUT_WORDS: Final = {"late": ("late",), "errors": ("error", "dead", "dlq", "reject")}
_TAGS: Final[tuple[OutputTag, ...]] = ("late", "errors")


@dataclass(frozen=True, slots=True)
class Input:
    """One input as resolved, and where the file names it."""

    ref: StreamRef
    path: FieldPath
    starred: bool = False  # came out of `*.errors`
    port: int = 0  # 1: the right side of a join


@dataclass(slots=True)
class Wiring:
    """Inputs of every step and sink. A reader in `incomplete` has an input that is not known."""

    inputs: dict[str, list[Input]] = field(default_factory=dict)
    incomplete: set[str] = field(default_factory=set)
    unresolved: list[str] = field(default_factory=list)  # what those wrote, or their names where they wrote nothing
    refused: set[StreamRef] = field(default_factory=set)  # side outputs that are read and are not there
    in_circle: set[str] = field(default_factory=set)
    starved: set[str] = field(default_factory=set)  # read `*.errors` where nothing has one
    live: set[str] = field(default_factory=set)  # what runs: sinks, and nodes from which one is reached
    step_order: list[str] = field(default_factory=list)  # each after those it reads

    def may_mean(self, output: str) -> bool:
        """Whether an input that could not be resolved may have meant a side output of this kind."""
        words = _SIDE_OUTPUT_WORDS[output]
        return any(word in text.lower() for text in self.unresolved for word in words)


def error_policy(part: Part[Any], job: Part[JobSpec]) -> ErrorPolicy | None:
    """What happens to a node's bad records; None when the file says it wrongly."""
    if "errors" in part.broken:
        return None
    own = part.spec.errors if part.spec is not None else part.written.get("errors") if part.has("errors") else None
    if own in ("fail", "skip", "dlq"):
        policy: ErrorPolicy = own
        return policy
    if "errors" in job.broken:
        return None
    return job.spec.errors if job.spec is not None else None


def keeps_late_rows(step: Part[StepSpec]) -> bool | None:
    """Whether a step has a late output; None when that cannot be told."""
    if step.spec is None or step.is_wrong("late", "then"):
        return None
    if step.spec.late.then == "side_output":
        return True
    return None if {"aggregate", "window", "top"} & step.broken else False


def declared_outputs(step: Part[StepSpec] | None) -> tuple[str, ...]:
    """The side outputs that a process function declares."""
    if step is None or step.spec is None or step.spec.process is None:
        return ()
    return tuple(step.spec.process.outputs)


def wire(shape: Shape, log: FaultLog) -> Wiring:
    """Resolve all inputs, record faults, and find what is to run."""
    wiring = Wiring()
    stars: list[tuple[str, FieldPath]] = []
    for name, part in (*shape.steps.items(), *shape.sinks.items()):
        wiring.inputs[name] = []
        if isinstance(part.written, dict) and part.written.get("input") == []:
            log.error((*part.path, "input"), "must name at least one input")
        if _is_query(part):
            _wire_query(name, part, shape, log, wiring)
            continue
        for text, path, port in written_inputs(part):
            if text == ALL_ERRORS:
                stars.append((name, path))
            elif (ref := _resolve(text, path, shape, log, wiring)) is None:
                wiring.incomplete.add(name)
                wiring.unresolved.append(text)
            elif any(ref == other.ref and port == other.port for other in wiring.inputs[name]):
                log.error(path, f"'{text}' is named twice")
            else:
                wiring.inputs[name].append(Input(ref, path, port=port))
        if _lacks_a_side(part):
            wiring.incomplete.add(name)
            wiring.unresolved.append(name)
        if not wiring.inputs[name] and all(name != reader for reader, _ in stars):
            wiring.incomplete.add(name)
            wiring.unresolved.append(name)
    _expand_stars(stars, wiring, shape)
    _find_circles(wiring, shape, log)
    _find_live(wiring, shape)
    return wiring


def _is_query(part: Part[Any]) -> bool:
    return part.path[0] == "steps" and part.has("sql")


def _join_of(part: Part[Any]) -> Any:
    """What stands under `join`, of a step; None where nothing does."""
    return part.written.get("join") if part.path[0] == "steps" and isinstance(part.written, dict) else None


def _lacks_a_side(part: Part[Any]) -> bool:
    """Whether the left or the right of a join cannot be read."""
    join = _join_of(part)
    if not isinstance(join, dict):
        return False
    sides = ("left",) if join.get("lookup") is not None else ("left", "right")
    return not all(isinstance(join.get(side), str) for side in sides)


def _wire_query(name: str, part: Part[Any], shape: Shape, log: FaultLog, wiring: Wiring) -> None:
    """A query reads the streams it names; what `input` says beside it bounds them."""
    path = (*part.path, "sql")
    spec = part.spec
    if spec is None or spec.sql is None:
        wiring.incomplete.add(name)
        return
    try:
        tables = tables_of(spec.sql)
    except SqlFault as fault:
        log.error(path, fault.message, fault.hint, offset=fault.offset)
        wiring.incomplete.add(name)
        return
    allowed = {text for text, _, _ in written_inputs(part)}
    for text, offset in tables:
        ref = _resolve(text, path, shape, log, wiring, offset=offset)
        if ref is None:
            wiring.incomplete.add(name)
            wiring.unresolved.append(text)
            continue
        if allowed and text not in allowed:
            log.error(path, f"'{text}' is not among the inputs of this step", "add it to 'input'", offset=offset)
        wiring.inputs[name].append(Input(ref, path))


def written_inputs(part: Part[Any]) -> Iterator[tuple[str, FieldPath, int]]:
    """Texts that name inputs, their places, and the port they are for."""
    if not isinstance(part.written, dict):
        return
    written, join = part.written.get("input"), _join_of(part)
    if isinstance(join, dict) and isinstance(join.get("left"), str):
        written = None  # it has no place here
    if isinstance(written, str):
        yield written, (*part.path, "input"), 0
    elif isinstance(written, list):
        for index, item in enumerate(written):
            if isinstance(item, str):
                yield item, (*part.path, "input", index), 0
    for port, side in enumerate(("left", "right")):
        if isinstance(join, dict) and isinstance(join.get(side), str):
            yield join[side], (*part.path, "join", side), port


def _resolve(
    text: str, path: FieldPath, shape: Shape, log: FaultLog, wiring: Wiring, *, offset: int | None = None
) -> StreamRef | None:
    node, dot, tag = text.partition(".")
    if node not in shape.sources and node not in shape.steps:
        _refuse_node(text, node, path, shape, log, offset)
        return None
    if not dot:
        return StreamRef(node)
    if tag in declared_outputs(shape.steps.get(node)):
        return StreamRef(node, tag)
    if tag not in _TAGS:
        outputs = _side_outputs(node, shape)
        log.error(path, f"'{node}' has no output '{tag}'", did_you_mean(text, outputs))
        return None
    ref = StreamRef(node, tag)
    check = _check_errors_output if tag == "errors" else _check_late_output
    if not check(node, path, shape, log):
        wiring.refused.add(ref)
    return ref


def _side_outputs(node: str, shape: Shape) -> list[str]:
    """What could be read of a node beside its main output: what it has, or could have."""
    late = node in shape.steps and keeps_late_rows(shape.steps[node]) is not False
    part = shape.steps[node] if node in shape.steps else shape.sources[node]
    errors = error_policy(part, shape.job) in ("dlq", None)
    has = {"late": late, "errors": errors}
    if not any(has.values()):
        has = {"late": node in shape.steps, "errors": True}
    declared = [f"{node}.{tag}" for tag in declared_outputs(shape.steps.get(node))]
    return [*declared, *(f"{node}.{tag}" for tag in _TAGS if has[tag])]


def _check_errors_output(node: str, path: FieldPath, shape: Shape, log: FaultLog) -> bool:
    section, part = ("steps", shape.steps[node]) if node in shape.steps else ("sources", shape.sources[node])
    if error_policy(part, shape.job) in ("dlq", None):
        return True
    log.error(path, f"'{node}' has no errors stream", f"add `errors: dlq` to {section}.{node}")
    return False


def _check_late_output(node: str, path: FieldPath, shape: Shape, log: FaultLog) -> bool:
    step = shape.steps.get(node)
    if step is None:
        log.error(path, f"'{node}' is a source: only a step with a window has late rows")
    elif step.spec is None or keeps_late_rows(step) is not False:
        return True
    elif not _has_late_rows(step.spec):
        log.error(path, f"'{node}' keeps no late rows: an aggregate or top with a window does")
    else:
        log.error(path, f"'{node}' drops its late rows", f"add `late: {{then: side_output}}` to steps.{node}")
    return False


def _has_late_rows(spec: StepSpec) -> bool:
    """Whether rows can be late for a step: it closes windows."""
    if spec.aggregate is not None:
        return spec.window is not None
    return spec.top is not None and spec.top.window is not None


def _refuse_node(text: str, node: str, path: FieldPath, shape: Shape, log: FaultLog, offset: int | None) -> None:
    if not shape.sources:
        return  # none could be read: that is said already
    names = [*shape.sources, *shape.steps]
    if node in shape.sinks:
        log.error(path, f"'{node}' is a sink: nothing can be read from it", offset=offset)
    elif text.startswith("*"):
        log.error(path, f"unknown input '{text}'", f'all errors streams together are "{ALL_ERRORS}"')
    else:
        suggestion = near(node, names)
        rest = text[len(node) :]
        hint = f"did you mean '{suggestion}{rest}'?" if suggestion else did_you_mean(node, names)
        log.error(path, f"unknown input '{text}'", hint, offset=offset)


def _expand_stars(stars: list[tuple[str, FieldPath]], wiring: Wiring, shape: Shape) -> None:
    """`*.errors` is every errors stream. A step that reads it does not read those of steps behind a star:
    they could be its own."""
    all_parts: Mapping[str, Part[Any]] = {**shape.sources, **shape.steps}
    with_errors = [name for name, part in all_parts.items() if error_policy(part, shape.job) == "dlq"]
    behind = {reader for reader, _ in stars}
    while (
        grown := {reader for reader, inputs in wiring.inputs.items() if any(i.ref.node in behind for i in inputs)}
        - behind
    ):
        behind |= grown
    for reader, path in stars:
        named = {i.ref for i in wiring.inputs[reader]}
        for node in with_errors:
            if (reader in shape.sinks or node not in behind) and StreamRef(node, "errors") not in named:
                wiring.inputs[reader].append(Input(StreamRef(node, "errors"), path, starred=True))
        if not wiring.inputs[reader]:
            wiring.starved.add(reader)


def _find_circles(wiring: Wiring, shape: Shape, log: FaultLog) -> None:
    """Order the steps; each circle is one fault, and its steps are left out of the order."""
    own = shape.steps.keys() - shape.sources.keys()  # a name given twice means the source
    while True:
        graph = {
            name: {i.ref.node for i in wiring.inputs[name]} & own - wiring.in_circle
            for name in shape.steps
            if name not in wiring.in_circle
        }
        try:
            wiring.step_order = list(TopologicalSorter(graph).static_order())
        except CycleError as error:
            circle: list[str] = error.args[1][:-1]
        else:
            return
        first = min(circle, key=list(shape.steps).index)
        start = circle.index(first)
        ordered = [*circle[start:], *circle[:start], first]
        if len(circle) == 1:
            message = f"'{first}' reads itself"
        else:
            message = f"steps read each other in a circle: {' → '.join(ordered)}"
        part = shape.steps[first]
        log.error((*part.path, "join" if part.has("join") else "input"), message)
        wiring.in_circle |= set(circle)


def _find_live(wiring: Wiring, shape: Shape) -> None:
    """Everything a sink reads, directly or through steps. `*.errors` alone makes no node live: a node runs
    for its rows."""
    while (
        starved := {
            reader
            for reader, inputs in wiring.inputs.items()
            if inputs and reader not in wiring.incomplete and all(i.ref.node in wiring.starved for i in inputs)
        }
        - wiring.starved
    ):
        wiring.starved |= starved
    waiting = [name for name in shape.sinks if name not in wiring.starved]
    while waiting:
        name = waiting.pop()
        if name not in wiring.live:
            wiring.live.add(name)
            inputs = wiring.inputs.get(name, [])
            waiting += [i.ref.node for i in inputs if not i.starred and i.ref.node not in wiring.starved]
    for name in [name for name in wiring.live if name in shape.sinks and name not in wiring.incomplete]:
        if not live_inputs(name, wiring):
            wiring.live.discard(name)
            wiring.starved.add(name)


def check_side_outputs(wiring: Wiring, shape: Shape, log: FaultLog) -> None:
    """A side output that is asked for has to be read by something that runs. Where an input is not known,
    everything could be what it means, and run."""
    running = wiring.live if not wiring.incomplete else shape.sources.keys() | wiring.inputs.keys()
    read = {i.ref for reader in running for i in wiring.inputs.get(reader, ())}
    for name, step in shape.steps.items():
        if wiring.may_mean("late"):
            break
        if step.spec is None or not _has_late_rows(step.spec):
            continue  # 'late' has its fault already
        if name in running and keeps_late_rows(step) and StreamRef(name, "late") not in read:
            hint = f"read '{name}.late' in a step or sink, or remove `then: side_output`"
            log.error((*step.path, "late", "then"), "late rows are kept for a side output that nothing reads", hint)
    for name, step in shape.steps.items():
        for output in declared_outputs(step):
            if name in running and StreamRef(name, output) not in read and not wiring.incomplete:
                hint = f"read '{name}.{output}' in a step or sink, or remove it"
                log.error(
                    (*step.path, "process", "outputs", output), "nothing reads this side output", hint, at_key=True
                )
    unread: list[str] = []
    parts: Mapping[str, Part[Any]] = {**shape.sources, **shape.steps}
    for name, part in parts.items():
        ref = StreamRef(name, "errors")
        if name not in running or error_policy(part, shape.job) != "dlq" or ref in read or wiring.may_mean("errors"):
            continue
        if part.has("errors"):
            hint = f"read '{ref}' or \"{ALL_ERRORS}\" in a sink, or choose skip or fail"
            log.error((*part.path, "errors"), "bad records go to an errors stream that nothing reads", hint)
        else:
            unread.append(f"'{ref}'")
    if unread:
        hint = f'read "{ALL_ERRORS}" in a sink, or choose skip or fail'
        log.error(("job", "errors"), f"bad records go to errors streams that nothing reads: {listed(unread)}", hint)


def warn_unread(wiring: Wiring, shape: Shape, log: FaultLog) -> None:
    """Sources and steps that no sink reaches are not run; nor is what reads `*.errors` where there is none.
    Where an input is not known, nobody can tell."""
    if wiring.incomplete or not shape.sinks.keys() & wiring.live:
        return
    for section, parts in (("source", shape.sources), ("step", shape.steps), ("sink", shape.sinks)):
        for name, part in parts.items():
            if name in wiring.starved:
                log.warning(part.path, f"nothing has `errors: dlq`, so this {section} gets no rows and is not run")
            elif name not in wiring.live and name not in wiring.in_circle:
                log.warning(part.path, f"nothing reads this {section}, so it is not run")


def check_something_runs(wiring: Wiring, shape: Shape, log: FaultLog) -> None:
    """At least one sink gets rows."""
    if shape.sinks and not shape.sinks.keys() & wiring.live:
        hint = "give a source or step `errors: dlq`, or add a sink that reads one"
        log.error(
            ("sinks",),
            "nothing would run: no source or step has an errors stream for the sinks to read",
            hint,
            at_key=True,
        )


def live_inputs(reader: str, wiring: Wiring) -> list[Input]:
    """Inputs whose node runs."""
    return [i for i in wiring.inputs[reader] if i.ref.node in wiring.live]
