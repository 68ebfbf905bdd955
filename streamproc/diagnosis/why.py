"""Why is nothing coming out? Every cause is looked for in the facts; the likeliest one is said first.

A cause is a small pure function of a `Scene` that gives what it finds, each with a weight. Nothing here waits,
measures or asks: the same facts always give the same words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from streamproc.diagnosis.adviser import advise
from streamproc.diagnosis.commits import checkpoint_pending
from streamproc.diagnosis.condition import end_of_input, not_running, unreachable
from streamproc.diagnosis.event_time import held_by_operator, watermark_held_back, window_open
from streamproc.diagnosis.pressure import peers, slow_downstream, slow_itself
from streamproc.diagnosis.rows import empty_side_output, flowing, no_input, swallowed
from streamproc.diagnosis.scene import FLOWING, NOT_RUNNING, NOTE, UNCOMMITTED, UNREACHABLE, Scene, Suspicion
from streamproc.observability.facts import JobFacts
from streamproc.observability.rates import Rates
from streamproc.observability.status import JobStatus
from streamproc.pipeline.physical import PhysicalGraph
from streamproc.service.views import Finding, SourceAdvice, WhyView

Cause = Callable[[Scene], Iterator[Suspicion]]

CAUSES: Final[tuple[Cause, ...]] = (
    end_of_input,
    unreachable,
    slow_downstream,
    slow_itself,
    watermark_held_back,
    swallowed,
    no_input,
    checkpoint_pending,
    window_open,
    flowing,
    peers,
    held_by_operator,
)
_RULED_OUT: Final[dict[str, str]] = {
    "unreachable": "its sources answer",
    "no_input": "its sources bring rows",
    "watermark_held_back": "no split holds the watermark back",
    "late_rows": "no row was late",
    "errors": "no record was bad",
    "filtered": "conditions let rows through",
    "backpressure": "nobody waits for room",
}
_WORKING: Final = ("running", "waiting")  # one that waits for a broker goes on elsewhere
_SPEED: Final = ("backpressure", "slow_sink", "waiting_outside")
_ADVISED: Final = ("watermark_held_back", "window_open", "late_rows")


def why(
    facts: JobFacts | None, graph: PhysicalGraph, status: JobStatus, node: str, *, rates: Rates | None = None
) -> WhyView:
    """Why nothing (or little) comes out of `node`, a source, step or sink of the graph; KeyError for any other.
    `facts`: None where no attempt runs. `rates`: of the last seconds; without, totals have to do."""
    if node not in {each for vertex in graph.vertices for each in vertex.nodes}:
        raise KeyError(node)
    works = facts is not None and status.state in _WORKING
    suspicions = [] if works else list(not_running(status))
    advice: tuple[SourceAdvice, ...] = ()
    if facts is None:
        if not suspicions:
            says = "the pipeline is between two attempts: it is about to start"
            suspicions.append(Suspicion(NOT_RUNNING, Finding(cause="not_running", says=says)))
    elif not works:
        suspicions += unreachable(Scene(facts, graph, status, node, Rates()))  # nothing else has begun, or will go on
    else:
        scene = Scene(facts, graph, status, node, rates or Rates())
        found = _found(scene)
        suspicions += _behind_the_flow(found) if scene.flows(node) else found
        if ruled_out := _ruled_out(found, scene):
            suspicions.append(Suspicion(0, ruled_out))
        advice = _advice(facts, scene, found)
    findings = tuple(each.finding for each in sorted(suspicions, key=lambda each: -each.weight))
    if not findings:
        says = f"rows are on their way to {node}: nothing holds them up"
        findings = (Finding(cause="flowing", says=says, node=node),)
    return WhyView(
        pipeline=graph.logical.pipeline, step=node, summary=findings[0].says, findings=findings, advice=advice
    )


def _found(scene: Scene) -> list[Suspicion]:
    """Every cause there is a sign of; of one cause at one place the first sign."""
    empty = list(empty_side_output(scene))
    if empty and len(empty) == len(scene.reads(scene.node)):  # nothing else would change that
        return [*empty, *unreachable(scene), *end_of_input(scene), *checkpoint_pending(scene)]
    found: dict[tuple[str, str | None], Suspicion] = {}
    silent = {suspicion.finding.node for suspicion in unreachable(scene)}
    for suspicion in [*empty, *(each for cause in CAUSES for each in cause(scene))]:
        finding = suspicion.finding
        if finding.cause in _SPEED and finding.node in silent:
            continue  # who gets no answer is not slow
        # Whoever is slow is found from each place that waits for it: once is enough.
        found.setdefault((finding.cause, finding.node if finding.cause in _SPEED else finding.says), suspicion)
    ended = any(cause == "end_of_input" for cause, _ in found)
    return [each for each in found.values() if not (ended and each.finding.cause == "flowing")]


def _behind_the_flow(found: list[Suspicion]) -> list[Suspicion]:
    """Where rows come out, what would explain silence is worth a note and no more."""
    return [
        each
        if each.weight <= FLOWING or each.weight == UNCOMMITTED or each.finding.cause in (*_SPEED, "end_of_input")
        else Suspicion(NOTE, each.finding)
        for each in found
    ]


def _ruled_out(found: list[Suspicion], scene: Scene) -> Finding | None:
    """What it is not, in one line."""
    causes = {each.finding.cause for each in found}
    if causes & {"end_of_input", "unreachable"} or list(empty_side_output(scene)):
        return None
    if causes & set(_SPEED):
        causes.add("backpressure")
    if not scene.timed_sources(scene.node):
        causes |= {"watermark_held_back", "late_rows"}
    told = [words for cause, words in _RULED_OUT.items() if cause not in causes]
    return Finding(cause="ruled_out", says=f"ruled out: {', '.join(told)}") if told else None


def _advice(facts: JobFacts, scene: Scene, found: list[Suspicion]) -> tuple[SourceAdvice, ...]:
    """What other values of `out_of_order` would cost, where event time has a part in the answer."""
    sources = scene.timed_sources(scene.node)
    if any(each.weight == UNREACHABLE for each in found):
        return ()
    if scene.node not in sources and not any(each.finding.cause in _ADVISED for each in found):
        return ()
    return tuple(advice for source in sources if (advice := advise(facts, source)) is not None)
