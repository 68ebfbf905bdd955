"""The columns a `datagen` source can be asked for, each checked once and then drawn by row number.

columns:
  id:     {sequence: {start: 1, step: 1}}                           # int64
  price:  {uniform: [1, 100]}                                       # int64, both ends included
  score:  {uniform: [0.0, 1.0]}                                     # float64
  size:   {normal: [10.0, 2.5]}                                     # float64: mean, standard deviation
  colour: {choice: [red, green, blue]}                              # the type of the values
  item:   {zipf: {n: 1000, s: 1.2}}                                 # int64, 1 to n, 1 the most frequent
  at:     {time: {start: "2026-01-01T00:00:00Z", step: 100ms}}      # timestamp, ascending
  site:   {constant: paris}
  note:   {text: {length: 20}}                                      # lower-case letters
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar, Final

import numpy as np
import polars as pl

from state.failure import Actor, Failure
from streamproc.connectors.counter_random import CounterRandom, Rows
from streamproc.pipeline.spec import parse_duration

_ZIPF_N_MAX: Final = 1_000_000
_TEXT_LENGTH_MAX: Final = 10_000
_START: Final = "2026-01-01T00:00:00Z"
_TIME: Final = pl.Datetime("ms", "UTC")

Draw = Callable[[CounterRandom, int, Rows], pl.Series]


class DatagenConfigError(Failure):
    """The configuration of a `datagen` source is at fault; `path` leads to the place inside it."""

    acts: ClassVar[Actor] = "user"

    def __init__(self, path: tuple[str, ...], message: str) -> None:
        super().__init__(message)
        self.path = path
        self.message = message


@dataclass(frozen=True, slots=True)
class GeneratedColumn:
    """A column's type and how its values follow from (random streams, stream number, row numbers)."""

    dtype: pl.DataType
    draw: Draw


def parse_columns(columns: Mapping[str, Any]) -> dict[str, GeneratedColumn]:
    """Read the `columns` of a source; raises `DatagenConfigError` at the first fault."""
    if not columns:
        raise DatagenConfigError(("columns",), "at least one column is needed")
    return {name: _column(("columns", name), declared) for name, declared in columns.items()}


def _column(path: tuple[str, ...], declared: Any) -> GeneratedColumn:
    kinds = ", ".join(_KINDS)
    if not isinstance(declared, Mapping) or len(declared) != 1:
        raise DatagenConfigError(path, f"a column is written as one of {kinds}, as in {{uniform: [1, 100]}}")
    kind, options = next(iter(declared.items()))
    if kind not in _KINDS:
        raise DatagenConfigError((*path, str(kind)), f"{kind} is not a kind of column; there are {kinds}")
    return _KINDS[kind]((*path, kind), options)


def _sequence(path: tuple[str, ...], options: Any) -> GeneratedColumn:
    given = _options(path, options, {"start": 0, "step": 1})
    start, step = (_integer((*path, name), given[name]) for name in ("start", "step"))
    return GeneratedColumn(pl.Int64(), lambda _, __, rows: pl.Series(start + rows * step))


def _uniform(path: tuple[str, ...], options: Any) -> GeneratedColumn:
    low, high = _pair(path, options, "[lowest, highest]")
    if low > high:
        raise DatagenConfigError(path, f"the lowest value {low} is above the highest {high}")
    if isinstance(low, int) and isinstance(high, int):
        least, count = low, high - low + 1
        if count > 2**53 or not (low >= -(2**63) and high < 2**63):
            raise DatagenConfigError(path, "the range has more than 2^53 integers")
        return GeneratedColumn(pl.Int64(), lambda random, s, rows: pl.Series(least + random.below(s, rows, count)))
    width = float(high) - float(low)
    return GeneratedColumn(pl.Float64(), lambda random, s, rows: pl.Series(low + random.uniform(s, rows) * width))


def _normal(path: tuple[str, ...], options: Any) -> GeneratedColumn:
    mean, deviation = _pair(path, options, "[mean, standard deviation]")
    if deviation < 0:
        raise DatagenConfigError(path, "the standard deviation cannot be negative")
    return GeneratedColumn(pl.Float64(), lambda random, s, rows: pl.Series(mean + random.normal(s, rows) * deviation))


def _choice(path: tuple[str, ...], options: Any) -> GeneratedColumn:
    if not isinstance(options, Sequence) or isinstance(options, str) or not options:
        raise DatagenConfigError(path, "write the values to choose from as a list")
    values = _values(path, options)
    return GeneratedColumn(values.dtype, lambda random, s, rows: values.gather(random.below(s, rows, len(values))))


def _zipf(path: tuple[str, ...], options: Any) -> GeneratedColumn:
    given = _options(path, options, {"n": None, "s": 1.0})
    n, s = _integer((*path, "n"), given["n"]), _number((*path, "s"), given["s"])
    if not 1 <= n <= _ZIPF_N_MAX:
        raise DatagenConfigError((*path, "n"), f"n is 1 to {_ZIPF_N_MAX}")
    if s < 0:
        raise DatagenConfigError((*path, "s"), "s cannot be negative")
    weights = np.arange(1, n + 1, dtype=np.float64) ** -s
    cumulative = np.cumsum(weights / weights.sum())
    cumulative[-1] = 1.0
    return GeneratedColumn(
        pl.Int64(),
        lambda random, stream, rows: pl.Series(
            1 + np.searchsorted(cumulative, random.uniform(stream, rows), side="right").astype(np.int64)
        ),
    )


def _time(path: tuple[str, ...], options: Any) -> GeneratedColumn:
    given = _options(path, options, {"start": _START, "step": "1s"})
    try:
        step_ms = parse_duration(given["step"])
    except ValueError as error:
        raise DatagenConfigError((*path, "step"), str(error)) from error
    if step_ms < 0:
        raise DatagenConfigError((*path, "step"), "time cannot run backwards")
    start_ms = _epoch_ms((*path, "start"), given["start"])
    return GeneratedColumn(_TIME, lambda _, __, rows: pl.Series(start_ms + rows * step_ms).cast(_TIME))


def _constant(path: tuple[str, ...], options: Any) -> GeneratedColumn:
    values = _values(path, [options])
    return GeneratedColumn(values.dtype, lambda _, __, rows: values.new_from_index(0, len(rows)))


def _text(path: tuple[str, ...], options: Any) -> GeneratedColumn:
    length = _integer((*path, "length"), _options(path, options, {"length": None})["length"])
    if not 1 <= length <= _TEXT_LENGTH_MAX:
        raise DatagenConfigError((*path, "length"), f"length is 1 to {_TEXT_LENGTH_MAX}")
    return GeneratedColumn(pl.String(), lambda random, s, rows: random.letters(s, rows, length))


_KINDS: Final[dict[str, Callable[[tuple[str, ...], Any], GeneratedColumn]]] = {
    "sequence": _sequence,
    "uniform": _uniform,
    "normal": _normal,
    "choice": _choice,
    "zipf": _zipf,
    "time": _time,
    "constant": _constant,
    "text": _text,
}


def _options(path: tuple[str, ...], given: Any, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The options with defaults filled in; a default of None means that the option is needed."""
    if given is None:
        given = {}
    if not isinstance(given, Mapping):
        raise DatagenConfigError(path, f"write its options as a mapping of {', '.join(defaults)}")
    for name in given:
        if name not in defaults:
            raise DatagenConfigError((*path, str(name)), f"{name} is not an option; there are {', '.join(defaults)}")
    options = {**defaults, **given}
    for name, value in options.items():
        if value is None:
            raise DatagenConfigError(path, f"{name} is missing")
    return options


def _number(path: tuple[str, ...], value: Any) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise DatagenConfigError(path, f"{value!r} is not a number")
    return value


def _integer(path: tuple[str, ...], value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise DatagenConfigError(path, f"{value!r} is not an integer")
    return value


def _pair(path: tuple[str, ...], value: Any, meaning: str) -> tuple[int | float, int | float]:
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2:
        raise DatagenConfigError(path, f"write two numbers: {meaning}")
    return _number(path, value[0]), _number(path, value[1])


def _values(path: tuple[str, ...], values: Sequence[Any]) -> pl.Series:
    kinds = {type(value) for value in values}
    if kinds == {int, float}:
        kinds = {float}
    if len(kinds) != 1 or (kind := kinds.pop()) not in (str, int, float, bool):
        raise DatagenConfigError(path, "values are all text, all numbers or all true or false")
    if kind is int and not all(-(2**63) <= value < 2**63 for value in values):
        raise DatagenConfigError(path, "an integer does not fit 64 bits")
    return pl.Series([kind(value) for value in values])


def _epoch_ms(path: tuple[str, ...], value: Any) -> int:
    try:
        time = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    except (TypeError, ValueError) as error:
        raise DatagenConfigError(path, f"{value!r} is not an ISO-8601 time such as {_START}") from error
    return round((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * 1000)
