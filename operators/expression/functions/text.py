"""Text functions. Positions count characters from 1; null in, null out."""

from __future__ import annotations

import polars as pl

from operators.expression.error import ExpressionError
from operators.expression.functions.registry import Call, function
from operators.expression.matching import check_regex, replacement
from operators.expression.value import BOOLEAN, INT64, STRING, Value


def _text(expr: pl.Expr) -> Value:
    return Value(expr, STRING)


def _boolean(expr: pl.Expr) -> Value:
    return Value(expr, BOOLEAN)


def _integer(expr: pl.Expr) -> Value:
    return Value(expr.cast(INT64), INT64)


@function("text", "upper", "ucase")
def _upper(call: Call) -> Value:
    return _text(call[0].str.to_uppercase())


@function("text", "lower", "lcase")
def _lower(call: Call) -> Value:
    return _text(call[0].str.to_lowercase())


@function("text", "length", "char_length", "character_length", "len")
def _length(call: Call) -> Value:
    return _integer(call[0].str.len_chars())


@function("text, ['text']", "trim", "btrim")
def _trim(call: Call) -> Value:
    """Only spaces unless told otherwise, as in SQL."""
    return _text(call[0].str.strip_chars(call.text(1) if len(call) > 1 else " "))


@function("text, ['text']", "ltrim")
def _ltrim(call: Call) -> Value:
    return _text(call[0].str.strip_chars_start(call.text(1) if len(call) > 1 else " "))


@function("text, ['text']", "rtrim")
def _rtrim(call: Call) -> Value:
    return _text(call[0].str.strip_chars_end(call.text(1) if len(call) > 1 else " "))


@function("text, int, [int]", "substring", "substr")
def _substring(call: Call) -> Value:
    """From 1; 0 is taken as 1, and a negative start counts from the end, as in Flink."""
    start = call[1].cast(INT64)
    length = call[0].str.len_chars().cast(INT64)
    first = pl.when(start > 0).then(start - 1).when(start == 0).then(0).otherwise(length + start)
    if len(call) < 3:
        return _text(pl.when(first >= 0).then(call[0].str.slice(first.clip(0))).otherwise(_empty(call[0], start)))
    count = call[2].cast(INT64).clip(0)
    taken = call[0].str.slice(first.clip(0), count)
    return _text(pl.when(first >= 0).then(taken).otherwise(_empty(call[0], start, count)))


@function("text, 'text', text", "replace")
def _replace(call: Call) -> Value:
    if not call.text(1):
        return _text(call[0])
    return _text(call[0].str.replace_all(call.text(1), call[2], literal=True))


@function("text, …", "concat")
def _concat(call: Call) -> Value:
    """Null as soon as one is, like `||`."""
    return _text(pl.concat_str([arg.expr for arg in call.args], ignore_nulls=False))


@function("'text', text, …", "concat_ws")
def _concat_ws(call: Call) -> Value:
    """The texts that are not null, with the separator between them."""
    return _text(pl.concat_str([arg.expr for arg in call.args[1:]], separator=call.text(0), ignore_nulls=True))


@function("text, 'int'", "repeat")
def _repeat(call: Call) -> Value:
    count = call.integer(1, 0)
    if count > 1_000:
        raise ExpressionError(f"repeat: at most 1000 times, not {count}")
    if count <= 0:
        return _text(_empty(call[0]))
    return _text(pl.concat_str([call[0]] * count, ignore_nulls=False))


@function("text", "initcap")
def _initcap(call: Call) -> Value:
    """Every word with a capital and small letters; a word is letters and digits."""
    return _text(call[0].str.to_titlecase())


@function("text, 'text', 'text'", "translate")
def _translate(call: Call) -> Value:
    """Every character of the second text becomes the one at the same place in the third, or nothing."""
    wanted, given = call.text(1), call.text(2)
    table = {c: given[i : i + 1] for i, c in reversed(list(enumerate(wanted)))}
    return _text(call[0].str.replace_many(table) if table else call[0])


@function("text, int", "left")
def _left(call: Call) -> Value:
    return _text(call[0].str.head(call[1].cast(INT64).clip(0)))


@function("text, int", "right")
def _right(call: Call) -> Value:
    return _text(call[0].str.tail(call[1].cast(INT64).clip(0)))


@function("text, 'int', ['text']", "lpad")
def _lpad(call: Call) -> Value:
    return _text(_padding(call) + call[0].str.head(call.integer(1, 0)))


@function("text, 'int', ['text']", "rpad")
def _rpad(call: Call) -> Value:
    return _text(call[0].str.head(call.integer(1, 0)) + _padding(call))


def _padding(call: Call) -> pl.Expr:
    """What is missing to the wanted length, cut from a repeated fill."""
    width, fill = call.integer(1, 0), call.text(2) if len(call) > 2 else " "
    if not 0 <= width <= 10_000:
        raise ExpressionError(f"{call.name}: the length is 0 to 10000, not {width}")
    if not fill:
        raise ExpressionError(f"{call.name}: the fill is empty")
    missing = (width - call[0].str.len_chars().cast(INT64)).clip(0)
    return pl.lit((fill * width)[:width], dtype=STRING).str.slice(0, missing)


@function("text", "reverse")
def _reverse(call: Call) -> Value:
    return _text(call[0].str.reverse())


@function("text, text", "starts_with", "startswith")
def _starts_with(call: Call) -> Value:
    return _boolean(call[0].str.starts_with(call[1]))


@function("text, text", "ends_with", "endswith")
def _ends_with(call: Call) -> Value:
    return _boolean(call[0].str.ends_with(call[1]))


@function("text, text", "contains")
def _contains(call: Call) -> Value:
    return _boolean(call[0].str.contains(call[1], literal=True))


@function("text, text", "strpos", "instr")
def _strpos(call: Call) -> Value:
    """The first character of the first occurrence, from 1; 0 where there is none."""
    byte = call[0].str.find(call[1], literal=True)
    before = call[0].cast(pl.Binary).bin.slice(0, byte.fill_null(0)).cast(STRING)
    found = pl.when(byte.is_not_null()).then(before.str.len_chars().cast(INT64) + 1).otherwise(0)
    return Value(pl.when(call[0].is_not_null() & call[1].is_not_null()).then(found), INT64)


@function("text, 'text', 'int'", "split_part")
def _split_part(call: Call) -> Value:
    """The n-th part from 1, from the end when negative; empty where there is none."""
    index = call.integer(2, 1)
    if index == 0:
        raise ExpressionError("split_part: parts count from 1")
    parts = _split(call).list.get(index - 1 if index > 0 else index, null_on_oob=True)
    return _text(pl.when(call[0].is_not_null()).then(parts.fill_null("")))


@function("text, 'text', 'int'", "split_index")
def _split_index(call: Call) -> Value:
    """The n-th part from 0; null where there is none (Flink)."""
    if call.integer(2, 0) < 0:
        raise ExpressionError("split_index: parts count from 0")
    return _text(_split(call).list.get(call.integer(2, 0), null_on_oob=True))


def _split(call: Call) -> pl.Expr:
    if not call.text(1):
        raise ExpressionError(f"{call.name}: the separator is empty")
    return call[0].str.split(call.text(1))


@function("text, 'text'", "regexp_like", "regexp_matches", "regexp")
def _regexp_like(call: Call) -> Value:
    """Whether the pattern occurs anywhere in the text."""
    check_regex(call.text(1))
    return _boolean(call[0].str.contains(call.text(1)))


@function("text, 'text', ['int']", "regexp_extract")
def _regexp_extract(call: Call) -> Value:
    """The whole first match, or one of its groups from 1; null where there is none."""
    groups, wanted = check_regex(call.text(1)), call.integer(2, 0)
    if not 0 <= wanted <= groups:
        raise ExpressionError(f"regexp_extract: the pattern has {groups} groups, there is no group {wanted}")
    return _text(call[0].str.extract(call.text(1), wanted))


@function("text, 'text', 'text'", "regexp_replace")
def _regexp_replace(call: Call) -> Value:
    """Every match; `$1` in the replacement is group 1."""
    check_regex(call.text(1))
    return _text(call[0].str.replace_all(call.text(1), replacement(call.text(2))))


def _empty(*operands: pl.Expr) -> pl.Expr:
    """Empty text, null where an operand is."""
    known = operands[0].is_not_null()
    for operand in operands[1:]:
        known = known & operand.is_not_null()
    return pl.when(known).then(pl.lit("", dtype=STRING))
