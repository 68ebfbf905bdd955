"""Checkpoints and state: whether a crash now would cost seconds or hours, and what state weighs."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard, units

from deploy.dashboards import queries
from deploy.dashboards.layout import Line, Section, lay_out, pipeline_variable
from deploy.dashboards.panels import RED_FROM_ONE, Limits, Query, figure, lines, spread
from deploy.dashboards.promql import OF_PIPELINE, increase, most, quantile, rate, series, total

BY_PIPELINE = "{{pipeline}}"
NOW_AND_THEN = "2m"  # no rate over less: checkpoints are seconds to minutes apart
CHECKPOINT_AGE = Limits(120, 600)


def build() -> dashboard.Dashboard:
    """The dashboard."""
    return lay_out(
        "streamproc-checkpoints",
        "Streamproc / Checkpoints and state",
        "What a crash would cost, whether checkpoints complete, what state weighs, whether every row is accounted for.",
        [
            Section("Now", [_now()]),
            Section("Checkpoints", [_checkpoints(), _cost()]),
            Section("State and the ledger", [_state()]),
        ],
        [pipeline_variable(several=True)],
    )


def _now() -> Line:
    oldest = most(queries.checkpoint_age(OF_PIPELINE))
    aborted = total(increase(series("checkpoints_total", OF_PIPELINE, 'result="aborted"'), "1h"))
    unaccounted = series("ledger_unaccounted_records", OF_PIPELINE)
    return Line(
        4,
        [
            figure(
                "Oldest last checkpoint",
                "Of the pipelines chosen, the longest time since one completed a checkpoint. After a crash that much "
                "is done again.",
                oldest,
                unit=units.Seconds,
                limits=CHECKPOINT_AGE,
            ),
            figure(
                "Slowest (p95)",
                "From trigger to completion, 95 of 100 faster, of the slowest pipeline chosen.",
                most(quantile(0.95, "checkpoint_duration_seconds", OF_PIPELINE, by=("pipeline",))),
                unit=units.Seconds,
                limits=Limits(10, 60),
                min_interval=NOW_AND_THEN,
            ),
            figure(
                "Aborted (1 h)",
                "Checkpoints that could not be completed in the last hour. Now and then one: the store or a sink was "
                "slow. Many in a row restart the job.",
                aborted,
                limits=Limits(1, 5),
                decimals=0,
            ),
            figure(
                "State",
                "Local state of all steps of the pipelines chosen.",
                f"{total(series('state_bytes', OF_PIPELINE))} or vector(0)",
                unit=units.BytesIEC,
            ),
            figure(
                "Rows unaccounted for",
                "Rows of which the ledger does not know where they went, as of the last checkpoints. Anything but 0 is "
                "a defect: rows were lost, or came twice.",
                f"{total(f'abs({unaccounted})')} or vector(0)",
                limits=RED_FROM_ONE,
                colored=True,
            ),
        ],
    )


def _checkpoints() -> Line:
    return Line(
        8,
        [
            lines(
                "Age of the last checkpoint",
                "A saw that falls to nothing with each completed checkpoint. A line that only climbs: look at "
                "aborted ones and at what the log says of them.",
                Query(queries.checkpoint_age(OF_PIPELINE), BY_PIPELINE),
                unit=units.Seconds,
                limits=CHECKPOINT_AGE,
            ),
            lines(
                "Completed and aborted",
                "Checkpoints that ended, in each interval.",
                Query(
                    total(increase(series("checkpoints_total", OF_PIPELINE)), "pipeline", "result"),
                    "{{pipeline}} {{result}}",
                ),
                min_interval=NOW_AND_THEN,
            ),
            lines(
                "Number of the newest",
                "The number of each pipeline's newest completed checkpoint; `streamproc checkpoints list` shows them.",
                Query(most(series("last_completed_checkpoint_id", OF_PIPELINE), "pipeline"), BY_PIPELINE),
            ),
        ],
    )


def _cost() -> Line:
    took, ended = (
        total(rate(series(f"checkpoint_duration_seconds_{part}", OF_PIPELINE)), "pipeline") for part in ("sum", "count")
    )
    return Line(
        8,
        [
            lines(
                "Duration",
                "Mean time from trigger to completion. Much longer than usual: a slow store, or barriers that wait "
                "behind full channels (see alignment).",
                Query(f"{took} / ({ended} > 0)", BY_PIPELINE),
                unit=units.Seconds,
                min_interval=NOW_AND_THEN,
            ),
            spread(
                "Duration, spread",
                "How many checkpoints (darker is more) took how long.",
                total(rate(series("checkpoint_duration_seconds_bucket", OF_PIPELINE)), "le"),
            ),
            lines(
                "Alignment",
                "Longest wait of a subtask for its last barrier, in the last completed checkpoint. Seconds: one input "
                "is much slower than another, or channels are full under backpressure.",
                Query(most(series("checkpoint_alignment_seconds", OF_PIPELINE), "pipeline"), BY_PIPELINE),
                unit=units.Seconds,
            ),
            lines(
                "Size",
                "Bytes of all files that the last completed checkpoint needs. It grows with state; only what is new "
                "is uploaded.",
                Query(most(series("checkpoint_size_bytes", OF_PIPELINE), "pipeline"), BY_PIPELINE),
                unit=units.BytesIEC,
            ),
        ],
    )


def _state() -> Line:
    return Line(
        8,
        [
            lines(
                "State, by step",
                "Local state of each step, over its subtasks. It should level off: windows and ttl bound it.",
                Query(total(series("state_bytes", OF_PIPELINE), "pipeline", "step"), "{{pipeline}} {{step}}"),
                unit=units.BytesIEC,
            ),
            lines(
                "Rows unaccounted for, by step",
                "Per step, rows in less rows that went somewhere (out, filtered, late, errors, held in state). Above 0 "
                "rows were lost, below 0 they came twice. Always 0, or it is a defect.",
                Query(
                    total(series("ledger_unaccounted_records", OF_PIPELINE), "pipeline", "step"),
                    "{{pipeline}} {{step}}",
                ),
                least=None,
            ),
            lines(
                "Transactions waiting for their commit",
                "Prepared transactions of exactly-once sinks. Back to 0 after each checkpoint; above 0 for minutes, "
                "their readers see nothing new, and the broker drops them after `transaction_timeout`.",
                Query(most(series("uncommitted_transactions", OF_PIPELINE), "pipeline"), BY_PIPELINE),
            ),
        ],
    )
