"""Avro schemas between what writers registered and what polars reads and writes.

polars decodes records, arrays, nullable types and the logical types; enums are given to it as their numbers,
and named types in full wherever they are used. What it cannot decode (maps, unions of several types, recursion)
is marked, so that `avro` reads such records one by one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import polars as pl

from operators.element import Schema
from streamproc.formats.protocol import FormatError

AVRO_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PRIMITIVES: Final = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})
_LOGICAL: Final = {  # logical types that polars reads, by the type below
    "date": "int",
    "timestamp-millis": "long",
    "timestamp-micros": "long",
    "local-timestamp-millis": "long",
    "local-timestamp-micros": "long",
}
_DECIMAL_DIGITS_MAX: Final = 38
_DEPTH_MAX: Final = 32

Json = Any


class UnsupportedAvro(ValueError):
    """polars cannot decode this; the message says what it is."""


@dataclass(frozen=True, slots=True)
class Node:
    """One type of a writer's schema. `plain` is the equivalent for polars, None where there is none (`why`)."""

    plain: Json
    why: str = ""
    symbols: tuple[str, ...] = ()  # of an enum, which `plain` reads as its number
    item: Node | None = None
    fields: tuple[tuple[str, Node], ...] = ()

    @property
    def has_enums(self) -> bool:
        """Whether an enum is here or inside."""
        inner = [node for _, node in self.fields] + ([self.item] if self.item is not None else [])
        return bool(self.symbols) or any(node.has_enums for node in inner)


def read_schema(text: str, references: Mapping[str, str]) -> tuple[Json, Node]:
    """A registered schema: parsed, and as a tree. `FormatError` where it is not a record or not Avro at all."""
    names: dict[str, Json] = {}
    try:
        for referred in references.values():
            _collect(json.loads(referred), "", names)
        schema = json.loads(text)
        _collect(schema, "", names)
        node = _Tree(names).node(schema, "", 0)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FormatError(f"not an Avro schema: {type(error).__name__}: {error}") from error
    if not isinstance(schema, dict) or schema.get("type") not in ("record", "error"):
        raise FormatError("not a record")
    return schema, node


def _full_name(schema: Mapping[str, Json], namespace: str) -> str:
    name = str(schema["name"])
    space = schema.get("namespace", namespace)
    return name if "." in name or not space else f"{space}.{name}"


def _collect(schema: Json, namespace: str, names: dict[str, Json]) -> None:
    """Definitions of named types by full name."""
    if isinstance(schema, list):
        for branch in schema:
            _collect(branch, namespace, names)
    elif isinstance(schema, dict):
        if "name" in schema and schema.get("type") in ("record", "error", "enum", "fixed"):
            name = _full_name(schema, namespace)
            namespace = name.rpartition(".")[0]
            names[name] = schema
        for field in schema.get("fields", ()):
            _collect(field["type"], namespace, names)
        for key in ("items", "values", "type"):
            if isinstance(schema.get(key), dict | list):
                _collect(schema[key], namespace, names)


class _Tree:
    """Makes nodes; named records get names of their own, since polars knows no references to them."""

    def __init__(self, names: Mapping[str, Json]) -> None:
        self._names = names
        self._made = 0
        self._open: list[str] = []

    def node(self, schema: Json, namespace: str, depth: int) -> Node:
        if depth > _DEPTH_MAX:
            return Node(None, "types nested too deeply")
        if isinstance(schema, list):
            return self._union(schema, namespace, depth)
        if isinstance(schema, str):
            if schema in _PRIMITIVES:
                return Node(None, "null alone") if schema == "null" else Node(schema)
            name = schema if "." in schema or not namespace else f"{namespace}.{schema}"
            name = name if name in self._names else schema
            return self.node(self._names[name], name.rpartition(".")[0], depth + 1)
        kind = schema["type"]
        if not isinstance(kind, str):
            return self.node(kind, namespace, depth + 1)
        if kind in ("record", "error"):
            return self._record(schema, namespace, depth)
        if kind == "enum":
            return Node("int", symbols=tuple(schema["symbols"]))
        if kind == "array":
            item = self.node(schema["items"], namespace, depth + 1)
            plain = None if item.plain is None else {"type": "array", "items": item.plain}
            return Node(plain, item.why, item=item)
        if kind == "map":
            return Node(None, "a map")
        return self._scalar(schema, kind, namespace, depth)

    def _scalar(self, schema: Json, kind: str, namespace: str, depth: int) -> Node:
        logical = schema.get("logicalType")
        plain: Json = kind
        if kind == "fixed":
            self._made += 1
            plain = {"type": "fixed", "name": f"fixed_{self._made}", "size": int(schema["size"])}
        elif kind not in _PRIMITIVES:
            return self.node(kind, namespace, depth + 1)
        if logical == "decimal" and kind in ("bytes", "fixed"):
            if int(schema["precision"]) > _DECIMAL_DIGITS_MAX or schema.get("size", 0) > 16:
                return Node(None, "a decimal of more than 38 digits")
            digits = {"logicalType": "decimal", "precision": schema["precision"], "scale": schema.get("scale", 0)}
            return Node({"type": kind} | (plain if isinstance(plain, dict) else {}) | digits)
        if _LOGICAL.get(logical) == kind:
            return Node({"type": kind, "logicalType": logical})
        return Node(plain) if plain != "null" else Node(None, "null alone")

    def _union(self, branches: list[Json], namespace: str, depth: int) -> Node:
        if len(branches) != 2 or "null" not in branches:
            return Node(None, "a union of several types")
        index = branches.index("null")
        inner = self.node(branches[1 - index], namespace, depth + 1)
        if inner.plain is None:
            return Node(None, inner.why)
        plain = ["null", inner.plain] if index == 0 else [inner.plain, "null"]
        return Node(plain, symbols=inner.symbols, item=inner.item, fields=inner.fields)

    def _record(self, schema: Json, namespace: str, depth: int) -> Node:
        name = _full_name(schema, namespace)
        if name in self._open:
            return Node(None, "a type that contains itself")
        self._open.append(name)
        inner = name.rpartition(".")[0]
        fields = tuple((field["name"], self.node(field["type"], inner, depth + 1)) for field in schema["fields"])
        self._open.pop()
        self._made += 1
        why = next((f"{field}: {node.why}" for field, node in fields if node.plain is None), "")
        if why or not fields:
            return Node(None, why or "a record without fields", fields=fields)
        members = [{"name": field, "type": node.plain} for field, node in fields]
        return Node({"type": "record", "name": f"record_{self._made}", "fields": members}, fields=fields)


def schema_of(columns: Schema, name: str) -> Json:
    """The Avro schema a sink writes: every value may be null, and a column may be added later (default null)."""
    return {
        "type": "record",
        "name": name,
        "fields": [_member(n, dtype, f"{name}_{n}") for n, dtype in columns.items()],
    }


def _member(name: str, dtype: pl.DataType, path: str) -> Json:
    if AVRO_NAME.fullmatch(name) is None:
        raise FormatError(f"{name}: an Avro name has only letters, digits and _")
    return {"name": name, "type": ["null", _type_of(name, dtype, path)], "default": None}


def _type_of(name: str, dtype: pl.DataType, path: str) -> Json:
    match dtype:
        case pl.Boolean():
            return "boolean"
        case pl.Int8() | pl.Int16() | pl.Int32():
            return "int"
        case pl.Int64():
            return "long"
        case pl.Float32():
            return "float"
        case pl.Float64():
            return "double"
        case pl.String():
            return "string"
        case pl.Binary():
            return "bytes"
        case pl.Date():
            return {"type": "int", "logicalType": "date"}
        case pl.Datetime(time_unit="ms"):
            return {"type": "long", "logicalType": "timestamp-millis"}
        case pl.Datetime():
            return {"type": "long", "logicalType": "timestamp-micros"}
        case pl.Decimal():
            return {"type": "bytes", "logicalType": "decimal", "precision": dtype.precision, "scale": dtype.scale}
        case pl.List():
            return {"type": "array", "items": ["null", _type_of(name, dtype.inner, path)]}  # type: ignore[arg-type]
        case pl.Struct():
            members = [_member(member.name, member.dtype, f"{path}_{member.name}") for member in dtype.fields]  # type: ignore[arg-type]
            return {"type": "record", "name": path, "fields": members}
    raise FormatError(f"{name}: Avro has no {dtype}")
