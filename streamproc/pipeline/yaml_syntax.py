"""What is wrong with a text that is no YAML, in words and at a place that help its writer.

The parser says where it could not go on and what it expected there; the fault often lies earlier.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import yaml

Place = tuple[int, int]  # line and column, from 1


class SyntaxFault(NamedTuple):
    place: Place
    message: str
    hint: str | None


def place_of(mark: Any) -> Place:
    """Where a mark of the parser stands."""
    return (mark.line + 1, mark.column + 1)


def syntax_fault(error: yaml.MarkedYAMLError, text: str) -> SyntaxFault:
    """The parser's words, or plainer ones where it is clear what lies behind them."""
    problem, at, opened = error.problem or "it cannot be read", error.problem_mark, error.context_mark
    lines = text.splitlines()
    line, column = place_of(at) if at is not None else (1, 1)
    written = lines[line - 1] if line <= len(lines) else ""
    hint = _syntax_hint(problem, written)
    if opened is not None and at is not None and opened.line < at.line:
        opening = lines[opened.line]
        if "quoted scalar" in (error.context or ""):
            return _invalid(place_of(opened), "a quote is not closed")
        if problem.startswith("expected ',' or") and _indent(written) <= _indent(opening):
            return _invalid(place_of(opened), f"'{opening[opened.column]}' is not closed")
    if "'<stream end>'" in problem:
        return _invalid((line, column), "a bracket or brace is not closed")
    if "mapping values are not allowed" in problem and ":" not in written[: column - 1].strip():
        return _misplaced_name(lines, line)
    if "expected <block end>" in problem:
        if "'<scalar>'" in problem:
            meaning = "a text that begins with a quote needs quotes around all of it, and every quote its end"
            return _invalid((line, column), "there is more text behind a closing quote", meaning)
        if "'<block" in problem or "'?'" in problem or "'-'" in problem:
            return _misplaced_name(lines, line)
        if written[column - 1 : column] in ("}", "]"):
            return _invalid((line, column), f"'{written[column - 1]}' closes nothing that is open")
    return _invalid((line, column), problem, hint)


def _invalid(place: Place, problem: str, hint: str | None = None) -> SyntaxFault:
    return SyntaxFault(place, f"is not valid YAML: {problem}", hint)


def _misplaced_name(lines: list[str], line: int) -> SyntaxFault:
    """A name where none can begin: it is not indented like its neighbours, or the one before lacks its colon."""
    before = next((n for n in range(line - 1, 0, -1) if lines[n - 1].split("#")[0].strip()), 0)
    above = lines[before - 1].split("#")[0].strip() if before else ""
    if above and ":" not in above and not above.startswith("-"):
        return _invalid((before, _indent(lines[before - 1]) + 1), f"a ':' is missing after '{above[:40]}'")
    message = "the indentation of this line fits none above"
    return _invalid((line, _indent(lines[line - 1]) + 1), message, "names of one level begin in the same column")


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _syntax_hint(problem: str, written: str) -> str | None:
    """What usually lies behind the parser's words."""
    if "'\\t'" in problem or written.startswith("\t"):
        return "YAML indents with spaces, not tabs"
    if "${" in written:
        return 'a reference needs quotes here: "${env:NAME}"'
    if "*." in written or "alias" in problem:
        return 'a text beginning with * needs quotes: "*.errors"'
    if "mapping values are not allowed" in problem:
        return "a text that holds ': ' needs quotes"
    if "could not find expected ':'" in problem:
        return "a ':' is missing, or a text needs quotes"
    if "expected ',' or" in problem:
        return "a comma, bracket or brace is missing, or a text that holds one needs quotes"
    if "cannot start any token" in problem:
        return "a text that begins with this character needs quotes"
    return None
