"""From a document's values to typed parts: every part that can be read is, whatever is wrong elsewhere.

What a model refuses is left out, at the depth where it stands, and noted in `wrong`, so that the rest of
the part (a source, a step, a sink …) is still checked. A misspelt field is read as the one it is like.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from streamproc.pipeline.document import FieldPath
from streamproc.pipeline.faults import FaultLog
from streamproc.pipeline.spec import (
    NAME,
    BlackholeSinkSpec,
    CaseSpec,
    DatagenSourceSpec,
    FileSinkSpec,
    FileSourceSpec,
    JobSpec,
    KafkaConnectionSpec,
    KafkaSinkSpec,
    KafkaSourceSpec,
    PipelineHead,
    PipelineSpec,
    PrintSinkSpec,
    StepSpec,
)
from streamproc.pipeline.sql.steps import Step
from streamproc.pipeline.sql_log import SqlFaultLog
from streamproc.pipeline.suggest import did_you_mean, listed, near, shown
from streamproc.pipeline.wording import Unreadable, report

Source = KafkaSourceSpec | FileSourceSpec | DatagenSourceSpec
Sink = KafkaSinkSpec | FileSinkSpec | PrintSinkSpec | BlackholeSinkSpec
SpecT_co = TypeVar("SpecT_co", bound=BaseModel, covariant=True)

_SOURCES: Final[Mapping[str, type[BaseModel]]] = {
    "kafka": KafkaSourceSpec,
    "file": FileSourceSpec,
    "datagen": DatagenSourceSpec,
}
_SINKS: Final[Mapping[str, type[BaseModel]]] = {
    "kafka": KafkaSinkSpec,
    "file": FileSinkSpec,
    "print": PrintSinkSpec,
    "blackhole": BlackholeSinkSpec,
}
_LATER: Final = ("postgres",)  # sinks of the contract that are not there yet: nobody shall take them for a typing error
_ATTEMPTS_MAX: Final = 8
_STAND_INS: Final[Mapping[str | int, Any]] = {  # nothing is said about them: they are in `wrong`
    "brokers": ["-"],
    "input": [],
    "path": "-",
    "schema": {"-": "string"},
    "topic": "-",
}
_CONNECTIONS: Final[Mapping[str, type[BaseModel]]] = {"kafka": KafkaConnectionSpec}
_MODELS: Final[tuple[type[BaseModel], ...]] = (*_SOURCES.values(), StepSpec, *_SINKS.values())
_FIELDS: Final = frozenset(field.alias or name for model in _MODELS for name, field in model.model_fields.items())


@dataclass(frozen=True, slots=True)
class Part(Generic[SpecT_co]):
    """One named thing of the file. `spec` is None when it could not be read at all."""

    path: FieldPath
    written: Any  # its value in the file
    spec: SpecT_co | None
    wrong: frozenset[FieldPath] = frozenset()  # what `spec` lacks, relative to `path`

    @property
    def broken(self) -> frozenset[str]:
        """Fields in which something is wrong."""
        return frozenset(str(path[0]) for path in self.wrong)

    def is_wrong(self, *path: str) -> bool:
        """Whether something is wrong at `path`, around it or inside."""
        return any(path[: len(wrong)] == wrong[: len(path)] for wrong in self.wrong)

    def has(self, name: str) -> bool:
        """Whether the file says something for the field."""
        return isinstance(self.written, dict) and self.written.get(name) is not None


@dataclass(slots=True)
class Shape:
    """The parts of a file, by name."""

    pipeline: str
    job: Part[JobSpec]
    connections: dict[str, Part[KafkaConnectionSpec]] = field(default_factory=dict)
    sources: dict[str, Part[Source]] = field(default_factory=dict)
    steps: dict[str, Part[StepSpec]] = field(default_factory=dict)
    sinks: dict[str, Part[Sink]] = field(default_factory=dict)
    tests: list[Part[CaseSpec]] = field(default_factory=list)


def read_shape(log: FaultLog) -> Shape | None:
    """Read the whole document; None when it is not even a mapping."""
    value = log.document.value
    if not isinstance(value, dict):
        log.error((), f"must be a mapping that begins with `version: 1`, not {shown(value)}")
        return None
    top = dict(value)
    known = list(PipelineSpec.model_fields)
    for name in [name for name in top if name not in known]:
        log.error((name,), f"unknown field '{name}'", did_you_mean(name, known), at_key=True)
        if (meant := near(name, known)) is not None and meant not in top:
            log.document.read_as((name,), (meant,))
            top[meant] = top.pop(name)
    head = _read(PipelineHead, {name: top[name] for name in PipelineHead.model_fields if name in top}, (), log)
    job = _read(JobSpec, top.get("job", {}), ("job",), log)
    shape = Shape(head.spec.pipeline if isinstance(head.spec, PipelineHead) else "", job)
    for name, entry in _entries(top, "connections", log, required=False):
        shape.connections[name] = _read_typed(entry, ("connections", name), _CONNECTIONS, "connection", log)
    for name, entry in _entries(top, "sources", log, required=True):
        shape.sources[name] = _read_typed(entry, ("sources", name), _SOURCES, "source", log)
    for name, entry in _entries(top, "steps", log, required=False):
        shape.steps[name] = _read_step(entry, ("steps", name), log)
    for name, entry in _entries(top, "sinks", log, required=True):
        shape.sinks[name] = _read_typed(entry, ("sinks", name), _SINKS, "sink", log)
    _check_names_differ(shape, log)
    tests = top.get("tests", [])
    if isinstance(tests, list):
        shape.tests = [_read(CaseSpec, entry, ("tests", index), log) for index, entry in enumerate(tests)]
    else:
        log.error(("tests",), f"must be a list of tests, not {shown(tests)}", at_key=True)
    return shape


def _entries(top: dict[str, Any], section: str, log: FaultLog, *, required: bool) -> list[tuple[str, Any]]:
    if section not in top:
        if required:
            log.error((), f"'{section}' is missing: a pipeline needs at least one {section[:-1]}")
        return []
    value = top[section]
    if value is None or (required and value in ({}, [])):
        message = f"nothing is written under it: give at least one {section[:-1]}"
        log.error((section,), message if required else f"{message}, or leave '{section}' out", at_key=True)
        return []
    if not isinstance(value, dict):
        log.error((section,), f"must be a mapping of names, not {shown(value)}", at_key=True)
        return []
    if None in value.values():  # a name whose fields stand beside it, not under it
        value = {name: entry for name, entry in value.items() if isinstance(entry, dict) or name not in _FIELDS}
    for name in value:
        if not re.fullmatch(NAME, name):
            message = (
                f"'{name}' cannot be a name: names are lower-case letters, digits, _ and -, beginning with a letter"
            )
            better = re.sub(r"[^a-z0-9_-]+", "_", name.lower()).strip("_-")
            usable = re.fullmatch(NAME, better) is not None and better not in value
            log.error((section, name), message, f"'{better}' would do" if usable else None, at_key=True)
    return list(value.items())


def _check_names_differ(shape: Shape, log: FaultLog) -> None:
    """Steps, sources and sinks share the names in plans, metrics and checkpoints."""
    seen: dict[str, str] = {}
    for section, names in (("sources", shape.sources), ("steps", shape.steps), ("sinks", shape.sinks)):
        for name in list(names):
            if name in seen:
                message = (
                    f"the name '{name}' is taken by {_one(seen[name])}: sources, steps and sinks share their names"
                )
                log.error((section, name), message, at_key=True)
                if section == "sinks":
                    shape.sinks[f"sink {name}"] = shape.sinks.pop(name)  # so that readers can be told apart
            else:
                seen[name] = section


def _one(section: str) -> str:
    return f"a {section[:-1]}"


def _read_step(value: Any, path: FieldPath, log: FaultLog) -> Part[StepSpec]:
    if not isinstance(value, dict):
        return _read(StepSpec, value, path, log)
    part = _read(StepSpec, value, path, log)
    reads_otherwise = "join" in part.written or "sql" in part.written
    if not reads_otherwise and "input" not in part.broken and part.spec is not None and part.spec.input is None:
        log.error(path, "'input' is missing", at_key=True)
    return part


def read_sql_step(step: Step, query: str, part: Part[StepSpec], log: SqlFaultLog) -> Part[StepSpec]:
    """One of the steps that the `sql` of `part` became, with what the file says for all of them."""
    path: FieldPath = ("steps", step.name)
    log.add_step(path, step.places)
    common = {name: part.written[name] for name in ("parallelism", "errors") if part.has(name)}
    if part.has("was"):
        common["was"] = part.written["was"] + step.name.removeprefix(query)
    return _read(StepSpec, {**step.mapping, **common}, path, log)


def _read_typed(
    value: Any, path: FieldPath, models: Mapping[str, type[BaseModel]], what: str, log: FaultLog
) -> Part[Any]:
    """Read a part whose `type` says which model it is."""
    nothing: Part[Any] = Part(path, value, None)
    if not isinstance(value, dict):
        _refuse_mapping(value, path, log)
        return nothing
    kind = value.get("type", "kafka" if what == "connection" else None)
    if "type" not in value and kind is None:
        log.error(path, "'type' is missing", f"there are {listed(models)}", at_key=True)
    elif not isinstance(kind, str):
        log.error((*path, "type"), f"must be {listed(models, 'or')}, not {shown(kind)}")
    elif kind not in models:
        _refuse_type(kind, (*path, "type"), models, what, log)
    else:
        return _read(models[kind], value, path, log)
    return nothing


def _refuse_mapping(value: Any, path: FieldPath, log: FaultLog) -> None:
    if value is None:
        log.error(path, "nothing is written under it", "its fields begin further right than its name", at_key=True)
    else:
        log.error(path, f"must be a mapping, not {shown(value)}")


def _refuse_type(kind: str, path: FieldPath, models: Mapping[str, type[BaseModel]], what: str, log: FaultLog) -> None:
    if what == "sink" and kind in _LATER:
        log.error(path, f"the sink {kind} is not supported yet", f"there are {listed(models)}")
    elif kind in {**_SOURCES, **_SINKS}:
        log.error(path, f"{kind} cannot be a {what}", f"there are {listed(models)}")
    else:
        log.error(path, f"unknown type '{kind}'", did_you_mean(kind, models))


def _read(model: type[BaseModel], value: Any, path: FieldPath, log: FaultLog) -> Part[Any]:
    """Read one model; when it is wrong, again without what is, until the rest can be read."""
    if not isinstance(value, dict):
        _refuse_mapping(value, path, log)
        return Part(path, value, None)
    empty = {name for name, inner in value.items() if inner is None and _may_be_empty(model, name)}
    for name in empty:
        log.error((*path, name), "nothing is written here: give it a value, or leave it out", at_key=True)
    wrong: set[FieldPath] = {(name,) for name in empty}
    readable = {name: inner for name, inner in value.items() if name not in empty}
    for attempt in range(_ATTEMPTS_MAX):
        try:
            return Part(path, value, model.model_validate(readable), frozenset(wrong))
        except ValidationError as error:  # what is wrong only after something was left out is no fault of the file
            found = report(error, model, readable, path, log if attempt == 0 else None)
        wrong |= {place.path for place in found}
        for place in sorted(found, key=lambda place: place.meant is None):
            if place.meant is not None:
                meant = (*place.path[:-1], place.meant)
                log.document.read_as((*path, *place.path), (*path, *meant))
                value, readable = _moved(value, place.path, meant), _moved(readable, place.path, meant)
            else:
                readable = _without(readable, place)
    return Part(path, value, None, frozenset(wrong))


def _may_be_empty(model: type[BaseModel], name: str) -> bool:
    """Whether the model itself would take nothing for the field."""
    return name in model.model_fields and model.model_fields[name].default is None


def _moved(value: Any, path: FieldPath, to: FieldPath) -> Any:
    """The value with what stands at `path` under another name."""
    if not isinstance(value, dict) or path[0] not in value:
        return value
    if len(path) > 1:
        return value | {path[0]: _moved(value[path[0]], path[1:], to[1:])}
    if to[0] in value:
        return _without(value, Unreadable(path))
    return {to[0] if name == path[0] else name: inner for name, inner in value.items()}


def _without(value: dict[str, Any], place: Unreadable) -> dict[str, Any]:
    """The value without what stands at a place. A list goes whole, as does a mapping that lacks a field;
    what lacks a field at the top gets something that can be read in its place."""
    name, *rest = place.path
    others = {other: inner for other, inner in value.items() if other != name}
    if place.missing and not rest:
        misspelt = name in value
        return value if misspelt or name not in _STAND_INS else others | {str(name): _STAND_INS[name]}
    if name not in value or not rest:
        return others
    inner = value[str(name)]
    if not isinstance(inner, dict) or (place.missing and len(rest) == 1 and rest[0] not in inner):
        return others
    return value | {str(name): _without(inner, Unreadable(tuple(rest), place.missing))}
