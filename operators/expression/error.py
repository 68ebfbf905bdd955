"""What is wrong with an expression, where in its text, and what was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar

from state.failure import Actor, Failure


class ExpressionError(Failure):
    """An expression cannot be compiled against its input.

    `offset` counts characters from the start of the expression (None where it is not known);
    `suggestion` is a near name of an unknown column or function, already part of the message;
    `column` is the name of an unknown column; `others` are further faults of the same expression.
    """

    acts: ClassVar[Actor] = "user"

    def __init__(
        self, message: str, *, offset: int | None = None, suggestion: str | None = None, column: str | None = None
    ) -> None:
        self.message = f"{message}; did you mean {suggestion!r}?" if suggestion else message
        self.offset = offset
        self.suggestion = suggestion
        self.column = column
        self.others: tuple[ExpressionError, ...] = ()
        super().__init__(self.message)

    @property
    def all(self) -> tuple[ExpressionError, ...]:
        """This fault and the others."""
        return (self, *self.others)


class TypeNotKnown(Failure):
    """An expression without a fault of its own that reads a column of `UNKNOWN` type."""

    acts: ClassVar[Actor] = "user"


class Poisoned(Exception):
    """Passes from a part that has no value (its fault is recorded) to everything computed from it.

    Never leaves a compilation.
    """


def near_name(name: str, candidates: Iterable[str]) -> str | None:
    """The candidate a typing error away from `name`, ignoring case; None when none is near."""
    by_lower = {candidate.lower(): candidate for candidate in candidates}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[near[0]] if near else None
