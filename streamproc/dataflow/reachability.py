"""Whether the outside of a job answers: a source or sink that cannot reach its own makes the job wait, and says so.

A trouble counts once it has lasted for a moment: a broker that is elected anew is no news.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from prometheus_client import Gauge

from streamproc.observability.status import JobStatus

LASTING_S: Final = 2.0


@dataclass(slots=True)
class Outside:
    """What one subtask of a source or sink reads from or writes to. `trouble`: why it does not answer now, or None."""

    kind: Literal["source", "sink"]
    node: str
    trouble: Callable[[], str | None]
    reachable: Gauge
    since_s: float | None = None  # by the process's clock; None: it answers

    def look(self, now_s: float) -> str | None:
        """Its trouble, if that has lasted."""
        trouble = self.trouble()
        if trouble is None:
            self.since_s = None
            self.reachable.set(1)
            return None
        if self.since_s is None:
            self.since_s = now_s
        if now_s - self.since_s < LASTING_S:
            return None
        self.reachable.set(0)
        return f"{self.kind} {self.node}: {trouble}"


class Reachability:
    """Of one attempt: keeps the state of the job between `running` and `waiting`, and says what it waits for."""

    def __init__(self, outsides: Sequence[Outside], status: JobStatus) -> None:
        self._outsides = outsides
        self._status = status
        self._said = ""

    def look(self, now_s: float | None = None) -> None:
        """About once a second. Only `running` becomes `waiting`; while the job starts, the message alone tells."""
        now_s = time.monotonic() if now_s is None else now_s
        troubles = [trouble for each in self._outsides if (trouble := each.look(now_s)) is not None]
        says = "; ".join(dict.fromkeys(troubles))
        status = self._status
        if status.state == "running" and says:
            status.state = "waiting"
        elif status.state == "waiting" and not says:
            status.state = "running"
        if says:
            status.message = says
        elif self._said and status.message == self._said:
            status.message = ""
        self._said = says
