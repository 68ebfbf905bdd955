"""The watermark adviser: what each `out_of_order` of a source would cost in late rows, from how late rows came.

The figures are bounds from above. A row counts as late once it is behind the newest row of its own split by more than
`out_of_order`; it is dropped only where its window has closed too, and of several splits the slowest one counts.
Where a value lies between two bounds of the histogram, the whole piece counts as late.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from operators.explanation import duration_text
from streamproc.diagnosis.phrases import count, part_of, span
from streamproc.observability.facts import JobFacts, Lateness
from streamproc.service.views import OutOfOrderAdvice, SourceAdvice

LADDER_MS: Final = (0, 100, 1_000, 5_000, 10_000, 30_000, 60_000, 300_000, 900_000, 3_600_000, 86_400_000)
ROWS_MIN: Final = 1_000  # fewer say little of what will come
SHARE_ACCEPTED: Final = 0.0001  # a value that makes fewer rows late than this is good enough to advise


def advise(facts: JobFacts, source: str) -> SourceAdvice | None:
    """For one source; None where it has no event time, or no row has been looked at."""
    readers = [subtask.source for subtask in facts.subtasks if subtask.source and subtask.source.source == source]
    current = next((reader.out_of_order_ms for reader in readers if reader.out_of_order_ms is not None), None)
    lateness = _together(reader.lateness for reader in readers)
    if current is None or lateness is None or not lateness.rows:
        return None
    # Of rows behind by more than the last bound nobody knows by how much: to advise beyond it would be a guess.
    ladder = sorted({*(value for value in LADDER_MS if value <= lateness.bounds_ms[-1]), current})
    late = {value: late_rows(lateness, value) for value in ladder}
    enough = next((value for value in ladder if late[value] == 0), ladder[-1])
    advice = tuple(
        OutOfOrderAdvice(
            out_of_order=duration_text(value),
            late_rows=late[value],
            late_share=late[value] / lateness.rows,
            current=value == current,
        )
        for value in ladder
        if value <= max(enough, current)
    )
    return SourceAdvice(source=source, rows=lateness.rows, advice=advice, says=_says(source, lateness, late, current))


def late_rows(lateness: Lateness, out_of_order_ms: int) -> int:
    """At most so many rows were behind by more than `out_of_order_ms`."""
    bounds = (*lateness.bounds_ms, None)
    return sum(
        rows for upper, rows in zip(bounds, lateness.counts, strict=True) if upper is None or upper > out_of_order_ms
    )


def _together(parts: Iterable[Lateness | None]) -> Lateness | None:
    """Of all subtasks of a source: their histograms have the same bounds."""
    known = [part for part in parts if part is not None]
    if not known:
        return None
    counts = tuple(sum(column) for column in zip(*(part.counts for part in known), strict=True))
    return Lateness(known[0].bounds_ms, counts, sum(part.rows for part in known))


def _says(source: str, lateness: Lateness, late: dict[int, int], current: int) -> str:
    rows, has = lateness.rows, duration_text(current)
    costs = _cost(late[current], rows)
    if rows < ROWS_MIN:
        few = f"only {count(rows, 'row')} of {source} seen so far: too few to advise"
        return f"{few}; out_of_order: {has} costs {costs}"
    good = next((value for value in late if late[value] <= rows * SHARE_ACCEPTED), None)
    if good is None:
        longest = max(late)
        return (
            f"no out_of_order up to {duration_text(longest)} would do: {duration_text(longest)} still costs "
            f"{_cost(late[longest], rows)}; use late: {{accept_for: …}} or a side output for such rows of {source}"
        )
    would = f"{duration_text(good)} would cost {_cost(late[good], rows)}"
    if good < current:
        return f"{would}; you have {has}: results could come {span((current - good) / 1000)} earlier"
    if good > current:
        later = span((good - current) / 1000)
        return f"{would}; you have {has}, which costs {costs}: results would come {later} later"
    return f"{has}, as it is, is right: it costs {costs}"


def _cost(late: int, rows: int) -> str:
    return f"at most {part_of(late, rows, 'row')}" if late else f"none of {count(rows, 'row')}"
