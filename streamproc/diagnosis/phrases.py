"""Numbers as people read them: spans of time, moments (UTC), counts, shares."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from operators.element import WATERMARK_MAX, WATERMARK_MIN

_UNITS: Final = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))
_DAY_MS: Final = 86_400_000
_YEARS_MS: Final = (-62_135_596_800_000, 253_402_300_800_000)  # from the year 1 to 9999: what a date can say


def span(seconds: float) -> str:
    """`300 ms`, `4.5 s`, `3 min 20 s`, `2 h`: the two largest units that say something."""
    if seconds < 0.9995:
        return f"{max(0, round(seconds * 1000))} ms"
    if seconds < 9.95:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    left = round(seconds)
    parts: list[str] = []
    for unit, size in _UNITS:
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count} {unit}")
        elif parts:
            break
        if len(parts) == 2:
            break
    return " ".join(parts)


def moment(time_ms: int, today_ms: int | None = None) -> str:
    """`2026-01-01 12:00:05 UTC`, on the day of `today_ms` without the date; the ends of time by what they mean."""
    if time_ms <= WATERMARK_MIN:
        return "none yet"
    if time_ms >= WATERMARK_MAX:
        return "the end of input"
    if not _YEARS_MS[0] <= time_ms < _YEARS_MS[1]:
        return f"{time_ms} ms"
    at = datetime.fromtimestamp(time_ms // 1000, UTC)
    ms = f".{time_ms % 1000:03}" if time_ms % 1000 else ""
    day = "" if today_ms is not None and today_ms // _DAY_MS == time_ms // _DAY_MS else f"{at:%Y-%m-%d} "
    return f"{day}{at:%H:%M:%S}{ms} UTC"


def count(number: int, noun: str) -> str:
    """`1 row`, `12,000 rows`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def share(part: float, whole: float) -> str:
    """`25 %`, `0.01 %`; never `0 %` of something, nor `100 %` of less than all."""
    percent = 100 * part / whole if whole else 0.0
    if percent in (0.0, 100.0):
        return f"{percent:.0f} %"
    if percent >= 10:
        return f"{min(percent, 99.9):.0f} %" if percent < 99.5 else "over 99 %"
    if percent >= 0.095:
        return f"{percent:.1f}".removesuffix(".0") + " %"
    return f"{percent:.2f} %" if percent >= 0.005 else "under 0.01 %"


def part_of(part: int, whole: int, noun: str) -> str:
    """`12 rows of 120,000 (0.01 %)`."""
    return f"{count(part, noun)} of {whole:,} ({share(part, whole)})"


def per_second(rate: float) -> str:
    """`12,000 rows/s`, `0.3 rows/s`."""
    return f"{rate:,.0f} rows/s" if rate >= 10 else f"{rate:.1f}".removesuffix(".0") + " rows/s"


def listed(names: list[str], most: int = 3) -> str:
    """`a, b and 4 more`."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
