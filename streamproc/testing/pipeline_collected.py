"""A sink in memory: holds what an exactly-once sink would have made visible, and nothing else.

Rows count once the checkpoint they belong to is complete; what a crashed attempt had written beyond that is
gone with it.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from operators.connector import Committable


class CollectingSink:
    """Collects the rows of one stream, over all attempts of a test. With `keeps` off it only takes them."""

    def __init__(self, *, keeps: bool) -> None:
        self._keeps = keeps
        self.committed: list[pl.DataFrame] = []  # hidden columns included

    async def recover(self, committables: Sequence[Committable], parallelism: int) -> None:
        """A commit is never left half done here."""

    def writer(self, subtask: int, parallelism: int) -> CollectingWriter:
        """The writer of one subtask."""
        return CollectingWriter(self.committed, keeps=self._keeps)

    async def close(self) -> None:
        """Nothing to release."""


class CollectingWriter:
    """Collects the rows of one subtask during one attempt."""

    def __init__(self, committed: list[pl.DataFrame], *, keeps: bool) -> None:
        self._committed = committed
        self._keeps = keeps
        self._written: list[pl.DataFrame] = []  # since the last completed checkpoint
        self._prepared: dict[int, int] = {}  # checkpoint → how many of `_written` are part of it

    async def open(self) -> None:
        """Nothing to connect to."""

    async def write(self, frame: pl.DataFrame) -> None:
        """Take one batch."""
        if self._keeps:
            self._written.append(frame)

    async def prepare(self, checkpoint: int) -> Sequence[Committable]:
        """Note what belongs to the checkpoint."""
        self._prepared[checkpoint] = len(self._written)
        return ()

    async def commit(self, checkpoint: int) -> None:
        """What belongs to it counts."""
        count = self._prepared.get(checkpoint, 0)
        self._prepared.clear()
        self._committed += self._written[:count]
        del self._written[:count]

    async def close(self) -> None:
        """Nothing to release."""
