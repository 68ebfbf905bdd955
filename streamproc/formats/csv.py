"""CSV records, one line each: a quoted value may hold the delimiter and quotes, but no line break.

So a bad record spoils its own line and no other. An empty value is null; a quoted empty one is the
empty text.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from typing import Final

import polars as pl
import pyarrow as pa
import pyarrow.csv

from operators.element import Schema
from operators.types import FieldType
from streamproc.formats.iso import iso_texts
from streamproc.formats.isolate import Records, isolate, short_reason
from streamproc.formats.protocol import BadRecord, DecodeError, FormatError, Payload, RefusedRows
from streamproc.formats.wire import to_frame, wire_dtype

_TRUTHS: Final = {"true": True, "false": False}


class CsvDecoder:
    """Decodes lines into the declared fields. `columns` are the file's columns in order (its header);
    without, they are the fields in their declared order. Undeclared columns are ignored."""

    def __init__(
        self,
        fields: Mapping[str, FieldType],
        required: Sequence[str] = (),
        delimiter: str = ",",
        columns: Sequence[str] | None = None,
    ) -> None:
        for name, field in fields.items():
            if field.name in ("list", "struct"):
                raise FormatError(f"{name}: CSV has no {field.name}")
        self._fields = dict(fields)
        self._required = frozenset(required)
        self._columns = list(columns if columns is not None else fields)
        for name in fields:
            if self._columns.count(name) != 1:
                raise FormatError(
                    f"column {name} is {'twice' if name in self._columns else 'not'} in the header: "
                    + ", ".join(self._columns)
                )
        self._delimiter = delimiter
        self._sentinel = (delimiter.join("0" * len(self._columns)) + "\n").encode()

    @property
    def schema(self) -> dict[str, pl.DataType]:
        """Columns of a decoded frame."""
        return {name: field.dtype for name, field in self._fields.items()}

    def decode_lines(self, payload: Payload, rows: int) -> pl.DataFrame:
        """Decode `rows` lines; `DecodeError` when any is refused."""
        lines, ragged = self._parse(payload, rows)
        if ragged:
            raise RefusedRows(ragged)
        return to_frame(map(self._typed, lines), self._fields, self._required)

    def decode_each(self, values: Sequence[bytes | None]) -> tuple[pl.DataFrame, list[BadRecord]]:
        """Decode what can be decoded; each refused line with its index in `values` and the reason."""
        bad: list[BadRecord] = []
        good: Records = []
        for at, value in enumerate(values):
            if value is None or not value.strip(b" \r\n"):
                bad.append(BadRecord(at, "empty line"))
                continue
            try:
                value.decode("utf-8")
            except UnicodeDecodeError as error:
                bad.append(BadRecord(at, f"not UTF-8: byte {error.start} is 0x{value[error.start]:02x}"))
            else:
                good.append((at, value))
        frames = isolate(good, self._join, bad)
        bad.sort()
        return (pl.concat(frames) if frames else pl.DataFrame(schema=self.schema)), bad

    def _join(self, records: Records) -> pl.DataFrame:
        return self.decode_lines(b"\n".join(value for _, value in records), len(records))

    def _parse(self, payload: Payload, rows: int) -> tuple[pl.DataFrame, list[BadRecord]]:
        """All columns as texts. A line of our own at the end shows when a quote was left open."""
        ragged: list[BadRecord] = []

        def skip(row: pyarrow.csv.InvalidRow) -> str:
            ragged.append(
                BadRecord(row.number - 1, f"expected {row.expected_columns} values, found {row.actual_columns}")
            )
            return "skip"

        text = bytes(payload)
        text += (b"" if not text or text.endswith(b"\n") else b"\n") + self._sentinel
        try:
            table = pyarrow.csv.read_csv(
                BytesIO(text),
                # One block and one thread: rows are numbered only then.
                read_options=pyarrow.csv.ReadOptions(
                    column_names=self._columns, use_threads=False, block_size=len(text) + 1
                ),
                parse_options=pyarrow.csv.ParseOptions(delimiter=self._delimiter, invalid_row_handler=skip),
                convert_options=pyarrow.csv.ConvertOptions(
                    include_columns=list(self._fields),
                    column_types=dict.fromkeys(self._fields, pa.string()),
                    strings_can_be_null=True,
                    quoted_strings_can_be_null=False,
                    null_values=[""],
                ),
            )
        except pa.ArrowInvalid as error:
            raise DecodeError(short_reason(error)) from error
        if table.num_rows + len(ragged) != rows + 1:
            raise DecodeError(
                "a quote is not closed on its line" if rows == 1 else "lines and records differ in number"
            )
        frame = pl.DataFrame(table.slice(0, table.num_rows - 1))
        return frame, ragged

    def _typed(self, texts: pl.Series) -> pl.Series:
        """Texts as the wire type, refusing what is not one."""
        field = self._fields[texts.name]
        dtype = wire_dtype(field)
        if dtype == pl.String():
            return texts
        if dtype == pl.Boolean():
            typed = texts.str.to_lowercase().replace_strict(_TRUTHS, default=None, return_dtype=pl.Boolean)
        else:
            typed = texts.cast(dtype, strict=False)
        if typed.null_count() != texts.null_count():
            unfit = (typed.is_null() & texts.is_not_null()).arg_true()
            raise RefusedRows([BadRecord(at, f"{texts.name}: {texts[at]!r} is not {field}") for at in unfit.to_list()])
        return typed


def read_header(line: bytes, delimiter: str) -> list[str]:
    """Column names of a header line."""
    try:
        text = line.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FormatError(f"the header is not UTF-8: {error.reason}") from error
    return [name.strip() for name in next(csv.reader([text.rstrip("\r\n")], delimiter=delimiter), [])]


class CsvEncoder:
    """Encodes rows as CSV lines: timestamps ISO-8601, bytes base64, nulls empty."""

    def __init__(self, schema: Schema, delimiter: str = ",", header: bool = True) -> None:
        for name, dtype in schema.items():
            if dtype.is_nested():
                raise FormatError(f"{name}: CSV has no lists and structs")
        self._columns = list(schema)
        self._delimiter = delimiter
        self.header = self._encode(pl.DataFrame(schema=schema), header=True) if header else b""

    def encode_lines(self, frame: pl.DataFrame) -> bytes:
        """One line for each row, without a header (see `header`)."""
        return self._encode(frame, header=False)

    def _encode(self, frame: pl.DataFrame, header: bool) -> bytes:
        buffer = BytesIO()
        written = pl.DataFrame(list(_texts(frame[name] for name in self._columns)))
        written.write_csv(buffer, include_header=header, separator=self._delimiter)
        return buffer.getvalue()


def _texts(columns: Iterable[pl.Series]) -> Iterable[pl.Series]:
    for series in columns:
        if isinstance(series.dtype, pl.Datetime):
            yield iso_texts(series)
        elif isinstance(series.dtype, pl.Binary):
            yield series.bin.encode("base64")
        else:
            yield series
