"""What the service says of pipelines, as the REST answers, the command line and the page read it.

Field names are part of the contract with users. Times are UTC, ISO-8601; durations and shares are plain
numbers with the unit in the name.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

State = Literal["starting", "running", "waiting", "restarting", "stopping", "stopped", "drained", "finished", "failed"]
Wanted = Literal["running", "stopped", "drained"]
CheckpointKind = Literal["periodic", "savepoint", "stop", "drain", "finished"]
Verdict = Literal["kept", "migrated", "rebuilt", "dropped", "none"]
Change = Literal["added", "removed", "changed", "renamed", "unchanged"]


class View(BaseModel):
    """Base: immutable, and nothing but what is declared."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class FailureView(View):
    """One failure of a job. `acts`: who can mend it; `retry_helps`: whether starting again may."""

    at: datetime
    type: str
    message: str
    acts: Literal["user", "world", "us"]
    retry_helps: bool


class CheckpointView(View):
    """A stored checkpoint. `damage` says what is wrong with one that cannot be used; of such a one nobody knows the
    attempt, the time and the size."""

    id: int
    kind: CheckpointKind
    attempt: int | None = None
    completed_at: datetime | None = None
    size_bytes: int | None = None
    duration_seconds: float | None = None  # of those completed since the service started
    alignment_seconds: float | None = None
    damage: str | None = None


class CheckpointList(View):
    """Newest first."""

    checkpoints: tuple[CheckpointView, ...]


class LedgerView(View):
    """The record ledger of one node as of the last completed checkpoint, counted since the pipeline began:
    in = out + filtered + late + errors + held. `held`: rows taken into state, less rows made from it.
    `unaccounted` is what is missing (or too much): 0, or something was lost."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    node: str
    in_: int = Field(alias="in")
    out: int
    filtered: int
    late: int
    errors: int
    held: int
    unaccounted: int


class PipelineSummary(View):
    """One line of the list."""

    name: str
    state: State
    wanted: Wanted
    ready: bool  # as wanted
    message: str = ""  # why, where the state does not say it
    revision: int
    parallelism: int
    records_in: int = 0
    records_out: int = 0
    records_in_per_second: float = 0.0
    records_out_per_second: float = 0.0
    late_records: int = 0
    error_records: int = 0
    restarts: int = 0
    source_lag_records: int | None = None
    watermark: datetime | None = None  # least over the sinks; None: none yet, or the end of input
    checkpoint: int | None = None
    checkpoint_at: datetime | None = None


class PipelineDetail(PipelineSummary):
    """`GET /v1/pipelines/{name}`. The YAML is as it was given: references to secrets, never secrets."""

    yaml: str
    created_at: datetime
    updated_at: datetime
    warnings: tuple[str, ...] = ()
    failures: tuple[FailureView, ...] = ()  # newest first, a few
    ledger_checkpoint: int | None = None
    ledger: tuple[LedgerView, ...] = ()
    savepoints: tuple[int, ...] = ()


class PipelineList(View):
    pipelines: tuple[PipelineSummary, ...]


class NodeView(View):
    """A source, step or sink of the graph, live. Rates and shares over the last ten seconds or so, over all
    subtasks; `busy`, `backpressured`, `idle` are those of the chain the node runs in and add up to about 1."""

    name: str
    kind: Literal["source", "step", "sink"]
    does: tuple[str, ...]  # in words, a few lines
    chain: str  # nodes of one chain share subtasks; its first node names it
    parallelism: int
    records_in: int
    records_out: int
    records_in_per_second: float
    records_out_per_second: float
    late_records: int
    error_records: int
    busy: float
    backpressured: float
    idle: float
    watermark: datetime | None
    watermark_lag_seconds: float | None
    source_lag_records: int | None = None
    state_bytes: int | None = None
    input_rows_waiting: int | None = None


class EdgeView(View):
    """Rows from one node to another. `exchange` is None inside a chain."""

    upstream: str
    stream: str  # `node`, `node.late`, `node.errors`, …
    downstream: str
    exchange: Literal["forward", "rebalance", "hash"] | None
    key: tuple[str, ...] = ()
    records_per_second: float


class GraphView(View):
    """The job graph, sources first. Without live figures (zeros) where the pipeline does not run."""

    pipeline: str
    live: bool
    nodes: tuple[NodeView, ...]
    edges: tuple[EdgeView, ...]


class ErrorView(View):
    """A record that could not be decoded or processed, or a failure of the job; never its payload."""

    at: datetime
    node: str | None  # None: of the whole job
    split: str | None = None
    offset: int | None = None
    error: str
    records: int = 1  # how many such in the same batch


class ErrorList(View):
    """Newest first; a bounded number. `total`: bad records since the service started."""

    total: int
    errors: tuple[ErrorView, ...]


class Finding(View):
    """One cause, or one thing ruled out, in words. `weight` orders causes: the first is the likeliest."""

    cause: Literal[
        "not_running",
        "unreachable",
        "no_input",
        "watermark_held_back",
        "window_open",
        "late_rows",
        "errors",
        "filtered",
        "backpressure",
        "slow_sink",
        "waiting_outside",
        "checkpoint_pending",
        "end_of_input",
        "flowing",
        "ruled_out",
    ]
    says: str
    node: str | None = None
    split: str | None = None
    seconds: float | None = None  # how long, or by how much


class OutOfOrderAdvice(View):
    """What one `out_of_order` would cost: of the rows of a source, the share that would have come late."""

    out_of_order: str  # as a file would write it
    late_rows: int
    late_share: float
    current: bool = False


class SourceAdvice(View):
    """The watermark adviser for one source, from `rows` rows seen since the job started."""

    source: str
    rows: int
    advice: tuple[OutOfOrderAdvice, ...]
    says: str


class WhyView(View):
    """`why NAME STEP`: the likeliest cause first."""

    pipeline: str
    step: str
    summary: str
    findings: tuple[Finding, ...]
    advice: tuple[SourceAdvice, ...] = ()


class StepChange(View):
    """What happens to one node, and to its state. `none`: it has no state."""

    name: str
    kind: Literal["source", "step", "sink"]
    change: Change
    state: Verdict
    was: str | None = None
    says: tuple[str, ...] = ()  # what differs, and why the verdict is as it is


class PlanView(View):
    """What `apply` would do. `id` binds an apply to exactly this plan; `drops_state`: it needs to be allowed."""

    id: str
    pipeline: str
    revision: int | None  # the one it starts from; None: a new pipeline
    action: Literal["create", "upgrade", "nothing"]
    drops_state: bool
    checkpoint: int | None  # a running pipeline takes a savepoint first, and goes on from that
    changes: tuple[StepChange, ...]
    job_changes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class DeadLetterView(View):
    """A dead letter in a Kafka DLQ topic. `replayed`: it has been sent back already."""

    id: str  # partition:offset
    at: datetime
    node: str | None
    source: str | None
    split: str | None
    offset: int | None
    error: str
    key: str | None
    value: str | None
    key_binary: bool = False  # the key is shown in hex
    binary: bool = False  # the value is shown in hex
    replayable: bool = True
    reason: str | None = None  # why it is not
    replayed: bool = False


class DeadLetterList(View):
    sink: str
    topic: str
    waiting: int  # not replayed yet
    letters: tuple[DeadLetterView, ...]


class Problem(BaseModel):
    """RFC 9457. `errors`: every fault of a pipeline file, as `validate --json` gives them."""

    model_config = ConfigDict(frozen=True, extra="allow")

    type: str = "about:blank"
    title: str
    status: int
    detail: str = ""
    instance: str | None = None
