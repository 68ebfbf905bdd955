"""Causes that lie in the rows: none come, or all that come are late, bad, left out, or find no partner."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Final, Literal

from operators.stateless import FilterSpec
from streamproc.diagnosis.adviser import late_rows
from streamproc.diagnosis.phrases import count, part_of, per_second, span
from streamproc.diagnosis.scene import ASIDE, FLOWING, NO_INPUT, NOTE, SWALLOWED, Scene, Suspicion, Totals
from streamproc.observability.facts import SourceFacts
from streamproc.pipeline.logical import LogicalInput, LogicalSource, LogicalStep, StreamRef
from streamproc.service.views import Finding

_SILENT_S: Final = 3.0
_MUCH: Final = 0.5  # a share from which on something is called the cause of silence
_WORTH_A_NOTE: Final = 0.01
_NEARLY_ALL: Final = 0.9  # a filter that leaves out less than this does what filters do


def flowing(scene: Scene) -> Iterator[Suspicion]:
    """Rows do come out."""
    if not scene.flows(scene.node):
        return
    rows = scene.gave(scene.node, count(scene.totals(scene.node).rows_out, "row"))
    rate = scene.rates.rows_out.get(scene.node)
    says = f"it flows: {per_second(rate)}; {rows} since it started" if rate else f"{rows} since it started"
    yield Suspicion(FLOWING, Finding(cause="flowing", says=says, node=scene.node))


def empty_side_output(scene: Scene) -> Iterator[Suspicion]:
    """The node reads late rows or bad records, and there was none, or has been none lately and all are through. One
    finding for each such stream."""
    sides = [ref for ref in scene.reads(scene.node) if ref.tag in ("late", "errors")]
    so_far = {ref: _side_rows(scene, ref) for ref in sides}
    through = scene.rates.known and scene.totals(scene.node).rows_in >= sum(so_far.values())
    for ref in sides:
        late = ref.tag == "late"
        begins = f"{scene.node} reads the {'late rows' if late else 'bad records'} of {ref.node}"
        if not so_far[ref]:
            says = f"{begins}, and {'no row has been late' if late else 'there was none'}: nothing is wrong"
        elif through and not (scene.rates.late if late else scene.rates.errors).get(ref.node):
            says = f"{begins}: {so_far[ref]:,} since it started, and none in the last {span(scene.rates.span_s)}"
        else:
            continue
        yield Suspicion(SWALLOWED, Finding(cause="no_input", says=says, node=ref.node))


def _side_rows(scene: Scene, ref: StreamRef) -> int:
    totals = scene.totals(ref.node)
    return totals.late if ref.tag == "late" else totals.errors


def no_input(scene: Scene) -> Iterator[Suspicion]:
    """Sources that have fallen silent. One of several is the cause only where all are."""
    by_source: dict[str, list[SourceFacts]] = {}
    for reader in scene.readers:
        by_source.setdefault(reader.source, []).append(reader)
    silences = {name: _silence(scene, name, readers) for name, readers in by_source.items()}
    weight = NO_INPUT if all(finding is not None for finding in silences.values()) else NOTE
    for finding in silences.values():
        if finding is not None:
            yield Suspicion(weight, finding)


def _silence(scene: Scene, name: str, readers: list[SourceFacts]) -> Finding | None:
    splits = [split for reader in readers for split in reader.splits]
    unfinished = [split for split in splits if not split.finished]
    if not all(reader.listening for reader in readers) or (splits and not unfinished):
        return None
    if not splits:
        path = getattr(scene.logical.sources[name].config, "path", None)
        nothing = "it has no split to read" if path is None else f"no file matches {path}"
        return Finding(cause="no_input", says=f"source {name} has nothing to read: {nothing}", node=name)
    silent_s = min(split.silent_s for split in unfinished)
    if silent_s < _SILENT_S:
        return None
    begins = f"source {name} has brought no row for {span(silent_s)}"
    if not scene.totals(name).rows_in:
        begins = f"source {name} has brought no row at all since it started, {span(silent_s)} ago"
    lags = [reader.lag_records for reader in readers if reader.lag_records is not None]
    if len(lags) < len(readers):
        rest = "it listens, and nothing comes: look at what writes to it"
    elif lag := sum(lags):
        rest = f"although {count(lag, 'record')} are there to be read: it waits for room, or for another source"
    else:
        rest = "everything that is there has been read (lag 0): look at what writes to it"
    return Finding(cause="no_input", says=f"{begins}; {rest}", node=name, seconds=round(silent_s, 3))


def swallowed(scene: Scene) -> Iterator[Suspicion]:
    """Of the rows that come into a node, where they go if not out of it; nearest node first."""
    for node in scene.upstream:
        totals = scene.totals(node)
        if totals.rows_in:
            silent = not scene.flows(node) if scene.rates.rows_in.get(node) else totals.rows_out == 0
            yield from _late(scene, node, totals, silent=silent)
            yield from _errors(scene, node, totals, silent=silent)
            yield from _left_out(scene, node, totals, silent=silent)
            if totals.rows_out == 0:
                yield from _no_pair(scene, node, totals)


def _share(scene: Scene, node: str, count_of: Literal["late", "errors", "filtered"], totals: Totals) -> float:
    """Of the rows that come in; where rows come in now, what becomes of them now may be more telling."""
    overall: float = getattr(totals, count_of) / totals.rows_in
    coming = scene.rates.rows_in.get(node, 0.0)
    now: Mapping[str, float] = getattr(scene.rates, count_of)
    return max(overall, now.get(node, 0.0) / coming) if coming else overall


def _weight(part: float, *, silent: bool) -> int:
    if silent and part >= _MUCH:
        return SWALLOWED
    return NOTE if part >= _WORTH_A_NOTE else ASIDE


def _late(scene: Scene, node: str, totals: Totals, *, silent: bool) -> Iterator[Suspicion]:
    reader = scene.reader(node)
    if not totals.late or not isinstance(reader, LogicalStep):
        return
    rules = [late for spec in reader.operators if (late := spec.explained().late) is not None]
    goes = f"they go to {node}.late" if any(rule.side_output for rule in rules) else "they are dropped"
    names = scene.timed_sources(node)
    not_waited = _not_waited_for(scene, names, totals.late)
    why = not_waited or "; the advice says what a larger out_of_order would save"
    field = "out_of_order"
    if not_waited:
        field, names = "idle_after", [name for name in names if _idle_rules(scene, name)]
    remedies = [f"sources.{name}.event_time.{field}" for name in names]
    if "late" in reader.side_outputs:  # a window of its own, to which the file may say more
        remedies.append(f"{scene.field_of(node)}.late.accept_for")
    came = f"{part_of(totals.late, totals.rows_in, 'row')} came to {node} too late"
    says = f"{came}: {goes}{why}; raise {' or '.join(remedies)}"
    weight = _weight(_share(scene, node, "late", totals), silent=silent)
    yield Suspicion(weight, Finding(cause="late_rows", says=says, node=node))


def _not_waited_for(scene: Scene, names: Collection[str], late: int) -> str:
    """Rows that are no later than their own split allows are late where others have not waited for that split: it had
    been silent for `idle_after`. Empty where most are later than that, or nobody knows."""
    readers = [reader for reader in scene.readers if reader.source in names]
    if not any(_idle_rules(scene, name) for name in names):
        return ""
    behind = 0
    for reader in readers:
        if reader.lateness is None or reader.out_of_order_ms is None:
            return ""
        behind += late_rows(reader.lateness, reader.out_of_order_ms)
    if behind > late / 2:
        return ""
    word = scene.split_word(next(iter(names)))
    return (
        f"; at most {behind:,} of them came later than out_of_order within their own {word}: the others are of one "
        "that had been silent for idle_after, so that nobody waited for it"
    )


def _idle_rules(scene: Scene, name: str) -> bool:
    return any(reader.source == name and reader.idle_after_ms is not None for reader in scene.readers)


def _errors(scene: Scene, node: str, totals: Totals, *, silent: bool) -> Iterator[Suspicion]:
    reader = scene.reader(node)
    if not totals.errors or not isinstance(reader, LogicalSource | LogicalStep):
        return
    goes = {"skip": "are skipped", "dlq": f"go to {node}.errors"}.get(reader.errors, "fail the job")
    last = next((error for error in reversed(scene.status.errors) if error.node == node), None)
    what = "could not be decoded" if isinstance(reader, LogicalSource) else "could not be processed"
    told = "" if last is None else f"; the last: {last.error}{_place(last.split, last.offset)}"
    came = part_of(totals.errors, totals.rows_in, "record")
    says = f"{came} {what} by {node} and {goes} (errors: {reader.errors}){told}"
    finding = Finding(cause="errors", says=says, node=node, split=None if last is None else last.split)
    yield Suspicion(_weight(_share(scene, node, "errors", totals), silent=silent), finding)


def _place(split: str | None, offset: int | None) -> str:
    if split is None:
        return ""
    return f" ({split})" if offset is None else f" ({split}, offset {offset})"


def _left_out(scene: Scene, node: str, totals: Totals, *, silent: bool) -> Iterator[Suspicion]:
    """Conditions that few rows meet, or none; joins and look-ups in which they find no partner."""
    reader = scene.reader(node)
    part = _share(scene, node, "filtered", totals)
    if not isinstance(reader, LogicalStep) or not (part >= _NEARLY_ALL or (silent and totals.filtered)):
        return
    specs = [*(spec for each in reader.inputs for spec in each.before), *reader.operators]
    conditions = [f"`{spec.describe()}`" for spec in specs if isinstance(spec, FilterSpec)]
    by = conditions or [spec.explained().does for spec in reader.operators if spec.stateful]
    none = " lets no row through" if totals.filtered == totals.rows_in and len(conditions) == 1 else ""
    says = f"{node} leaves out {part_of(totals.filtered, totals.rows_in, 'row')}"
    says += f": {' and '.join(by)}{none}" if by else ""
    yield Suspicion(_weight(part, silent=silent), Finding(cause="filtered", says=says, node=node))


def _no_pair(scene: Scene, node: str, totals: Totals) -> Iterator[Suspicion]:
    """A join that pairs nothing: one side brings nothing, or what comes does not match."""
    reader = scene.reader(node)
    if not isinstance(reader, LogicalStep) or len(reader.inputs) < 2:
        return
    does = next((spec.explained().does for spec in reader.operators if spec.stateful), "join")
    for side, each in zip(("left", "right"), reader.inputs, strict=True):
        if not _came(scene, node, each):
            stream = " and ".join(map(str, each.streams))
            says = f"nothing has come through the {side} input of {node}, {stream}, so no pair was found: {does}"
            yield Suspicion(SWALLOWED, Finding(cause="no_input", says=says, node=each.streams[0].node))
            return
    says = f"{count(totals.rows_in, 'row')} came to {node}, and no pair was given out yet: {does}"
    yield Suspicion(SWALLOWED - 1, Finding(cause="filtered", says=says, node=node))


def _came(scene: Scene, node: str, each: LogicalInput) -> int:
    """Rows sent to one input of a join."""
    vertex, streams = scene.vertex_of(node).name, {str(ref) for ref in each.streams}
    return sum(
        rows
        for subtask in scene.facts.subtasks
        for (stream, downstream), rows in subtask.edge_rows.items()
        if downstream == vertex and stream in streams
    )
