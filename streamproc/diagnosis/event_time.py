"""Causes that lie in event time: what closes next, what watermark that needs, and who holds the watermark back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from operators.element import WATERMARK_MIN
from operators.explanation import duration_text
from operators.join.condition import SIDES
from operators.join.interval import IntervalJoinSpec
from operators.operator import OperatorSpec
from operators.totals import TotalsSpec
from streamproc.diagnosis.phrases import listed, span
from streamproc.diagnosis.scene import HELD_BACK, NOTE, OPEN, Scene, Suspicion, input_watermark, known
from streamproc.observability.facts import SourceFacts, SplitFacts
from streamproc.pipeline.logical import LogicalStep
from streamproc.service.views import Finding

_SILENT_S: Final = 3.0  # a split that has been quiet for less is not called silent
_TOLD: Final = 3  # so many splits are told by name
_SOON_S: Final = 10.0  # what closes that soon, and gives results all the time, is not worth a word
_BEHIND_S: Final = 10.0  # a split that brings rows is called behind from here on


def waiting_step(scene: Scene) -> tuple[str, int] | None:
    """The nearest step, from the node upwards, in which something is open, and the watermark that closes it."""
    for node in scene.upstream:
        closes = [step.next_close for step in scene.steps(node) if step.next_close is not None]
        if closes:
            return node, min(closes)
    return None


def watermark_held_back(scene: Scene) -> Iterator[Suspicion]:
    """Splits that are behind the others while something waits for them."""
    waiting = waiting_step(scene)
    node, needed = waiting if waiting is not None else (scene.node, None)
    live = scene.live_splits(scene.timed_sources(node))
    if len(live) < 2:
        return
    live.sort(key=lambda each: each[1].watermark)
    decides = needed is not None and live[0][1].watermark < needed <= live[-1][1].watermark
    # Those without which it would go on: all that have not come to what is needed, else the very last.
    enough = needed if decides and needed is not None else live[0][1].watermark + 1
    behind = [each for each in live if each[1].watermark < enough]
    others = [split.watermark for _, split in live if split.watermark >= enough]
    if not others:
        return
    told = [each for each in behind if _stalls(each[1], others[0])]
    for source, split in told[:_TOLD]:
        lag_s = None if split.watermark <= WATERMARK_MIN else (others[0] - split.watermark) / 1000
        says = _held_back(scene, node, source, split, lag_s, len(behind))
        if needed is not None:
            says += f"; {node} waits for {scene.moment(needed)}"
        weight = HELD_BACK if decides else OPEN - 1 if needed is not None else NOTE
        seconds = round(split.silent_s if lag_s is None else lag_s, 3)
        finding = Finding(
            cause="watermark_held_back", says=says, node=source.source, split=split.split, seconds=seconds
        )
        yield Suspicion(weight, finding)


def _stalls(split: SplitFacts, others: int) -> bool:
    """Silent, or far behind: not merely a little later than the others."""
    return split.silent_s >= _SILENT_S or (
        split.watermark > WATERMARK_MIN and others - split.watermark >= _BEHIND_S * 1000
    )


def _held_back(
    scene: Scene, node: str, source: SourceFacts, split: SplitFacts, lag_s: float | None, behind: int
) -> str:
    word, name = scene.split_word(source.source), source.source
    one_of = f" (one of {behind} that do)" if behind > 1 else ""
    begins = f"{word} {split.split} holds the watermark back{one_of}: "
    if lag_s is None:
        begins += "it has brought no row yet"
    else:
        begins += f"it is at {scene.moment(split.watermark)}, {span(lag_s)} behind the others"
    quiet = split.silent_s >= _SILENT_S
    if quiet:
        begins += (
            f", silent for {span(split.silent_s)}" if lag_s is None else f", and silent for {span(split.silent_s)}"
        )
    elif source.lag_records:
        begins += f"; it brings rows, {source.lag_records:,} are still to be read"
    path = _path(scene, node, name)
    return f"{begins}{path}; {_idle_rule(word, source, split)}" if quiet else f"{begins}{path}"


def _idle_rule(word: str, source: SourceFacts, split: SplitFacts) -> str:
    field = f"sources.{source.source}.event_time.idle_after"
    if source.bounded:
        return f"its rows are still to be read: a bounded {word} counts until its end"
    if source.idle_after_ms is None:
        return f"`idle_after` is not set: a silent {word} holds the watermark back for ever; set {field}, to 1m say"
    left = source.idle_after_ms / 1000 - split.silent_s
    rule = f"{field} is {duration_text(source.idle_after_ms)}"
    if left > 0:
        return f"{rule}: in {span(left)} of silence more it will not count any longer"
    return f"{rule}: it is about to count no longer"


def _path(scene: Scene, node: str, source: str) -> str:
    """How the source comes to a step that has more than one input: `through the right input of paid`."""
    for step in [node, *(n for n in scene.upstream if n != node)]:
        reader = scene.reader(step)
        if not isinstance(reader, LogicalStep) or len(reader.streams) < 2:
            continue
        sides = [
            f"the {side} input" if len(reader.inputs) > 1 else f"input {ref}"
            for side, each in zip(SIDES, reader.inputs, strict=False)
            for ref in each.streams
            if source in scene.timed_sources(ref.node)
        ]
        if sides and len(scene.timed_sources(step)) > 1:
            return f"; it comes through {' and '.join(dict.fromkeys(sides))} of {step}"
    return ""


def window_open(scene: Scene) -> Iterator[Suspicion]:
    """Rows are kept until the watermark has come far enough."""
    waiting = waiting_step(scene)
    if waiting is None:
        return
    node, needed = waiting
    vertex = scene.vertex_of(node).name
    at = scene.watermark_in(vertex)
    sources = scene.timed_sources(node)
    if at >= needed:
        says = (
            f"the watermark has come to {scene.moment(at)}: {node} is giving out what closes at {scene.moment(needed)}"
        )
        yield Suspicion(NOTE, Finding(cause="window_open", says=says, node=node))
        return
    says = f"{node} gives its next results when the watermark reaches {scene.moment(needed)}; "
    missing_s = (needed - at) / 1000 if known(at) else None
    if scene.flows(node) and missing_s is not None and missing_s < _SOON_S:
        return
    if missing_s is None:
        says += "there is no watermark yet"
    else:
        says += f"it is at {scene.moment(at)}, {span(missing_s)} of event time to go"
        pace = scene.rates.pace.get(vertex)
        if pace:
            says += f", at the present pace in about {span(missing_s / (pace / 1000))}"
        elif scene.rates.known:
            says += f", and has not moved in the last {span(scene.rates.span_s)}"
    says += _rows_needed(scene, sources, needed)
    yield Suspicion(
        OPEN,
        Finding(cause="window_open", says=says, node=node, seconds=None if missing_s is None else round(missing_s, 3)),
    )


def _rows_needed(scene: Scene, sources: list[str], needed: int) -> str:
    """Which rows move the watermark that far, and what `out_of_order` has to do with it."""
    said = []
    for name in sources:
        time = scene.logical.sources[name].event_time
        assert time is not None, "a timed source"
        missing = _still_missing(scene, name, needed)
        if missing is None:
            continue
        row = scene.moment(needed + time.out_of_order_ms)
        out = duration_text(time.out_of_order_ms)
        waits = f" (out_of_order: {out} holds every result back by that)" if time.out_of_order_ms else ""
        said.append(f"{missing} has to bring a row with {time.column} of {row} or later{waits}")
    return f"; {listed(said)}" if said else ""


def _still_missing(scene: Scene, source: str, needed: int) -> str | None:
    """Whose watermark has not come as far; None: all have."""
    splits = [split for _, split in scene.live_splits([source])]
    behind = [split.split for split in splits if split.watermark < needed]
    if splits and not behind:
        return None
    if len(splits) < 2:
        return source
    word = scene.split_word(source)
    return f"every {word} of {source}" if len(behind) == len(splits) else f"{word} {' and '.join(map(str, behind[:3]))}"


def held_by_operator(scene: Scene) -> Iterator[Suspicion]:
    """A step whose results may be older than the watermark it has seen promises less than it was promised."""
    for vertex in scene.upstream_vertices:
        held = [
            input_watermark(subtask) - subtask.watermark
            for subtask in scene.subtasks(vertex.name)
            if subtask.source is None and known(subtask.watermark) and known(input_watermark(subtask))
        ]
        if vertex.nodes[-1] == scene.node or not held or max(held) < 1000:
            continue
        for stage in vertex.stages:
            if (waits := _holds_back(stage.spec)) is None:
                continue
            says = (
                f"{stage.step} passes the watermark on {span(max(held) / 1000)} later than it comes: {waits} that "
                "long, and what follows closes later by as much"
            )
            seconds = round(max(held) / 1000, 3)
            yield Suspicion(NOTE, Finding(cause="window_open", says=says, node=stage.step, seconds=seconds))
            break


def _holds_back(spec: OperatorSpec) -> str | None:
    """What waits in an operator whose results may be older than its watermark; None: it holds nothing back. Of any
    other the watermark is behind while it computes, and no longer."""
    match spec:
        case IntervalJoinSpec():
            return "its rows may wait for partners"
        case TotalsSpec(update_every_ms=every) if every:
            return "its changes may wait to be given out"
        case _:
            return None
