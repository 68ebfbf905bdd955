"""Causes that lie with the job as a whole: it does not run, the outside cannot be reached, the input has ended."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from operators.element import WATERMARK_MAX
from state.failure import Actor
from streamproc.diagnosis.phrases import count, moment
from streamproc.diagnosis.scene import ENDED, NOT_RUNNING, NOTE, UNREACHABLE, Scene, Suspicion
from streamproc.observability.facts import SourceFacts
from streamproc.observability.status import JobStatus
from streamproc.service.views import Finding

ACTORS: Final[dict[Actor, str]] = {
    "user": "you can mend it: the pipeline file, its code or its records",
    "world": "the outside world has to mend it: a broker, a disk, a network",
    "us": "it looks like a defect of streamproc",
}
_STATES: Final = {
    "starting": "the pipeline is starting: it restores its state and connects; nothing is read yet",
    "waiting": "the pipeline waits for the outside world",
    "restarting": "the pipeline failed and is about to start again from its last checkpoint",
    "stopping": "the pipeline is stopping: it takes its last checkpoint and reads nothing more",
    "stopped": "the pipeline is stopped; start it to go on from its last checkpoint",
    "drained": "the pipeline is drained: its input was ended and every result was committed; start it to read on",
    "failed": "the pipeline has failed and does not start again by itself",
}


def not_running(status: JobStatus) -> Iterator[Suspicion]:
    """The job does not work at the moment, and who can change that."""
    if status.state == "running":
        return
    if status.state == "finished":
        says = "the input has ended and every result is committed: nothing more will come"
        yield Suspicion(NOT_RUNNING, Finding(cause="end_of_input", says=says))
        return
    says = _STATES[status.state]
    failure = status.failures[-1] if status.failures else None
    if status.message:
        says += f": {status.message}"
    if failure is not None and status.state in ("failed", "restarting", "waiting", "starting"):
        text = str(failure.failure)
        again = f" (last failure {moment(int(failure.at) * 1000)}, {count(status.restarts, 'restart')})"
        says += again if text in says else f"; last failure, at {moment(int(failure.at) * 1000)}: {text}"
        says += f"; {ACTORS[failure.failure.acts]}"
        if status.state == "failed" and failure.failure.retry_helps:
            says += "; starting it again may help"
    waits = status.state == "waiting"
    yield Suspicion(NOT_RUNNING, Finding(cause="unreachable" if waits else "not_running", says=says))


def unreachable(scene: Scene) -> Iterator[Suspicion]:
    """Sources and sinks that get no answer. A sink counts wherever rows come from one of its sources: once it takes
    nothing, those have no room before long."""
    logical = scene.logical
    sources = scene.sources_of(scene.node)
    troubles = _troubles(scene)
    silent = [r.source for r in scene.readers if not r.listening and not _ended(r)]
    for name in dict.fromkeys([*troubles, *silent]):
        kind = "source" if name in logical.sources else "sink"
        why = troubles.get(name, "what it reads from does not answer")
        says = f"{kind} {name} cannot be reached: {why}; it goes on by itself as soon as it can"
        weight = UNREACHABLE if sources & scene.sources_of(name) else NOTE
        yield Suspicion(weight, Finding(cause="unreachable", says=says, node=name))


def _troubles(scene: Scene) -> dict[str, str]:
    """By node, out of the message of the status: `source orders: no broker answers; sink out: …`."""
    found: dict[str, str] = {}
    for kind, names in (("source", scene.logical.sources), ("sink", scene.logical.sinks)):
        for name in names:
            begins, said, rest = scene.status.message.partition(f"{kind} {name}: ")
            if said and (not begins or begins.endswith("; ")):
                found[name] = re.split(r"; (?:source|sink) \S+: ", rest)[0]
    return found


def end_of_input(scene: Scene) -> Iterator[Suspicion]:
    """Everything there is has been read."""
    vertex = scene.vertex_of(scene.node).name
    subtasks = scene.subtasks(vertex)
    if subtasks and all(subtask.watermark >= WATERMARK_MAX for subtask in subtasks):
        sources = ", ".join(dict.fromkeys(reader.source for reader in scene.readers))
        gave = scene.gave(scene.node, count(scene.totals(scene.node).rows_out, "row"))
        says = f"the input has ended ({sources}); {gave}, and nothing more will come"
        yield Suspicion(ENDED, Finding(cause="end_of_input", says=says, node=scene.node))


def _ended(reader: SourceFacts) -> bool:
    return bool(reader.splits) and all(split.finished for split in reader.splits)
