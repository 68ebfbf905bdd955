"""A row's key → its key group: the same on every machine and in every release, for the life of the state.

Equal values hash alike whatever the width of the integer or the unit of the timestamp that carries
them. polars' own `hash` promises none of this and is not used. The arithmetic here is part of the
format of checkpoints: changing it orphans all keyed state.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl
import polars_hash  # noqa: F401  registers the `nchash` namespace

UInt64s = npt.NDArray[np.uint64]

_GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)
_MIX_1: Final = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2: Final = np.uint64(0x94D049BB133111EB)
_NULL: Final = np.uint64(0xA0761D6478BD642F)
_EMPTY: Final = np.uint64(0xE7037ED1A0B428DB)
_NAN_BITS: Final = np.uint64(0x7FF8000000000000)
_VALUE: Final[Any] = pl.col("value")
_XXHASH64: Final[pl.Expr] = _VALUE.nchash.xxhash64()  # made once: each `nchash` leaves a reference cycle behind


def key_groups(frame: pl.DataFrame, key: Sequence[str], max_parallelism: int) -> pl.Series:
    """The key group of every row as Int32, 0 ≤ group < `max_parallelism`; an empty key is group 0."""
    return pl.Series("key_group", groups_of_hashes(hash_rows(frame, key), max_parallelism))


def groups_of_hashes(hashes: UInt64s, max_parallelism: int) -> npt.NDArray[np.int32]:
    """The key groups of rows that `hash_rows` gave these hashes for."""
    # the upper half scaled to the range: no slow division, and no bias worth naming
    groups = ((hashes >> np.uint64(32)) * np.uint64(max_parallelism)) >> np.uint64(32)
    return groups.astype(np.int32)


def hash_rows(frame: pl.DataFrame, key: Sequence[str]) -> UInt64s:
    """64 bits for the key of every row; 0 for the empty key."""
    if not key:
        return np.zeros(frame.height, dtype=np.uint64)
    hashes = hash_values(frame.get_column(key[0]))
    for name in key[1:]:
        hashes = _combine(hashes, hash_values(frame.get_column(name)))
    return hashes


def hash_values(values: pl.Series) -> UInt64s:
    """64 well mixed bits for every value, nulls included. Raises TypeError for a type without a hash."""
    hashes = _hash_not_null(values)
    if values.null_count():
        hashes = np.where(values.is_null().to_numpy(), _NULL, hashes)
    return hashes


def _hash_not_null(values: pl.Series) -> UInt64s:
    """Hashes of the values; whatever for nulls."""
    dtype = values.dtype
    if dtype.is_integer() or dtype == pl.Boolean:
        return _mix(_integers(values))
    if dtype.is_float():
        return _mix(_float_bits(values))
    if dtype in (pl.String, pl.Binary):
        return _texts(values)
    if isinstance(dtype, pl.Datetime):
        return _mix(_integers(values.dt.timestamp("us")))
    if dtype == pl.Date:
        return _mix(_integers(values.to_physical()))
    if isinstance(dtype, pl.Decimal):
        return _texts(_plain_decimals(values, dtype.scale))
    if isinstance(dtype, pl.Struct):
        return _structs(values)
    if isinstance(dtype, pl.List):
        return _lists(values)
    raise TypeError(f"a key of type {dtype} cannot be hashed")


def _mix(bits: UInt64s) -> UInt64s:
    """The finalizer of splitmix64: every input bit changes every output bit with probability one half."""
    mixed = bits + _GOLDEN
    mixed ^= mixed >> np.uint64(30)
    mixed *= _MIX_1
    mixed ^= mixed >> np.uint64(27)
    mixed *= _MIX_2
    mixed ^= mixed >> np.uint64(31)
    return mixed


def _combine(left: UInt64s, right: UInt64s) -> UInt64s:
    """Depends on the order: (a, b) and (b, a) are different keys."""
    return _mix(left * _MIX_1 + right)


def _integers(values: pl.Series) -> UInt64s:
    """Two's complement in 64 bits, so that every width agrees."""
    if values.dtype == pl.UInt64:
        return _filled(values).to_numpy()
    wide = _filled(values if values.dtype == pl.Int64 else values.cast(pl.Int64))
    return wide.to_numpy().view(np.uint64)


def _filled(values: pl.Series) -> pl.Series:
    return values.fill_null(0) if values.null_count() else values


def _float_bits(values: pl.Series) -> UInt64s:
    floats = _filled(values.cast(pl.Float64)).to_numpy()
    bits = (floats + 0.0).view(np.uint64)  # −0.0 + 0.0 is 0.0
    nan = np.isnan(floats)
    return np.where(nan, _NAN_BITS, bits) if nan.any() else bits


def _texts(values: pl.Series) -> UInt64s:
    hashed = pl.DataFrame({"value": values}).select(_XXHASH64)
    return _filled(hashed.to_series()).to_numpy()


def _plain_decimals(values: pl.Series, scale: int) -> pl.Series:
    """Without trailing zeros, so that 1.5 and 1.50 agree."""
    text = values.cast(pl.String)
    return text.str.strip_chars_end("0").str.strip_chars_end(".") if scale else text


def _structs(values: pl.Series) -> UInt64s:
    hashes = np.full(len(values), _EMPTY, dtype=np.uint64)
    for field in values.struct.unnest().get_columns():
        hashes = _combine(hashes, hash_values(field))
    return hashes


def _lists(values: pl.Series) -> UInt64s:
    """Every element with its position, summed: order counts, and so does the length."""
    lengths = _filled(values.list.len()).to_numpy().astype(np.int64)
    hashes = _mix(lengths.view(np.uint64) + _EMPTY)
    elements = values.drop_nulls().explode(empty_as_null=False)
    sums = np.zeros(len(values), dtype=np.uint64)
    if len(elements):
        starts = np.cumsum(lengths) - lengths
        position = np.arange(len(elements)) - np.repeat(starts, lengths)
        placed = _combine(hash_values(elements), position.view(np.uint64))
        filled = lengths > 0
        sums[filled] = np.add.reduceat(placed, starts[filled])
    return _combine(hashes, sums)
