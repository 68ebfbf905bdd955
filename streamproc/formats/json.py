"""JSON records, one object each: decoded in batches by polars, refused one by one, encoded in batches.

`polars.read_ndjson` with a schema refuses wrong types, with one exception that is mended here: it turns
a number, boolean, object or array into text where a string is declared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from operators.types import FieldType
from streamproc.formats.isolate import Records, isolate, short_reason
from streamproc.formats.json_faults import fault_of
from streamproc.formats.protocol import BadRecord, DecodeError, Payload, RefusedRows
from streamproc.formats.wire import UnfitNested, to_frame, wire_dtype

_GROUP: Final = 512  # records looked at one by one when one of them is refused
_REFUSED: Final = (pl.exceptions.PolarsError, pl.exceptions.PanicException, UnfitNested)

# How polars writes a number, an array and an object as text.
_UNQUOTED: Final = r"^(?:-?[0-9][0-9.eE+-]*|(?s:[\[{].*))$"
# A JSON number with a fraction went through float64, which keeps 15 digits of any number.
_FLOAT_DIGITS: Final = 15
_BEYOND_FLOAT: Final = r"^-?[0-9.]{17,}(?:e-?[0-9]+)?$"

_MAY_BE_BOOLEAN: Final = 1
_MAY_BE_OTHER: Final = 2
_KIND_OF_FIRST: Final = np.zeros(256, np.uint8)
_KIND_OF_FIRST[np.frombuffer(b"tf", np.uint8)] = _MAY_BE_BOOLEAN
_KIND_OF_FIRST[np.frombuffer(b"-0123456789[{", np.uint8)] = _MAY_BE_OTHER


class JsonDecoder:
    """Decodes JSON objects into the declared fields: a missing field is null, an undeclared one ignored.

    Of a repeated field the first one counts. A record whose `required` field is missing or null is refused.
    """

    def __init__(self, fields: Mapping[str, FieldType], required: Sequence[str] = ()) -> None:
        self._fields = dict(fields)
        self._required = frozenset(required)
        self._texts = [name for name, field in fields.items() if field.name in ("string", "bytes")]
        self._long_decimals = [n for n, f in fields.items() if f.name == "decimal" and f.precision > _FLOAT_DIGITS]
        # Text columns whose strings look like numbers: read as Categorical, which is slower but strict.
        self._number_like: frozenset[str] = frozenset()

    @property
    def schema(self) -> dict[str, pl.DataType]:
        """Columns of a decoded frame."""
        return {name: field.dtype for name, field in self._fields.items()}

    def decode_lines(self, payload: Payload, rows: int) -> pl.DataFrame:
        """Decode `rows` lines of one JSON object each; `DecodeError` when any record is refused."""
        if rows == 0 and not bytes(payload).strip():
            return pl.DataFrame(schema=self.schema)
        try:
            wire = self._read(payload)
            if wire.height != rows:
                raise DecodeError(f"{rows} records hold {wire.height} JSON values")
            return self._columns(wire)
        except _REFUSED as error:
            raise DecodeError(short_reason(error)) from error

    def decode_each(self, values: Sequence[bytes | None]) -> tuple[pl.DataFrame, list[BadRecord]]:
        """Decode what can be decoded; each refused record with its index in `values` and the reason."""
        bad: list[BadRecord] = []
        good: list[tuple[int, bytes]] = []
        for index, value in enumerate(values):
            if value is None:
                bad.append(BadRecord(index, "null value"))
            elif not value.strip(b" \t\r\n"):
                bad.append(BadRecord(index, "empty value"))
            else:
                good.append((index, value.replace(b"\n", b" ")))
        try:
            return self._join(good), bad
        except RefusedRows:
            pass  # all readable, and it will say again which rows do not fit
        except DecodeError:
            good = self._screen(good, bad)
        frames = isolate(good, self._join, bad)
        bad.sort()
        return (pl.concat(frames) if frames else pl.DataFrame(schema=self.schema)), bad

    def _read(self, payload: Payload) -> pl.DataFrame:
        number_like = self._number_like
        wire = self._parse(payload, list(self._fields), number_like)
        suspects = [name for name in self._texts if name not in number_like and _looks_unquoted(wire[name])]
        long_decimals = [name for name in self._long_decimals if wire[name].str.contains(_BEYOND_FLOAT).any()]
        if suspects or long_decimals:
            self._parse(payload, suspects + long_decimals, frozenset(suspects + long_decimals))  # raises if not strings
            self._number_like = number_like | frozenset(suspects)
        return wire

    def _parse(self, payload: Payload, columns: list[str], strict: frozenset[str]) -> pl.DataFrame:
        # Categories of its own for each batch: the global ones would only ever grow.
        text = pl.Categorical(pl.Categories.random())
        schema = {n: text if n in strict else wire_dtype(self._fields[n], text) for n in columns}
        return pl.read_ndjson(BytesIO(payload), schema=schema)

    def _columns(self, wire: pl.DataFrame) -> pl.DataFrame:
        texts = [
            series.cast(wire_dtype(self._fields[series.name]))
            if self._fields[series.name].name in ("list", "struct") or isinstance(series.dtype, pl.Categorical)
            else series
            for series in wire
        ]
        return to_frame(texts, self._fields, self._required)

    def _decodes(self, records: Records) -> bool:
        try:
            self._join(records)
        except RefusedRows:
            return True  # readable, and it says which rows do not fit
        except DecodeError:
            return False
        return True

    def _join(self, records: Records) -> pl.DataFrame:
        return self.decode_lines(b"\n".join(value for _, value in records), len(records))

    def _screen(self, records: Records, bad: list[BadRecord]) -> Records:
        """Leaves out what `fault_of` can name, looking only at groups that polars refuses."""
        passed: Records = []
        for start in range(0, len(records), _GROUP):
            group = records[start : start + _GROUP]
            if not self._decodes(group):
                faults = [fault_of(value, self._fields) for _, value in group]
                bad.extend(BadRecord(at, fault) for (at, _), fault in zip(group, faults, strict=True) if fault)
                group = [record for record, fault in zip(group, faults, strict=True) if not fault]
            passed.extend(group)
        return passed


def _looks_unquoted(texts: pl.Series) -> bool:
    """Whether a text may have been a number, boolean, array or object on the wire."""
    if texts.dtype != pl.String:
        return False
    # The first byte is the cheap test that most columns end with.
    firsts = [np.bitwise_or.reduce(_KIND_OF_FIRST[_first_bytes(chunk)]) for chunk in texts.get_chunks()]
    kinds = np.bitwise_or.reduce(firsts)
    if kinds & _MAY_BE_BOOLEAN and ((texts == "true").any() or (texts == "false").any()):
        return True
    return bool(kinds & _MAY_BE_OTHER and texts.str.contains(_UNQUOTED).any())


def _first_bytes(texts: pl.Series) -> npt.NDArray[np.uint8]:
    """The first byte of each text (0 of an empty one; anything of a null), read in place."""
    array = texts.to_arrow(compat_level=pl.CompatLevel.newest())
    # Arrow's string views: 16 bytes each, a length of 4 and then the first bytes of the text.
    views = np.frombuffer(array.buffers()[1], np.uint8)[array.offset * 16 : (array.offset + len(array)) * 16]
    return views.reshape(-1, 16)[:, 4]
