"""The table of scalar functions: what each takes is checked before it is built.

A signature is written as in the documentation: `text, int, [int]`; brackets mark what may be left out,
`…` what may be repeated, `'text'` and `'int'` a literal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import polars as pl

from operators.expression.arithmetic import Guard
from operators.expression.error import ExpressionError
from operators.expression.value import BOOLEAN, FLOAT64, INT64, STRING, TIMESTAMP, Value, type_name

_NO_CLOCK: Final = "results must not depend on when they are computed; use the event time column"
_NO_CHANCE: Final = "results must be the same when records are processed again after a failure"
REFUSED: Final[dict[str, str]] = {
    **dict.fromkeys(
        (
            "now",
            "current_timestamp",
            "current_date",
            "current_time",
            "current_datetime",
            "current_row_timestamp",
            "localtime",
            "localtimestamp",
            "unix_timestamp",
            "proctime",
            "today",
        ),
        _NO_CLOCK,
    ),
    **dict.fromkeys(("rand", "random", "rand_integer", "uuid", "gen_random_uuid"), _NO_CHANCE),
    "log": "its base differs between databases; write ln(x), log10(x) or log2(x)",
}


@dataclass(frozen=True, slots=True)
class Call:
    """One call: checked arguments, and the guard for what may raise at run time."""

    name: str
    args: Sequence[Value]
    guard: Guard

    def __getitem__(self, index: int) -> pl.Expr:
        return self.args[index].expr

    def __len__(self) -> int:
        return len(self.args)

    def text(self, index: int) -> str:
        """The text literal at `index`."""
        constant = self.args[index].constant
        assert isinstance(constant, str)
        return constant

    def integer(self, index: int, default: int) -> int:
        """The integer literal at `index`, or `default` where it was left out."""
        if index >= len(self.args):
            return default
        constant = self.args[index].constant
        assert isinstance(constant, int)
        return constant


Build = Callable[[Call], Value]


@dataclass(frozen=True, slots=True)
class Function:
    name: str
    signature: str
    build: Build

    @property
    def parameters(self) -> list[str]:
        return [part.strip() for part in self.signature.split(",")] if self.signature else []


FUNCTIONS: Final[dict[str, Function]] = {}


def function(signature: str, *names: str) -> Callable[[Build], Build]:
    """Register a function under its names (the first is the one messages use)."""

    def register(build: Build) -> Build:
        for name in names:
            assert name not in FUNCTIONS, name
            FUNCTIONS[name] = Function(names[0], signature, build)
        return build

    return register


def call_function(name: str, args: Sequence[Value], guard: Guard) -> Value:
    """The call of a registered function. Raises ExpressionError for wrong arguments."""
    found = FUNCTIONS[name]
    kinds = _kinds_of_arguments(found.parameters, len(args))
    usage = f"{name}({found.signature})"
    if kinds is None:
        raise ExpressionError(f"{usage} is given {len(args)} arguments")
    checked = [_check(usage, i, arg, kind) for i, (arg, kind) in enumerate(zip(args, kinds, strict=True), start=1)]
    return found.build(Call(name, checked, guard))


def _kinds_of_arguments(parameters: list[str], count: int) -> list[str] | None:
    """The parameter kind of each of `count` arguments; None when they are too few or too many."""
    required = [p for p in parameters if not p.startswith("[") and p != "…"]
    kinds = [p.strip("[]") for p in parameters if p != "…"]
    if parameters and parameters[-1] == "…" and count > len(kinds):
        kinds += [kinds[-1]] * (count - len(kinds))
    return kinds[:count] if len(required) <= count <= len(kinds) else None


def _check(usage: str, position: int, arg: Value, kind: str) -> Value:
    if kind.startswith("'"):
        wanted: type = str if kind == "'text'" else int
        if not isinstance(arg.constant, wanted) or isinstance(arg.constant, bool):
            raise ExpressionError(f"{usage}: argument {position} must be written out, not computed")
        return arg
    if arg.is_null and kind in _NULL_AS:
        return Value(arg.expr.cast(_NULL_AS[kind]), _NULL_AS[kind])
    if kind == "timestamp" and arg.dtype == pl.Date():
        return Value(arg.expr.cast(TIMESTAMP), TIMESTAMP)
    if not _IS[kind](arg):
        raise ExpressionError(f"{usage}: argument {position} is {type_name(arg.dtype)}")
    return arg


_IS: Final[dict[str, Callable[[Value], bool]]] = {
    "text": lambda value: value.dtype == STRING,
    "int": lambda value: value.is_integer,
    "number": lambda value: value.is_number,
    "boolean": lambda value: value.dtype == BOOLEAN,
    "timestamp": lambda value: value.is_timestamp,
    "list": lambda value: isinstance(value.dtype, pl.List),
    "any": lambda value: True,
}
_NULL_AS: Final[dict[str, pl.DataType]] = {
    "text": STRING,
    "int": INT64,
    "number": FLOAT64,
    "boolean": BOOLEAN,
    "timestamp": TIMESTAMP,
}
