"""The strict loader: YAML 1.2 values with their places, and everything it refuses."""
# ruff: noqa: E501 — a message stands on one line, as a user reads it

from __future__ import annotations

from pathlib import Path

import pytest
from inline_snapshot import snapshot

from streamproc.pipeline.document import BYTES_MAX, Document, parse_document, read_document
from streamproc.pipeline.faults import FaultLog
from streamproc.pipeline.references import References


def parse(text: str) -> Document:
    return parse_document(text, file="x.yaml", references=References({}, Path()))


def refusals(text: str) -> list[str]:
    return [str(fault) for fault in FaultLog(parse(text)).faults()]


def test_plain_scalars_are_those_of_yaml_1_2() -> None:
    text = """\
words: [true, false, null, ~, True, yes, no, on, off, y, n]
numbers: [1, -2, +3, 007, 0x1F, 0o17, 1.5, .5, 1e3, 1_000, "1", 1.]
texts: [2026-01-01, 2026-01-01T00:00:00Z, 12:30:00, 1.2.3, 10s, =, <<, .inf, .nan]
empty:
"""
    assert parse(text).value == {
        "words": [True, False, None, None, "True", "yes", "no", "on", "off", "y", "n"],
        "numbers": [1, -2, 3, 7, 31, 15, 1.5, 0.5, 1000.0, "1_000", "1", 1.0],
        "texts": ["2026-01-01", "2026-01-01T00:00:00Z", "12:30:00", "1.2.3", "10s", "=", "<<", ".inf", ".nan"],
        "empty": None,
    }


def test_places_count_from_one_and_point_into_texts() -> None:
    document = parse("a:\n  - {b: 'some text'}\n  - c: >\n      folded\n")
    assert document.place_of(("a", 0, "b"), at_key=True) == (2, 6)
    assert document.place_of(("a", 0, "b")) == (2, 9)
    assert document.place_of(("a", 0, "b"), offset=5) == (2, 15)
    assert document.place_of(("a", 1, "c"), offset=3) == (4, 10)
    assert document.place_of(("a", 0, "missing", 3)) == (2, 5)
    assert document.place_of(("absent",)) == (1, 1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", snapshot(["x.yaml:1:1: is empty; a pipeline begins with `version: 1`"])),
        ("# only a comment\n", snapshot(["x.yaml:1:1: is empty; a pipeline begins with `version: 1`"])),
        ("a: 1\n---\nb: 2\n", snapshot(["x.yaml:2:1: holds a second document: one file is one pipeline"])),
        (
            "a: 1\nb: {c: 1, c: 2}\na: 3\n",
            snapshot(
                [
                    "x.yaml:2:11: b.c: 'c' is here twice; the first is on line 2",
                    "x.yaml:3:1: a: 'a' is here twice; the first is on line 1",
                ]
            ),
        ),
        (
            "a: &x [1]\nb: *x\n",
            snapshot(
                [
                    "x.yaml:1:4: a: &x is a YAML anchor; anchors are not allowed; write the value out where it is needed; a text beginning with & needs quotes",
                    'x.yaml:2:4: b: *x is a YAML alias; aliases are not allowed; a text beginning with * needs quotes: "*.errors"',
                ]
            ),
        ),
        (
            "a: !!python/object:os.system {}\nb: !local 1\n",
            snapshot(
                [
                    "x.yaml:1:4: a: !!python/object:os.system is a YAML tag; tags are not allowed; a text beginning with ! needs quotes",
                    "x.yaml:2:4: b: !local is a YAML tag; tags are not allowed; a text beginning with ! needs quotes",
                ]
            ),
        ),
        (
            "base: {a: 1}\nother:\n  <<: {a: 2}\n",
            snapshot(["x.yaml:3:3: other: << is a YAML merge key; merge keys are not allowed"]),
        ),
        (
            "1: a\nnull: b\ntrue: c\n[x]: d\n",
            snapshot(
                [
                    'x.yaml:1:1: a key must be text, not 1; write it in quotes: "1"',
                    'x.yaml:2:1: a key must be text, not null; write it in quotes: "null"',
                    'x.yaml:3:1: a key must be text, not true; write it in quotes: "true"',
                    'x.yaml:4:1: a key must be text; one with { } or [ ] or * needs quotes: "{…}"',
                ]
            ),
        ),
        (
            "input: *.errors\n",
            snapshot(
                [
                    "x.yaml:1:9: is not valid YAML: expected alphabetic or numeric character, but found '.'; a text beginning with * needs quotes: \"*.errors\""
                ]
            ),
        ),
        (
            "brokers: [${env:BROKERS}]\n",
            snapshot(
                [
                    "x.yaml:1:12: is not valid YAML: expected ',' or ']', but got '{'; a reference needs quotes here: \"${env:NAME}\""
                ]
            ),
        ),
        (
            "a: {b: ${env:X}}\n",
            snapshot(
                [
                    "x.yaml:1:9: is not valid YAML: expected ',' or '}', but got '{'; a reference needs quotes here: \"${env:NAME}\""
                ]
            ),
        ),
        (
            "a:\n\tb: 1\n",
            snapshot(
                [
                    "x.yaml:2:1: is not valid YAML: found character '\\t' that cannot start any token; YAML indents with spaces, not tabs"
                ]
            ),
        ),
        (
            "a: b: c\n",
            snapshot(
                [
                    "x.yaml:1:5: is not valid YAML: mapping values are not allowed here; a text that holds ': ' needs quotes"
                ]
            ),
        ),
        (
            "where: 'FR' = country\n",
            snapshot(
                [
                    "x.yaml:1:13: is not valid YAML: there is more text behind a closing quote; a text that begins with a quote needs quotes around all of it, and every quote its end"
                ]
            ),
        ),
        (
            "a: [1, 2\nb: 3\n",
            snapshot(["x.yaml:1:4: is not valid YAML: '[' is not closed"]),
        ),
        (
            "a: 1\n  b: 2\n",
            snapshot(
                [
                    "x.yaml:2:3: is not valid YAML: the indentation of this line fits none above; names of one level begin in the same column"
                ]
            ),
        ),
        ("a: \x07\n", snapshot(["x.yaml:1:4: holds a character that YAML does not allow"])),
        ("a: 1e999\n", snapshot(["x.yaml:1:4: a: 1e999 is too large a number"])),
        ("[" * 40, snapshot(["x.yaml:1:34: [0][0][0]: is nested more than 32 levels deep"])),
    ],
)
def test_refusals(text: str, expected: list[str]) -> None:
    assert refusals(text) == expected


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    def refusal(path: Path) -> str:
        [fault] = FaultLog(read_document(path)).faults()
        return str(fault).replace(str(tmp_path) + "/", "")

    (tmp_path / "latin.yaml").write_bytes(b"a: 1\nb: caf\xe9\n")
    (tmp_path / "large.yaml").write_bytes(b"#" * (BYTES_MAX + 1))
    (tmp_path / "bom.yaml").write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert refusal(tmp_path / "absent.yaml") == snapshot("absent.yaml: cannot be read: no such file or directory")
    assert refusal(tmp_path / "latin.yaml") == snapshot("latin.yaml:2:1: is not UTF-8 text")
    assert refusal(tmp_path / "large.yaml") == snapshot("large.yaml: is larger than 1000000 bytes")
    assert "directory" in refusal(tmp_path)
    assert read_document(tmp_path / "bom.yaml").value == {"a": 1}
