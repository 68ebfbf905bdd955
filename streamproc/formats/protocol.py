"""How bytes become rows and rows become bytes, whatever the format.

A decoder never guesses: a record is taken whole or refused with a message that says why, and whether
it is refused does not depend on the records around it. So a replay with other batches decides the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from state.failure import Failure

Payload = bytes | bytearray | memoryview


class BadRecord(NamedTuple):
    """One refused record: its place in what was given, and the reason in a short sentence."""

    at: int
    message: str


class DecodeError(Failure):
    """At least one record of a batch is refused; `decode_each` tells which."""

    acts = "user"


class RefusedRows(DecodeError):
    """Every record can be read, but these do not fit their columns."""

    def __init__(self, bad: list[BadRecord]) -> None:
        super().__init__(f"{len(bad)} records refused, the first: {bad[0].message}")
        self.bad = bad


class EncodeError(Failure):
    """A value cannot be written in the sink's format."""

    acts = "user"


class FormatError(Failure):
    """The format cannot carry the declared schema, or a file does not have it."""

    acts = "user"


class RecordDecoder(Protocol):
    """Decodes records that are one line each (a Kafka message, a line of a file)."""

    def decode_lines(self, payload: Payload, rows: int) -> pl.DataFrame:
        """All `rows` newline-separated records, or `DecodeError` when any is refused: the hot path."""

    def decode_each(self, values: Sequence[bytes | None]) -> tuple[pl.DataFrame, list[BadRecord]]:
        """The good records in order, and the refused ones. None is a record without a value."""


class Rows(NamedTuple):
    """What became of some records. `origin`: for each row the index of its record among the good ones, where
    that is not simply one row for each. `silent`, `seconds`: see `operators.connector.Decoded`."""

    frame: pl.DataFrame
    bad: list[BadRecord]
    origin: npt.NDArray[np.int64] | None = None
    silent: int = 0
    seconds: int = 0


class ValuesDecoder(Protocol):
    """Decodes values that no separator could join: binary ones, or such as become several rows or none."""

    def decode_values(self, values: Sequence[bytes | None]) -> Rows:
        """The good records' rows in order, and the refused records. None is a record without a value."""


class LineEncoder(Protocol):
    """Encodes rows as newline-terminated lines."""

    def encode_lines(self, frame: pl.DataFrame) -> bytes:
        """One line for each row; columns beyond the schema (hidden ones) are left out."""
