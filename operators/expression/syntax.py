"""Text → syntax tree: one bounded SQL expression, every function call kept under the name it was written with.

sqlglot's own function classes are switched off. They rename and rearrange calls to translate between
databases; here a function means what `functions` says it means and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, ClassVar, Final, cast

import sqlglot
from sqlglot import exp
from sqlglot.dialects.dialect import Dialect
from sqlglot.errors import ParseError, SqlglotError
from sqlglot.parser import Parser as SqlParser
from sqlglot.tokenizer_core import TokenType

from operators.expression.error import ExpressionError

TEXT_LENGTH_MAX: Final = 10_000
_DEPTH_MAX: Final = 200
_EXPECTED: Final = {  # what the parser missed → how a user says it
    "Expecting )": "a parenthesis is not closed",
    "Expected END after CASE": "a case ends with `end`",
    "Expected TYPE after CAST": "write cast(x as int64)",
    "Expected AS after CAST": "write cast(x as int64)",
}
_OPERATOR_WORDS: Final = ("and", "between", "in", "is", "like", "not", "or")
_SPECIAL_SYNTAX: Final = ("CAST", "TRY_CAST", "EXTRACT", "POSITION", "SUBSTRING", "TRIM")


class StreamSql(Dialect):
    """The generic dialect without its functions, but for those with a syntax of their own."""

    INDEX_OFFSET = 0

    class Parser(SqlParser):
        FUNCTIONS: ClassVar[dict[str, Callable[..., Any]]] = {}
        FUNCTION_PARSERS: ClassVar[dict[str, Callable[..., Any]]] = {
            name: SqlParser.FUNCTION_PARSERS[name] for name in _SPECIAL_SYNTAX
        }

        def _parse_types(self, *args: Any, **options: Any) -> Any:
            """A type remembers where it stands, as names and literals do."""
            first = self._curr
            node = super()._parse_types(*args, **options)
            if isinstance(node, exp.DataType) and first is not None:
                node.update_positions(first)
            return node


def parse(text: str) -> exp.Expression:
    """The syntax tree of one expression. Raises ExpressionError."""
    if not isinstance(text, str) or not text.strip():
        raise ExpressionError("the expression is empty")
    if len(text) > TEXT_LENGTH_MAX:
        raise ExpressionError(f"the expression is {len(text)} characters long; at most {TEXT_LENGTH_MAX} are allowed")
    if ";" in text:
        _refuse_semicolon(text)
    try:
        tree = cast(exp.Expression, sqlglot.parse_one(text, read=StreamSql, into=exp.Condition))
    except ParseError as error:
        raise _syntax_error(text, error) from None
    except SqlglotError:  # the tokenizer's: all text is tokens but for quotes and comments left open
        raise ExpressionError("not a SQL expression: a quote or a comment is not closed") from None
    except RecursionError:
        raise ExpressionError("the expression is nested too deeply") from None
    if _depth(tree) > _DEPTH_MAX:
        raise ExpressionError(f"the expression is nested deeper than {_DEPTH_MAX} levels")
    return tree


def sql_of(node: exp.Expression) -> str:
    """The node written back as SQL, shortened for a message."""
    sql = full_sql_of(node)
    return sql if len(sql) <= 60 else sql[:57] + "..."


def full_sql_of(node: exp.Expression) -> str:
    """The node written back as SQL in a normal form: equal text means an equal expression."""
    return node.sql(dialect=StreamSql, comments=False, normalize_functions="lower")


def offset_of(node: exp.Expression) -> int | None:
    """Where the node's first name stands in the text; None for a node without names."""
    starts = [found.meta["start"] for found in node.walk() if "start" in found.meta]
    return min(starts, default=None)


def _depth(tree: exp.Expression) -> int:
    level, deepest = [tree], 0
    while level:
        deepest += 1
        level = [child for node in level for child in node.iter_expressions()]
    return deepest


def _syntax_error(text: str, error: ParseError) -> ExpressionError:
    details = error.errors[0] if error.errors else {}
    token, expected = details.get("highlight"), str(details.get("description"))
    for said, meant in _EXPECTED.items():
        if expected.startswith(said):
            return ExpressionError(f"not a SQL expression: {meant}", offset=_opening(text, said))
    if not token:
        return ExpressionError("not a SQL expression: it ends too early", offset=len(text))
    offset = _offset(text, details.get("line"), details.get("col"), len(token))
    if (backtick := text.find("`")) >= 0:
        return ExpressionError("not a SQL expression: names are quoted with double quotes, not `", offset=backtick)
    if token.lower() == "select":
        return ExpressionError("a query is not an expression: write only the value", offset=offset)
    operator = token.lower() in _OPERATOR_WORDS or (not token[0].isalnum() and token not in "')\"")
    if text[offset + len(token) :].strip() == "" and operator:
        return ExpressionError(f"not a SQL expression: something is missing after {token!r}", offset=offset)
    return ExpressionError(f"not a SQL expression: unexpected {token!r}", offset=offset)


def _opening(text: str, expected: str) -> int:
    """Where the last thing begins that is not closed."""
    opening, closing = ("case", "end") if "CASE" in expected else ("cast", "") if "CAST" in expected else ("(", ")")
    open_at: list[int] = []
    for token in sqlglot.tokenize(text, read=StreamSql):
        if token.text.lower() == opening and token.end - token.start + 1 == len(opening):
            open_at.append(token.start)
        elif token.text.lower() == closing and open_at:
            open_at.pop()
    return open_at[-1] if open_at else 0


def _refuse_semicolon(text: str) -> None:
    with suppress(SqlglotError):  # a quote left open: said by the parser
        for token in sqlglot.tokenize(text, read=StreamSql):
            if token.token_type == TokenType.SEMICOLON:
                raise ExpressionError("not a SQL expression: unexpected ';'", offset=token.start)


def _offset(text: str, line: int | None, column: int | None, token_length: int) -> int:
    """sqlglot gives the line and the column of the token's last character, both from 1."""
    if line is None or column is None:
        return 0
    before = text.split("\n")[: line - 1]
    return max(0, sum(len(previous) + 1 for previous in before) + column - token_length)
