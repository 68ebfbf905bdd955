"""Plans the `join` of a step that a test writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from operators.connector import ErrorPolicy
from operators.element import EventTimeMs, Schema
from operators.operator import Counters, OperatorContext
from state.key_group import KeyGroupRange
from streamproc.lookup.join import LookupJoin, LookupJoinSpec
from streamproc.pipeline.document import parse_document
from streamproc.pipeline.faults import FaultLog
from streamproc.pipeline.logical import Changelog
from streamproc.pipeline.references import References
from streamproc.pipeline.shape import Part
from streamproc.pipeline.spec import StepSpec
from streamproc.pipeline.verbs.lookup import plan
from streamproc.pipeline.verbs.verb import InputFacts, PlannedInput, PlannedStep, VerbContext

LEFT: Schema = {"id": pl.Int64(), "country": pl.String(), "n": pl.Int32()}


def planned(
    join: str, folder: Path, *, errors: ErrorPolicy = "fail", changelog: Changelog | None = None
) -> tuple[PlannedStep, list[str]]:
    text = f"steps: {{enriched: {{join: {join}}}}}"
    log = FaultLog(parse_document(text, file="pipeline.yaml", references=References({}, folder)))
    written: dict[str, Any] = log.document.value["steps"]["enriched"]
    part = Part(("steps", "enriched"), written, StepSpec.model_validate(written))
    assert part.spec is not None
    facts = InputFacts(LEFT, bounded=False, changelog=changelog, name="orders")
    step = PlannedStep([PlannedInput()])
    plan(VerbContext(part, part.spec, [facts], errors, log, folder), step)
    return step, [f"{fault.path}: {fault.message}" for fault in log.faults()]


def operator(join: str, folder: Path, *, errors: ErrorPolicy = "fail") -> tuple[LookupJoin, OperatorContext]:
    step, faults = planned(join, folder, errors=errors)
    assert not faults
    [spec] = step.operators
    assert isinstance(spec, LookupJoinSpec)
    assert spec.schema == step.schema
    context = OperatorContext("enriched", 0, 128, KeyGroupRange(0, 127), None, counters=Counters())
    return spec.create(context), context


def left(*rows: tuple[int | None, str | None, int]) -> pl.DataFrame:
    frame = pl.DataFrame(rows, schema=LEFT, orient="row")
    return frame.with_columns(pl.int_range(pl.len()).alias("__time"))


def run(join: LookupJoin, frame: pl.DataFrame) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for tag, out in join.process(frame, EventTimeMs(0)):
        found.setdefault(tag, []).extend(out.to_dicts())
    return found
