"""User code under test: rows and time go in as the test says, results come out as plain dicts.

The operators are the product's own; only their state is in memory. `crash` takes a checkpoint, throws
everything away and goes on from it, if wanted with another number of subtasks.
"""

from __future__ import annotations

import inspect
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

import polars as pl

from operators.connector import ErrorPolicy
from operators.element import HIDDEN, TIME, WATERMARK_MAX, WATERMARK_MIN, EventTimeMs, Schema
from operators.hashing import key_groups
from operators.operator import Closes, Operator, OperatorContext, Output
from operators.row_errors import RowRefused
from operators.types import parse_type
from state.key_group import range_of_subtask
from state.memory import MemoryBackend
from streamproc.functions.async_step import AsyncFunction, AsyncFunctionSpec
from streamproc.functions.calls import CallLimits
from streamproc.functions.columns import DeclaredColumns, Fields
from streamproc.functions.loading import UserCode, check_callable
from streamproc.functions.process import ProcessFunction
from streamproc.functions.process_step import KeyedProcess, ProcessFunctionSpec, check_process_function
from streamproc.functions.python_step import BatchFunction, BatchFunctionSpec, RowFunction, RowFunctionSpec
from streamproc.functions.values import to_milliseconds

Row = dict[str, Any]
Columns = Mapping[str, Any]  # name → type, as in a pipeline file
Time = datetime | str  # aware, or ISO-8601 text with a zone

_MAX_PARALLELISM: Final = 128


class ProcessHarness:
    """A process function as a step runs it.

    `schema`: the columns of rows pushed; `event_time`: which of them is the event time, if the step's input has
    one. `key`, `columns` and `outputs` are as in the pipeline file. `errors`: what becomes of rows that fail; by
    default the test fails with them.
    """

    def __init__(
        self,
        function: type[ProcessFunction],
        *,
        schema: Columns,
        key: Sequence[str],
        columns: Columns,
        outputs: Mapping[str, Columns] | None = None,
        event_time: str | None = None,
        errors: ErrorPolicy = "fail",
        parallelism: int = 1,
    ) -> None:
        code = _code_of(function)
        self._function = check_process_function(function, code)
        self._input = _Input(schema, event_time)
        self._spec = ProcessFunctionSpec(
            code,
            tuple(key),
            _fields(columns),
            tuple((name, _fields(declared)) for name, declared in (outputs or {}).items()),
            self._input.schema,
            event_time is not None,
            errors,
        )
        self._watermark: int = WATERMARK_MIN
        self._now = 0
        self._outputs: dict[str, list[Row]] = {}
        self._subtasks: list[tuple[KeyedProcess, MemoryBackend]] = []
        for index in range(parallelism):
            self._add(index, MemoryBackend(range_of_subtask(index, parallelism, _MAX_PARALLELISM)))

    @property
    def rows(self) -> list[Row]:
        """All result rows so far."""
        return self.side("main")

    @property
    def errors(self) -> list[Row]:
        """Rows of the errors stream, with `errors="dlq"`."""
        return self.side("errors")

    def side(self, name: str) -> list[Row]:
        """All rows of a side output so far."""
        return self._outputs.setdefault(name, [])

    def take(self) -> list[Row]:
        """The result rows since the last `take`."""
        rows, self._outputs["main"] = self.rows, []
        return rows

    def push(self, *rows: Row) -> None:
        """Let rows come, as one batch."""
        frame = self._input.frame(rows)
        groups = key_groups(frame, self._spec.key, _MAX_PARALLELISM)
        for operator, backend in self._subtasks:
            part = frame.filter(groups.is_between(backend.groups.first, backend.groups.last))
            if part.height:
                self._collect(operator.process(part, EventTimeMs(self._watermark)))

    def watermark(self, at: Time) -> None:
        """Let event time come to `at`: timers up to it fire."""
        self._advance(_milliseconds(at))

    def clock(self, at: Time) -> None:
        """Let the wall clock come to `at`: processing-time timers up to it fire."""
        now = _milliseconds(at)
        if now < self._now:
            raise ValueError(f"the clock is past {at} already")
        self._now = now
        for operator, _ in self._subtasks:
            self._collect(operator.on_processing_time(now))

    def end(self) -> None:
        """End the input: all event-time timers fire."""
        self._advance(WATERMARK_MAX)

    def crash(self, *, parallelism: int | None = None) -> None:
        """Take a checkpoint, lose all else, and go on from it; `parallelism`: with so many subtasks from now on."""
        count = parallelism or len(self._subtasks)
        folder = Path(tempfile.mkdtemp(prefix="streamproc-testing-"))
        try:
            old = []
            for index, (operator, backend) in enumerate(self._subtasks):
                snapshot = operator.prepare_snapshot()
                old.append((backend.groups, backend.snapshot(folder / str(index)).directory, snapshot))
            self._subtasks = []
            for index in range(count):
                groups = range_of_subtask(index, count, _MAX_PARALLELISM)
                mine = [(part, snapshot) for owned, part, snapshot in old if owned.intersects(groups)]
                operator = self._add(index, MemoryBackend.restore_clipped(groups, [part for part, _ in mine]))
                operator.restore([snapshot for _, snapshot in mine])
                self._collect(operator.on_processing_time(self._now))
        finally:
            shutil.rmtree(folder)

    def state(self, name: str, key: Any) -> Any:
        """What a state of a key is: a value, a list or a dict. `key`: a tuple where the key has several columns."""
        values = key if isinstance(key, tuple) else (key,)
        schema = {column: self._input.schema[column] for column in self._spec.key}
        [group] = key_groups(pl.DataFrame([values], schema, orient="row"), self._spec.key, _MAX_PARALLELISM).to_list()
        [operator] = [operator for operator, backend in self._subtasks if group in backend.groups]
        return operator.read_state(name, values)

    def _advance(self, watermark: int) -> None:
        if watermark <= self._watermark:
            raise ValueError("a watermark only moves forward, and this one does not")
        for operator, _ in self._subtasks:
            self._collect(operator.on_watermark(EventTimeMs(watermark)))
        self._watermark = watermark

    def _add(self, index: int, backend: MemoryBackend) -> KeyedProcess:
        context = OperatorContext("test", index, _MAX_PARALLELISM, backend.groups, backend)
        operator = KeyedProcess(self._spec, context, self._function)
        self._subtasks.append((operator, backend))
        return operator

    def _collect(self, outputs: Iterable[Output]) -> None:
        for tag, frame in outputs:
            self.side(tag).extend(frame.drop(HIDDEN, strict=False).to_dicts())


class PythonHarness:
    """A function of a `python` step as the step runs it; `with` it, or `close` it, where it is async."""

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        schema: Columns,
        columns: Columns,
        mode: Literal["batch", "row", "async"] = "batch",
        in_flight: int = 200,
        timeout: float = 2.0,
        retries: int = 0,
        errors: ErrorPolicy = "fail",
    ) -> None:
        """`timeout`: of each call in mode async, in seconds."""
        code = _code_of(function)
        self._input = _Input(schema, None)
        self._outputs: dict[str, list[Row]] = {}
        self._operator = _python_operator(
            check_callable(function, code, ["frame" if mode == "batch" else "row"], awaited=mode == "async"),
            code,
            _fields(columns),
            self._input.schema,
            mode,
            CallLimits(in_flight, round(timeout * 1000), retries),
            errors,
        )

    @property
    def errors(self) -> list[Row]:
        """Rows of the errors stream, with `errors="dlq"`."""
        return self._outputs.setdefault("errors", [])

    def push(self, *rows: Row) -> list[Row]:
        """Let rows come, as one batch; the result rows."""
        for tag, frame in self._operator.process(self._input.frame(rows), WATERMARK_MIN):
            self._outputs.setdefault(tag, []).extend(frame.to_dicts())
        return self._outputs.pop("main", [])

    def close(self) -> None:
        """End what the function has left running."""
        if isinstance(self._operator, Closes):
            self._operator.close()

    def __enter__(self) -> PythonHarness:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Input:
    """Rows of a schema as frames of an input stream."""

    def __init__(self, schema: Columns, event_time: str | None) -> None:
        fields = _fields(schema)
        self._columns = DeclaredColumns.of(fields)
        self.schema: Schema = {name: field.dtype for name, field in fields}
        if event_time is not None and not isinstance(self.schema.get(event_time), pl.Datetime):
            raise ValueError(f"event_time: {event_time!r} is no timestamp column of the schema")
        self._event_time = event_time

    def frame(self, rows: Sequence[Row]) -> pl.DataFrame:
        """ISO-8601 text goes for timestamps, too. Raises ValueError for a row that is not of the schema."""
        try:
            values = [self._columns.values_of(self._read_times(row)) for row in rows]
        except RowRefused as error:
            raise ValueError(f"a row pushed: {error}") from None
        frame = pl.DataFrame(self._columns.series(values))
        if self._event_time is None:
            return frame
        if frame.get_column(self._event_time).null_count():
            raise ValueError(f"a row pushed has no {self._event_time!r}, which is the event time")
        return frame.with_columns(pl.col(self._event_time).dt.timestamp("ms").alias(TIME))

    def _read_times(self, row: Row) -> Row:
        return {
            name: _datetime(value)
            if isinstance(value, str) and isinstance(self.schema.get(name), pl.Datetime)
            else value
            for name, value in row.items()
        }


def _python_operator(
    function: Callable[..., Any],
    code: UserCode,
    fields: Fields,
    schema: Schema,
    mode: Literal["batch", "row", "async"],
    limits: CallLimits,
    errors: ErrorPolicy,
) -> Operator:
    groups = range_of_subtask(0, 1, _MAX_PARALLELISM)
    context = OperatorContext("test", 0, _MAX_PARALLELISM, groups, None)
    if mode == "batch":
        return BatchFunction(BatchFunctionSpec(code, fields, schema, errors), context, function)
    if mode == "row":
        return RowFunction(RowFunctionSpec(code, fields, schema, errors), context, function)
    return AsyncFunction(AsyncFunctionSpec(code, fields, schema, errors, limits=limits), context, function)


def _code_of(function: Callable[..., Any]) -> UserCode:
    """Where a function or class is, for messages."""
    path = Path(inspect.getsourcefile(function) or "test.py").resolve()
    return UserCode(path.parent, path.name, getattr(function, "__name__", "function"))


def _fields(columns: Columns) -> Fields:
    return tuple((name, parse_type(written)) for name, written in columns.items())


def _datetime(at: Time) -> datetime:
    time = datetime.fromisoformat(at) if isinstance(at, str) else at
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _milliseconds(at: Time) -> int:
    return to_milliseconds(_datetime(at))
