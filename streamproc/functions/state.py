"""Keyed state as user code declares and uses it: a value, a list or a map for each key.

    class Counter(ProcessFunction):
        count = ValueState("int64", ttl="1h", default=0)
        names = ListState("string", ttl="1d")
        totals = MapState("string", "decimal(10,2)", ttl="forever")

States are class attributes. Inside `process` and `on_timer` each of them is that of the current key. Types are
those of columns (`int64`, `list[string]`, a mapping for a struct, …) or Python's `int`, `float`, `str`, `bool`,
`bytes`, `date`, `datetime`; other objects are refused.
"""

from __future__ import annotations

import copy
import struct
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar

from operators.types import UnknownType
from streamproc.functions.values import ValueType, WrongValue, declared_type, shown
from streamproc.pipeline.spec import FOREVER, parse_duration

if TYPE_CHECKING:
    from state.point import PointKey
    from streamproc.functions.entries import Entries, Kept
    from streamproc.functions.keyed_store import KeyedStore

S = TypeVar("S", bound="State")
_INDEX = struct.Struct(">Q")
_NOT_BOUND: Final = "state can be used inside `process` and `on_timer` only"


class WrongDeclaration(ValueError):
    """A state is declared with what is no type or no duration."""


class State:
    """What the three kinds have in common. As declared it only says what is kept; the one that user code meets on
    `self` is bound to the store of its subtask."""

    kind: ClassVar[str]

    def __init__(self, ttl: str | None) -> None:
        self.ttl_ms = _ttl(ttl)  # None: not said
        self.name = ""
        self._bound_to: KeyedStore | None = None

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def bound(self: S, store: KeyedStore) -> S:
        """The same state, of whatever key `store` is at."""
        one = copy.copy(self)
        one._bound_to = store
        return one

    def describe(self) -> str:
        """Kind and types: what must not change while there is state."""
        raise NotImplementedError

    @property
    def _store(self) -> KeyedStore:
        if self._bound_to is None:
            raise RuntimeError(_NOT_BOUND)
        return self._bound_to

    def _alive(self, kept: Kept | None) -> Kept | None:
        return None if kept is None or self.expired(kept, self._store.now) else kept

    def expired(self, kept: Kept, now: int) -> bool:
        """Whether `ttl` has passed since it was written."""
        return bool(self.ttl_ms) and kept.written is not None and now >= kept.written + (self.ttl_ms or 0)

    def _put(self, entries: Entries, at: PointKey, value: bytes) -> None:
        if not self.ttl_ms:
            entries.put(at, value, None)
            return
        before = self._alive(entries.get(at))
        now = self._store.now
        entries.put(at, value, now if before is None or before.written is None else max(now, before.written))


class ValueState(State):
    """One value for each key."""

    kind = "value"

    def __init__(self, type: object, *, ttl: str | None = None, default: Any = None) -> None:
        """`default`: what `get` gives where nothing is set."""
        super().__init__(ttl)
        self._type = _declared(type)
        self.default = default
        try:
            self._type.check(default)
        except WrongValue as error:
            raise WrongDeclaration(f"the default {error}") from None

    def get(self, default: Any = None) -> Any:
        """The value; where there is none `default`, or the declared one."""
        store = self._store
        kept = self._alive(store.values.get(store.place(self)))
        if kept is None:
            return self.default if default is None else default
        return self._type.decode(kept.value)

    def set(self, value: Any) -> None:
        """Keep a value; None clears it."""
        if value is None:
            self.clear()
        else:
            store = self._store
            self._put(store.values, store.place(self), _encoded(self, self._type, value))

    def clear(self) -> None:
        """Forget the value."""
        store = self._store
        store.values.delete(store.place(self))

    def describe(self) -> str:
        return f"value {self._type.field}"


class ListState(State):
    """A list for each key; its elements expire one by one."""

    kind = "list"

    def __init__(self, type: object, *, ttl: str | None = None) -> None:
        super().__init__(ttl)
        self._type = _declared(type)

    def get(self) -> list[Any]:
        """The elements, in the order they were added."""
        return list(self)

    def __iter__(self) -> Iterator[Any]:
        for _, kept in self._elements():
            yield self._type.decode(kept.value)

    def add(self, element: Any) -> None:
        """Append one element, at a cost that does not depend on how many there are."""
        store = self._store
        encoded = _encoded(self, self._type, element)
        head = store.place(self)
        kept = self._alive(store.values.get(head))
        index = int(kept.value) if kept is not None else 0
        self._put(store.elements, store.place(self, _INDEX.pack(index)), encoded)
        self._put(store.values, head, str(index + 1).encode())

    def extend(self, elements: Iterable[Any]) -> None:
        """Append several."""
        for element in elements:
            self.add(element)

    def set(self, elements: Iterable[Any]) -> None:
        """Keep these elements instead."""
        wanted = list(elements)
        self.clear()
        self.extend(wanted)

    def clear(self) -> None:
        """Forget all elements."""
        store = self._store
        for place, _ in self._elements(alive=False):
            store.elements.delete(place)
        store.values.delete(store.place(self))

    def describe(self) -> str:
        return f"list of {self._type.field}"

    def _elements(self, *, alive: bool = True) -> Iterator[tuple[PointKey, Kept]]:
        store = self._store
        if store.values.get(store.place(self)) is None:
            return
        for place, kept in store.elements.under(*store.place(self)[1:]):
            if not alive or self._alive(kept) is not None:
                yield place, kept


class MapState(State):
    """A map for each key; its entries expire one by one. Map keys are ordered as JSON texts."""

    kind = "map"

    def __init__(self, key_type: object, type: object, *, ttl: str | None = None) -> None:
        super().__init__(ttl)
        self._key_type = _declared(key_type)
        self._type = _declared(type)

    def get(self, key: Any, default: Any = None) -> Any:
        """The value of `key`, or `default`."""
        store = self._store
        kept = self._alive(store.elements.get(self._place(key)))
        return default if kept is None else self._type.decode(kept.value)

    def set(self, key: Any, value: Any) -> None:
        """Keep a value under `key`."""
        self._put(self._store.elements, self._place(key), _encoded(self, self._type, value))

    def delete(self, key: Any) -> None:
        """Forget `key`; nothing being there is fine."""
        self._store.elements.delete(self._place(key))

    def __contains__(self, key: object) -> bool:
        return self._alive(self._store.elements.get(self._place(key))) is not None

    def __iter__(self) -> Iterator[Any]:
        return (key for key, _ in self.items())

    def keys(self) -> Iterator[Any]:
        """All keys."""
        return iter(self)

    def values(self) -> Iterator[Any]:
        """All values, in the order of `keys`."""
        return (value for _, value in self.items())

    def items(self) -> Iterator[tuple[Any, Any]]:
        """All pairs, as they are at the call."""
        store = self._store
        first = store.place(self)
        for place, kept in store.elements.under(*first[1:]):
            if self._alive(kept) is not None:
                yield self._key_type.decode(place.key[len(first.key) :]), self._type.decode(kept.value)

    def clear(self) -> None:
        """Forget all pairs."""
        store = self._store
        for place, _ in store.elements.under(*store.place(self)[1:]):
            store.elements.delete(place)

    def describe(self) -> str:
        return f"map of {self._key_type.field} to {self._type.field}"

    def _place(self, key: Any) -> PointKey:
        return self._store.place(self, _encoded(self, self._key_type, key))


def _encoded(state: State, kind: ValueType, value: Any) -> bytes:
    try:
        return kind.encode(value)
    except WrongValue as error:
        raise WrongValue(f"state '{state.name}' is a {state.describe()}: {error}") from None


def _declared(declared: object) -> ValueType:
    try:
        return declared_type(declared)
    except UnknownType as error:
        raise WrongDeclaration(str(error)) from None


def _ttl(written: object) -> int | None:
    if written is None:
        return None
    if written == "forever":
        return FOREVER
    try:
        ms = parse_duration(written)
    except ValueError as error:
        raise WrongDeclaration(f"ttl {error}, or 'forever'") from None
    if ms <= 0:
        raise WrongDeclaration(f"ttl {shown(written)} must be more than zero")
    return ms
