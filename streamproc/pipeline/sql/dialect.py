"""Text → syntax tree of one query in Flink's dialect, every node with its place in the text.

It is the project's expression dialect with backquoted names and with Flink's table functions:
`TABLE(TUMBLE(TABLE t PARTITION BY k, DESCRIPTOR(ts), INTERVAL '10' SECOND, …))`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Final, cast

import sqlglot
from sqlglot import exp
from sqlglot.errors import ParseError, SqlglotError
from sqlglot.tokenizer_core import TokenType
from sqlglot.tokens import Tokenizer as SqlTokenizer

from operators.expression.syntax import StreamSql
from streamproc.pipeline.sql.fault import SqlFault

TEXT_LENGTH_MAX: Final = 50_000
_DEPTH_MAX: Final = 300
WINDOW_FUNCTIONS: Final = ("TUMBLE", "HOP", "CUMULATE", "SESSION")
_ARGUMENTS: Final = ("SLIDE", "STEP", "GAP", "0", "SIZE", "1", "OFFSET", "2", "3")  # in the order of their meaning
_AFTER_PARTITION: Final = ("DESCRIPTOR", "TIMECOL")


class WindowedTable(exp.Expression):
    """A window table function. `expressions`: its intervals, in the order they are written."""

    arg_types: ClassVar[dict[str, bool]] = {
        "this": True,  # the table
        "function": True,  # its name, an Identifier in upper case
        "partition": False,
        "time": True,
        "expressions": True,
        "alias": False,
    }


class FlinkSql(StreamSql):
    """Flink's queries over the project's expressions."""

    class Tokenizer(SqlTokenizer):
        IDENTIFIERS: ClassVar[list[Any]] = ["`"]

    class Parser(StreamSql.Parser):
        FUNC_TOKENS: ClassVar[set[TokenType]] = StreamSql.Parser.FUNC_TOKENS | {TokenType.SESSION}
        FUNCTION_PARSERS: ClassVar[dict[str, Callable[..., Any]]] = {
            **StreamSql.Parser.FUNCTION_PARSERS,
            "FLOOR": lambda self: self._parse_rounding("floor"),
            "CEIL": lambda self: self._parse_rounding("ceil"),
            "TIMESTAMPDIFF": lambda self: self._parse_after_unit("timestampdiff"),
            "TIMESTAMPADD": lambda self: self._parse_after_unit("timestampadd"),
        }

        def _parse_table(self, *args: Any, **options: Any) -> Any:
            if self._curr and self._curr.token_type == TokenType.TABLE and self._next.token_type == TokenType.L_PAREN:
                self._advance(2)
                node = self._parse_window_function()
                self._match_r_paren()
                if alias := self._parse_table_alias(alias_tokens=self.TABLE_ALIAS_TOKENS):
                    node.set("alias", alias)
                return node
            return super()._parse_table(*args, **options)

        def _parse_window_function(self) -> WindowedTable:
            function = self._curr
            name = function.text.upper() if function else ""
            if name not in WINDOW_FUNCTIONS:
                self.raise_error(f"not a window function: {name}")
            self._advance()
            self._match_l_paren()
            self._parse_argument_name()
            self._match(TokenType.TABLE)
            table = self._parse_table_parts()
            partition: list[Any] = []
            if self._match(TokenType.PARTITION_BY):
                if self._match(TokenType.L_PAREN):
                    partition += self._parse_csv(self._parse_column)
                    self._match_r_paren()
                else:
                    partition.append(self._parse_column())
                while self._match(TokenType.COMMA) and self._curr and self._curr.text.upper() not in _AFTER_PARTITION:
                    partition.append(self._parse_column())
            else:
                self._match(TokenType.COMMA)
            self._parse_argument_name()
            if not self._match_text_seq("DESCRIPTOR"):
                self.raise_error("Expecting DESCRIPTOR")
            self._match_l_paren()
            time = self._parse_column()
            self._match_r_paren()
            sizes: dict[str, Any] = {}
            while self._match(TokenType.COMMA):
                given = self._parse_argument_name() or f"{len(sizes)}"
                sizes[given] = self._parse_assignment()
            self._match_r_paren()
            ordered = [sizes[word] for word in sorted(sizes, key=_ARGUMENTS.index)]
            named = exp.Identifier(this=name).update_positions(function)
            return self.expression(
                WindowedTable(this=table, function=named, partition=partition, time=time, expressions=ordered)
            )

        def _parse_argument_name(self) -> str | None:
            """`SIZE => …`; arguments after the time may then stand in any order."""
            if self._next is None or self._next.token_type != TokenType.FARROW:
                return None
            name = str(self._curr.text).upper()
            if name not in _ARGUMENTS and name not in _AFTER_PARTITION and name != "DATA":
                self.raise_error(f"not an argument of a window: {name}")
            self._advance(2)
            return name

        def _parse_interval(self, *args: Any, **options: Any) -> Any:
            """`SECOND(3)`, a unit with its digits, is the unit."""
            node = super()._parse_interval(*args, **options)
            if isinstance(node, exp.Interval) and isinstance(unit := node.args.get("unit"), exp.Anonymous):
                node.set("unit", exp.Var(this=str(unit.this).upper()))
            return node

        def _parse_rounding(self, name: str) -> exp.Expression:
            """`FLOOR(ts TO HOUR)` beside the functions of numbers."""
            args = self._parse_csv(self._parse_assignment)
            if self._match_text_seq("TO"):
                unit = self._parse_var(any_token=True)
                args = [exp.Literal.string(unit.name.lower() if unit else ""), *args]
                name += "_to"
            return self.expression(exp.Anonymous(this=name, expressions=args))

        def _parse_after_unit(self, name: str) -> exp.Expression:
            """`TIMESTAMPDIFF(HOUR, a, b)`: the unit becomes a text."""
            unit = self._parse_var(any_token=True)
            self._match(TokenType.COMMA)
            args = [exp.Literal.string(unit.name.lower() if unit else ""), *self._parse_csv(self._parse_assignment)]
            return self.expression(exp.Anonymous(this=name, expressions=args))


def parse_query(text: str) -> exp.Expression:
    """The tree of one query. Raises SqlFault."""
    if not text.strip():
        raise SqlFault("the query is empty")
    if len(text) > TEXT_LENGTH_MAX:
        raise SqlFault(f"the query is {len(text)} characters long; at most {TEXT_LENGTH_MAX} are allowed")
    try:
        trees = [tree for tree in sqlglot.parse(text, read=FlinkSql) if tree is not None]
    except ParseError as error:
        raise _syntax_fault(text, error) from None
    except SqlglotError:
        raise SqlFault("not a SQL query: a quote or a comment is not closed") from None
    except RecursionError:
        raise SqlFault("the query is nested too deeply") from None
    if len(trees) != 1:
        raise SqlFault("only one query can stand here", offset=_second_query(text))
    tree = cast(exp.Expression, trees[0])
    if not isinstance(tree, exp.Query):
        raise SqlFault("not a query: write SELECT … FROM …", hint="streams and sinks are declared in the file")
    if _depth(tree) > _DEPTH_MAX:
        raise SqlFault(f"the query is nested deeper than {_DEPTH_MAX} levels")
    return tree


def tables_of(text: str) -> list[tuple[str, int]]:
    """The streams a query reads, each once, and where in the text it is named first. Raises SqlFault."""
    found: dict[str, int] = {}
    tree = parse_query(text)
    _collect(tree, frozenset(), found)
    return list(found.items())


def stream_name(table: exp.Table) -> str:
    """The name of a source, a step or a side output (`step.late`)."""
    return ".".join(part.name for part in table.parts)


def _collect(node: exp.Expression, common: frozenset[str], found: dict[str, int]) -> None:
    """Tables below `node` that are no common table expressions."""
    with_ = node.args.get("with_")
    if with_ is not None:
        for cte in with_.expressions:
            _collect(cte.this, common, found)
            common |= {cte.alias}
    if isinstance(node, exp.Table) and isinstance(node.this, exp.Identifier):
        name = stream_name(node)
        if name not in common:
            found.setdefault(name, node.parts[0].meta.get("start", 0))
    for child in node.iter_expressions():
        if child is not with_:
            _collect(child, common, found)


def _depth(tree: exp.Expression) -> int:
    level, deepest = [tree], 0
    while level:
        deepest += 1
        level = [child for node in level for child in node.iter_expressions()]
    return deepest


def _second_query(text: str) -> int:
    for token in sqlglot.tokenize(text, read=FlinkSql):
        if token.token_type == TokenType.SEMICOLON:
            return int(token.start)
    return 0


def _syntax_fault(text: str, error: ParseError) -> SqlFault:
    details = error.errors[0] if error.errors else {}
    token, said = str(details.get("highlight") or ""), str(details.get("description") or "")
    offset = _offset(text, details.get("line"), details.get("col"), len(token))
    if said.startswith("not a window function"):
        return SqlFault(
            f"unknown table function {token!r}", offset=offset, hint=f"there are {', '.join(WINDOW_FUNCTIONS)}"
        )
    if said == "Expecting DESCRIPTOR":
        hint = "TABLE(TUMBLE(TABLE bid, DESCRIPTOR(rowtime), INTERVAL '10' SECOND))"
        return SqlFault("DESCRIPTOR(…) names the event time", offset=offset, hint=hint)
    if not token:
        return SqlFault("not a SQL query: it ends too early", offset=len(text.rstrip()))
    if not text[offset + len(token) :].strip():
        return SqlFault(f"not a SQL query: something is missing after {token!r}", offset=offset)
    return SqlFault(f"not a SQL query: unexpected {token!r}", offset=offset)


def _offset(text: str, line: int | None, column: int | None, token_length: int) -> int:
    """sqlglot gives the line and the column of the token's last character, both from 1."""
    if line is None or column is None:
        return 0
    before = text.split("\n")[: line - 1]
    return max(0, sum(len(previous) + 1 for previous in before) + column - token_length)
