"""What is wrong with a query, where in its text, and what to write instead."""

from __future__ import annotations

from typing import Any, ClassVar

from sqlglot import exp

from operators.expression.syntax import offset_of
from state.failure import Actor, Failure


class SqlFault(Failure):
    """A query cannot be translated. `offset` counts characters from the start of its text; `hint` is the remedy."""

    acts: ClassVar[Actor] = "user"

    def __init__(self, message: str, *, offset: int = 0, hint: str | None = None) -> None:
        self.message = message
        self.offset = offset
        self.hint = hint
        super().__init__(message + (f"; {hint}" if hint else ""))


def fault(node: exp.Expression, message: str, hint: str | None = None) -> SqlFault:
    """A fault at the first name or literal of `node`, or of what stands around it."""
    at: Any = node
    while at is not None:
        offset = offset_of(at)
        if offset is not None:
            return SqlFault(message, offset=offset, hint=hint)
        at = at.parent
    return SqlFault(message, hint=hint)
