"""Near names: what the writer of a file probably meant, and how a wrong value is called in a message."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher
from typing import Final

_ALIKE_MIN: Final = 0.6
_SHOWN_CHARS_MAX: Final = 60


def near(name: str, known: Iterable[str]) -> str | None:
    """The one of `known` most like `name`; None when nothing is alike."""
    best, best_ratio = None, _ALIKE_MIN
    for candidate in known:
        if candidate.lower() == name.lower():
            return candidate
        ratio = SequenceMatcher(None, name.lower(), candidate.lower()).ratio()
        if ratio > best_ratio:
            best, best_ratio = candidate, ratio
    return best


def did_you_mean(name: str, known: Iterable[str]) -> str | None:
    """A hint with the near name; where nothing is near and the choice is small, the choice."""
    choices = list(known)
    if (suggestion := near(name, choices)) is not None:
        return f"did you mean '{suggestion}'?"
    if 0 < len(choices) <= 12:
        return f"there {'are' if len(choices) > 1 else 'is'} {listed(choices)}"
    return None


def listed(names: Iterable[str], last: str = "and") -> str:
    """`a, b and c`."""
    items = list(names)
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} {last} {items[-1]}" if items else ""


def shown(value: object) -> str:
    """A value of the file in a message: short, and with what kind of thing it is."""
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case int() | float():
            return f"the number {value}" if abs(value) < 1e18 else "a very large number"
        case str():
            return f"the text {_short(value)}"
        case list():
            return "a list"
        case _:
            return "a mapping"


def _short(text: str) -> str:
    return repr(text if len(text) <= _SHOWN_CHARS_MAX else text[:_SHOWN_CHARS_MAX] + "…")
