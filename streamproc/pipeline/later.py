"""Words of the contract that this release does not run yet: refused by name, so that nobody takes them
for a typing error.

They are taken out of the file's values before those are read as models. A step whose verb was taken
out is opaque: nobody knows its columns.
"""

from __future__ import annotations

from typing import Any, Final

from streamproc.pipeline.document import FieldPath
from streamproc.pipeline.faults import FaultLog

VERBS: Final = ("join", "deduplicate", "top", "python", "process", "sql")
_WINDOWS: Final = ("session", "cumulate")
_FORMATS: Final = ("avro", "protobuf", "debezium-json")
SINK_TYPES: Final = ("postgres",)


def take_tests(pipeline: dict[str, Any], log: FaultLog) -> dict[str, Any]:
    """The top level without `tests`."""
    if "tests" in pipeline:
        log.error(("tests",), "tests inside a pipeline file are not supported yet", at_key=True)
    return {name: value for name, value in pipeline.items() if name != "tests"}


def take_from_step(
    step: dict[str, Any], path: FieldPath, log: FaultLog
) -> tuple[dict[str, Any], bool, frozenset[FieldPath]]:
    """The step without what comes later, whether it is opaque, and what else was taken out."""
    kept = dict(step)
    taken: frozenset[FieldPath] = frozenset()
    opaque = False
    for word in (*VERBS, "ttl"):
        if word in kept:
            del kept[word]
            opaque |= word in VERBS
            log.error((*path, word), f"'{word}' is not supported yet", at_key=True)
    if "ttl" in step and "window" not in step:
        taken = frozenset({("window",)})  # what else would bound the state
    if opaque:
        kept.setdefault("input", [])  # a join has none
    window = kept.get("window")
    if window == "input":
        log.error((*path, "window"), "'window: input' is not supported yet", "there are tumble and hop")
        del kept["window"]
        taken = frozenset({("window",)})
    elif isinstance(window, dict):
        for word in _WINDOWS:
            if word in window:
                log.error(
                    (*path, "window", word),
                    f"{word} windows are not supported yet",
                    "there are tumble and hop",
                    at_key=True,
                )
                kept.pop("window", None)
                taken = frozenset({("window",)})
    emit = kept.get("emit")
    if emit == "on_update" or (isinstance(emit, dict) and "every" in emit):
        said = "on_update" if emit == "on_update" else "{every: …}"
        log.error(
            (*path, "emit"),
            f"'emit: {said}' is not supported yet: it comes with changelog streams",
            "there is on_close",
        )
        del kept["emit"]
    return kept, opaque, taken


def take_format(node: dict[str, Any], path: FieldPath, log: FaultLog) -> dict[str, Any]:
    """A source or sink without a format that comes later."""
    written = node.get("format")
    name = written.get("type") if isinstance(written, dict) else written
    if name not in _FORMATS:
        return node
    log.error((*path, "format"), f"the format {name} is not supported yet", "there are json, csv and parquet")
    return {field: value for field, value in node.items() if field != "format"}
