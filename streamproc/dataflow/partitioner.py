"""Which subtask a row goes to. Runs on worker threads; order per key (and per sender) is kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import polars as pl

from operators.hashing import key_groups

_TARGET = "__target"


class Partitioner(Protocol):
    """Splits a frame over `channels` receivers."""

    def partition(self, frame: pl.DataFrame) -> Iterator[tuple[int, pl.DataFrame]]:
        """(receiver, rows), never empty."""


class Forward:
    """Subtask i to subtask i: the route has that one receiver only."""

    def partition(self, frame: pl.DataFrame) -> Iterator[tuple[int, pl.DataFrame]]:
        yield 0, frame


class Rebalance:
    """Whole batches in turn."""

    def __init__(self, subtask: int, receivers: int) -> None:
        self._receivers = receivers
        self._next = subtask % receivers

    def partition(self, frame: pl.DataFrame) -> Iterator[tuple[int, pl.DataFrame]]:
        yield self._next, frame
        self._next = (self._next + 1) % self._receivers


class HashByKey:
    """By key group, so that a key's rows and its state are always in one place."""

    def __init__(self, key: Sequence[str], receivers: int, max_parallelism: int) -> None:
        self._key = key
        self._receivers = receivers
        self._max_parallelism = max_parallelism

    def partition(self, frame: pl.DataFrame) -> Iterator[tuple[int, pl.DataFrame]]:
        if self._receivers == 1:
            yield 0, frame
            return
        groups = key_groups(frame, self._key, self._max_parallelism).cast(pl.UInt32)
        targets = (groups * self._receivers // self._max_parallelism).alias(_TARGET)
        parts = frame.with_columns(targets).partition_by(_TARGET, as_dict=True, include_key=False)
        for (target,), part in parts.items():
            yield int(target), part
