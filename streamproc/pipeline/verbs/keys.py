"""The key of a verb: which columns may be one, and which names are taken by what the verb computes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import polars as pl

from operators.element import Schema
from streamproc.pipeline.columns import check_column_name
from streamproc.pipeline.document import FieldPath
from streamproc.pipeline.faults import FaultLog
from streamproc.pipeline.suggest import did_you_mean
from streamproc.pipeline.verbs.windows import WINDOW_COLUMNS


def check_key(
    key: Sequence[tuple[FieldPath, str]], schema: Schema, path: FieldPath, log: FaultLog, *, windowed: bool
) -> None:
    """Columns that exist, once each, and can be compared. `windowed`: the result has window columns of its own."""
    for index, (place, name) in enumerate(key):
        at = (*path, *place)
        dtype = schema.get(name)
        if name not in schema:
            log.error(at, f"unknown column '{name}'", did_you_mean(name, schema))
        elif any(name == before for _, before in key[:index]):
            log.error(at, f"'{name}' is named twice")
        elif isinstance(dtype, pl.List | pl.Struct):
            log.error(at, f"'{name}' is a {'list' if isinstance(dtype, pl.List) else 'struct'}: it cannot be a key")
        elif windowed and name in WINDOW_COLUMNS:
            hint = "rename it in a step before, with `select`"
            log.error(at, f"a window gives a column '{name}' of its own", hint)


def check_result_names(
    names: Iterable[str], key: Sequence[str], path: FieldPath, log: FaultLog, *, windowed: bool
) -> None:
    """Names of aggregates that are legal and not taken."""
    for name in names:
        at = (*path, name)
        of_window = windowed and name in WINDOW_COLUMNS
        if check_column_name(name, at, log) and (name in key or of_window):
            what = "a key column" if name in key else "a column of the window"
            log.error(at, f"'{name}' is {what} already: give the aggregate another name", at_key=True)
