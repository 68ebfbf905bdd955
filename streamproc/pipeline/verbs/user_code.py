"""What `python` and `process` have in common: code from the pipeline's folder, and the columns it declares."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from operators.element import Schema
from operators.types import UNKNOWN
from streamproc.functions.columns import Fields
from streamproc.functions.loading import LoadingFault, UserCode
from streamproc.pipeline.columns import is_column_name, read_fields
from streamproc.pipeline.document import FieldPath
from streamproc.pipeline.faults import FaultLog
from streamproc.pipeline.verbs.verb import VerbContext

T = TypeVar("T")


def loaded(context: VerbContext, call: object, path: FieldPath, check: Callable[[UserCode], T]) -> T | None:
    """What `call` names, once `check` has found it usable; None and a fault where it is not. The code is executed:
    it is the user's own, as the pipeline file is."""
    if not isinstance(call, str):
        return None
    try:
        return check(UserCode.parse(call, context.folder))
    except LoadingFault as fault:
        context.log.error(path, fault.message, fault.hint)
        return None


def declared(written: object, path: FieldPath, log: FaultLog) -> tuple[Schema, Fields | None]:
    """Declared columns by name, and their types; None for these where one is wrong."""
    if not isinstance(written, Mapping) or not written:
        return {}, None
    columns: Mapping[str, Any] = {str(name): kind for name, kind in written.items()}
    fields = read_fields(columns, path, log)
    schema: Schema = {name: UNKNOWN if field is None else field.dtype for name, field in fields.items()}
    known = tuple((name, field) for name, field in fields.items() if field is not None)
    whole = len(known) == len(columns) and all(is_column_name(name) for name in columns)
    return schema, known if whole else None
