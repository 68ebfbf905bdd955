"""The record ledger: at every checkpoint, every row that came into a node has gone somewhere.

    in = out + filtered + late + errors + held

`held` is what was taken into state, less what was made from it. Each number is counted where it happens: rows
in by who hands them over, the others by the operator that decides; so a row that is lost, or comes twice, shows.
Numbers are totals over all subtasks since the pipeline began: a checkpoint stores them, a restored job goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class StepLedger:
    """One node's account. `sent`: rows that upstream nodes have sent to it (what `rows_in` must be)."""

    rows_in: int = 0
    rows_out: int = 0
    filtered: int = 0
    late: int = 0
    errors: int = 0
    held: int = 0
    sent: int = 0

    @property
    def unaccounted(self) -> int:
        """0, or rows were lost (above) or came twice (below); lost on the way to it included."""
        gone = self.rows_out + self.filtered + self.late + self.errors + self.held
        return (self.sent - self.rows_in) or (self.rows_in - gone)

    def __add__(self, other: StepLedger) -> StepLedger:
        return StepLedger(*(getattr(self, f) + getattr(other, f) for f in StepLedger.__slots__))

    def as_json(self) -> dict[str, int]:
        """For the manifest."""
        return {field: getattr(self, field) for field in StepLedger.__slots__}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> StepLedger:
        """What `as_json` gave."""
        return cls(**{field: int(stored.get(field, 0)) for field in cls.__slots__})
