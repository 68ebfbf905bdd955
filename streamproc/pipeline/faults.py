"""A fault is one thing wrong with a pipeline file, at its place, in words that say what to do.

Faults are values: checks record them in a `FaultLog` and go on, so that a file's faults come all at
once. Only the loading functions turn a log with errors into an `InvalidPipeline`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from state.failure import Failure
from streamproc.pipeline.document import Document, FieldPath, path_text

Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. `line` and `column` count from 1; 0 where a fault has no place inside the file."""

    file: str
    line: int
    column: int
    path: str
    message: str
    hint: str | None = None
    severity: Severity = "error"

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        parts = [place, *(["warning"] if self.severity == "warning" else []), *([self.path] if self.path else [])]
        return ": ".join([*parts, self.message]) + (f"; {self.hint}" if self.hint else "")

    def as_json(self) -> dict[str, Any]:
        """For `--json` and REST."""
        return {name: getattr(self, name) for name in Fault.__slots__}


def _within(path: str, part: str) -> bool:
    return path.startswith((f"{part}.", f"{part}["))


class InvalidPipeline(Failure):
    """A pipeline file is wrong. `faults` holds everything found, warnings included, in file order."""

    acts = "user"

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(str(fault) for fault in self.faults))


class FaultLog:
    """Collects the faults of one document and finds their places.

    Every message passes through the document's redaction: a value that came out of `${env:…}` or
    `${file:…}` never reaches a fault.
    """

    def __init__(self, document: Document) -> None:
        self.document = document
        self._warnings: list[Fault] = []
        self._errors = [
            Fault(document.file, p.line, p.column, path_text(p.path), document.redact(p.message), p.hint)
            for p in document.problems
        ]

    def error(
        self, path: FieldPath, message: str, hint: str | None = None, *, at_key: bool = False, offset: int | None = None
    ) -> None:
        """Record an error at the value of `path` (at its key: `at_key`; `offset` characters into its text).
        Where the document is broken nothing more is said."""
        if self.document.is_broken(path):
            return
        fault = self._fault(path, message, hint, "error", at_key, offset)
        if fault not in self._errors:
            self._errors.append(fault)

    def warning(self, path: FieldPath, message: str, hint: str | None = None, *, at_key: bool = True) -> None:
        """Record something that will run, but hardly as meant."""
        self._warnings.append(self._fault(path, message, hint, "warning", at_key, None))

    @property
    def failed(self) -> bool:
        """Whether any error was recorded."""
        return bool(self._errors)

    def faults(self) -> list[Fault]:
        """All errors and warnings, in file order. Of a part with errors, warnings would only distract."""
        faulty = {fault.path for fault in self._errors}
        warnings = [w for w in self._warnings if not any(path == w.path or _within(path, w.path) for path in faulty)]
        return sorted([*self._errors, *warnings], key=lambda fault: (fault.line, fault.column))

    def _fault(
        self, path: FieldPath, message: str, hint: str | None, severity: Severity, at_key: bool, offset: int | None
    ) -> Fault:
        line, column = self.document.place_of(path, at_key=at_key, offset=offset)
        redact = self.document.redact
        return Fault(
            file=self.document.file,
            line=line,
            column=column,
            path=path_text(path),
            message=redact(message),
            hint=None if hint is None else redact(hint),
            severity=severity,
        )
