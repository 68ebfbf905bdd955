"""What differs between two versions of a node, field by field, in the words of a pipeline file: pure.

A node is laid out as fields, a label and a text each; two nodes differ where their fields do. What has no words of
its own is laid out from the values themselves, so that nothing that differs is passed over.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Final

import polars as pl
from pydantic import BaseModel

from operators.explanation import Explanation, duration_text
from operators.expression import Scalar
from operators.operator import OperatorSpec
from operators.stateless import FilterSpec, ProjectSpec
from operators.types import name_of
from streamproc.functions.loading import LoadingFault
from streamproc.pipeline.logical import LogicalSink, LogicalSource, LogicalStep
from streamproc.pipeline.spec import JobSpec, KafkaConnectionSpec

Fields = Mapping[str, str]

_DURATIONS: Final = (
    *("every", "timeout", "initial", "max", "reset_after", "delay", "max_delay"),
    *("out_of_order", "idle_after", "transaction_timeout"),
)
_SECRET: Final = frozenset({"password", "token", "key_password"})
_SAID_ELSEWHERE: Final = {"connection", "brokers", "security", "errors", "parallelism", "input"}
_NOT_ROWS: Final = ("parallelism", "errors", "start", "stop", "connection", "rate", "follow", "late")
_TEXT_MAX: Final = 120  # of one value


@dataclass(frozen=True, slots=True)
class Difference:
    """One field that is not what it was; None: not there."""

    label: str
    was: str | None
    now: str | None

    def __str__(self) -> str:
        was, now = (None if text is None else _short(text) for text in (self.was, self.now))
        if self.label.rpartition(".")[2] in _SECRET:
            return f"{self.label}: changed"
        if was is None:
            return f"{self.label}: {now}, new"
        return f"{self.label}: {was} → {now}" if now is not None else f"{self.label}: gone, was {was}"

    @property
    def of_rows(self) -> bool:
        """Whether the node gives other rows with it, and not the same ones in another way."""
        return not self.label.startswith(_NOT_ROWS) and not self.label.startswith(("event_time.out", "event_time.idle"))


def differences(was: Fields, now: Fields) -> list[Difference]:
    """In the order of `now`; what is gone comes last."""
    labels = [*now, *(label for label in was if label not in now)]
    return [Difference(each, was.get(each), now.get(each)) for each in labels if was.get(each) != now.get(each)]


def step_differences(was: Fields, now: Fields) -> list[Difference]:
    """As `differences`; settings and what state holds only where nothing else tells of the change."""
    found = differences(was, now)
    plain = [each for each in found if not each.label.startswith(("setting ", "keeps"))]
    said = [each for each in plain if each.label not in ("errors", "parallelism", "input", "left input", "right input")]
    return plain if said else found


def source_fields(source: LogicalSource) -> Fields:
    """All that a source is told."""
    config = source.config.model_dump(by_alias=True) if isinstance(source.config, BaseModel) else {}
    return {
        **_flat({name: value for name, value in config.items() if name not in _SAID_ELSEWHERE}),
        **_connection_fields(source.connection),
        "errors": source.errors,
        "parallelism": str(source.parallelism),
    }


def sink_fields(sink: LogicalSink) -> Fields:
    """All that a sink is told, and the columns it is given."""
    config = sink.config.model_dump(by_alias=True) if isinstance(sink.config, BaseModel) else {}
    return {
        "input": ", ".join(map(str, sink.streams)),
        **_flat({name: value for name, value in config.items() if name not in _SAID_ELSEWHERE}),
        **_connection_fields(sink.connection),
        **{f"column {name}": name_of(dtype) for name, dtype in sink.schema.items()},
        "parallelism": str(sink.parallelism),
    }


def job_fields(job: JobSpec) -> Fields:
    """The settings of the job as a whole."""
    return {f"job.{name}": value for name, value in _flat(job.model_dump()).items()}


def step_fields(step: LogicalStep) -> Fields:
    """What a step does, operator by operator, in the order in which rows pass them."""
    found: dict[str, str] = {}
    sides = ("left ", "right ") if len(step.inputs) > 1 else ("",)
    for side, each in zip(sides, step.inputs, strict=True):
        found[f"{side}input"] = ", ".join(map(str, each.streams))
        if each.key is not None:
            found[f"{side}key"] = ", ".join(name for name in each.key if not name.startswith("__"))
        for spec in each.before:
            _add(found, spec, side, ahead=True)
    for spec in step.operators:
        _add(found, spec, "")
    found["errors"] = step.errors
    found["parallelism"] = str(step.parallelism)
    return {label: text for label, text in found.items() if text}


def before_state(step: LogicalStep) -> Fields:
    """What chooses and shapes the rows that reach a step's state: its inputs, and the operators ahead of it."""
    ahead: list[OperatorSpec] = []
    for spec in step.operators:
        if spec.stateful:
            break
        ahead.append(spec)
    found: dict[str, str] = {}
    for each in step.inputs:
        for spec in (*each.before, *ahead):
            _add(found, spec, "", ahead=True)
    return found


def _add(found: dict[str, str], spec: OperatorSpec, side: str, *, ahead: bool = False) -> None:
    """The fields of one operator. A label that is taken is counted on. `ahead` of an exchange only the columns that
    are needed go on: which ones those are is nobody's wish."""
    for label, text in _operator_fields(spec):
        if ahead and label == f"column {text}":
            continue
        label = label.replace(f"column {side.strip()}.", "column ") if side else label
        name, number = f"{side}{label}", 1
        while name in found:
            number += 1
            name = f"{side}{label} ({number})"
        found[name] = text


def _operator_fields(spec: OperatorSpec) -> Iterator[tuple[str, str]]:
    if isinstance(spec, FilterSpec):
        yield spec.word, _line(spec.predicate.text)
        return
    if isinstance(spec, ProjectSpec):
        for name, scalar in spec.columns.items():
            if not name.startswith("__"):
                yield f"column {name}", _line(scalar.text)
        return
    explained = _explained(spec)
    yield "does", explained.does
    yield from explained.computes.items()
    if explained.late is not None:
        accepted = f"accepted for {duration_text(explained.late.accept_for_ms)}, then "
        text = accepted if explained.late.accept_for_ms else ""
        yield "late", text + ("to the side output" if explained.late.side_output else "dropped")
    yield "keeps", explained.keeps
    yield from _settings(spec)


def _explained(spec: OperatorSpec) -> Explanation:
    """A user's class may be gone from its file by now: then its name says what it was."""
    try:
        return spec.explained()
    except LoadingFault:
        return Explanation(spec.describe())


def _settings(spec: OperatorSpec) -> Iterator[tuple[str, str]]:
    """The plain values an operator was made with, for what its explanation leaves out."""
    if is_dataclass(spec):
        for each in fields(spec):
            if each.name not in ("errors", "schema", "input_schema", "columns", "plan"):
                for label, text in _flat({each.name: getattr(spec, each.name)}).items():
                    yield f"setting {label}", text


def _connection_fields(connection: KafkaConnectionSpec | None) -> Fields:
    if connection is None:
        return {}
    return {f"connection.{name}": text for name, text in _flat(connection.model_dump(exclude={"type"})).items()}


def _flat(value: Any, path: str = "") -> dict[str, str]:
    """Leaves by their paths; a list of plain values is one leaf, None and empty ones are none."""
    if isinstance(value, BaseModel):
        value = value.model_dump(by_alias=True)
    if isinstance(value, Scalar):
        return {path: f"{_line(value.text)} ({name_of(value.dtype)})"}
    if isinstance(value, pl.DataType):
        return {path: name_of(value)}
    if is_dataclass(value) and not isinstance(value, type):
        value = {each.name: getattr(value, each.name) for each in fields(value) if each.repr}
    if isinstance(value, Mapping):
        found: dict[str, str] = {}
        for name, inner in value.items():
            found |= _flat(inner, f"{path}.{name}" if path else str(name))
        return found
    if isinstance(value, frozenset | set):
        value = sorted(map(str, value))
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        if all(isinstance(each, str | int | float | bool) for each in value):
            return {path: ", ".join(map(_text, value))} if value else {}
        return {key: text for at, each in enumerate(value) for key, text in _flat(each, f"{path}[{at}]").items()}
    if value is None:
        return {}
    if isinstance(value, int) and not isinstance(value, bool) and path.rpartition(".")[2] in _DURATIONS:
        return {path: duration_text(value)}
    return {path: _text(value)}


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) else str(value) if isinstance(value, int | float) else type(value).__name__


def _line(text: str) -> str:
    return " ".join(text.split())


def _short(text: str) -> str:
    return text if len(text) <= _TEXT_MAX else f"{text[: _TEXT_MAX - 1]}…"
