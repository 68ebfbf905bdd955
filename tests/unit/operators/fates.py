"""The record ledger of operator subtasks under test: after every call, each row that came has exactly one fate."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import polars as pl

from operators.operator import Counters, OperatorContext, Output


class Fates:
    """Counts what goes in and out by itself, and compares it with what the operators say of it."""

    def __init__(self) -> None:
        self.rows_in = self.rows_out = 0
        self._ended = 0

    def came(self, frame: pl.DataFrame) -> pl.DataFrame:
        """A batch, on its way to an operator."""
        self.rows_in += frame.height
        return frame

    def gave(self, outputs: Iterable[Output]) -> Iterator[Output]:
        """What an operator gives out, as it passes."""
        for output in outputs:
            if output.tag not in ("late", "errors"):
                self.rows_out += output.frame.height
            yield output

    def end(self, context: OperatorContext) -> None:
        """A subtask that takes nothing more."""
        self._ended += accounted(context.counters)

    def check(self, running: Iterable[OperatorContext] = ()) -> None:
        told = self._ended + sum(accounted(context.counters) for context in running)
        assert self.rows_in == self.rows_out + told, "the record ledger does not balance"


def accounted(counters: Counters) -> int:
    """Rows whose fate is known and that are not rows out."""
    return counters.filtered + counters.late + counters.errors + counters.taken - counters.made
