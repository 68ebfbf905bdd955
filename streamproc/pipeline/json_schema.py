"""The JSON Schema of a pipeline file, for editors: what the models say, in the words of the file."""

from __future__ import annotations

from typing import Any, Final

from operators.types import TYPE_NAMES
from streamproc.pipeline.spec import NAME, PipelineSpec, duration_text

_SECTIONS: Final = ("connections", "sources", "steps", "sinks")
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
    for definition in schema["$defs"].values():
        if "schema" in definition.get("properties", {}):
            definition["properties"]["schema"] = _COLUMNS
    for section in _SECTIONS:
        schema["properties"][section]["propertyNames"] = {"pattern": NAME}
    _tidy(schema)
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
