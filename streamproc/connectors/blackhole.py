"""Takes rows and forgets them: for measuring everything before a sink."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from operators.connector import Committable


class BlackholeSink:
    """A `blackhole` sink."""

    async def recover(self, committables: Sequence[Committable], parallelism: int) -> None:
        """Nothing was written."""

    def writer(self, subtask: int, parallelism: int) -> BlackholeWriter:
        """The writer of one subtask."""
        return BlackholeWriter()

    async def close(self) -> None:
        """Nothing is open."""


class BlackholeWriter:
    """Counts what it forgets."""

    def __init__(self) -> None:
        self.rows = 0

    async def open(self) -> None:
        """Nothing to connect to."""

    async def write(self, frame: pl.DataFrame) -> None:
        """Forget a batch."""
        self.rows += frame.height

    async def prepare(self, checkpoint: int) -> Sequence[Committable]:
        """Nothing to commit."""
        return ()

    async def commit(self, checkpoint: int) -> None:
        """Nothing to commit."""

    async def close(self) -> None:
        """Nothing is open."""
