"""What a running job says about itself: one plain object, written by the runner, read by whoever shows it.

The runner and its readers share an event loop, so a reader always sees a consistent object.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from streamproc.observability.metrics import PipelineMetrics

JobState = Literal["starting", "running", "waiting", "restarting", "stopping", "finished", "stopped", "failed"]


@dataclass(slots=True)
class JobStatus:
    """Counts are totals of this process; times are seconds since the epoch unless the name says otherwise."""

    pipeline: str
    state: JobState = "starting"
    message: str = ""  # why, where the state alone does not say it: "broker does not answer"
    records_in: int = 0  # read by sources
    records_out: int = 0  # taken by sinks
    late_records: int = 0
    error_records: int = 0
    restarts: int = 0
    watermark_ms: int | None = None  # least over the sinks; None before the first, WATERMARK_MAX at the end of input
    checkpoint: int | None = None  # the newest completed one
    checkpoint_at: float | None = None
    checkpoint_duration_s: float | None = None

    @property
    def ready(self) -> bool:
        """The pipeline does what is wanted of it: reading, or rightly at its end."""
        return self.state in ("running", "finished")


@dataclass(frozen=True, slots=True)
class JobObserver:
    """What a runner reports to."""

    metrics: PipelineMetrics
    status: JobStatus
