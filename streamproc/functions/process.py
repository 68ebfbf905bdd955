"""What user code derives from and is given: `ProcessFunction` and its `Context`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, Final, Literal

from state.point import PointKey
from streamproc.functions.keyed_store import KeyedStore
from streamproc.functions.state import State
from streamproc.functions.values import WrongValue, from_milliseconds, shown, to_milliseconds

Row = dict[str, Any]
Emit = Callable[[str, Any], None]

_TIMERS_SET_AGAIN_MAX: Final = 10_000


class WrongUse(RuntimeError):
    """A process function asks its context for something that is not there; the message says what is."""


class Context:
    """Where a process function is: the key, the times, and ways out. Valid until the call it was given to returns."""

    def __init__(self, store: KeyedStore, emit: Emit, *, timed: bool) -> None:
        self._store = store
        self._emit = emit
        self._timed = timed
        self._key: tuple[Any, ...] = ()
        self._time: int | None = None
        self._watermark: int | None = None
        self._now = 0
        self._late = self._ending = False
        self._domain: Literal["event", "processing"] = "event"
        self._firing: int | None = None  # the time of the timer that is being fired
        self._set_again: dict[bytes, int] = {}

    @property
    def key(self) -> Any:
        """The key's value; a tuple where `key` has several columns."""
        return self._key[0] if len(self._key) == 1 else self._key

    @property
    def time(self) -> datetime | None:
        """The row's event time, or the time of the event-time timer; None where there is none."""
        return None if self._time is None else from_milliseconds(self._time)

    @property
    def watermark(self) -> datetime | None:
        """No row at or before this is expected any more; None before the first watermark."""
        return None if self._watermark is None else from_milliseconds(self._watermark)

    @property
    def now(self) -> datetime:
        """The wall clock, as of the last tick."""
        return from_milliseconds(self._now)

    @property
    def late(self) -> bool:
        """Whether the row came behind the watermark. Late rows are given like all others."""
        return self._late

    @property
    def ending(self) -> bool:
        """Whether the input has ended: all timers are due, and one set now fires at once."""
        return self._ending

    @property
    def domain(self) -> Literal["event", "processing"]:
        """In `on_timer`: which time has come."""
        return self._domain

    def emit(self, row: Mapping[str, Any]) -> None:
        """Give a row out, as `yield` does."""
        self._emit("main", row)

    def side(self, name: str, row: Mapping[str, Any]) -> None:
        """Give a row to a side output that `outputs` declares."""
        self._emit(name, row)

    def timer(self, at: datetime) -> None:
        """Call `on_timer` for this key when the watermark has come to `at`. Set twice, it is called once."""
        self._store.timers.set(self._event_timer(at))

    def timer_processing(self, at: datetime) -> None:
        """Call `on_timer` for this key when the clock has come to `at`."""
        self._store.processing_timers.set(self._timer(at))

    def delete_timer(self, at: datetime) -> None:
        """Take back what `timer(at)` has set for this key."""
        self._store.timers.delete(self._event_timer(at))

    def delete_timer_processing(self, at: datetime) -> None:
        """Take back what `timer_processing(at)` has set for this key."""
        self._store.processing_timers.delete(self._timer(at))

    def _begin_timers(self) -> None:
        self._set_again.clear()

    def _event_timer(self, at: datetime) -> PointKey:
        if not self._timed:
            raise WrongUse(
                "an event-time timer needs input with event time: "
                "declare `event_time` on the source, or use timer_processing"
            )
        return self._timer(at)

    def _timer(self, at: datetime) -> PointKey:
        try:
            timer = PointKey(to_milliseconds(at), *self._store.key)
        except WrongValue as error:
            raise WrongUse(f"the time of a timer: {error}") from None
        if self._firing is not None and (self._ending or timer.namespace <= self._firing):
            self._count(timer.key)
        return timer

    def _count(self, key: bytes) -> None:
        """A timer that is due as soon as it is set, set by a timer: that must come to an end."""
        times = self._set_again[key] = self._set_again.get(key, 0) + 1
        if times > _TIMERS_SET_AGAIN_MAX:
            raise WrongUse(
                f"on_timer has set {times} timers of one key that are due at once: set them at later times, "
                "and none where `ctx.ending` is true"
            )


class ProcessFunction:
    """A keyed function with state and timers. Made once for each subtask, without arguments."""

    def process(self, row: Row, ctx: Context) -> Iterable[Row] | None:
        """Take one row. Rows of a key come in order of arrival; yield results, or use `ctx.emit`."""
        raise NotImplementedError

    def on_timer(self, time: datetime, ctx: Context) -> Iterable[Row] | None:
        """A timer of `ctx.key` is due."""
        raise WrongUse(f"{type(self).__name__} sets timers, and has no on_timer(self, time, ctx)")


def states_of(function: type[ProcessFunction]) -> dict[str, State]:
    """The states that a class declares, its bases' included, by name."""
    found: dict[str, State] = {}
    for base in reversed(function.__mro__):
        found |= {name: value for name, value in vars(base).items() if isinstance(value, State)}
    return found


def results_of(returned: object, called: str) -> Iterable[Any]:
    """What a call has returned, as rows to come. Raises WrongUse for what cannot be rows."""
    if returned is None:
        return ()
    if isinstance(returned, Mapping | str | bytes) or not isinstance(returned, Iterable):
        raise WrongUse(f"{called} returned {shown(returned)}: yield rows, return a list of them, or None")
    return returned
