"""A YAML file as plain values, with the place of every key and value, or what is wrong with it.

Strict: one document, UTF-8, bounded size and depth, text keys, no duplicate keys, no anchors, aliases,
tags or merge keys. Plain scalars are `true`, `false`, `null`, numbers or text: `on`, `no` and dates are
text. Problems are collected; what stands at a broken place is not to be judged any further.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from streamproc.pipeline.references import Redaction, References
from streamproc.pipeline.yaml_syntax import place_of, syntax_fault

BYTES_MAX: Final = 1_000_000
DEPTH_MAX: Final = 32

FieldPath = tuple[str | int, ...]

_INTEGER = re.compile(r"[-+]?\d{1,30}")
_PREFIXED = re.compile(r"0o[0-7]{1,30}|0x[0-9a-fA-F]{1,30}")
_FLOAT = re.compile(r"[-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d{1,4})?")
_SINGLE = re.compile(r"''|.")
_DOUBLE = re.compile(r"\\(x..|u.{4}|U.{8}|.)|.")
_WORDS: Final[dict[str, bool | None]] = {"true": True, "false": False, "null": None, "~": None, "": None}


def path_text(path: FieldPath) -> str:
    """`steps.revenue.key[0]`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


@dataclass(frozen=True, slots=True)
class Problem:
    """Something the strict loader refuses. `line` and `column` count from 1."""

    line: int
    column: int
    path: FieldPath
    message: str
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class _Lines:
    """A text that YAML reads from several lines: only its white space differs from what is written."""

    value: str
    raw: str
    begins: tuple[int, int]  # where `raw` does
    skipped: int  # characters of `raw` before the text: the header of a block

    def place_of(self, offset: int) -> tuple[int, int]:
        """Line and column of a character of the value."""
        before = sum(not character.isspace() for character in self.value[:offset])
        written = [at for at in range(self.skipped, len(self.raw)) if not self.raw[at].isspace()]
        at = written[min(before, len(written) - 1)] if written else 0
        line, column = self.begins
        breaks = self.raw.count("\n", 0, at)
        return (line + breaks, at - self.raw.rfind("\n", 0, at)) if breaks else (line, column + at)


@dataclass(slots=True)
class _Marks:
    key: tuple[int, int] | None = None
    value: tuple[int, int] = (1, 1)
    text: tuple[int, int] | None = None  # where the scalar's first character stands, if one line holds it all
    escaped: list[int] = field(default_factory=list)  # offset in the value → in the file, where they differ
    lines: _Lines | None = None  # a text over several lines


@dataclass(slots=True)
class Document:
    """What a file says (`value`) and where it says so. `problems` make the file invalid."""

    file: str
    value: Any = None
    problems: list[Problem] = field(default_factory=list)
    broken: set[FieldPath] = field(default_factory=set)
    as_written: dict[FieldPath, str] = field(default_factory=dict)  # texts that held references
    gave: dict[str, str] = field(default_factory=dict)  # resolved value → reference
    _marks: dict[FieldPath, _Marks] = field(default_factory=dict)
    _redaction: Redaction | None = None

    def place_of(self, path: FieldPath, *, at_key: bool = False, offset: int | None = None) -> tuple[int, int]:
        """Line and column, from 1, of the value at `path` (of its key; of a character inside its text).
        What is not in the file has the place of the nearest thing around it that is."""
        while path and path not in self._marks:
            path, at_key, offset = path[:-1], True, None
        marks = self._marks.get(path)
        if marks is None:
            return (1, 1)
        if at_key and marks.key is not None:
            return marks.key
        if offset is not None and marks.text is not None and path not in self.as_written:
            if marks.escaped:
                offset = marks.escaped[min(offset, len(marks.escaped) - 1)]
            return (marks.text[0], marks.text[1] + offset)
        if offset is not None and marks.lines is not None and path not in self.as_written:
            return marks.lines.place_of(offset)
        return marks.value

    def is_broken(self, path: FieldPath) -> bool:
        """Whether a problem was found at `path` or around it."""
        return any(path[:length] in self.broken for length in range(len(path) + 1))

    def read_as(self, path: FieldPath, meant: FieldPath) -> None:
        """What stands at `path` is checked as if it stood at `meant`: faults in it keep their places."""
        count = len(path)
        for marked in [marked for marked in self._marks if marked[:count] == path]:
            self._marks[meant + marked[count:]] = self._marks[marked]
        for written in [written for written in self.as_written if written[:count] == path]:
            self.as_written[meant + written[count:]] = self.as_written[written]
        self.broken |= {meant + broken[count:] for broken in self.broken if broken[:count] == path}

    def from_reference(self, path: FieldPath) -> bool:
        """Whether the text at `path` held references."""
        return path in self.as_written

    def redact(self, text: str) -> str:
        """`text` with references in place of what they gave."""
        if self._redaction is None:
            self._redaction = Redaction(self.gave)
        return self._redaction(text)

    @property
    def secrets(self) -> tuple[str, ...]:
        """Everything references gave."""
        return tuple(value for value in self.gave if value)


def read_document(path: Path, *, environment: Mapping[str, str] = os.environ) -> Document:
    """Read and parse a file; never raises for what is wrong with it."""
    document = Document(str(path))
    try:
        with path.open("rb") as file:
            content = file.read(BYTES_MAX + 1)
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or "not a file name"
        return _hopeless(document, Problem(0, 0, (), f"cannot be read: {reason.lower()}"))
    return decode_document(content, file=str(path), references=References(environment, path.parent))


def decode_document(content: bytes, *, file: str, references: References) -> Document:
    """Parse the content of a file; never raises for what is wrong with it."""
    if len(content) > BYTES_MAX:
        return _hopeless(Document(file), Problem(0, 0, (), f"is larger than {BYTES_MAX} bytes"))
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return _hopeless(Document(file), Problem(line, 1, (), "is not UTF-8 text"))
    return parse_document(text, file=file, references=references)


def parse_document(text: str, *, file: str, references: References) -> Document:
    """Parse a text; never raises for what is wrong with it."""
    document = Document(file)
    try:
        _Builder(document, text, references).build()
    except _Hopeless as hopeless:
        return _hopeless(document, hopeless.problem)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        column = error.position - (text.rfind("\n", 0, error.position) + 1) + 1
        return _hopeless(document, Problem(line, column, (), "holds a character that YAML does not allow"))
    except yaml.MarkedYAMLError as error:
        fault = syntax_fault(error, text)
        return _hopeless(document, Problem(*fault.place, (), fault.message, fault.hint))
    return document


class _Hopeless(Exception):
    """Reading cannot go on."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def _hopeless(document: Document, problem: Problem) -> Document:
    document.problems.append(problem)
    document.broken.add(())
    document.value = None
    return document


class _Builder:
    """Turns the parser's events into values; recursion is bounded by DEPTH_MAX."""

    def __init__(self, document: Document, text: str, references: References) -> None:
        self._document = document
        self._text = text
        self._references = references
        self._events: Iterator[yaml.Event] = yaml.parse(text, Loader=yaml.SafeLoader)

    def build(self) -> None:
        next(self._events)  # stream start
        first = next(self._events)
        if isinstance(first, yaml.StreamEndEvent):
            raise _Hopeless(Problem(1, 1, (), "is empty", "a pipeline begins with `version: 1`"))
        self._document.value = self._node(next(self._events), (), None)
        next(self._events)  # document end
        after = next(self._events)
        if not isinstance(after, yaml.StreamEndEvent):
            line, column = place_of(after.start_mark)
            raise _Hopeless(Problem(line, column, (), "holds a second document: one file is one pipeline"))

    def _node(self, event: yaml.Event, path: FieldPath, key: tuple[int, int] | None) -> Any:
        marks = _Marks(key, place_of(event.start_mark))
        self._document._marks[path] = marks
        if len(path) > DEPTH_MAX:
            raise _Hopeless(Problem(*marks.value, path[:3], f"is nested more than {DEPTH_MAX} levels deep"))
        if isinstance(event, yaml.AliasEvent):
            hint = 'a text beginning with * needs quotes: "*.errors"'
            self._refuse(marks.value, path, f"*{event.anchor} is a YAML alias; aliases are not allowed", hint)
            return None
        assert isinstance(event, yaml.NodeEvent)
        if event.anchor is not None:
            hint = "write the value out where it is needed; a text beginning with & needs quotes"
            self._refuse(marks.value, path, f"&{event.anchor} is a YAML anchor; anchors are not allowed", hint)
        tag = getattr(event, "tag", None)
        if tag is not None:
            hint = "a text beginning with ! needs quotes"
            name = tag.replace("tag:yaml.org,2002:", "!!")
            self._refuse(marks.value, path, f"{name} is a YAML tag; tags are not allowed", hint)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._list(path)
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(path)
        assert isinstance(event, yaml.ScalarEvent)
        return self._scalar(event, path, marks)

    def _list(self, path: FieldPath) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            items.append(self._node(event, (*path, len(items)), None))
        return items

    def _mapping(self, path: FieldPath) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            place = place_of(event.start_mark)
            key = self._key(event, path, place)
            if key is None:
                self._skip(next(self._events))
            elif key in mapping:
                first = self._document.place_of((*path, key), at_key=True)
                message = f"'{key}' is here twice; the first is on line {first[0]}"
                self._refuse(place, (*path, key), message, breaks=False)
                self._read_again(mapping, key, path)
            else:
                mapping[key] = None
                mapping[key] = self._node(next(self._events), (*path, key), place)
        return mapping

    def _read_again(self, mapping: dict[str, Any], key: str, path: FieldPath) -> None:
        """Read over a key that is there twice; a section of the file is read with the other of its name."""
        event = next(self._events)
        if path or not isinstance(event, yaml.MappingStartEvent) or not isinstance(mapping[key], dict):
            self._skip(event)
            return
        marks = self._document._marks[(key,)]
        mapping[key] |= self._node(event, (key,), marks.key)
        self._document._marks[(key,)] = marks

    def _key(self, event: yaml.Event, path: FieldPath, place: tuple[int, int]) -> str | None:
        """The key's text; None where it cannot be one."""
        if not isinstance(event, yaml.ScalarEvent):
            hint = 'one with { } or [ ] or * needs quotes: "{…}"'
            self._refuse(place, path, "a key must be text", hint, breaks=False)
            self._skip(event)
        elif event.anchor is not None or event.tag is not None:
            self._refuse(place, path, "anchors and tags are not allowed", breaks=False)
        elif event.value == "<<" and event.implicit[0]:
            self._refuse(place, path, "<< is a YAML merge key; merge keys are not allowed", breaks=bool(path))
        elif event.implicit[0] and not isinstance(_plain(event.value), str):
            written = event.value or "nothing"
            hint = f'write it in quotes: "{event.value}"'
            self._refuse(place, path, f"a key must be text, not {written}", hint, breaks=False)
        else:
            return str(event.value)
        return None

    def _skip(self, event: yaml.Event) -> None:
        """Pass over a node without judging it."""
        depth = 0
        while True:
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth == 0:
                return
            event = next(self._events)

    def _scalar(self, event: yaml.ScalarEvent, path: FieldPath, marks: _Marks) -> Any:
        value = _plain(event.value) if event.implicit[0] else event.value
        if value is _TOO_LARGE:
            self._refuse(marks.value, path, f"{event.value[:40]} is too large a number")
            return None
        if not isinstance(value, str):
            return value
        start, end = event.start_mark, event.end_mark
        raw = self._text[start.index : end.index] if start is not None and end is not None else ""
        if raw == value and "\n" not in raw:
            marks.text = marks.value
        elif raw[:1] in ("'", '"') and "\n" not in raw:
            marks.text = (marks.value[0], marks.value[1] + 1)
            marks.escaped = _escaped(raw[1:-1], quote=raw[0]) if raw[1:-1] != value else []
        elif "\n" in raw and raw[0] not in "'\"":
            skipped = raw.index("\n") if event.style in ("|", ">") else 0
            if "".join(raw[skipped:].split()) == "".join(value.split()):
                marks.lines = _Lines(value, raw, marks.value, skipped)
        resolved = self._references.resolve(value)
        if resolved.refused is not None:
            self._refuse(marks.value, path, resolved.refused, resolved.hint)
        elif resolved.gave:
            self._document.as_written[path] = value
            self._document.gave.update(resolved.gave)
        return resolved.text

    def _refuse(
        self, place: tuple[int, int], path: FieldPath, message: str, hint: str | None = None, *, breaks: bool = True
    ) -> None:
        self._document.problems.append(Problem(*place, path, message, hint))
        if breaks:
            self._document.broken.add(path)


_TOO_LARGE: Final = object()


def _plain(text: str) -> Any:
    """A plain scalar's value."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _PREFIXED.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        number = float(text)
        return number if abs(number) != float("inf") else _TOO_LARGE
    return text


def _escaped(raw: str, quote: str) -> list[int]:
    """Where each character of a quoted text, and its end, stands in the text as written."""
    pattern = _SINGLE if quote == "'" else _DOUBLE
    return [*(match.start() for match in pattern.finditer(raw)), len(raw)]
