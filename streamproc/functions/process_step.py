"""`process`: a user's function with state, timers and side outputs, run for one key at a time.

A row either takes effect whole, or (where the error policy lets the job go on) not at all: results, state and
timers of a row that fails are dropped together. `ttl` counts by event time where the input has it (against the
row's own time and the watermark, whichever is later, so that it does not depend on how rows are cut into
batches), else by the clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import polars as pl

from operators.connector import ErrorPolicy
from operators.element import ROW_WATERMARK, TIME, WATERMARK_MAX, WATERMARK_MIN, EventTimeMs, Schema
from operators.explanation import Explanation, by_key, lifetime, of_each
from operators.hashing import key_groups
from operators.operator import OperatorContext, Output
from operators.row_errors import BadRow, RowErrors
from operators.types import columns_text
from state.failure import Actor, Failure
from state.point import PointKey
from streamproc.functions.columns import Fields
from streamproc.functions.failures import rows_to_blame
from streamproc.functions.keyed_store import KeyedStore, KeyPlace
from streamproc.functions.loading import LoadingFault, UserCode, check_method
from streamproc.functions.process import Context, ProcessFunction, results_of, states_of
from streamproc.functions.results import Results
from streamproc.functions.state import MapState
from streamproc.functions.values import from_milliseconds, type_of_column

_EMIT_ROWS: Final = 65_536


class StateChanged(Failure):
    """The state of the checkpoint was declared otherwise."""

    acts: ClassVar[Actor] = "user"


@dataclass(frozen=True, slots=True)
class ProcessFunctionSpec:
    """A class derived from ProcessFunction; `columns` are all columns of a result row."""

    code: UserCode
    key: tuple[str, ...]
    columns: Fields
    outputs: tuple[tuple[str, Fields], ...]
    input_schema: Schema
    timed: bool
    errors: ErrorPolicy = "fail"

    @property
    def schema(self) -> Schema:
        return {name: field.dtype for name, field in self.columns}

    @property
    def stateful(self) -> bool:
        return True

    def create(self, context: OperatorContext) -> KeyedProcess:
        return KeyedProcess(self, context, self.load())

    def describe(self) -> str:
        by = columns_text({name: self.input_schema[name] for name in self.key})
        return f"process {self.code} by ({by})"

    def unreadable(self, snapshot: Mapping[str, Any]) -> str | None:
        """Why state that was stored with this snapshot cannot be read; None: it can. A state may come or go, but not
        be declared as another kind."""
        declared = states_of(self.load())
        for name, was in snapshot.get("states", {}).items():
            if name in declared and (now := declared[name].describe()) != was:
                return f"state '{name}' of {self.code} was a {was} and is declared as a {now} now"
        return None

    def explained(self) -> Explanation:
        held = [
            f"{name} (a {state.kind}, {lifetime(state.ttl_ms or None, timed=self.timed)})"
            for name, state in states_of(self.load()).items()
        ]
        keeps = f"{', '.join([*held, 'timers'])}{of_each(self.key)}"
        return Explanation(f"process {self.code}{by_key(self.key)}", keeps=keeps)

    def load(self) -> type[ProcessFunction]:
        """The class; raises LoadingFault."""
        return check_process_function(self.code.load(), self.code)


def check_process_function(loaded: Any, code: UserCode) -> type[ProcessFunction]:
    """The class, if it can be used; raises LoadingFault."""
    if not (isinstance(loaded, type) and issubclass(loaded, ProcessFunction)):
        hint = f"write `class {code.name}(ProcessFunction)` with `from streamproc import ProcessFunction`"
        raise LoadingFault(f"'{code}' is not a class derived from ProcessFunction", hint)
    if loaded.process is ProcessFunction.process:
        raise LoadingFault(f"'{code}' has no method `process`", "write `def process(self, row, ctx)`")
    check_method(loaded.process, f"{code}.process", ["row", "ctx"])
    check_method(loaded.on_timer, f"{code}.on_timer", ["time", "ctx"])
    try:
        loaded()
    except Exception as error:
        raise LoadingFault(f"'{code}' cannot be made without arguments: {type(error).__name__}: {error}") from None
    return loaded


class KeyedProcess:
    """One subtask."""

    def __init__(self, spec: ProcessFunctionSpec, context: OperatorContext, function: type[ProcessFunction]) -> None:
        assert context.state is not None
        self._spec = spec
        self._context = context
        self._counters = context.counters
        self._states = states_of(function)
        self._store = KeyedStore(context.state, self._states)
        self._function = function()
        for name, state in self._states.items():
            setattr(self._function, name, state.bound(self._store))
        self._key_types = [type_of_column(spec.input_schema[name]) for name in spec.key]
        self._errors = RowErrors(context, spec.errors, lambda _: str(spec.code))
        self._results = Results({"main": spec.columns, **dict(spec.outputs)}, timed=spec.timed)
        self._ctx = Context(self._store, self._results.add, timed=spec.timed)
        self._watermark: int = WATERMARK_MIN
        self._now = 0
        self._encoded: dict[tuple[Any, ...], bytes] = {}

    def process(self, frame: pl.DataFrame, watermark: EventTimeMs) -> Iterator[Output]:
        """Take one batch; raises `RecordFailed` where the policy says so."""
        watermark = EventTimeMs(max(self._watermark, watermark))
        given = frame.select(*self._spec.input_schema)
        keys = given.select(*self._spec.key).rows()
        groups = key_groups(frame, self._spec.key, self._context.max_parallelism).to_list()
        places = [KeyPlace(group, self._encode(key)) for group, key in zip(groups, keys, strict=True)]
        self._store.prefetch(set(places))
        times = frame.get_column(TIME).to_list() if self._spec.timed else [None] * frame.height
        behind = frame.get_column(ROW_WATERMARK).to_list() if ROW_WATERMARK in frame.columns else None
        taken = 0
        for index, row in enumerate(given.iter_rows(named=True)):
            time, row_watermark = times[index], behind[index] if behind is not None else None
            level = watermark if row_watermark is None else max(watermark, row_watermark)
            self._turn_to(places[index], keys[index], time, level)
            self._results.at(time, row_watermark)
            error = self._call(lambda row=row: self._function.process(row, self._ctx), "process")  # type: ignore[misc]
            if error is not None:
                yield from self._errors.settle([BadRow(frame.slice(index, 1), error)])
                continue
            taken += 1
            if self._results.rows >= _EMIT_ROWS:
                yield from self._given()
        self._counters.taken += taken
        yield from self._given()
        self._store.fit()
        self._store.sweep(frame.height, self._watermark if self._spec.timed else self._now)

    def on_watermark(self, watermark: EventTimeMs) -> Iterator[Output]:
        """Fire the event-time timers that are due, in order of time."""
        self._ctx._begin_timers()
        while (timer := self._store.timers.pop(watermark)) is not None:
            yield from self._fire(timer, timer.namespace, watermark, "event")
        yield from self._given()
        self._watermark = watermark
        self._store.fit()
        if self._spec.timed:
            self._store.sweep(0, watermark)

    def on_processing_time(self, now_ms: int) -> Iterator[Output]:
        """Fire the processing-time timers that are due, in order of time."""
        self._now = now_ms
        self._ctx._begin_timers()
        while (timer := self._store.processing_timers.pop(now_ms)) is not None:
            # A result of the clock has no event time of its own: it is as old as may be without being late.
            time = self._watermark + 1 if self._watermark > WATERMARK_MIN else timer.namespace
            yield from self._fire(timer, time if self._spec.timed else None, self._watermark, "processing")
        yield from self._given()
        self._store.fit()
        if not self._spec.timed:
            self._store.sweep(0, now_ms)

    def prepare_snapshot(self) -> Mapping[str, Any]:
        """Write what has changed; the rest is the watermark, and what the states are."""
        self._store.flush()
        states = {name: state.describe() for name, state in self._states.items()}
        return {"watermark": self._watermark, "states": states}

    def restore(self, snapshots: list[Mapping[str, Any]]) -> None:
        """Go on from the lowest watermark; raises StateChanged where a state is declared as another kind now."""
        self._watermark = min((int(snapshot["watermark"]) for snapshot in snapshots), default=WATERMARK_MIN)
        for snapshot in snapshots:
            if (reason := self._spec.unreadable(snapshot)) is not None:
                raise StateChanged(
                    f"step {self._context.step}: {reason}: give it another name, or start without the checkpoint"
                )

    def read_state(self, name: str, key: tuple[Any, ...]) -> Any:
        """What a state of a key is now: a value, a list or a dict (for tests)."""
        state = getattr(self._function, name)
        frame = self._key_frame(key, None)
        [group] = key_groups(frame, self._spec.key, self._context.max_parallelism).to_list()
        self._store.select(KeyPlace(group, self._encode(key)), self._watermark if self._spec.timed else self._now)
        return dict(state.items()) if isinstance(state, MapState) else state.get()

    def _turn_to(self, place: KeyPlace, key: tuple[Any, ...], time: int | None, watermark: int) -> None:
        ctx = self._ctx
        self._store.select(place, self._now if time is None or not self._spec.timed else max(time, watermark))
        ctx._key, ctx._time, ctx._now = key, time, self._now
        ctx._watermark = watermark if watermark > WATERMARK_MIN else None
        ctx._late = time is not None and time <= watermark
        ctx._ending = watermark >= WATERMARK_MAX

    def _call(self, call: Callable[[], object], name: str) -> Exception | None:
        """Run user code to the end of its results: it counts whole, or is undone. Returns what it raised."""
        try:
            with rows_to_blame(self._spec.code):
                for result in results_of(call(), f"{self._spec.code}.{name}"):
                    self._results.add("main", result)
        except Failure:
            raise
        except Exception as error:
            self._store.rollback()
            self._results.rollback()
            return error
        self._store.commit()
        self._results.commit()
        return None

    def _fire(self, timer: PointKey, time: int | None, watermark: int, domain: str) -> Iterator[Output]:
        key = tuple(kind.decode(part) for kind, part in zip(self._key_types, timer.key.split(b"\1"), strict=True))
        self._turn_to(KeyPlace(timer.group, timer.key), key, time, self._watermark)
        ctx = self._ctx
        ctx._domain, ctx._late, ctx._ending = domain, False, watermark >= WATERMARK_MAX  # type: ignore[assignment]
        ctx._watermark = watermark if watermark > WATERMARK_MIN else None
        ctx._time = timer.namespace if domain == "event" else None
        ctx._firing = timer.namespace
        self._results.at(time, None)
        at = from_milliseconds(timer.namespace)
        error = self._call(lambda: self._function.on_timer(at, ctx), "on_timer")
        ctx._domain, ctx._firing = "event", None
        if error is not None:
            self._counters.made += 1  # no row has come: what fails came of state
            yield from self._errors.settle([BadRow(self._key_frame(key, time), error)])
        elif self._results.rows >= _EMIT_ROWS:
            yield from self._given()

    def _given(self) -> Iterator[Output]:
        """All results that count, of side outputs too: each is made, whatever it was made from."""
        for output in self._results.take():
            self._counters.made += output.frame.height
            yield output

    def _key_frame(self, key: tuple[Any, ...], time: int | None) -> pl.DataFrame:
        """What stands for the row where a timer fails: its key."""
        schema = {name: self._spec.input_schema[name] for name in self._spec.key}
        frame = pl.DataFrame([key], schema=schema, orient="row")
        return frame if time is None else frame.with_columns(pl.lit(time, dtype=pl.Int64).alias(TIME))

    def _encode(self, key: tuple[Any, ...]) -> bytes:
        encoded = self._encoded.get(key)
        if encoded is None:
            if len(self._encoded) >= _EMIT_ROWS:
                self._encoded.clear()
            encoded = b"\1".join(kind.encode(value) for kind, value in zip(self._key_types, key, strict=True))
            self._encoded[key] = encoded
        return encoded
