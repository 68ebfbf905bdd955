"""What expressions mean: one line of SQL, the column it gives over four rows, and its type."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import polars as pl
import pytest

from operators.expression import ExpressionError, compile_predicate, compile_scalar

NOON = datetime(2026, 1, 31, 12, 5, 7, 123000, tzinfo=UTC)
SCHEMA: dict[str, pl.DataType] = {
    "a": pl.Int64(),
    "i": pl.Int32(),
    "tiny": pl.Int8(),
    "f": pl.Float64(),
    "f32": pl.Float32(),
    "s": pl.String(),
    "b": pl.Boolean(),
    "ts": pl.Datetime("ms", "UTC"),
    "us": pl.Datetime("us", "UTC"),
    "d": pl.Date(),
    "x": pl.Decimal(10, 2),
    "l": pl.List(pl.Int64()),
    "st": pl.Struct({"u": pl.Int64(), "v": pl.Struct({"w": pl.String()})}),
    "raw": pl.Binary(),
    "offset": pl.Int64(),
    "key": pl.String(),
    "odd name": pl.Int64(),
}
ROWS = pl.DataFrame(
    {
        "a": [7, -7, None, 0],
        "i": [1, -2, 3, None],
        "tiny": [1, 127, None, -128],
        "f": [1.5, -2.5, None, 0.0],
        "f32": [0.5, 1.0, 2.0, None],
        "s": ["héllo", "12", None, "a%b"],
        "b": [True, False, None, True],
        "ts": [NOON, NOON, NOON, None],
        "us": [NOON.replace(microsecond=1), NOON, NOON, None],
        "d": [date(2026, 1, 4)] * 4,
        "x": [Decimal("1.25"), Decimal("-3.50"), None, Decimal("0.00")],
        "l": [[1, 2], [], None, [3]],
        "st": [{"u": 1, "v": {"w": "q"}}] * 4,
        "raw": [b"ok", b"", None, b"x"],
        "offset": [1, 2, 3, 4],
        "key": ["k", "k", "k", None],
        "odd name": [1, 2, 3, 4],
    },
    schema=SCHEMA,
)


def values(text: str) -> list[Any]:
    """The column the expression gives; its type is always the one promised."""
    scalar = compile_scalar(text, SCHEMA)
    column = ROWS.with_columns(scalar.expr.alias("result")).get_column("result")
    assert column.dtype == scalar.dtype
    assert scalar.columns <= set(SCHEMA)
    return column.to_list()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a / 2", [3, -3, None, 0]),
        ("7 / a", [1, -1, None, None]),
        ("a % 3", [1, -1, None, 0]),
        ("a % -3", [1, -1, None, 0]),
        ("mod(a, 0)", [None] * 4),
        ("f / 0", [float("inf"), float("-inf"), None, pytest.approx(float("nan"), nan_ok=True)]),
        ("f % 2", [1.5, -0.5, None, 0.0]),
        ("-a", [-7, 7, None, 0]),
        ("1 - -1", [2] * 4),
        ("a + null", [None] * 4),
        ("1 + 2 * 3 - 4 / 2", [5] * 4),
        ("0.1 + 0.2", [pytest.approx(0.3)] * 4),
        ("a * 0.5", [3.5, -3.5, None, 0.0]),
        ("x * 0.908", [Decimal("1.13500"), Decimal("-3.17800"), None, Decimal(0)]),
        ("x * x", [Decimal("1.5625"), Decimal("12.25"), None, Decimal(0)]),
        ("x + 1", [Decimal("2.25"), Decimal("-2.50"), None, Decimal("1.00")]),
        ("x - a", [Decimal("-5.75"), Decimal("3.50"), None, Decimal(0)]),
        ("x / 3", [Decimal("0.416667"), Decimal("-1.166667"), None, Decimal(0)]),
        ("2 / x", [Decimal("1.6"), Decimal("-0.571429"), None, None]),
        ("x % 1", [Decimal("0.25"), Decimal("-0.50"), None, Decimal(0)]),
        ("x * f", [1.875, 8.75, None, 0.0]),
        ("x > 1.2", [True, False, None, False]),
        ("abs(a)", [7, 7, None, 0]),
        ("ceil(f)", [2.0, -2.0, None, 0.0]),
        ("floor(x)", [Decimal(1), Decimal(-4), None, Decimal(0)]),
        ("round(f)", [2.0, -3.0, None, 0.0]),
        ("round(x, 1)", [Decimal("1.30"), Decimal("-3.50"), None, Decimal(0)]),
        ("sign(a)", [1, -1, None, 0]),
        ("sqrt(16)", [4.0] * 4),
        ("power(2, 10)", [1024.0] * 4),
        ("log10(1000)", [3.0] * 4),
        ("log2(8)", [3.0] * 4),
        ("ln(exp(1))", [1.0] * 4),
    ],
)
def test_arithmetic(text: str, expected: list[Any]) -> None:
    assert values(text) == expected


@pytest.mark.parametrize(
    ("text", "dtype"),
    [
        ("i + 1", pl.Int32()),
        ("i + 3000000000", pl.Int64()),
        ("tiny + i", pl.Int32()),
        ("tiny + 1000", pl.Int16()),
        ("1", pl.Int64()),
        ("f32 + 1", pl.Float32()),
        ("f32 + 16777217", pl.Float64()),
        ("f32 * 0.5", pl.Float64()),
        ("i * f32", pl.Float64()),
        ("x + 1", pl.Decimal(38, 2)),
        ("x * 0.908", pl.Decimal(38, 5)),
        ("coalesce(i, 0)", pl.Int32()),
        ("coalesce(tiny, 1000)", pl.Int16()),
        ("if(b, 1, 0)", pl.Int64()),
        ("if(b, x, 0)", pl.Decimal(38, 2)),
        ("if(b, ts, us)", pl.Datetime("us", "UTC")),
        ("ts + interval '1' second", pl.Datetime("ms", "UTC")),
        ("ts + interval '1' microsecond", pl.Datetime("us", "UTC")),
        ("cast(a as decimal(12, 3))", pl.Decimal(12, 3)),
        ("cast(a as int8)", pl.Int8()),
        ("cast(a as double)", pl.Float64()),
        ("cast(s as timestamp_ms)", pl.Datetime("ms", "UTC")),
        ("cast(s as timestamp(3))", pl.Datetime("ms", "UTC")),
        ("cast(s as varchar)", pl.String()),
        ("cast(null as bytes)", pl.Binary()),
    ],
)
def test_a_literal_takes_the_type_of_what_it_meets_and_columns_only_widen(text: str, dtype: pl.DataType) -> None:
    assert compile_scalar(text, SCHEMA).dtype == dtype


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a = 7 and b", [True, False, None, False]),
        ("a <> 7 or b", [True, True, None, True]),
        ("not b", [False, True, None, False]),
        ("b and null", [None, False, None, None]),
        ("a in (7, 8)", [True, False, None, False]),
        ("a in (7, null)", [True, None, None, None]),
        ("a not in (7, null)", [False, None, None, None]),
        ("i in (1, 2.5)", [True, False, False, None]),
        ("a in (i, 7)", [True, False, None, None]),
        ("a between 0 and 10", [True, False, None, True]),
        ("a not between 0 and 10", [False, True, None, False]),
        ("b is true", [True, False, False, True]),
        ("b is not true", [False, True, True, False]),
        ("b is not false", [True, False, True, True]),
        ("a is null", [False, False, True, False]),
        ("a is not null", [True, True, False, True]),
        ("a is distinct from 7", [False, True, True, True]),
        ("a is not distinct from null", [False, False, True, False]),
        ("a = null", [None] * 4),
        ("f >= 0", [True, False, None, True]),
        ("s = '12'", [False, True, None, False]),
        ("raw = cast('ok' as bytes)", [True, False, None, False]),
        ("ts > '2026-01-31'", [True, True, True, None]),
        ("ts = us", [False, True, True, None]),
        ("d = '2026-01-04'", [True] * 4),
        ("ts between date '2026-01-01' and timestamp '2026-02-01 00:00:00'", [True, True, True, None]),
        ("s like 'h_l%'", [True, False, None, False]),
        ("s like '%!%%' escape '!'", [False, False, None, True]),
        ("s not like '%!%%' escape '!'", [True, True, None, False]),
        ("s not like '%l%'", [False, True, None, True]),
        ("s ilike 'HÉ%'", [True, False, None, False]),
        ("s like '%'", [True, True, None, True]),
        ("s like 'a.b'", [False, False, None, False]),
        ("regexp_like(s, '^[0-9]+$')", [False, True, None, False]),
    ],
)
def test_logic_has_three_values(text: str, expected: list[Any]) -> None:
    assert values(text) == expected
    assert compile_predicate(text, SCHEMA).dtype == pl.Boolean()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("case when a > 0 then 'pos' when a < 0 then 'neg' end", ["pos", "neg", None, None]),
        ("case a when 7 then 'seven' else s end", ["seven", "12", None, "a%b"]),
        ("if(b, 1, 0)", [1, 0, 0, 1]),
        ("coalesce(a, i, 0)", [7, -7, 3, 0]),
        ("coalesce(null, s, 'none')", ["héllo", "12", "none", "a%b"]),
        ("nullif(a, 0)", [7, -7, None, None]),
        ("greatest(a, i, 1)", [7, 1, None, None]),
        ("least(f, a)", [1.5, -7.0, None, 0.0]),
        ("cast(f as int64)", [1, -2, None, 0]),
        ("try_cast(s as int)", [None, 12, None, None]),
        ("cast(b as int)", [1, 0, None, 1]),
        ("cast('Yes' as boolean)", [True] * 4),
        ("try_cast('12026-01-31' as date)", [None] * 4),
        ("try_cast(s as boolean)", [None, None, None, None]),
        ("cast(a as string)", ["7", "-7", None, "0"]),
        ("cast(b as string)", ["true", "false", None, "true"]),
        ("cast(ts as string)", ["2026-01-31T12:05:07.123Z"] * 3 + [None]),
        ("cast(d as string)", ["2026-01-04"] * 4),
        ("cast(raw as string)", ["ok", "", None, "x"]),
        ("cast(ts as date)", [date(2026, 1, 31)] * 3 + [None]),
        ("cast(x as int)", [1, -3, None, 0]),
        ("s::string || '!'", ["héllo!", "12!", None, "a%b!"]),
    ],
)
def test_conditionals_and_casts(text: str, expected: list[Any]) -> None:
    assert values(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("upper(s)", ["HÉLLO", "12", None, "A%B"]),
        ("char_length(s)", [5, 2, None, 3]),
        ("substring(s, 2, 3)", ["éll", "2", None, "%b"]),
        ("substring(s from 2 for 1)", ["é", "2", None, "%"]),
        ("substr(s, -2)", ["lo", "12", None, "%b"]),
        ("substr(s, -3, 2)", ["ll", "", None, "a%"]),
        ("left(s, 2)", ["hé", "12", None, "a%"]),
        ("right(s, 2)", ["lo", "12", None, "%b"]),
        ("left(s, -1)", ["", "", None, ""]),
        ("lpad(s, 4, 'xy')", ["héll", "xy12", None, "xa%b"]),
        ("rpad(s, 4, '.')", ["héll", "12..", None, "a%b."]),
        ("reverse(s)", ["olléh", "21", None, "b%a"]),
        ("position('l' in s)", [3, 0, None, 0]),
        ("strpos(s, 'o')", [5, 0, None, 0]),
        ("split_part(s, 'l', 3)", ["o", "", None, ""]),
        ("split_part(s, 'l', -1)", ["o", "12", None, "a%b"]),
        ("split_index(s, 'l', 0)", ["hé", "12", None, "a%b"]),
        ("split_index(s, 'l', 9)", [None] * 4),
        ("replace(s, 'l', '$1')", ["hé$1$1o", "12", None, "a%b"]),
        ("regexp_extract(s, '(.)(l+)', 2)", ["ll", None, None, None]),
        ("regexp_extract(s, 'l+')", ["ll", None, None, None]),
        ("regexp_replace(s, '(l+)', '<$1a>')", ["hé<lla>o", "12", None, "a%b"]),
        ("trim('  x ')", ["x"] * 4),
        ("trim(leading 'h' from s)", ["éllo", "12", None, "a%b"]),
        ("concat(s, '-', s)", ["héllo-héllo", "12-12", None, "a%b-a%b"]),
        ("concat_ws('-', s, 'x', null)", ["héllo-x", "12-x", "x", "a%b-x"]),
        ("repeat(s, 2)", ["héllohéllo", "1212", None, "a%ba%b"]),
        ("repeat(s, 0)", ["", "", None, ""]),
        ("initcap('one TWO-three it''s')", ["One Two-Three It'S"] * 4),
        ("translate(s, 'hl1l', 'HL')", ["HéLLo", "2", None, "a%b"]),
        ("starts_with(s, 'h')", [True, False, None, False]),
        ("contains(s, '%')", [False, False, None, True]),
        ("'it''s'", ["it's"] * 4),
    ],
)
def test_text(text: str, expected: list[Any]) -> None:
    assert values(text) == expected


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("extract(year from ts)", 2026),
        ("extract(month from d)", 1),
        ("extract(dow from d)", 1),  # a Sunday
        ("extract(doy from ts)", 31),
        ("extract(second from ts)", 7),
        ("extract(epoch from ts)", 1769861107),
        ("extract(epoch from (ts - timestamp '2026-01-31T00:00:00Z'))", 43507),
        ("extract(epoch from timestamp '1969-12-31 23:59:59.5')", -1),
        ("hour(ts)", 12),
        ("date_trunc('minute', ts)", NOON.replace(second=0, microsecond=0)),
        ("date_trunc('month', d)", datetime(2026, 1, 1, tzinfo=UTC)),
        ("ts + interval '5' minute", NOON.replace(minute=10)),
        ("ts - interval '5 minutes'", NOON.replace(minute=0)),
        ("ts + interval '1' month", NOON.replace(month=2, day=28)),
        ("d + interval '1' day", date(2026, 1, 5)),
        ("d - interval '1' hour", datetime(2026, 1, 3, 23, tzinfo=UTC)),
        ("d - date '2026-01-01'", 3),
        ("ts - ts < interval '1' second", True),
        ("date_format(ts, 'yyyy-MM-dd HH:mm:ss.SSS')", "2026-01-31 12:05:07.123"),
        ("date_format(ts, 'EEE, d MMM yy H:m:s DDD')", "Sat, 31 Jan 26 12:5:7 031"),
        ("parse_timestamp('31.01.2026 12:05', 'dd.MM.yyyy HH:mm')", NOON.replace(second=0, microsecond=0)),
        ("parse_timestamp('31.01.2026', 'dd.MM.yyyy')", datetime(2026, 1, 31, tzinfo=UTC)),
        ("parse_timestamp('yesterday', 'dd.MM.yyyy')", None),
        ("strftime(ts, '%H')", "12"),
        ("epoch_ms(ts)", 1769861107123),
        ("epoch_ms(1769861107123)", NOON),
        ("to_timestamp(1.5)", datetime(1970, 1, 1, 0, 0, 1, 500000, tzinfo=UTC)),
        ("to_timestamp(a)", datetime(1970, 1, 1, 0, 0, 7, tzinfo=UTC)),
        ("timestamp '2026-01-31T13:05:07.123+01:00'", NOON),
        ("to_timestamp('2026-01-31 12:05:07.123')", NOON),
        ("cast(concat('2026-01-31T12:05', '') as timestamp)", NOON.replace(second=0, microsecond=0)),
        ("cast(concat('2026-01-31', '') as timestamp)", datetime(2026, 1, 31, tzinfo=UTC)),
        ("cast(concat('2026-01-31T13:05:07.123', '+01:00') as timestamp)", NOON),
        ("l[1]", 1),
        ("l[i]", 1),
        ("l[9]", None),
        ("cardinality(l)", 2),
        ("array_contains(l, 2)", True),
        ("st.u + 1", 2),
        ("st.v.w", "q"),
        ("offset + 1", 2),
        ("key", "k"),
        ('"odd name" * 2', 2),
    ],
)
def test_time_lists_structs_and_names(text: str, first: Any) -> None:
    assert values(text)[0] == first


@pytest.mark.parametrize(
    "text",
    ["tiny + 1", "tiny * 2", "-tiny", "abs(tiny)", "9223372036854775807 + offset", "cast(a as int8) * 100",
     "cast(f / 0 as int64)", "cast(s as int)", "cast(s as boolean)", "cast(s as timestamp)", "cast(300 as int8)",
     "cast(100000 + x as decimal(5, 2))"],
)  # fmt: skip
def test_what_cannot_be_computed_raises_and_is_never_another_value(text: str) -> None:
    with pytest.raises(pl.exceptions.PolarsError):
        values(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("case when tiny < 127 then tiny + 1 else tiny end", [2, 127, None, -127]),
        ("case when regexp_like(s, '^[0-9]+$') then cast(s as int64) else -1 end", [-1, 12, -1, -1]),
        ("if(s = '12', cast(s as int), 0)", [0, 12, 0, 0]),
        ("case when s <> '12' then 0 when cast(s as int) > 0 then 1 end", [0, 1, None, 0]),
        ("epoch_ms(if(offset > 2, null, to_timestamp(offset)))", [1000, 2000, None, None]),
        ("if(offset < 3, epoch_ms(to_timestamp(if(offset < 3, offset, 9000000000000))), 0)", [1000, 2000, 0, 0]),
        ("coalesce(if(s <> '12', 0, null), cast(s as int))", [0, 12, None, 0]),
    ],
)
def test_only_the_chosen_branch_can_fail(text: str, expected: list[Any]) -> None:
    assert values(text) == expected


def test_a_constant_has_as_many_rows_as_the_frame() -> None:
    assert ROWS.select(compile_scalar("1 + 1", SCHEMA).expr).height == 4
    assert ROWS.filter(compile_predicate("1 > 2", SCHEMA).expr).height == 0
    assert ROWS.clear().select(compile_scalar("'x'", SCHEMA).expr).height == 0


def test_scalars_are_compared_by_text_and_type() -> None:
    assert compile_scalar("a + 1", SCHEMA) == compile_scalar("a + 1", SCHEMA)
    assert compile_scalar("a + 1", SCHEMA) != compile_scalar("a + 2", SCHEMA)
    assert compile_scalar("a + 1", SCHEMA) != compile_scalar("a + 1", {"a": pl.Float64()})


def test_a_condition_must_be_a_boolean() -> None:
    with pytest.raises(ExpressionError, match="must be a boolean, this is int64"):
        compile_predicate("a + 1", SCHEMA)
