"""Which letters of one partition have been replayed: all below an offset, and some ranges above it.

Small enough to be kept as the offset and the metadata of a consumer group, so that it is committed in the very
transaction that sends the letters.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

METADATA_CHARS_MAX: Final = 4000  # brokers take 4096 (offset.metadata.max.bytes)
_FORMAT: Final = "1:"
_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class Replayed:
    """Everything below `below`, and the offsets in `ranges` (first, last), ascending and apart."""

    below: int = 0
    ranges: tuple[tuple[int, int], ...] = ()

    def __contains__(self, offset: int) -> bool:
        at = bisect_left(self.ranges, (offset + 1,)) - 1
        return offset < self.below or (at >= 0 and offset <= self.ranges[at][1])

    def adding(self, offsets: Iterable[int], waiting: Sequence[int], known: tuple[int, int]) -> Replayed:
        """With `offsets` replayed too. `waiting`: letters that still wait, ascending, complete for the offsets `known`
        [first, stop): what lies between two ranges there and is no such letter may belong to either."""
        ranges: list[tuple[int, int]] = []
        below = self.below

        def nothing_waits(first: int, stop: int) -> bool:
            if first >= stop:
                return True
            looked_at = known[0] <= first and stop <= known[1]
            return looked_at and bisect_left(waiting, first) == bisect_left(waiting, stop)

        for first, last in sorted([*self.ranges, *((offset, offset) for offset in offsets)]):
            if nothing_waits(below, first):
                below = max(below, last + 1)
            elif ranges and nothing_waits(ranges[-1][1] + 1, first):
                ranges[-1] = ranges[-1][0], max(ranges[-1][1], last)
            else:
                ranges.append((first, last))
        return Replayed(below, tuple(ranges))

    def metadata(self) -> str:
        """The ranges as text: each as how far it is from what came before, and how many more it has."""
        parts, before = [], self.below
        for first, last in self.ranges:
            parts.append(_base36(first - before) + (f"+{_base36(last - first)}" if last > first else ""))
            before = last
        return _FORMAT + ",".join(parts)

    @classmethod
    def from_committed(cls, offset: int, metadata: str) -> Replayed:
        """What was committed. Raises ValueError for what is none of ours."""
        if not metadata.startswith(_FORMAT):
            raise ValueError(f"not written by us: {metadata[:20]!r}")
        ranges, before = [], offset
        for part in filter(None, metadata.removeprefix(_FORMAT).split(",")):
            gap, _, more = part.partition("+")
            first = before + int(gap, 36)
            before = first + int(more or "0", 36)
            ranges.append((first, before))
        return cls(offset, tuple(ranges))


def _base36(number: int) -> str:
    digits = ""
    while True:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
        if not number:
            return digits
