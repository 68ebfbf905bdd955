"""What every command is given: how much to tell, and what must not be told."""

from __future__ import annotations

import json
import sys
import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from state.failure import Failure
from streamproc.observability.redaction import Redaction

if TYPE_CHECKING:
    from rich.console import Console

DEBUG_VARIABLE: Final = "STREAMPROC_DEBUG"

DONE: Final = 0
FAILED: Final = 1
WRONG_INPUT: Final = 2


@dataclass(slots=True)
class Session:
    """One call of the command line."""

    debug: bool = False
    redaction: Redaction = field(default_factory=Redaction)

    def say(self, text: str) -> None:
        """A line for people, on stderr."""
        print(self.redaction.text(text), file=sys.stderr, flush=True)

    def report(self, error: BaseException) -> int:
        """Tell what went wrong in a line, with the traceback only when asked for; gives the exit code."""
        if self.debug:
            self.say("".join(traceback.format_exception(error)).rstrip())
        from streamproc.pipeline.faults import InvalidPipeline  # `--help` need not wait for it

        if isinstance(error, InvalidPipeline):
            self.say(str(error))  # each fault begins with its file and line, as editors like it
            return WRONG_INPUT
        if isinstance(error, Failure) and error.acts != "us":
            self.say(f"streamproc: {error}")
            return WRONG_INPUT if error.acts == "user" else FAILED
        self.say(f"streamproc: {describe(error)}")
        if not self.debug:
            self.say(f"This is a defect in streamproc. {DEBUG_VARIABLE}=1 shows where it happened.")
        return FAILED


def describe(error: BaseException) -> str:
    """An error in one line; the name of its type where its text alone says too little."""
    text = str(error).strip()
    if isinstance(error, Failure) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def table_console() -> Console:
    """Stdout. Off a terminal nothing is cut to a width nobody has."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=500)


def print_json(document: Any, *, indent: int | None = None) -> None:
    """To stdout, for a script."""
    print(json.dumps(document, indent=indent, ensure_ascii=False, default=str), flush=True)
