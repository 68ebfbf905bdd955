"""A refused expression says what is wrong, where, and what was probably meant."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.expression import ExpressionError, Scalar, compile_scalar

SCHEMA: dict[str, pl.DataType] = {
    "country": pl.String(),
    "amount": pl.Float64(),
    "id": pl.Int64(),
    "ts": pl.Datetime("ms", "UTC"),
    "st": pl.Struct({"field": pl.Int64()}),
    "price": pl.Decimal(10, 2),
}


def refused(text: str) -> ExpressionError:
    with pytest.raises(ExpressionError) as caught:
        compile_scalar(text, SCHEMA)
    return caught.value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("contry = 'FR'", "unknown column 'contry'; did you mean 'country'?"),
        ("uper(country)", "unknown function 'uper'; did you mean 'upper'?"),
        ("st.feild", "unknown field 'feild'; did you mean 'field'?"),
        ("cast(id as int46)", "unknown type 'int46'; did you mean 'int64'?"),
        ("date_trunc('minut', ts)", "unknown unit of time 'minut'; did you mean 'minute'?"),
        ('country = "FR"', "unknown column 'FR'; text is written in single quotes: 'FR'"),
        ("sum(amount) + 1", "aggregate sum(…) is not allowed here; aggregates stand under `aggregate`"),
        (
            "country > 5",
            "cannot compare country > 5: string and int64 do not go together; "
            "write cast(… as float64) or cast(… as string)",
        ),
        ("id and true", "and takes a boolean, but id is int64"),
        ("country + country", "string + string is not defined; text is joined with ||"),
        ("country || id", "|| joins text, not int64; write cast(… as string)"),
        ("ts + 5", "timestamp + int64 is not defined; write interval '5' minute"),
        ("cast(id as timestamp)",
         "cannot cast int64 to timestamp: write to_timestamp(seconds) or epoch_ms(milliseconds)"),
        ("upper(id)", "upper(text): argument 1 is int64"),
        ("upper(country, country)", "upper(text) is given 2 arguments"),
        ("ts > 'yesterday'", "'yesterday' is not a timestamp: write 2026-01-31T12:00:00Z"),
        ("regexp_like(country, '(')", "'(' is not a regular expression: unclosed group"),
        ("null", "null alone has no type; write cast(null as string)"),
        ("ts - ts", "an interval cannot be a column; write extract(epoch from …) for its seconds"),
        ("now()",
         "now(…) is not available: results must not depend on when they are computed; use the event time column"),
        ("id +", "not a SQL expression: something is missing after '+'"),
        ("id amount", "not a SQL expression: unexpected 'amount'"),
        ("country = 'FR", "not a SQL expression: a quote or a comment is not closed"),
        ("  ", "the expression is empty"),
        ("exists(select 1)", "a subquery is not supported in an expression"),
        ("case when id > 1 then 1 else 'x' end",
         "the results of case: int64 and string do not go together; write cast(… as float64) or cast(… as string)"),
    ],
)  # fmt: skip
def test_the_message_says_what_to_do(text: str, message: str) -> None:
    error = refused(text)
    assert str(error) == message
    assert error.acts == "user"
    assert not error.retry_helps


@pytest.mark.parametrize(
    "text",
    [
        "current_timestamp",
        "current_date",
        "localtimestamp",
        "random()",
        "log(amount)",
        "select 1",
        "id; amount",
        "id as x",
        "*",
        "?",
        ":name",
        "drop table x",
        "sum(amount) over ()",
        "id in (select 1)",
        "cast(country as varchar(3))",
        "cast(price as decimal)",
        "round(amount, -1)",
        "country like country",
        "99999999999999999999",
        "interval '1' fortnight",
        "ts + interval '99999999999999999999' day",
        "ts + interval '1000000' month",
        "st = 1",
        "st < st",
        "st[1]",
        "id.x",
        "greatest()",
        "regexp_extract(country, '(a)', 2)",
        "price * 0.0000000000000000000000000000000000000001",
        "strftime(ts, '%Q')",
        "date_format(ts, 'YYYY')",
        "lpad(country, 1000000, 'x')",
        "array[1, 2]",
        "(" * 5_000 + "id" + ")" * 5_000,
        " + ".join(["id"] * 1_000),
        "id + " * 5_000 + "id",
    ],
)
def test_what_is_refused_is_refused_politely(text: str) -> None:
    assert str(refused(text))


@pytest.mark.parametrize(
    ("text", "offset"),
    [("id > 1 and contry = 'FR'", 11), ("id + uper(country)", 5), ("id > 1 and\n  contry = 1", 13), ("id amount", 3)],
)
def test_the_offset_points_into_the_text(text: str, offset: int) -> None:
    assert refused(text).offset == offset


def test_the_suggestion_is_a_field_of_its_own() -> None:
    assert refused("COUNTRY = 'FR'").suggestion == "country"
    assert refused("zzz = 1").suggestion is None


ALL_WORDS = """id country amount ts price ( ) + - * / % = < and or not is null case when then else end cast as int like
in between 'x' 1 0.5 , . [ ] interval extract from :: || upper coalesce ' " -- ÿ"""
WORDS = ALL_WORDS.split()


@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=9))
@settings(max_examples=150, deadline=None)
def test_any_text_compiles_or_is_refused(words: list[str]) -> None:
    try:
        scalar = compile_scalar(" ".join(words), SCHEMA)
    except ExpressionError:
        return
    assert isinstance(scalar, Scalar)
    frame = pl.DataFrame(schema=SCHEMA)
    assert frame.select(scalar.expr.alias("result")).schema == {"result": scalar.dtype}
