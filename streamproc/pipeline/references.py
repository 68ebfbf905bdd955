"""`${env:NAME}` and `${file:PATH}` inside a text: replaced once, never read again, shown nowhere.

What a reference gave is a secret: it may stand in a value, never in a message, a plan or a log.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

FILE_BYTES_MAX: Final = 65_536
_REFERENCE = re.compile(r"\$\{([^{}]*)\}")
_SHORT_CHARS: Final = 4


@dataclass(frozen=True, slots=True)
class Resolved:
    """A text with its references replaced. `refused` says why one could not be (then `text` is as written)."""

    text: str
    gave: Mapping[str, str]  # resolved value → the reference it came from
    refused: str | None = None
    hint: str | None = None


class Refused(Exception):
    """One reference cannot be resolved; arguments: message and hint."""


@dataclass(frozen=True, slots=True)
class References:
    """Where references are looked up: the environment, and files relative to the pipeline's folder."""

    environment: Mapping[str, str]
    folder: Path

    def resolve(self, text: str) -> Resolved:
        """Replace every reference in `text`."""
        if "${" not in text:
            return Resolved(text, {})
        gave: dict[str, str] = {}

        def replace(match: re.Match[str]) -> str:
            value = self._look_up(match[0], match[1])
            gave[value] = match[0]
            return value

        try:
            replaced = _REFERENCE.sub(replace, text)
        except Refused as refusal:
            return Resolved(text, {}, *refusal.args)
        if gave and replaced not in gave:
            gave[replaced] = text
        return Resolved(replaced, gave)

    def _look_up(self, reference: str, inside: str) -> str:
        kind, _, name = inside.partition(":")
        if kind == "env" and name:
            if name not in self.environment:
                raise Refused(f"{reference}: the environment variable {name} is not set", None)
            return self.environment[name]
        if kind == "file" and name:
            return self._read(reference, name)
        hint = f"for an environment variable write ${{env:{inside}}}" if inside.isidentifier() else None
        raise Refused(f"{reference} is not a reference: there are ${{env:NAME}} and ${{file:PATH}}", hint)

    def _read(self, reference: str, name: str) -> str:
        try:
            with (self.folder / name).open("rb") as file:
                content = file.read(FILE_BYTES_MAX + 1)
        except (OSError, ValueError) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or "not a file name"
            raise Refused(f"{reference}: the file cannot be read ({reason.lower()})", None) from error
        if len(content) > FILE_BYTES_MAX:
            raise Refused(f"{reference}: the file is larger than {FILE_BYTES_MAX} bytes", None)
        try:
            return content.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise Refused(f"{reference}: the file is not UTF-8 text", None) from error


class Redaction:
    """Puts the reference (or `***`) back wherever a resolved value shows up in a text meant for people.

    A value of a few characters (`1`, `no`) would shred every text: it counts only where it stands alone
    (`short_alone`) or, by default, alone between quotes, as values in messages do.
    """

    def __init__(self, gave: Mapping[str, str], *, short_alone: bool = False) -> None:
        self._reference_of = {value.casefold(): reference for value, reference in gave.items()}
        before, after = (r"(?<![\w.])", r"(?![\w.])") if short_alone else ("(?<=['\"])", "(?=['\"])")
        patterns = []
        for value in sorted(filter(str.strip, gave), key=len, reverse=True):
            # What stands in a message may be the value's repr: quotes and backslashes escaped.
            for form in {value, repr(value)[1:-1]}:
                self._reference_of.setdefault(form.casefold(), gave[value])
                escaped = re.escape(form)
                patterns.append(escaped if len(form) >= _SHORT_CHARS else f"{before}{escaped}{after}")
        self._pattern = re.compile("|".join(patterns), re.IGNORECASE) if patterns else None

    def __call__(self, text: str) -> str:
        if self._pattern is None:
            return text
        return self._pattern.sub(lambda match: self._reference_of.get(match[0].casefold(), "***"), text)
