"""The `tests` of a pipeline file: what can be said of them without running them.

Every stream, source and column they name has to be there, and every given row has to be one the source would
take. Faults stand at their place in the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from operators.element import Schema
from streamproc.pipeline.columns import AnyColumns, GuessedColumns
from streamproc.pipeline.document import FieldPath
from streamproc.pipeline.faults import FaultLog
from streamproc.pipeline.format_spec import JsonFormat
from streamproc.pipeline.logical import LogicalSource, StreamRef
from streamproc.pipeline.shape import Part
from streamproc.pipeline.spec import ActionSpec, CaseSpec
from streamproc.pipeline.suggest import did_you_mean, listed

_ACTIONS: Final = tuple(ActionSpec.model_fields)
_OP: Final = "op"


def check_cases(
    parts: Sequence[Part[CaseSpec]],
    sources: Mapping[str, LogicalSource],
    source_names: Sequence[str],
    streams: Mapping[StreamRef, Schema],
    log: FaultLog,
) -> None:
    """`sources`: those that could be planned; `source_names`: all. `streams`: the columns of every stream that
    can be expected."""
    names: dict[str, int] = {}
    for part in parts:
        spec = part.spec
        if spec is None:
            continue
        if spec.name in names and "name" not in part.broken:
            log.error((*part.path, "name"), f"the test '{spec.name}' is here twice: names tell tests apart")
        names.setdefault(spec.name, len(names))
        if "given" not in part.broken:
            _check_given(spec.given, (*part.path, "given"), sources, source_names, log)
        if "then" not in part.broken:
            _check_actions(spec.then, (*part.path, "then"), sources, source_names, log)
        if "expect" not in part.broken:
            _check_expected(spec.expect, (*part.path, "expect"), streams, log)


def ends_by_itself(case: CaseSpec) -> bool:
    """Whether the input ends once everything was done: where a test moves no event time and ends nothing itself."""
    return not any(action.watermark is not None or action.end for action in case.then)


def given_rows(case: CaseSpec) -> Iterator[Mapping[str, Sequence[Mapping[str, Any] | str]]]:
    """Everything a test gives, in order."""
    yield case.given
    for action in case.then:
        if action.given is not None:
            yield action.given


def _check_given(
    given: Mapping[str, Sequence[dict[str, Any] | str]],
    path: FieldPath,
    sources: Mapping[str, LogicalSource],
    names: Sequence[str],
    log: FaultLog,
) -> None:
    from streamproc.testing.pipeline_given import GivenDecoder  # decoding is loaded where there are rows

    for name, rows in given.items():
        if name not in names:
            log.error((*path, name), f"unknown source '{name}'", did_you_mean(name, names), at_key=True)
            continue
        source = sources.get(name)
        if source is None:
            continue  # at fault itself
        decoder = GivenDecoder(source)
        for at, row in enumerate(rows):
            if isinstance(row, str):
                if not isinstance(getattr(source.config, "format", None), JsonFormat):
                    message = f"a raw record is JSON, which '{name}' does not read"
                    log.error((*path, name, at), message, "write the columns of a row")
                continue
            for column in row:
                if column not in decoder.columns:
                    hint = did_you_mean(column, decoder.columns)
                    log.error((*path, name, at, column), f"'{name}' has no column '{column}'", hint, at_key=True)
        for bad in decoder.faults(rows):
            log.error((*path, name, bad.at), f"'{name}' would refuse this row: {bad.message}")


def _check_actions(
    actions: Sequence[ActionSpec],
    path: FieldPath,
    sources: Mapping[str, LogicalSource],
    names: Sequence[str],
    log: FaultLog,
) -> None:
    from streamproc.testing.pipeline_compare import instant

    ended = False
    for index, action in enumerate(actions):
        at = (*path, index)
        said = [name for name in _ACTIONS if getattr(action, name) is not None]
        if len(said) != 1:
            message = f"has {listed(said)}: one thing at a time" if said else "says nothing to do"
            log.error(at, message, f"there are {listed(_ACTIONS)}")
            continue
        if action.watermark is not None:
            if instant(action.watermark) is None:
                message = f"'{action.watermark}' is not a timestamp"
                log.error((*at, "watermark"), message, "write it like 2026-01-01T12:01:00Z")
            elif sources and all(source.event_time is None for source in sources.values()):
                message = "no source has event time, so there is no watermark to move"
                log.error((*at, "watermark"), message, "declare `event_time` in a source", at_key=True)
        if action.given is not None:
            _check_given(action.given, (*at, "given"), sources, names, log)
        if ended and (action.given is not None or action.watermark is not None or action.end):
            log.error(at, "the input has ended before")
        ended = ended or bool(action.end)


def _check_expected(
    expect: Mapping[str, Sequence[Mapping[str, Any]]],
    path: FieldPath,
    streams: Mapping[StreamRef, Schema],
    log: FaultLog,
) -> None:
    known = {str(ref): schema for ref, schema in streams.items()}
    for name, rows in expect.items():
        if name not in known:
            log.error((*path, name), f"unknown stream '{name}'", did_you_mean(name, known), at_key=True)
            continue
        schema = known[name]
        if isinstance(schema, AnyColumns | GuessedColumns):
            continue
        for at, row in enumerate(rows):
            for column in row:
                if column not in schema and column != _OP:
                    hint = did_you_mean(column, schema)
                    log.error((*path, name, at, column), f"'{name}' has no column '{column}'", hint, at_key=True)
