"""Causes that lie in checkpoints: what an exactly-once sink wrote is seen only once its checkpoint is complete."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from operators.explanation import duration_text
from streamproc.diagnosis.phrases import count, listed, span
from streamproc.diagnosis.scene import NOTE, UNCOMMITTED, Scene, Suspicion
from streamproc.pipeline.logical import LogicalSink
from streamproc.pipeline.spec import FileSinkSpec, KafkaSinkSpec
from streamproc.service.views import Finding

_LATE_INTERVALS: Final = 3  # so many intervals without a checkpoint are more than chance
_LATE_S_MIN: Final = 10.0


def checkpoint_pending(scene: Scene) -> Iterator[Suspicion]:
    """Rows have been written, and wait for a checkpoint to be seen; or no checkpoint comes to its end."""
    sinks = _committing_sinks(scene)
    pending_s = scene.facts.checkpoint_pending_s
    every_s = scene.logical.job.checkpoint.every / 1000
    ago_s = _since_last(scene)
    overdue_s = max(_LATE_INTERVALS * every_s, _LATE_S_MIN)
    stalled = pending_s is not None and pending_s >= max(every_s, _LATE_S_MIN)
    for name in sinks:
        written = scene.totals(name).rows_in
        if not written:
            continue
        missing = stalled or ago_s is None or ago_s >= overdue_s
        begins = (
            f"sink {name} has taken {count(written, 'row')}; each becomes visible with the first checkpoint after it, "
            f"one every {duration_text(scene.logical.job.checkpoint.every)}: {_last(scene, ago_s)}"
        )
        says = begins + (f"; {_under_way(scene, pending_s)}" if pending_s is not None and missing else "")
        seconds = pending_s if ago_s is None else ago_s
        finding = Finding(
            cause="checkpoint_pending", says=says, node=name, seconds=None if seconds is None else round(seconds, 3)
        )
        yield Suspicion(UNCOMMITTED if missing else NOTE, finding)
    if not sinks and stalled and pending_s is not None:
        says = f"{_under_way(scene, pending_s)}; {_last(scene, ago_s)}"
        yield Suspicion(NOTE, Finding(cause="checkpoint_pending", says=says, seconds=round(pending_s, 3)))


def _committing_sinks(scene: Scene) -> list[str]:
    """The node itself, where it is a sink that commits with checkpoints."""
    reader = scene.reader(scene.node)
    if not isinstance(reader, LogicalSink):
        return []
    config = reader.config
    once = isinstance(config, FileSinkSpec) or (isinstance(config, KafkaSinkSpec) and config.delivery == "exactly_once")
    return [reader.name] if once else []


def _since_last(scene: Scene) -> float | None:
    at = scene.status.checkpoint_at
    return None if at is None else max(0.0, scene.facts.taken_ms / 1000 - at)


def _last(scene: Scene, ago_s: float | None) -> str:
    if ago_s is None:
        return "none has been completed since the pipeline was started here"
    return f"the last one, {scene.status.checkpoint}, was completed {span(ago_s)} ago"


def _under_way(scene: Scene, pending_s: float) -> str:
    """What the checkpoint under way waits for."""
    says = f"a checkpoint has been under way for {span(pending_s)}"
    missing = scene.facts.unacknowledged
    if not missing:
        return f"{says}; every subtask has done its part: the checkpoint store does not answer"
    names = listed([f"{vertex}[{index}]" for vertex, index in missing])
    slow = next((s for s in scene.facts.subtasks if (s.vertex, s.index) in set(missing) and _moves(s.doing)), None)
    if slow is None:
        return f"{says} and waits for {names}"
    toward = f" ({slow.toward})" if slow.toward else ""
    does = f"{slow.vertex}[{slow.index}] has been {slow.doing}{toward} for {span(slow.doing_s)}"
    return f"{says} and waits for {names}: {does}"


def _moves(doing: str) -> bool:
    return doing in ("computing", "writing", "waiting for room")
