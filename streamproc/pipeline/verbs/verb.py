"""What planning one verb of a step is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from operators.connector import ErrorPolicy
from operators.element import Schema
from operators.operator import OperatorSpec
from streamproc.pipeline.columns import AnyColumns
from streamproc.pipeline.document import FieldPath
from streamproc.pipeline.faults import FaultLog
from streamproc.pipeline.logical import Changelog
from streamproc.pipeline.shape import Part
from streamproc.pipeline.spec import StepSpec
from streamproc.pipeline.sql_log import SqlFaultLog


@dataclass(frozen=True, slots=True)
class InputFacts:
    """What is known of one input of a step (a union counts as one)."""

    schema: Schema  # may be GuessedColumns or AnyColumns, with types UNKNOWN: then faults are told already
    bounded: bool
    changelog: Changelog | None = None  # None: append-only
    untimed: Sequence[str] = ()  # sources and errors streams behind it whose rows have no event time
    time_candidates: Mapping[str, Sequence[str]] = field(default_factory=dict)  # timestamp columns of those sources
    name: str = ""  # of the stream, or of its first one
    event_time: str | None = None  # the column that holds it, where one does

    @property
    def timed(self) -> bool:
        """Whether rows have event time."""
        return not self.untimed


@dataclass(slots=True)
class PlannedInput:
    """What happens to an input ahead of its exchange, and by which columns that is."""

    before: list[OperatorSpec] = field(default_factory=list)
    key: tuple[str, ...] | None = None  # None: no exchange; (): one global group


@dataclass(slots=True)
class PlannedStep:
    """A step as it takes form. A verb's `plan` fills in everything but having, select and add."""

    inputs: list[PlannedInput]  # one, or left and right
    operators: list[OperatorSpec] = field(default_factory=list)
    schema: Schema = field(default_factory=AnyColumns)  # of the main output
    side_outputs: dict[str, Schema] = field(default_factory=dict)  # "late" and what process declares
    changelog: Changelog | None = None  # of the main output
    timed: bool = True
    event_time: str | None = None  # the column that holds it, where one does
    shared_names: frozenset[str] = frozenset()  # of a join: columns of one name that `match` holds equal


@dataclass(frozen=True, slots=True)
class VerbContext:
    """A step to be planned. `spec` is `part.spec`; the verb's field in it may be None where it could not be read."""

    part: Part[StepSpec]
    spec: StepSpec
    inputs: Sequence[InputFacts]  # one, or left and right; an only input as it is after `where`
    errors: ErrorPolicy
    log: FaultLog
    folder: Path  # of the pipeline file: user code and look-up files are found from here

    @property
    def path(self) -> FieldPath:
        """Where the step is."""
        return self.part.path

    @property
    def in_query(self) -> bool:
        """Whether the step is part of a query: then it is no use to name fields of a step."""
        return isinstance(self.log, SqlFaultLog)

    def need_event_time(self, facts: InputFacts, path: FieldPath, what: str) -> None:
        """A fault for each source behind an input that has no event time. `what`: `a window`."""
        for name in facts.untimed:
            if name not in facts.time_candidates:
                message = f"{what} needs event time, which '{name}' does not have"
                self.log.error(path, message, at_key=True)
                continue
            columns = facts.time_candidates.get(name, ())
            if columns:
                hint = f"add `event_time: {{column: {columns[0]}}}` to sources.{name}"
            else:
                hint = f"declare a timestamp column in sources.{name} and name it in `event_time: {{column: …}}`"
            message = f"{what} needs event time, but the source '{name}' declares none"
            self.log.error(path, message, hint, at_key=True)

    def refuse_changelog(self, facts: InputFacts, path: FieldPath, what: str, hint: str) -> None:
        """A fault where rows of the input are taken back. `what`: `a window`; `hint`: what to do instead."""
        if facts.changelog is not None:
            message = f"{what} cannot read '{facts.name}': its rows are updated and taken back"
            self.log.error(path, message, hint, at_key=True)
