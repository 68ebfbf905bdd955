"""The JSON Schema that editors read: it takes every right file, and sees what is wrong in shape."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from operators.explanation import duration_text
from streamproc.pipeline.document import parse_document
from streamproc.pipeline.json_schema import json_schema
from streamproc.pipeline.references import References
from streamproc.pipeline.spec import parse_duration
from tests.unit.pipeline.every_verb import EVERY_VERB

GOLDEN = Path(__file__).parents[2] / "golden"
SCHEMA = json_schema()
TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
}
NOTES = {"type", "$schema", "$defs", "title", "description", "default", "examples", "discriminator"}


def wrong(value: Any, schema: Mapping[str, Any], at: str = "") -> Iterator[str]:
    """Places of `value` that do not meet the schema; knows the keywords that ours uses, and no other."""
    kind = schema.get("type")
    if kind is not None and (not isinstance(value, TYPES[kind]) or (isinstance(value, bool) and kind != "boolean")):
        yield at
        return
    for word, wanted in schema.items():
        match word:
            case "$ref":
                yield from wrong(value, SCHEMA["$defs"][wanted.removeprefix("#/$defs/")], at)
            case "anyOf" | "oneOf":
                fits = sum(not list(wrong(value, option, at)) for option in wanted)
                if fits == 0 or (word == "oneOf" and fits > 1):
                    yield at
            case "enum":
                yield from () if value in wanted else (at,)
            case "const":
                yield from () if value == wanted else (at,)
            case "pattern":
                yield from () if re.search(wanted, value) else (at,)
            case "required":
                yield from (f"{at}.{name}" for name in wanted if name not in value)
            case "properties":
                for name in value.keys() & wanted.keys():
                    yield from wrong(value[name], wanted[name], f"{at}.{name}")
            case "additionalProperties":
                for name in value.keys() - schema.get("properties", {}).keys():
                    yield from (
                        ()
                        if wanted is True
                        else ((f"{at}.{name}",) if wanted is False else wrong(value[name], wanted, f"{at}.{name}"))
                    )
            case "propertyNames":
                yield from (f"{at}.{name}" for name in value if not re.search(wanted["pattern"], name))
            case "items":
                for index, item in enumerate(value):
                    yield from wrong(item, wanted, f"{at}[{index}]")
            case "minimum" | "maximum":
                yield from () if (value >= wanted if word == "minimum" else value <= wanted) else (at,)
            case "minItems" | "minProperties" | "minLength":
                yield from () if len(value) >= wanted else (at,)
            case "maxItems" | "maxLength":
                yield from () if len(value) <= wanted else (at,)
            case _:
                assert word in NOTES, word


def read(text: str) -> Any:
    return parse_document(text, file="x.yaml", references=References({}, Path())).value


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*/pipeline.yaml")), ids=lambda path: path.parent.name)
def test_golden_pipelines_meet_the_schema(path: Path) -> None:
    assert list(wrong(read(path.read_text()), SCHEMA)) == []


def test_every_verb_meets_the_schema() -> None:
    assert list(wrong(read(EVERY_VERB), SCHEMA)) == []


@pytest.mark.parametrize(
    ("right", "changed", "place"),
    [
        ("ttl: 7d", "ttl: 7 d", ".steps.open.join.ttl"),
        ("ttl: forever", "ttl: never", ".steps.totals.ttl"),
        ("within: [-5m, 1h]", "within: [-5m]", ".steps.paid.join.within"),
        ("window: input", "window: inputs", ".steps.hottest.top.window"),
        ("keep: last", "keep: newest", ".steps.latest.deduplicate.keep"),
        ("mode: async", "mode: awaited", ".steps.asked.python.mode"),
        ("columns: {risk: float64}", "columns: {}", ".steps.scored.python.columns"),
        ("odd: {id: int64}", "odd: [id]", ".steps.counted.process.outputs.odd"),
        ("{n: 3, by:", "{n: 0, by:", ".steps.best.top.n"),
        ("emit: {every: 10s}", "emit: {each: 10s}", ".steps.totals.emit"),
        ("as_of: true", "as_off: true", ".steps.priced.join.as_off"),
    ],
)
def test_what_is_wrong_in_shape(right: str, changed: str, place: str) -> None:
    assert EVERY_VERB.count(right) == 1
    assert list(wrong(read(EVERY_VERB.replace(right, changed)), SCHEMA)) == [place]


def test_fields_are_described() -> None:
    for name in ("StepSpec", "JoinSpec", "TopSpec", "DeduplicateSpec", "ProcessSpec", "PythonSpec"):
        fields = SCHEMA["$defs"][name]["properties"]
        assert {field for field, schema in fields.items() if "description" not in schema} <= {"kind"}


def test_the_json_schema_knows_every_section() -> None:
    schema = json_schema()
    assert schema["required"] == ["version", "pipeline", "sources", "sinks"]
    assert schema["additionalProperties"] is False
    definitions = schema["$defs"]
    assert definitions["CheckpointSpec"]["properties"]["every"]["default"] == "10s"
    assert definitions["KafkaSourceSpec"]["properties"]["schema"]["additionalProperties"] == {
        "$ref": "#/$defs/FieldType"
    }
    references = re.findall(r'"\$ref": "#/\$defs/(\w+)"', json.dumps(schema))
    assert set(references) <= set(definitions)


def test_the_json_schemas_durations_are_the_loaders() -> None:
    pattern = json_schema()["$defs"]["CheckpointSpec"]["properties"]["every"]["pattern"]
    for text in ("500ms", "10s", "1m", "2h", "1d"):
        assert re.fullmatch(pattern, text)
        assert duration_text(parse_duration(text)) == text
    for text in ("0s", "10", "1 m", "-1s", "1w"):
        assert not re.fullmatch(pattern, text)
    assert [duration_text(ms) for ms in (0, 90_000, 1_001)] == ["0s", "90s", "1001ms"]
