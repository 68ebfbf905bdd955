"""The JSON Schema of a pipeline file, for editors: what the models say, in the words of the file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from operators.explanation import duration_text
from operators.types import TYPE_NAMES
from streamproc.pipeline.spec import NAME, PipelineSpec

_SECTIONS: Final = ("connections", "sources", "steps", "sinks")
_DESCRIPTIONS: Final[Mapping[str, Mapping[str, str]]] = {
    "StepSpec": {
        "input": "A source, a step or a side output (`step.late`, `name.errors`); a list is a union.",
        "join": "Rows of two streams, `left` and `right`, or of one and what is looked up for it.",
        "was": "What the step was called before: it takes over that state.",
        "where": "Keeps rows, ahead of the verb.",
        "key": "The columns to aggregate by; without it there is one global group.",
        "window": "The windows to aggregate in; `input`: those that rows carry.",
        "aggregate": "Columns and the aggregates they are.",
        "deduplicate": "One row for each key.",
        "top": "The best rows of each key.",
        "python": "A function that adds columns.",
        "process": "A keyed function with state, timers and side outputs.",
        "sql": "One SELECT over streams of this file.",
        "ttl": "Of an aggregate without a window, or a query: how long a key is remembered without a row.",
        "emit": "When results of an aggregate are given: once, or as updates.",
        "late": "What becomes of rows that come after their window has closed.",
        "having": "Keeps rows, behind the verb.",
        "select": "Replaces the columns (a mapping), or keeps some (a list).",
        "add": "Adds columns.",
        "parallelism": "Subtasks; the job's where it is not said.",
        "errors": "What happens to rows on which an expression or a function fails.",
    },
    "JoinSpec": {
        "left": "A stream; its columns are called left.x.",
        "right": "A stream; its columns are called right.x. A look-up has none.",
        "match": "A condition on left.x and right.x, with at least one equality between them.",
        "within": "The right row's time is in [left time + first, left time + second].",
        "window": "Both rows are in the same window.",
        "as_of": "The right side's version at the time of the left row.",
        "lookup": "Enrichment from a file or a server, without time.",
        "ttl": "A regular join: how long a row waits for partners.",
    },
    "WindowSpec": {
        "tumble": "Windows side by side.",
        "hop": "Windows that overlap.",
        "session": "The gap that ends a session.",
        "cumulate": "Windows that grow by `every` until they are `size` long.",
        "offset": "Shifts windows, which otherwise align to the epoch.",
    },
    "LateSpec": {
        "accept_for": "How long a window still takes rows after it has closed.",
        "then": "Drop later ones, or give them to the side output `step.late`.",
    },
    "DeduplicateSpec": {
        "key": "Columns of which each combination has one row.",
        "keep": "The row with the least event time, or with the greatest (as updates).",
        "ttl": "How long a key is remembered.",
    },
    "TopSpec": {
        "n": "How many rows of each key.",
        "by": "Expressions to rank by, each `asc` or `desc`.",
        "key": "Ranks the rows of each key for themselves.",
        "window": "Ranks once for each window; without it the best so far are updates.",
        "ties": "Keeps all rows equal to the n-th.",
        "rank": "A column for the rank, from 1.",
        "ttl": "How long a key is remembered without a row.",
    },
    "PythonSpec": {
        "call": "file.py:function, from the pipeline's folder.",
        "columns": "The columns that it adds.",
        "mode": "Called with a frame of rows, with one row, or with one row and awaited.",
        "in_flight": "Calls at once, of `mode: async`.",
        "timeout": "How long one call may take, of `mode: async`.",
        "retries": "Further tries, of `mode: async`.",
    },
    "ProcessSpec": {
        "call": "file.py:Class, from the pipeline's folder.",
        "key": "State and timers belong to these columns.",
        "columns": "The columns of its rows.",
        "outputs": "Side outputs and their columns, read as `step.name`.",
    },
    "LookupSpec": {
        "file": "A file, held in memory.",
        "http": "A URL with {column} places.",
        "schema": "The columns of the answer.",
        "refresh": "How often the file is read again.",
    },
    "CaseSpec": {
        "given": "Rows by source.",
        "then": "What happens next: a watermark, more rows, time, a checkpoint, a crash, the end of input.",
        "expect": "Rows by stream.",
    },
}
_COLUMNS: Final = {"type": "object", "minProperties": 1, "additionalProperties": {"$ref": "#/$defs/FieldType"}}


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a pipeline file."""
    schema = PipelineSpec.model_json_schema(mode="validation", by_alias=True)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["$defs"]["FieldType"] = {
        "description": "A column's type, or a nested mapping of types for a struct.",
        "anyOf": [
            {"type": "string", "examples": [name for name in TYPE_NAMES if name.isalnum() or "_" in name]},
            _COLUMNS,
        ],
    }
    for name, definition in schema["$defs"].items():
        fields = definition.get("properties", {})
        if "schema" in fields:
            fields["schema"] = dict(_COLUMNS)
        for field, description in _DESCRIPTIONS.get(name, {}).items():
            fields[field] = {**fields[field], "description": description}
    for name in ("PythonSpec", "ProcessSpec"):
        schema["$defs"][name]["properties"]["columns"] |= _COLUMNS
    schema["$defs"]["ProcessSpec"]["properties"]["outputs"]["additionalProperties"] = dict(_COLUMNS)
    for section in _SECTIONS:
        schema["properties"][section]["propertyNames"] = {"pattern": NAME}
    _tidy(schema)
    select = schema["$defs"]["StepSpec"]["properties"]["select"]
    del select["minLength"]  # of a text; what it stands for is either of two
    for alternative in select["anyOf"]:
        alternative |= {"minProperties" if alternative["type"] == "object" else "minItems": 1}
    schema["title"] = "streamproc pipeline"
    return schema


def _tidy(node: Any) -> None:
    """Durations' defaults as a file would say them, not in milliseconds; no titles made of field names; no
    field may be there with nothing in it."""
    if isinstance(node, list):
        for item in node:
            _tidy(item)
    elif isinstance(node, dict):
        alternatives = [inner for inner in node.get("anyOf", ()) if inner != {"type": "null"}]
        if node.get("default", ...) is None:
            del node["default"]
            del node["anyOf"]
            node |= alternatives[0] if len(alternatives) == 1 else {"anyOf": alternatives}
        if isinstance(node.get("title"), str):
            del node["title"]
        if _is_duration(node) and isinstance(node.get("default"), int):
            node["default"] = duration_text(node["default"])
        elif isinstance(node.get("default"), dict):
            del node["default"]  # a model's defaults are said at its own fields
        for inner in node.values():
            _tidy(inner)


def _is_duration(node: dict[str, Any]) -> bool:
    return node.get("type") == "string" and "10s" in node.get("examples", ())
