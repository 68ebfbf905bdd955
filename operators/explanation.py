"""What `explain` says of an operator: what it does, what its state holds, and what bounds that.

In the words and units of a pipeline file. `describe` of an operator is for stored state; this is for people.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

UNIT_MS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


class Late(NamedTuple):
    """What becomes of rows that come too late; all are counted."""

    accept_for_ms: int = 0  # how long after its closing a window still takes them
    side_output: bool = False  # otherwise dropped


@dataclass(frozen=True, slots=True)
class Explanation:
    """`does`: one line; `computes`: columns and their expressions; `keeps`: what the state holds and for how long,
    empty where there is none; `late`: None where no row can be late."""

    does: str
    computes: Mapping[str, str] = field(default_factory=dict)
    keeps: str = ""
    late: Late | None = None


def duration_text(ms: int) -> str:
    """Milliseconds as a file would say it, in the largest unit that is exact."""
    for unit, unit_ms in reversed(UNIT_MS.items()):
        if ms % unit_ms == 0 and (ms or unit == "s"):
            return f"{ms // unit_ms}{unit}"
    return f"{ms}ms"


def lifetime(ttl_ms: int | None, *, timed: bool, after: str = "") -> str:
    """`for 1h of event time`. `after`: from when on, as in `after its last row`."""
    if ttl_ms is None:
        return "for ever"
    begins = f" after {after}" if after else ""
    return f"for {duration_text(ttl_ms)} {'of event time' if timed else 'by the clock'}{begins}"


def best_rows(n: int) -> str:
    """`the 3 best rows`."""
    return "the best row" if n == 1 else f"the {n} best rows"


def by_key(key: Sequence[str]) -> str:
    """` by country, kind`; nothing for the one global group."""
    return f" by {', '.join(key)}" if key else ""


def of_each(key: Sequence[str]) -> str:
    """` of each country, kind`; nothing for the one global group."""
    return f" of each {', '.join(key)}" if key else ""


def changes_text(every_ms: int | None) -> str:
    """When changes are given; nothing where only final rows are."""
    if every_ms is None:
        return ""
    return f", changes every {duration_text(every_ms)}" if every_ms else ", each change"
