"""Words of the contract that this release does not run yet: refused by name, so that nobody takes them
for a typing error.

They are taken out of the file's values before those are read as models. A step whose verb was taken
out is opaque: nobody knows its columns.
"""

from __future__ import annotations

from typing import Any, Final

from streamproc.pipeline.document import FieldPath
from streamproc.pipeline.faults import FaultLog

_FORMATS: Final = ("avro", "protobuf", "debezium-json")
SINK_TYPES: Final = ("postgres",)


def take_tests(pipeline: dict[str, Any], log: FaultLog) -> dict[str, Any]:
    """The top level without `tests`."""
    if "tests" in pipeline:
        log.error(("tests",), "tests inside a pipeline file are not supported yet", at_key=True)
    return {name: value for name, value in pipeline.items() if name != "tests"}


def take_format(node: dict[str, Any], path: FieldPath, log: FaultLog) -> dict[str, Any]:
    """A source or sink without a format that comes later."""
    written = node.get("format")
    name = written.get("type") if isinstance(written, dict) else written
    if name not in _FORMATS:
        return node
    log.error((*path, "format"), f"the format {name} is not supported yet", "there are json, csv and parquet")
    return {field: value for field, value in node.items() if field != "format"}
