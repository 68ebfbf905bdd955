"""What the service says of one pipeline: plain functions of what is known of it. Secrets are taken out here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, Final

from operators.element import WATERMARK_MAX
from streamproc.observability.facts import JobFacts
from streamproc.observability.ledger import StepLedger
from streamproc.observability.status import JobFailure
from streamproc.pipeline.logical import LogicalGraph
from streamproc.service.hosted import HostedPipeline
from streamproc.service.views import (
    ErrorList,
    ErrorView,
    FailureView,
    LedgerView,
    PipelineDetail,
    PipelineSummary,
    State,
    Wanted,
)

FAILURES_SHOWN: Final = 5
_EPOCH: Final = datetime.fromtimestamp(0, UTC)
_READY: Final[dict[Wanted, tuple[State, ...]]] = {
    "running": ("running", "finished"),
    "stopped": ("stopped", "drained", "finished"),
    "drained": ("drained", "finished"),
}


def is_ready(hosted: HostedPipeline) -> bool:
    """Whether it is as wanted. Nobody knows of one that has not been brought back yet."""
    if hosted.record is None or hosted.returning:
        return False
    return hosted.supervisor.status.state in _READY[hosted.record.wanted]


def summary_of(hosted: HostedPipeline) -> PipelineSummary:
    """One line of the list."""
    return PipelineSummary(**_summary(hosted))


def detail_of(hosted: HostedPipeline) -> PipelineDetail:
    """Everything that is not asked for on its own."""
    status, record, redact = hosted.supervisor.status, hosted.record, hosted.around.redaction.text
    graph = hosted.graph
    return PipelineDetail(
        **_summary(hosted),
        yaml=hosted.yaml.decode("utf-8", errors="replace"),
        created_at=_EPOCH if record is None else record.created_at,
        updated_at=_EPOCH if record is None else record.updated_at,
        warnings=() if graph is None else tuple(map(redact, graph.warnings)),
        failures=tuple(_failure(hosted, each) for each in list(status.failures)[: -FAILURES_SHOWN - 1 : -1]),
        ledger_checkpoint=status.checkpoint if status.ledger else None,
        ledger=tuple(_ledger(node, status.ledger[node]) for node in _in_order(graph, status.ledger)),
        savepoints=tuple(view.id for view in hosted.checkpoints if view.kind == "savepoint"),
    )


def errors_of(hosted: HostedPipeline) -> ErrorList:
    """Bad records and failures, newest first."""
    status, redact = hosted.supervisor.status, hosted.around.redaction.text
    records = [
        ErrorView(
            at=_utc(each.at),
            node=each.node,
            split=each.split,
            offset=each.offset,
            error=redact(each.error),
            records=each.records,
        )
        for each in status.errors
    ]
    failures = [ErrorView(at=_utc(each.at), node=None, error=redact(str(each.failure))) for each in status.failures]
    newest_first = sorted([*records, *failures], key=lambda view: view.at, reverse=True)
    return ErrorList(total=status.error_records, errors=tuple(newest_first))


def _summary(hosted: HostedPipeline) -> dict[str, Any]:
    status, record, graph = hosted.supervisor.status, hosted.record, hosted.graph
    facts = hosted.supervisor.facts()
    checkpoint, checkpoint_at = _newest_checkpoint(hosted)
    rate_in, rate_out = (0.0, 0.0) if facts is None else hosted.samples.per_second()
    return {
        "name": hosted.name,
        "state": status.state,
        "wanted": "running" if record is None else record.wanted,
        "ready": is_ready(hosted),
        "message": hosted.around.redaction.text(status.message),
        "revision": 0 if record is None else record.revision,
        "parallelism": 1 if graph is None else graph.job.parallelism,
        "records_in": status.records_in,
        "records_out": status.records_out,
        "records_in_per_second": rate_in,
        "records_out_per_second": rate_out,
        "late_records": status.late_records,
        "error_records": status.error_records,
        "restarts": status.restarts,
        "source_lag_records": _lag(facts),
        "watermark": _event_time(status.watermark_ms),
        "checkpoint": checkpoint,
        "checkpoint_at": checkpoint_at,
    }


def _newest_checkpoint(hosted: HostedPipeline) -> tuple[int | None, datetime | None]:
    """Its number, and when it was completed. A service that has just started knows them from the store."""
    status = hosted.supervisor.status
    if status.checkpoint is not None and status.checkpoint_at is not None:
        return status.checkpoint, _utc(status.checkpoint_at)
    whole = [view for view in hosted.checkpoints if view.damage is None]
    wanted = next((view for view in whole if status.checkpoint in (None, view.id)), None)
    return (status.checkpoint, None) if wanted is None else (wanted.id, wanted.completed_at)


def _lag(facts: JobFacts | None) -> int | None:
    """Over all sources that know it."""
    if facts is None:
        return None
    known: Iterator[int | None] = (each.source.lag_records for each in facts.subtasks if each.source is not None)
    lags = [lag for lag in known if lag is not None]
    return sum(lags) if lags else None


def _failure(hosted: HostedPipeline, each: JobFailure) -> FailureView:
    failure = each.failure
    return FailureView(
        at=_utc(each.at),
        type=type(failure).__name__,
        message=hosted.around.redaction.text(str(failure)),
        acts=failure.acts,
        retry_helps=failure.retry_helps,
    )


def _in_order(graph: LogicalGraph | None, nodes: Iterable[str]) -> list[str]:
    """Nodes as rows come by them."""
    order = [] if graph is None else [*graph.sources, *graph.steps, *graph.sinks]
    return sorted(nodes, key=lambda node: order.index(node) if node in order else len(order))


def _ledger(node: str, account: StepLedger) -> LedgerView:
    return LedgerView(
        node=node,
        **{"in": account.rows_in},
        out=account.rows_out,
        filtered=account.filtered,
        late=account.late,
        errors=account.errors,
        held=account.held,
        unaccounted=account.unaccounted,
    )


def _event_time(watermark_ms: int | None) -> datetime | None:
    """None also for the end of input, and for times that no calendar has."""
    if watermark_ms is None or watermark_ms >= WATERMARK_MAX:
        return None
    try:
        return _utc(watermark_ms / 1000)
    except (ValueError, OverflowError, OSError):
        return None


def _utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
