"""A `PipelineApi` whose answers a test sets: for the page, which shows whatever it is told."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal

from streamproc.observability.facts import JobFacts
from streamproc.service.api import Conflict, ServiceFault, UnknownPipeline
from streamproc.service.views import (
    CheckpointView,
    DeadLetterList,
    DeadLetterView,
    EdgeView,
    ErrorList,
    ErrorView,
    FailureView,
    Finding,
    GraphView,
    LedgerView,
    NodeView,
    OutOfOrderAdvice,
    PipelineDetail,
    PipelineSummary,
    PlanView,
    SourceAdvice,
    WhyView,
)

YAML = """\
version: 1
pipeline: revenue-by-country
sources:
  orders: {type: kafka, connection: main, topic: orders, errors: dlq}
"""


class ShownPipelines:
    """`pipelines`, `graphs` and `letters` by name; what was asked to change is in `asked`."""

    def __init__(self) -> None:
        self.pipelines: dict[str, PipelineDetail] = {}
        self.graphs: dict[str, GraphView] = {}
        self.letters: tuple[DeadLetterView, ...] = ()
        self.asked: list[tuple[object, ...]] = []

    def show(self, detail: PipelineDetail, graph: GraphView | None = None) -> None:
        """Set one pipeline."""
        self.pipelines[detail.name] = detail
        self.graphs[detail.name] = graph or GraphView(pipeline=detail.name, live=False, nodes=(), edges=())

    def list(self) -> tuple[PipelineSummary, ...]:
        return tuple(
            PipelineSummary(**{field: getattr(one, field) for field in PipelineSummary.model_fields})
            for one in self.pipelines.values()
        )

    def get(self, name: str) -> PipelineDetail:
        if name not in self.pipelines:
            raise UnknownPipeline(name)
        return self.pipelines[name]

    async def plan(self, name: str, yaml: bytes) -> PlanView:
        raise Conflict("not here")

    async def put(
        self, name: str, yaml: bytes, *, plan: str | None = None, drop_state: bool = False
    ) -> tuple[PipelineDetail, bool]:
        raise Conflict("not here")

    async def delete(self, name: str) -> None:
        raise Conflict("not here")

    async def stop(self, name: str, *, drain: bool = False) -> PipelineDetail:
        self.asked.append(("drain" if drain else "stop", name))
        self.pipelines[name] = self.get(name).model_copy(update={"state": "stopped", "wanted": "stopped"})
        return self.pipelines[name]

    async def start(self, name: str, *, restore_from: int | None = None) -> PipelineDetail:
        self.asked.append(("start", name, restore_from))
        self.pipelines[name] = self.get(name).model_copy(update={"state": "running", "wanted": "running"})
        return self.pipelines[name]

    async def savepoint(self, name: str) -> CheckpointView:
        self.asked.append(("savepoint", name))
        return (await self.checkpoints(name))[0]

    async def release_savepoint(self, name: str, savepoint: int) -> None:
        self.asked.append(("release_savepoint", name))

    async def rescale(self, name: str, parallelism: int) -> PipelineDetail:
        if parallelism > 128:
            raise Conflict("a parallelism above max_parallelism (128) cannot be had")
        self.asked.append(("rescale", name, parallelism))
        return self.get(name)

    async def checkpoints(self, name: str) -> tuple[CheckpointView, ...]:
        self.get(name)
        return tuple(
            CheckpointView(
                id=40 - turn,
                kind="savepoint" if turn == 2 else "periodic",
                attempt=1,
                completed_at=now() - timedelta(seconds=4 + 10 * turn),
                size_bytes=1_840_000 - 9_000 * turn,
                duration_seconds=0.182 + turn / 100,
                alignment_seconds=0.012,
                damage="state/7.sst does not match its checksum" if turn == 3 else None,
            )
            for turn in range(5)
        )

    def graph(self, name: str) -> GraphView:
        self.get(name)
        return self.graphs[name]

    def errors(self, name: str) -> ErrorList:
        self.get(name)
        if not self.pipelines[name].error_records:
            return ErrorList(total=0, errors=())
        bad = ErrorView(
            at=now() - timedelta(seconds=30),
            node="orders",
            split="orders-3",
            offset=18_201,
            error="amount: expected float64, found text 'twelve'",
        )
        return ErrorList(total=self.pipelines[name].error_records, errors=(bad,))

    def why(self, name: str, step: str) -> WhyView:
        if step not in {node.name for node in self.graph(name).nodes}:
            raise ServiceFault(404, "unknown-step", "There is no such step", f"{name} has no {step}")
        return WhyView(
            pipeline=name,
            step=step,
            summary=f"Nothing comes out of {step} because partition payments-2 holds its watermark back by 4 min 10 s.",
            findings=(
                Finding(
                    cause="watermark_held_back",
                    says="payments-2 is silent and idle_after is not set, so it holds every window back.",
                    node="payments",
                    split="payments-2",
                    seconds=250.0,
                ),
                Finding(cause="window_open", says="The next window, [12:01, 12:02), closes at 12:02:00.", node=step),
            ),
            advice=(
                SourceAdvice(
                    source="payments",
                    rows=120_000,
                    advice=(
                        OutOfOrderAdvice(out_of_order="10s", late_rows=812, late_share=0.0068),
                        OutOfOrderAdvice(out_of_order="30s", late_rows=3, late_share=0.000025, current=True),
                    ),
                    says="30 s is about right: 3 rows of 120,000 came later.",
                ),
            ),
        )

    def facts(self, name: str) -> JobFacts | None:
        return None

    async def dead_letters(self, name: str, sink: str, limit: int) -> DeadLetterList:
        self.get(name)
        waiting = sum(letter.replayable and not letter.replayed for letter in self.letters)
        return DeadLetterList(sink=sink, topic="revenue-dlq", waiting=waiting, letters=self.letters[:limit])

    async def replay(self, name: str, sink: str, ids: Sequence[str] | None) -> int:
        self.asked.append(("replay", name, sink, None if ids is None else tuple(ids)))
        return len(ids) if ids is not None else sum(letter.replayable for letter in self.letters)


def now() -> datetime:
    """The wall clock."""
    return datetime.now(UTC)


def pipeline(name: str, **changed: object) -> PipelineDetail:
    """A pipeline that runs and is well."""
    known: dict[str, object] = {
        "state": "running",
        "wanted": "running",
        "ready": True,
        "revision": 3,
        "parallelism": 2,
        "records_in": 8_412_233,
        "records_out": 18_220,
        "records_in_per_second": 12_310.0,
        "records_out_per_second": 41.0,
        "late_records": 12,
        "source_lag_records": 1_204,
        "watermark": now() - timedelta(seconds=11),
        "checkpoint": 40,
        "checkpoint_at": now() - timedelta(seconds=4),
        "yaml": YAML,
        "created_at": now() - timedelta(days=3),
        "updated_at": now() - timedelta(hours=2),
        "ledger_checkpoint": 40,
        "ledger": (ledger("orders", 8_412_233, errors=3), ledger("revenue", 8_412_230, held=402)),
    }
    return PipelineDetail(name=name, **{**known, **changed})  # type: ignore[arg-type]


def failed(name: str) -> PipelineDetail:
    """A pipeline that has ended with a failure."""
    failure = FailureView(
        at=now() - timedelta(minutes=3),
        type="TopicMissing",
        message="topic 'oders' of source orders does not exist. Did you mean 'orders'?",
        acts="user",
        retry_helps=False,
    )
    return pipeline(
        name,
        state="failed",
        ready=False,
        message=failure.message,
        failures=(failure,),
        restarts=4,
        error_records=3,
        records_in_per_second=0.0,
        records_out_per_second=0.0,
        warnings=("source payments is read by nothing, and is not run",),
    )


def ledger(node: str, rows: int, *, errors: int = 0, held: int = 0, unaccounted: int = 0) -> LedgerView:
    """A node's account."""
    out = rows - errors - held - unaccounted
    account = {"in": rows, "out": out, "filtered": 0, "late": 0, "errors": errors, "held": held}
    return LedgerView.model_validate({"node": node, **account, "unaccounted": unaccounted})


Kind = Literal["source", "step", "sink"]


def node(name: str, kind: Kind, chain: str | None = None, **changed: object) -> NodeView:
    """A node that works."""
    known: dict[str, object] = {
        "does": (),
        "chain": chain or name,
        "parallelism": 1,
        "records_in": 8_412_233,
        "records_out": 8_412_230,
        "records_in_per_second": 12_310.0,
        "records_out_per_second": 12_310.0,
        "late_records": 0,
        "error_records": 0,
        "busy": 0.34,
        "backpressured": 0.02,
        "idle": 0.64,
        "watermark": now() - timedelta(seconds=3.2),
        "watermark_lag_seconds": 3.2,
    }
    return NodeView(name=name, kind=kind, **{**known, **changed})  # type: ignore[arg-type]


def edge(stream: str, downstream: str, exchange: Literal["forward", "rebalance", "hash"] | None = None) -> EdgeView:
    """Rows of `stream` to `downstream`."""
    key = ("country",) if exchange == "hash" else ()
    return EdgeView(
        upstream=stream.partition(".")[0],
        stream=stream,
        downstream=downstream,
        exchange=exchange,
        key=key,
        records_per_second=12_310.0 if "." not in stream else 0.3,
    )


def revenue_graph(name: str) -> GraphView:
    """The pipeline of the contract: two sources, a join, a window, three sinks."""
    nodes = (
        node(
            "orders", "source", parallelism=2, error_records=3, source_lag_records=1_204, does=("Kafka topic orders",)
        ),
        node("payments", "source", parallelism=2, watermark_lag_seconds=250.4),
        node("paid", "step", parallelism=2, busy=0.91, backpressured=0.05, idle=0.04, state_bytes=48_120_000),
        node("eur", "step", "paid", parallelism=2, busy=0.91, backpressured=0.05, idle=0.04),
        node("revenue", "step", parallelism=4, late_records=12, records_out_per_second=41.0, state_bytes=1_840_000),
        node("out", "sink", parallelism=4, busy=0.05, backpressured=0.0, idle=0.95),
        node("late", "sink", busy=0.0, backpressured=0.0, idle=1.0, watermark=None, watermark_lag_seconds=None),
        node("dead", "sink", busy=0.0, backpressured=0.0, idle=1.0, records_in_per_second=0.0),
    )
    edges = (
        edge("orders", "paid", "hash"),
        edge("payments", "paid", "hash"),
        edge("paid", "eur"),
        edge("eur", "revenue", "hash"),
        edge("revenue", "out", "forward"),
        edge("revenue.late", "late", "rebalance"),
        edge("orders.errors", "dead", "rebalance"),
        edge("payments.errors", "dead", "rebalance"),
    )
    return GraphView(pipeline=name, live=True, nodes=nodes, edges=edges)
