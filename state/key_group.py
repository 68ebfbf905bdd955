"""Key → key group → subtask: the same on every machine and at every release.

A key group is the unit that moves when a job is rescaled. `max_parallelism` groups exist for the
life of the state; a subtask owns one contiguous range of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class KeyGroupRange:
    """Key groups `first`..`last`, both included; empty when `last < first`."""

    first: int
    last: int

    def __len__(self) -> int:
        return max(0, self.last - self.first + 1)

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.first, self.last + 1))

    def __contains__(self, group: int) -> bool:
        return self.first <= group <= self.last

    def contains_range(self, other: KeyGroupRange) -> bool:
        """Whether every group of `other` is in this range."""
        return self.first <= other.first and other.last <= self.last

    def intersects(self, other: KeyGroupRange) -> bool:
        """Whether the two ranges share a group."""
        return self.first <= other.last and other.first <= self.last

    def intersection(self, other: KeyGroupRange) -> KeyGroupRange:
        """The groups in both ranges; empty when they do not intersect."""
        return KeyGroupRange(max(self.first, other.first), min(self.last, other.last))


def range_of_subtask(index: int, parallelism: int, max_parallelism: int) -> KeyGroupRange:
    """The range subtask `index` of `parallelism` owns; the ranges partition all groups exactly."""
    first = (index * max_parallelism + parallelism - 1) // parallelism
    end = ((index + 1) * max_parallelism + parallelism - 1) // parallelism
    return KeyGroupRange(first, end - 1)
