"""Changes of a table as Debezium writes them in JSON: one record becomes a row, or the two rows of an update.

c and r (a snapshot's rows) insert `after`; u takes `before` back and adds `after`; d takes `before` back. With or
without the envelope of a schema. A tombstone follows a deletion for the sake of compaction, and says nothing new.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from operators.element import DELETE, INSERT, KIND, UPDATE_AFTER, UPDATE_BEFORE
from operators.types import FieldType
from streamproc.formats.json import JsonDecoder
from streamproc.formats.protocol import BadRecord, DecodeError, Payload, RefusedRows, Rows

_OPERATIONS: Final = ("c", "r", "u", "d")
_Int64s = npt.NDArray[np.int64]
_TEXT: Final = FieldType("string")


class DebeziumJsonDecoder:
    """Decodes records into the declared columns and `__kind`."""

    def __init__(self, fields: Mapping[str, FieldType], required: Sequence[str] = ()) -> None:
        self._fields = dict(fields)
        self._required = tuple(required)
        row = FieldType("struct", fields=tuple(fields.items()))
        change = {"op": _TEXT, "before": row, "after": row}
        self._changes = JsonDecoder({**change, "payload": FieldType("struct", fields=tuple(change.items()))})

    @property
    def schema(self) -> dict[str, pl.DataType]:
        """Columns of a decoded frame."""
        return {name: field.dtype for name, field in self._fields.items()} | {KIND: pl.Int8()}

    def decode_values(self, values: Sequence[bytes | None]) -> Rows:
        """See `ValuesDecoder`. Tombstones become no row."""
        if None in values or b"null" in values:
            there = [at for at, value in enumerate(values) if value is not None and value.strip() != b"null"]
        else:
            there = list(range(len(values)))
        frame, unread = self._changes.decode_each([values[at] for at in there])
        bad = [BadRecord(there[at], message) for at, message in unread]
        read = np.delete(np.array(there, np.int64), [at for at, _ in unread])  # the record of each change
        while True:  # at most three times: changes that are none, then rows without an event time
            try:
                rows, origin = self._rows(frame)
                break
            except RefusedRows as refused:
                bad += [BadRecord(int(read[at]), message) for at, message in refused.bad]
                keep = np.ones(frame.height, np.bool_)
                keep[[at for at, _ in refused.bad]] = False
                frame, read = frame.filter(pl.Series(keep)), read[keep]
        bad.sort()
        good = np.delete(np.arange(len(values)), [at for at, _ in bad])
        silent, seconds = len(values) - len(there), int((rows.get_column(KIND) == UPDATE_AFTER).sum())
        return Rows(rows, bad, np.searchsorted(good, read[origin]), silent, seconds)

    def decode_lines(self, payload: Payload, rows: int) -> pl.DataFrame:
        """The rows of newline-separated records, or `DecodeError` when any is refused."""
        lines = bytes(payload).removesuffix(b"\n").split(b"\n") if rows else []
        frame, bad = self.decode_each(lines)
        if bad:
            raise DecodeError(bad[0].message)
        return frame

    def decode_each(self, values: Sequence[bytes | None]) -> tuple[pl.DataFrame, list[BadRecord]]:
        """The good records' rows in order, and the refused records."""
        decoded = self.decode_values(values)
        return decoded.frame, decoded.bad

    def _rows(self, changes: pl.DataFrame) -> tuple[pl.DataFrame, _Int64s]:
        """Rows, and for each the index of its change; `RefusedRows` names the changes that are none."""
        count = changes.height
        enveloped = changes["payload"].is_not_null()
        parts = {name: changes[name] for name in ("op", "before", "after")}
        if enveloped.any():
            inner = {name: changes["payload"].struct.field(name) for name in parts}
            parts = {name: inner[name].zip_with(enveloped, part) for name, part in parts.items()}
        operation, before, after = parts["op"], parts["before"], parts["after"]
        self._refuse(operation, before, after)

        updates = (operation == "u").to_numpy()
        deletes = (operation == "d").to_numpy()
        origin = np.repeat(np.arange(count, dtype=np.int64), np.where(updates, 2, 1))
        second = np.zeros(len(origin), np.bool_)
        second[1:] = origin[1:] == origin[:-1]
        kinds = np.full(len(origin), INSERT, np.int8)
        kinds[updates[origin]] = UPDATE_BEFORE
        kinds[second] = UPDATE_AFTER
        kinds[deletes[origin]] = DELETE
        is_after = (kinds == INSERT) | (kinds == UPDATE_AFTER)
        both = pl.concat([before.struct.unnest(), after.struct.unnest()])
        rows = both[pl.Series(origin + np.where(is_after, count, 0))].with_columns(pl.Series(KIND, kinds))
        self._refuse_without_required(rows, origin)
        return rows, origin

    def _refuse(self, operation: pl.Series, before: pl.Series, after: pl.Series) -> None:
        facts = pl.DataFrame({"op": operation, "old": before.is_not_null(), "new": after.is_not_null()})
        op, old, new = pl.col("op"), pl.col("old"), pl.col("new")
        fault = (
            pl.when(op.is_null())
            .then(pl.lit("no `op`: not a change as Debezium writes it"))
            .when(~op.is_in(_OPERATIONS))
            .then(pl.format("op {} is not supported: there are c, r, u and d", op))
            .when(op.is_in(("u", "d")) & ~old)
            .then(
                pl.format(
                    "op {} without `before`: the old row is needed to take it back; in PostgreSQL set "
                    "`ALTER TABLE … REPLICA IDENTITY FULL`",
                    op,
                )
            )
            .when((op != "d") & ~new)
            .then(pl.format("op {} without `after`", op))
        )
        faults = facts.select(fault.alias("fault"))["fault"]
        if faults.null_count() != len(faults):
            raise RefusedRows([BadRecord(at, faults[at]) for at in faults.is_not_null().arg_true().to_list()])

    def _refuse_without_required(self, rows: pl.DataFrame, origin: _Int64s) -> None:
        unfit: dict[int, str] = {}
        for name in self._required:
            for row in rows[name].is_null().arg_true().to_list():
                unfit.setdefault(int(origin[row]), f"{name} is missing: the event time is read from it")
        if unfit:
            raise RefusedRows([BadRecord(at, message) for at, message in sorted(unfit.items())])
