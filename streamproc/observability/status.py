"""What a running job says about itself: one plain object, written by the runner, read by whoever shows it.

The runner and its readers share an event loop, so a reader always sees a consistent object.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from state.failure import Failure
from streamproc.observability.facts import JobFacts

if TYPE_CHECKING:
    from streamproc.observability.ledger import StepLedger
    from streamproc.observability.metrics import PipelineMetrics

JobState = Literal[
    "starting", "running", "waiting", "restarting", "stopping", "finished", "stopped", "drained", "failed"
]

ERRORS_KEPT: Final = 100
FAILURES_KEPT: Final = 20


@dataclass(frozen=True, slots=True)
class RecordError:
    """`records` records of one batch that could not be decoded or processed; `error` is the first one's."""

    at: float
    node: str
    split: str | None
    offset: int | None
    error: str
    records: int


@dataclass(frozen=True, slots=True)
class JobFailure:
    """A failure that ended an attempt."""

    at: float
    failure: Failure


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
    checkpoints: int = 0  # completed
    checkpoint_at: float | None = None
    checkpoint_duration_s: float | None = None
    checkpoint_alignment_s: float | None = None
    ledger: Mapping[str, StepLedger] = field(default_factory=dict)  # by node, as of `checkpoint`
    errors: deque[RecordError] = field(default_factory=lambda: deque(maxlen=ERRORS_KEPT))  # newest last
    failures: deque[JobFailure] = field(default_factory=lambda: deque(maxlen=FAILURES_KEPT))  # newest last

    @property
    def wanted_running(self) -> bool:
        """By whoever runs it; a service knows better."""
        return True

    @property
    def ready(self) -> bool:
        """The pipeline does what is wanted of it: reading, or rightly at its end."""
        return self.state in ("running", "finished")


@dataclass(slots=True)
class JobObserver:
    """What a runner reports to. `facts` gives what the job is doing now; None while no attempt runs."""

    metrics: PipelineMetrics
    status: JobStatus
    facts: Callable[[], JobFacts] | None = None
