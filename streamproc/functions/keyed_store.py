"""All that one subtask of a process function keeps: the states of its keys and their timers, as one unit that
commits or rolls back with each row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from state.backend import StateBackend
from state.point import PointKey
from streamproc.functions.entries import Entries, Kept
from streamproc.functions.state import MapState, State
from streamproc.functions.timers import Timers

CACHED_ENTRIES_MAX: Final = 100_000
# At four entries looked at for each row, and at most one made by it, the dead are at most a third of the living.
_SWEPT_PER_ROW: Final = 4
_SWEPT_MIN: Final = 64


class KeyPlace(NamedTuple):
    """A key's group and its encoded values."""

    group: int
    key: bytes


class KeyedStore:
    """State of whatever key `select` named last."""

    def __init__(self, state: StateBackend, states: Mapping[str, State]) -> None:
        self.values = Entries(state, "values", CACHED_ENTRIES_MAX)
        self.elements = Entries(state, "elements", CACHED_ENTRIES_MAX)
        self.timers = Timers(state, "timers")
        self.processing_timers = Timers(state, "processing_timers")
        self.now = 0
        self._states = states
        self._expire = any(declared.ttl_ms for declared in states.values())
        self._read_ahead = [declared for declared in states.values() if not isinstance(declared, MapState)]
        self._key = KeyPlace(0, b"")

    @property
    def key(self) -> KeyPlace:
        """The current key."""
        return self._key

    def select(self, key: KeyPlace, now: int) -> None:
        """Turn to a key. `now`: the time (ms) against which `ttl` counts."""
        self._key = key
        self.now = now

    def place(self, state: State, part: bytes = b"") -> PointKey:
        """Where (a part of) a state of the current key is."""
        return _place(state.name, self._key, part)

    def prefetch(self, keys: Iterable[KeyPlace]) -> None:
        """Read the values of the keys of a batch at once."""
        if self._read_ahead:
            self.values.prefetch([_place(state.name, key) for key in keys for state in self._read_ahead])

    def commit(self) -> None:
        """The row is done."""
        for part in self._parts():
            part.commit()

    def rollback(self) -> None:
        """The row has failed: nothing of it stays."""
        for part in self._parts():
            part.rollback()

    def fit(self) -> None:
        """Between batches: bring memory back under its bounds."""
        for part in self._parts():
            part.fit()

    def flush(self) -> None:
        """Write what has changed to the state backend (in `prepare_snapshot`)."""
        for part in self._parts():
            part.flush()

    def sweep(self, rows: int, now: int) -> None:
        """Remove some of what has expired by `now`, which no row to come will be before."""
        if not self._expire:
            return
        for entries in (self.values, self.elements):
            found = entries.sweep(max(_SWEPT_MIN, _SWEPT_PER_ROW * rows))
            entries.remove([key for key, kept in found if self._expired(key, kept, now)])

    def _expired(self, key: PointKey, kept: Kept, now: int) -> bool:
        state = self._states.get(key.key.partition(b"\0")[0].decode())
        return state is not None and state.expired(kept, now)

    def _parts(self) -> Sequence[Entries | Timers]:
        return (self.values, self.elements, self.timers, self.processing_timers)


def _place(name: str, key: KeyPlace, part: bytes = b"") -> PointKey:
    return PointKey(0, key.group, b"%b\0%b\0%b" % (name.encode(), key.key, part))
