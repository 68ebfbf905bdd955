"""Causes that lie in speed: who is slow, and keeps everybody before it waiting for room.

Whoever waits for room is not to blame: `waiting for room` is followed downstream to the first subtask that is
busy or writes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

from streamproc.diagnosis.phrases import count, share, span
from streamproc.diagnosis.scene import NOTE, SLOWED, STUCK, Scene, Suspicion
from streamproc.functions.async_step import AsyncFunctionSpec
from streamproc.functions.process_step import ProcessFunctionSpec
from streamproc.functions.python_step import BatchFunctionSpec, RowFunctionSpec
from streamproc.observability.facts import SubtaskFacts
from streamproc.pipeline.physical import Vertex
from streamproc.service.views import Finding

_STUCK_S: Final = 2.0  # one write, call or wait that has taken this long is worth a word
_LONG_S: Final = 10.0  # the same for plain computing: a window of any size may close at once
_USER_CODE: Final = (BatchFunctionSpec, RowFunctionSpec, AsyncFunctionSpec, ProcessFunctionSpec)
_ALWAYS: Final = 0.9
_MOSTLY: Final = 0.5  # a share of time from which on a subtask counts as held up,
_SPARE: Final = 0.1  # unless it has more idle time than this left: then it keeps up, though each write takes its time


def slow_downstream(scene: Scene) -> Iterator[Suspicion]:
    """The node, or what its rows come from, waits for room: the bottleneck is behind it."""
    named: set[str] = set()
    for vertex in scene.upstream_vertices:
        for subtask in scene.subtasks(vertex.name):
            if not _held_up(subtask):
                continue
            slow = _bottleneck(scene, subtask, set())
            if slow is None:
                continue
            suspicion = _slow(scene, slow, waiting=subtask)
            if suspicion.finding.node not in named:
                named.add(str(suspicion.finding.node))
                yield suspicion


def slow_itself(scene: Scene) -> Iterator[Suspicion]:
    """On the way to the node somebody is at work all the time, or in one write, call or computation that does not come
    to an end: though nobody waits for room (yet), that is what sets the pace."""
    for vertex in scene.upstream_vertices:
        for subtask in scene.subtasks(vertex.name):
            longest = _STUCK_S if subtask.doing == "writing" or _waits(subtask) else _LONG_S
            if subtask.doing in ("writing", "computing") and subtask.doing_s >= longest:
                yield _slow(scene, subtask, waiting=None)
            elif subtask.busy >= _ALWAYS and scene.rates.span_s >= _STUCK_S:  # the first moments say nothing
                slow = _slow(scene, subtask, waiting=None)
                yield slow if scene.flows(scene.node) else Suspicion(NOTE, slow.finding)


def peers(scene: Scene) -> Iterator[Suspicion]:
    """A source that is ahead of another waits for it."""
    for subtask in scene.facts.subtasks:
        source = subtask.source
        if source is None or subtask.doing != "waiting for peers" or subtask.doing_s < _STUCK_S:
            continue
        if source.source in scene.upstream:
            says = (
                f"source {source.source} is far ahead in event time, and has waited for {span(subtask.doing_s)} until "
                "the sources it meets have read on: those decide how fast it goes"
            )
            seconds = round(subtask.doing_s, 3)
            yield Suspicion(NOTE, Finding(cause="backpressure", says=says, node=source.source, seconds=seconds))


def _held_up(subtask: SubtaskFacts) -> bool:
    if subtask.doing == "waiting for room" and subtask.doing_s >= _STUCK_S:
        return True
    return subtask.backpressured >= _MOSTLY and subtask.idle < _SPARE


def _bottleneck(scene: Scene, subtask: SubtaskFacts, seen: set[tuple[str, int]]) -> SubtaskFacts | None:
    """The first subtask downstream that does not itself wait for room; None: it has resolved meanwhile."""
    seen.add((subtask.vertex, subtask.index))
    vertex = scene.graph.vertex(subtask.vertex)
    if subtask.doing == "writing" or not vertex.edges:
        return subtask
    downstream = list(dict.fromkeys(edge.downstream for edge in vertex.edges))
    if subtask.doing == "waiting for room" and subtask.toward in downstream:
        downstream = [subtask.toward]
    receivers = [s for name in downstream for s in scene.subtasks(name) if (s.vertex, s.index) not in seen]
    if not receivers:
        return None
    slowest = max(receivers, key=lambda s: (_rows_waiting(s), s.busy + s.backpressured, s.doing_s))
    held_up = slowest.doing == "waiting for room" or _held_up(slowest)
    return _bottleneck(scene, slowest, seen) if held_up else slowest


def _rows_waiting(subtask: SubtaskFacts) -> int:
    return sum(each.rows_waiting for each in subtask.inputs)


def _slow(scene: Scene, slow: SubtaskFacts, waiting: SubtaskFacts | None) -> Suspicion:
    """Who is slow, in what, and who waits for it."""
    vertex = scene.graph.vertex(slow.vertex)
    which = f"[{slow.index}]" if vertex.parallelism > 1 else ""
    since = f" in one call for {span(slow.doing_s)}" if slow.doing == "computing" and slow.doing_s >= 1 else ""
    cause: Literal["slow_sink", "waiting_outside", "backpressure"]
    if vertex.sink is not None and (slow.doing == "writing" or slow.backpressured >= _MOSTLY):
        cause, node = "slow_sink", vertex.sink.name
        now = f"has been writing one batch for {span(slow.doing_s)}" if slow.doing == "writing" else "is slow"
        says = f"sink {node}{which} {now}{_time(slow)}: what it writes to takes rows slowly"
    else:
        node = _blamed(vertex)
        field = scene.field_of(node)
        if _waits(slow):
            cause = "waiting_outside"
            says = f"{node}{which} waits for answers from outside{since}{_time(slow)}: make what it asks faster, or "
            says += f"raise its in_flight, or {field}.parallelism"
        else:
            cause = "backpressure"
            says = f"{node}{which} is the bottleneck: busy{since}{_time(slow)}{_chain(vertex)}: make it cheaper, or "
            one_group = any(edge.exchange == "hash" and not edge.key for _, edge in scene.graph.upstreams(vertex.name))
            says += f"give {field} a key, by which it can be split up" if one_group else f"raise {field}.parallelism"
    if rows := _rows_waiting(slow):
        says += f"; {count(rows, 'row')} wait in front of it"
    if waiting is not None and waiting is not slow:
        says += (
            f"; {waiting.vertex} waits for room {share(waiting.backpressured, 1.0)} of its time, and reads no faster"
        )
    weight = SLOWED if scene.flows(scene.node) else STUCK
    return Suspicion(weight, Finding(cause=cause, says=says, node=node, seconds=round(slow.doing_s, 3)))


def _time(subtask: SubtaskFacts) -> str:
    if subtask.busy + subtask.backpressured + subtask.idle == 0:
        return ""
    written = subtask.backpressured if subtask.doing == "writing" else 0.0
    return f" ({share(max(subtask.busy, written), 1.0)} of the time)"


def _waits(subtask: SubtaskFacts) -> bool:
    return any(step.waits for step in subtask.steps if step.node in subtask.nodes)


def _blamed(vertex: Vertex) -> str:
    """The step of a chain that is likeliest to take the time: one that waits, then user code, then the first."""
    steps = list(vertex.stages)
    waits = [stage.step for stage in steps if getattr(stage.spec, "waits", False)]
    user = [stage.step for stage in steps if isinstance(stage.spec, _USER_CODE)]
    stateful = [stage.step for stage in steps if stage.spec.stateful]
    return next(iter([*waits, *user, *stateful, *(stage.step for stage in steps)]), vertex.name)


def _chain(vertex: Vertex) -> str:
    return f" (the chain {' → '.join(vertex.nodes)})" if len(vertex.nodes) > 1 else ""
