"""What pydantic found wrong with a model, as faults a newcomer understands, each at its place.

Pydantic reports every branch of a union; here only what concerns the branch that was meant is kept,
and where none was, one fault says everything that would do.
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError

from streamproc.pipeline.columns import is_cut_off
from streamproc.pipeline.document import FieldPath
from streamproc.pipeline.faults import FaultLog
from streamproc.pipeline.format_spec import HTTP_URL, MESSAGE_NAME
from streamproc.pipeline.spec import NAME, PIPELINE_NAME, is_duration
from streamproc.pipeline.suggest import did_you_mean, listed, near, shown

_KINDS: Final = {
    "string_type": "text",
    "int_type": "a whole number",
    "bool_type": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping",
}
_FIELDS_SHOWN: Final = 2
_PATTERNS: Final[dict[str, str]] = {
    NAME: "lower-case letters, digits, _ and -, beginning with a letter, at most 63 characters",
    PIPELINE_NAME: "lower-case letters, digits and -, beginning with a letter, at most 63 characters",
    HTTP_URL: "a URL that begins with http:// or https://",
    MESSAGE_NAME: "the name of a message: letters, digits and _, in parts with dots between them",
}
_OTHER_WORDS: Final = {  # how other systems call a field; the first that is known counts
    "advance": ("every",),
    "agg": ("aggregate",),
    "aggregations": ("aggregate",),
    "bootstrap_servers": ("brokers",),
    "columns": ("schema",),
    "condition": ("match",),
    "dedup": ("deduplicate",),
    "distinct": ("deduplicate",),
    "fields": ("schema",),
    "filter": ("where",),
    "from": ("input",),
    "function": ("call", "python"),
    "group_by": ("key",),
    "how": ("kind",),
    "inputs": ("input",),
    "limit": ("n", "top"),
    "on": ("match",),
    "order_by": ("by",),
    "partition_by": ("key",),
    "query": ("sql",),
    "retention": ("ttl",),
    "servers": ("brokers",),
    "slide": ("every",),
    "source": ("input",),
    "state_ttl": ("ttl",),
    "step": ("every",),
    "timestamp": ("event_time",),
    "type": ("kind",),
    "udf": ("python",),
    "url": ("http", "path"),
    "watermark": ("event_time",),
}
_FIELD_MEANT: Final = {  # where a value stands in place of a mapping: how it is written
    "emit": "{{every: {}}}",
    "late": "{{accept_for: {}}}",
}
_EXAMPLES: Final = {
    "deduplicate": "{key: [id]}",
    "lookup": "{file: countries.csv, format: csv, schema: {code: string, name: string}}",
    "python": '{call: "shop.py:score", columns: {risk: float64}}',
    "window": "{tumble: 1m}",
    "within": "[-5m, 1h]",
}


@dataclass(frozen=True, slots=True)
class _Wrong:
    """One pydantic error, its location split into the file's path and the union branch tried."""

    path: FieldPath  # of the value, or of the mapping a field is missing from
    union: FieldPath | None  # where the union stands that this is one branch of
    kind: str
    context: Mapping[str, Any]
    loc: tuple[str | int, ...]
    message: str


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A place of a value that its model refuses.

    `missing`: a field that should be there; `meant`: the field that an unknown one probably is.
    """

    path: FieldPath
    missing: bool = False
    meant: str | None = None


def report(
    error: ValidationError, model: type[BaseModel], value: Mapping[str, Any], at: FieldPath, log: FaultLog | None
) -> list[Unreadable]:
    """Record what `error` says about `value`, which stands at `at` (None: only find the places concerned)."""
    wrongs = [_locate(e["loc"], e["type"], e.get("ctx", {}), e["msg"], value) for e in error.errors(include_url=False)]
    deepest: dict[FieldPath, int] = {}
    for wrong in wrongs:
        if wrong.union is not None:
            deepest[wrong.union] = max(deepest.get(wrong.union, 0), len(wrong.path))
    kept = [w for w in wrongs if w.union is None or len(w.path) == deepest[w.union]]
    places = [_place_of(wrong, model, value) for wrong in kept]
    if log is not None:
        _record(kept, places, model, value, at, log)
    return places


def _record(
    wrongs: list[_Wrong],
    places: list[Unreadable],
    model: type[BaseModel],
    value: Mapping[str, Any],
    at: FieldPath,
    log: FaultLog,
) -> None:
    misspelt = {(*place.path[:-1], place.meant) for place in places if place.meant is not None}
    by_place: dict[FieldPath, list[_Wrong]] = {}
    for wrong, place in zip(wrongs, places, strict=True):
        if wrong.kind not in ("missing", "extra_forbidden", "union_tag_not_found"):
            by_place.setdefault(wrong.path, []).append(wrong)
        elif not (place.missing and place.path in misspelt):
            _record_field(wrong, place, model, at, log)
    for path, group in by_place.items():
        _record_value(group, model, _value_at(value, path), (*at, *path), log)


def _place_of(wrong: _Wrong, model: type[BaseModel], value: Mapping[str, Any]) -> Unreadable:
    if wrong.kind == "missing":
        return Unreadable((*wrong.path, wrong.loc[-1]), missing=True)
    if wrong.kind != "extra_forbidden":
        return Unreadable(wrong.path)
    name, known = str(wrong.loc[-1]), _fields_at(model, wrong.loc[:-1])
    other = next((word for word in _OTHER_WORDS.get(name, ()) if word in known), None)
    meant = other if other is not None else near(name, known)
    taken = _value_at(value, wrong.path[:-1])
    return Unreadable(wrong.path, meant=None if meant in taken else meant)


def _locate(loc: tuple[str | int, ...], kind: str, context: Mapping[str, Any], message: str, value: Any) -> _Wrong:
    path: FieldPath = ()
    union: FieldPath | None = None
    for part in loc:
        inside = isinstance(value, dict) and part in value
        if inside or (isinstance(value, list) and isinstance(part, int) and part < len(value)):
            value = value[part]
            path = (*path, part)
        elif not (kind == "missing" and part == loc[-1]) and union is None:
            union = path  # a tag of pydantic's: the name of a union's branch
    return _Wrong(path, union, kind, context, loc, message)


def _record_field(wrong: _Wrong, place: Unreadable, model: type[BaseModel], at: FieldPath, log: FaultLog) -> None:
    if wrong.kind == "union_tag_not_found":
        log.error((*at, *wrong.path), "'type' is missing", at_key=True)
        return
    name = str(wrong.loc[-1])
    if wrong.kind == "missing":
        log.error((*at, *wrong.path), f"'{name}' is missing", at_key=True)
        return
    known = _fields_at(model, wrong.loc[:-1])
    hint = f"did you mean '{place.meant}'?" if place.meant is not None else did_you_mean(name, known)
    log.error((*at, *wrong.path), f"unknown field '{name}'", hint, at_key=True)


def _record_value(group: list[_Wrong], model: type[BaseModel], value: Any, path: FieldPath, log: FaultLog) -> None:
    """One fault for all that is said about one value."""
    written = log.document.as_written.get(path, value)
    first = group[0]
    expected: list[str] = []
    choices: list[Any] = []
    for wrong in group:
        if wrong.kind in _KINDS:
            expected.append(_KINDS[wrong.kind])
        elif wrong.kind == "model_type":
            expected.append(_mapping_with(_fields_at(model, wrong.loc)))
        elif wrong.kind == "literal_error":
            choices += _literals(wrong.context)
    if choices or expected:
        wanted = list(dict.fromkeys([*(str(c) for c in choices), *expected]))
        if value is None:
            log.error(
                path, f"nothing is written here: it must be {listed(wanted, 'or')}", _empty_hint(path), at_key=True
            )
            return
        log.error(
            path,
            f"must be {listed(wanted, 'or')}, not {shown(written)}",
            _value_hint(path, value, choices, expected, log),
        )
        return
    match first.kind:
        case "value_error":
            message = first.message.removeprefix("Value error, ")
            if value is None:
                message = f"nothing is written here: {message.partition(': ')[2]}"
            elif isinstance(value, bool | list | dict):
                message = shown(written) + message.removeprefix(repr(value))
        case "string_pattern_mismatch":
            message = pattern_text(first.context["pattern"])
        case "greater_than_equal":
            message = f"must be at least {first.context['ge']}, not {shown(written).removeprefix('the number ')}"
        case "less_than_equal":
            message = f"must be at most {first.context['le']}, not {shown(written).removeprefix('the number ')}"
        case "too_short" | "too_long":
            entries = first.context.get("min_length") or first.context["max_length"]
            message = "must not be empty" if entries == 1 else f"must have {entries} entries"
            log.error(path, message, _example(path))
            return
        case "string_too_short" | "string_too_long":
            message = f"must be one character, not {shown(written)}"
        case "union_tag_invalid":
            tags = [tag.strip(" '") for tag in str(first.context["expected_tags"]).split(",")]
            tag = str(first.context["tag"])
            log.error(path, f"unknown type '{tag}'", did_you_mean(tag, tags))
            return
        case _:
            message = first.message
    log.error(path, message)


def pattern_text(pattern: str) -> str:
    """What a text must be that this regular expression refuses."""
    return f"must be {_PATTERNS.get(pattern, pattern)}"


def _mapping_with(fields: list[str]) -> str:
    shown_fields = ", ".join(f"{name}: …" for name in fields[:_FIELDS_SHOWN])
    return f"a mapping {{{shown_fields}{', …' if len(fields) > _FIELDS_SHOWN else ''}}}"


def _value_hint(path: FieldPath, value: Any, choices: list[Any], expected: list[str], log: FaultLog) -> str | None:
    if isinstance(value, str):
        if log.document.from_reference(path) and "text" not in expected and not choices:
            return "a reference always gives text"
        if (close := near(value, [c for c in choices if isinstance(c, str)])) is not None:
            return f"did you mean '{close}'?"
        if any(str(choice) == value for choice in choices) or ("a whole number" in expected and value.isdigit()):
            return "write it without quotes"
        if "true or false" in expected and value.lower() in ("yes", "on", "no", "off", "true", "false"):
            return f"write {str(value.lower() in ('yes', 'on', 'true')).lower()}"
        if value == "*" and path[-1] == "select":
            return "to keep all columns leave `select` out"
        if path[-1] in _FIELD_MEANT and is_duration(value):
            return f"write {_FIELD_MEANT[str(path[-1])].format(value)}"
        if path[-1] == "late" and value in ("drop", "side_output"):
            return f"write {{then: {value}}}"
        if (example := _example(path)) is not None:
            return example
        if expected == ["a list"]:
            return f'a list of one is written ["{log.document.as_written.get(path, value)}"]'
    if (example := _example(path)) is not None:
        return example
    if path[-1] == "timestamp":
        return "write it like 2026-01-01T00:00:00Z"
    if isinstance(value, int | float) and "text" in expected:
        return f'write it in quotes: "{str(value).lower()}"'
    return None


def _example(path: FieldPath) -> str | None:
    example = _EXAMPLES.get(str(path[-1]))
    return None if example is None else f"for example {example}"


def _empty_hint(path: FieldPath) -> str | None:
    name = str(path[-1])
    if is_cut_off(name):
        return 'inside { } an expression with a comma needs quotes: {name: "f(a, b)"}'
    return None


def _literals(context: Mapping[str, Any]) -> list[Any]:
    """The values out of pydantic's text `'a', 'b' or 1`."""
    words = str(context["expected"]).replace(" or ", ", ").split(", ")
    return [word.strip("'") if word.startswith("'") else int(word) for word in words]


def _value_at(value: Any, path: FieldPath) -> Any:
    for part in path:
        value = value[part]
    return value


def _fields_at(model: type[BaseModel], loc: Iterable[str | int]) -> list[str]:
    """Names of the fields that are legal at a pydantic location."""
    candidates = [model]
    for part in loc:
        inner = [
            nested
            for candidate in candidates
            for name, field in candidate.model_fields.items()
            if part in (name, field.alias)
            for nested in _models(field.annotation)
        ]
        tagged = [c for c in candidates if part == c.__name__ or part in _tags(c)]
        candidates = inner or tagged or candidates
    return list(
        dict.fromkeys(f.alias or name for candidate in candidates for name, f in candidate.model_fields.items())
    )


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The models a type may hold."""
    if (
        isinstance(annotation, type)
        and not isinstance(annotation, types.GenericAlias)
        and issubclass(annotation, BaseModel)
    ):
        return [annotation]
    if get_origin(annotation) is Literal:
        return []
    return [model for argument in get_args(annotation) for model in _models(argument)]


def _tags(model: type[BaseModel]) -> tuple[Any, ...]:
    field = model.model_fields.get("type")
    return get_args(field.annotation) if field is not None else ()
