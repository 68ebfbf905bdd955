"""Whether and when a failed job starts again: a pure decision over the failures so far.

What the outside world must mend is tried for ever, at most `max` apart: a broker that is down all night needs no
human in the morning. Anything else that fails again and again without getting anywhere is a loop, and is ended.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from state.failure import Failure
from streamproc.pipeline.spec import RestartSpec

ATTEMPTS_WITHOUT_PROGRESS_MAX: Final = 10


@dataclass(frozen=True, slots=True)
class RestartAfter:
    """Start again from the last checkpoint after `delay_s`."""

    delay_s: float
    restart: int  # 1 for the first since things last went well


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Starting again would not help, or has been tried often enough."""

    reason: str


class RestartPolicy:
    """`backoff`: delays double from `initial` to `max`; `fixed`: `attempts` times after `delay`; `none`."""

    def __init__(self, spec: RestartSpec) -> None:
        self._spec = spec
        self._restarts = 0
        self._without_progress = 0  # failures in a row that the outside world had no part in

    def on_failure(self, failure: Failure, ran_s: float, checkpoints: int = 0) -> RestartAfter | GiveUp:
        """A job that had run for `ran_s` seconds, and completed so many checkpoints in them, has failed. The first of
        them says nothing: it is taken as soon as the job runs, before it can meet what it fails at."""
        if not failure.retry_helps:
            return GiveUp("starting again would meet the same failure")
        if ran_s * 1000 >= self._spec.reset_after:
            self._restarts = self._without_progress = 0
        if checkpoints > 1:
            self._without_progress = 0
        self._restarts += 1
        self._without_progress += failure.acts != "world"
        match self._spec.strategy:
            case "none":
                return GiveUp("job.restart.strategy is none")
            case "fixed":
                if self._restarts > self._spec.attempts:
                    return GiveUp(f"{self._spec.attempts} restarts have not helped")
                return RestartAfter(self._spec.delay / 1000, self._restarts)
            case "backoff":
                if self._without_progress >= ATTEMPTS_WITHOUT_PROGRESS_MAX:
                    return GiveUp(f"it has failed {self._without_progress} times in a row without getting any further")
                delay_ms = min(self._spec.max, self._spec.initial * 2 ** min(self._restarts - 1, 30))
                return RestartAfter(delay_ms / 1000, self._restarts)
