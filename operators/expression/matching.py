"""Patterns: SQL's `like` and regular expressions, both run by an engine whose time is linear in the text."""

from __future__ import annotations

import re

import polars as pl

from operators.expression.error import ExpressionError
from operators.expression.value import BOOLEAN, Value


def like(text: Value, pattern: str, escape: str | None, *, ignore_case: bool) -> Value:
    """`text like pattern`: `%` is any text, `_` one character; no escape character unless given."""
    if escape is not None and len(escape) != 1:
        raise ExpressionError(f"the escape of like is one character, not {escape!r}")
    parts = _tokens(pattern, escape)
    if not ignore_case and (plain := _without_regex(text.expr, parts)) is not None:
        return Value(plain, BOOLEAN)
    body = "".join(_wildcard(part) if part in ("%", "_") and wild else re.escape(part) for part, wild in parts)
    flags = "(?is)" if ignore_case else "(?s)"
    return Value(text.expr.str.contains(f"{flags}^{body}$"), BOOLEAN)


def check_regex(pattern: str) -> int:
    """How many groups the pattern has. Raises ExpressionError for a broken one."""
    probe = pl.Series([""], dtype=pl.String())
    try:
        probe.str.contains(pattern, strict=True)
        groups = probe.str.extract_groups(pattern).dtype
    except pl.exceptions.PolarsError as error:
        lines = [line for line in str(error).splitlines() if line.startswith("error:")]
        reason = lines[0].removeprefix("error: ") if lines else "look-around and back-references do not exist"
        raise ExpressionError(f"{pattern!r} is not a regular expression: {reason}") from None
    return len(groups.fields) if isinstance(groups, pl.Struct) else 0


def replacement(text: str) -> str:
    """`$1` names group 1 whatever follows it (the engine would read `$1a` as the group named `1a`)."""
    return re.sub(r"\$(\d+)", r"${\1}", text)


def _tokens(pattern: str, escape: str | None) -> list[tuple[str, bool]]:
    """(character, whether it is a wildcard), escapes resolved."""
    tokens: list[tuple[str, bool]] = []
    characters = iter(pattern)
    for character in characters:
        if escape is not None and character == escape:
            escaped = next(characters, None)
            if escaped not in ("%", "_", escape):
                raise ExpressionError(f"in the pattern {pattern!r} {escape!r} stands before neither % nor _")
            tokens.append((escaped, False))
        else:
            tokens.append((character, character in "%_"))
    return tokens


def _wildcard(character: str) -> str:
    return ".*" if character == "%" else "."


def _without_regex(text: pl.Expr, parts: list[tuple[str, bool]]) -> pl.Expr | None:
    """The usual patterns `abc`, `abc%`, `%abc` and `%abc%` as plain searches."""
    leading = bool(parts) and parts[0] == ("%", True)
    inner = parts[1:] if leading else parts
    trailing = bool(inner) and inner[-1] == ("%", True)
    inner = inner[:-1] if trailing else inner
    if any(wild for _, wild in inner):
        return None
    plain = pl.lit("".join(character for character, _ in inner), dtype=pl.String())
    if leading and trailing:
        return text.str.contains(plain, literal=True)
    if leading:
        return text.str.ends_with(plain)
    if trailing:
        return text.str.starts_with(plain)
    return text == plain
