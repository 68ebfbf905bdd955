"""Numbers, times and states as the page writes them: short, with their unit, and never by colour alone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

from streamproc.diagnosis.phrases import span
from streamproc.service.views import PipelineSummary, State

Tone = Literal["good", "attention", "bad", "quiet"]
NONE: Final = "–"


@dataclass(frozen=True, slots=True)
class Sign:
    """A state as a word, a shape (a symbol of `base.html`) and a colour."""

    word: str
    shape: str
    tone: Tone


STATES: Final[dict[State, Sign]] = {
    "failed": Sign("failed", "cross", "bad"),
    "restarting": Sign("restarting", "turn", "bad"),
    "waiting": Sign("waiting", "half", "attention"),
    "starting": Sign("starting", "ring", "attention"),
    "stopping": Sign("stopping", "ring", "attention"),
    "running": Sign("running", "disc", "good"),
    "finished": Sign("finished", "tick", "quiet"),
    "drained": Sign("drained", "tick", "quiet"),
    "stopped": Sign("stopped", "square", "quiet"),
}
ACTORS: Final = {
    "user": "you (the pipeline, its records or its settings)",
    "world": "whoever runs what it depends on (a broker, a disk, a network)",
    "us": "the makers of streamproc (a defect: please report it)",
}
CHECKPOINT_KINDS: Final = {
    "periodic": "periodic",
    "savepoint": "savepoint",
    "stop": "before a stop",
    "drain": "after a drain",
    "finished": "at the end of input",
}
_URGENCY: Final = {state: turn for turn, state in enumerate(STATES)}


def problems_first(pipelines: tuple[PipelineSummary, ...]) -> list[PipelineSummary]:
    """What needs somebody comes first; else by name."""

    def urgency(one: PipelineSummary) -> tuple[bool, int, str]:
        return one.ready, _URGENCY[one.state], one.name

    return sorted(pipelines, key=urgency)


def count(number: int | None) -> str:
    """`1,234`, `12.3 M`."""
    if number is None:
        return NONE
    for size, unit in ((10**12, "T"), (10**9, "G"), (10**7, "M")):
        if abs(number) >= size:
            return f"{number / (10**6 if unit == 'M' else size):,.1f} {unit}"
    return f"{number:,}"


def rate(per_second: float) -> str:
    """`0/s`, `0.3/s`, `41/s`, `12.3 k/s`."""
    if per_second <= 0:
        return "0/s"
    for size, unit in ((1e6, " M"), (1e3, " k")):
        if per_second >= size:
            return f"{per_second / size:,.1f}{unit}/s"
    return f"{per_second:.0f}/s" if per_second >= 10 else f"{per_second:.1f}".removesuffix(".0") + "/s"


def size(number: int | None) -> str:
    """Bytes: `0 B`, `12.3 kB`, in powers of 1000."""
    if number is None:
        return NONE
    scaled, unit = float(number), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(scaled) < 1000 or unit == "TB":
            break
        scaled /= 1000
    return f"{scaled:.0f} B" if unit == "B" else f"{scaled:.1f} {unit}"


def duration(seconds: float | None) -> str:
    """`340 ms`, `3.2 s`, `4 min 10 s`, `3 h 20 min`, `2 d 4 h`."""
    if seconds is None:
        return NONE
    return f"−{span(-seconds)}" if seconds < 0 else span(seconds)


def age(at: datetime | None, now: datetime) -> str:
    """How long ago, in whole seconds; what is ahead of the clock is now."""
    if at is None:
        return NONE
    seconds = max(0, round((now - at).total_seconds()))
    return duration(float(seconds)) if seconds else "0 s"


def lag(at: datetime | None, now: datetime) -> str:
    """How far an event time is behind the clock."""
    if at is None:
        return NONE
    behind = (now - at).total_seconds()
    return duration(float(round(behind, 1))) if behind >= 0 else f"{duration(float(round(-behind, 1)))} ahead"


def distance(seconds: float) -> str:
    """How far a watermark is from the clock, short enough for a card: `3.2 s behind`, `16 min behind`; with rows of
    the future `2 s ahead`."""
    largest = " ".join(duration(abs(seconds)).split()[:2])
    return f"{largest} {'behind' if seconds >= 0 else 'ahead'}"


def percent(share: float) -> str:
    """`34 %`; what is there never reads as nothing."""
    return "<1 %" if 0 < share < 0.005 else f"{share * 100:.0f} %"


def fine_share(share: float) -> str:
    """`0.68 %`, for shares that should be small."""
    return "<0.01 %" if 0 < share < 0.0001 else f"{share * 100:.2f} %"


def moment(at: datetime | None) -> str:
    """`2026-01-31 12:00:05`, UTC."""
    return NONE if at is None else at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def clock(at: datetime | None, now: datetime) -> str:
    """The time of day, with the date when it is another day's; UTC."""
    if at is None:
        return NONE
    in_utc = at.astimezone(UTC)
    return in_utc.strftime("%H:%M:%S" if in_utc.date() == now.astimezone(UTC).date() else "%Y-%m-%d %H:%M")


def shortened(text: str, characters: int) -> str:
    """The text, or its beginning and `…`: at most so many characters."""
    return text if len(text) <= characters else text[: characters - 1] + "…"
