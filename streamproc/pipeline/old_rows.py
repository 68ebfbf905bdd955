"""Spares steps the old rows of updates where nobody reads them.

A sink that writes the newest row of each key needs no UPDATE_BEFORE; a step read only by such sinks need not
keep whole rows in state to be able to give them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, cast

from operators.operator import OperatorSpec
from operators.stateless import ProjectSpec
from streamproc.pipeline.logical import LogicalSink, LogicalStep, StreamRef
from streamproc.pipeline.spec import BlackholeSinkSpec, KafkaSinkSpec


def without_old_rows(steps: Mapping[str, LogicalStep], sinks: Mapping[str, LogicalSink]) -> dict[str, LogicalStep]:
    """The steps, each told whether it has to give old rows."""
    return {name: _spared(step) if _only_newest_read(step, steps, sinks) else step for name, step in steps.items()}


def _only_newest_read(step: LogicalStep, steps: Mapping[str, LogicalStep], sinks: Mapping[str, LogicalSink]) -> bool:
    if step.changelog is None or step.changelog.key is None:
        return False
    ref = StreamRef(step.name)
    if any(ref in other.streams for other in steps.values()):
        return False
    key = set(step.changelog.key)
    return all(_writes_newest(sink, key) for sink in sinks.values() if ref in sink.streams)


def _writes_newest(sink: LogicalSink, key: set[str]) -> bool:
    if isinstance(sink.config, BlackholeSinkSpec):
        return True
    return isinstance(sink.config, KafkaSinkSpec) and set(sink.config.key or ()) == key and len(sink.streams) == 1


def _spared(step: LogicalStep) -> LogicalStep:
    """Where a filter follows, the old row tells it what to take back: then nothing is spared."""
    stateful = [place for place, spec in enumerate(step.operators) if spec.stateful]
    if not stateful or not all(isinstance(spec, ProjectSpec) for spec in step.operators[stateful[-1] + 1 :]):
        return step
    operators = list(step.operators)
    operators[stateful[-1]] = _without_retractions(operators[stateful[-1]])
    return replace(step, operators=tuple(operators))


def _without_retractions(spec: OperatorSpec) -> OperatorSpec:
    if is_dataclass(spec) and any(field.name == "retracts" for field in fields(spec)):
        return cast(OperatorSpec, replace(cast(Any, spec), retracts=False))
    return spec
