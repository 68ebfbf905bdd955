"""Pipeline: one pipeline step by step, in the order of the questions one asks: does it run, does it keep up, which
step is the slow one, does event time go on, how late are results, what does not get through."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard, units

from deploy.dashboards import queries
from deploy.dashboards.layout import Line, Section, lay_out, pipeline_variable
from deploy.dashboards.panels import STATES, Limits, Query, figure, lines, spread
from deploy.dashboards.promql import OF_PIPELINE, least, most, rate, series, total

BY_STEP = "{{step}}"
CHECKPOINT_AGE = Limits(120, 600)


def build() -> dashboard.Dashboard:
    """The dashboard."""
    return lay_out(
        "streamproc-pipeline",
        "Streamproc / Pipeline",
        "One pipeline, step by step. `streamproc why NAME STEP` says in words what these panels show.",
        [
            Section("Now", [_now()]),
            Section("Throughput", [_throughput(), _waiting()]),
            Section("Where the time goes", [_time()]),
            Section("Event time", [_event_time()]),
            Section("Latency", [_latency()]),
            Section("What does not get through", [_losses()]),
        ],
        [pipeline_variable(several=False)],
    )


def _now() -> Line:
    return Line(
        4,
        [
            figure(
                "State",
                "Ready: it does what is wanted of it. Waiting: it runs, and something outside does not answer. Down: "
                "it is meant to run and does not, or is being started again.",
                queries.state(OF_PIPELINE),
                words=STATES,
                colored=True,
            ),
            figure(
                "Read",
                "Records a second that its sources read.",
                queries.read(OF_PIPELINE),
                unit=units.RecordsPerSecond,
            ),
            figure(
                "Written",
                "Records a second that its sinks hand to the outside.",
                queries.written(OF_PIPELINE),
                unit=units.RecordsPerSecond,
            ),
            figure(
                "Event time behind",
                "Clock minus the watermark of its slowest sink.",
                queries.sink_watermark_lag(OF_PIPELINE),
                unit=units.Seconds,
            ),
            figure(
                "Latency (p99)",
                "From a row's event time to its being taken by a sink, 99 of 100 sooner. Windows wait for event time "
                "to pass, so theirs is counted from the end of the window.",
                queries.latency(0.99, OF_PIPELINE),
                unit=units.Seconds,
                min_interval="1m",
            ),
            figure(
                "Last checkpoint",
                "Time since the last completed checkpoint. After a crash that much is done again.",
                queries.checkpoint_age(OF_PIPELINE),
                unit=units.Seconds,
                limits=CHECKPOINT_AGE,
            ),
        ],
    )


def _throughput() -> Line:
    return Line(
        8,
        [
            lines(
                "Records in, by step",
                "Records a second that each source reads, and each step and sink receives.",
                Query(total(rate(series("records_in_total", OF_PIPELINE)), "step"), BY_STEP),
                unit=units.RecordsPerSecond,
            ),
            lines(
                "Records out, by step",
                "Records a second that each source and step hands on, and each sink hands to the outside. A window "
                "gives its rows all at once when it closes.",
                Query(total(rate(series("records_out_total", OF_PIPELINE)), "step"), BY_STEP),
                unit=units.RecordsPerSecond,
            ),
        ],
    )


def _waiting() -> Line:
    return Line(
        8,
        [
            lines(
                "Records behind, by source",
                "Records between each source and the end of its input. Growing for minutes: what comes in is more than "
                "what is done; the next row shows which step is the slow one.",
                Query(queries.source_lag(OF_PIPELINE, by=("step",)), BY_STEP),
            ),
            lines(
                "Rows waiting in channels, by step",
                "Rows that wait before each step's subtasks. Full ones stand before the slow step; they are bounded.",
                Query(total(series("channel_rows", OF_PIPELINE), "step"), BY_STEP),
            ),
        ],
    )


def _time() -> Line:
    says = "Steps of one chain run together and share its time."
    return Line(
        8,
        [
            lines(
                "Backpressured, by step",
                "Share of time in which the step's worst subtask waits for room downstream, or for its sink. Follow it "
                "along the graph: what stands behind the last backpressured step is slow. " + says,
                Query(queries.share("backpressured_seconds_total", OF_PIPELINE), BY_STEP),
                unit=units.PercentUnit,
                limits=Limits(0.5),
                most=1,
            ),
            lines(
                "Busy, by step",
                "Share of time in which the step's busiest subtask computes. Near 100 %: it is the bottleneck, give it "
                "more parallelism; one subtask alone at 100 % is a hot key. " + says,
                Query(queries.share("busy_seconds_total", OF_PIPELINE), BY_STEP),
                unit=units.PercentUnit,
                limits=Limits(0.9),
                most=1,
            ),
            lines(
                "Idle, by step",
                "Share of time in which a step's idlest subtask waits for input. High is room to spare. " + says,
                Query(queries.share("idle_seconds_total", OF_PIPELINE), BY_STEP),
                unit=units.PercentUnit,
                most=1,
            ),
        ],
    )


def _event_time() -> Line:
    watermark = series("watermark_seconds", OF_PIPELINE)
    return Line(
        8,
        [
            lines(
                "Watermark, by step",
                "Up to when each step's slowest subtask has seen event time. A flat line is a watermark that stands "
                "still: windows do not close. None is drawn before the first and at the end of input.",
                Query(least(f"{watermark} < inf", "step") + " * 1000", BY_STEP),
                unit=units.DatetimeISONotToday,
                least=None,
            ),
            lines(
                "Watermark behind the clock, by step",
                "Clock minus watermark. For live data about `out_of_order`; a climb of one second a second is a "
                "watermark that stands still. A replay of old records starts far behind and catches up.",
                Query(most(series("watermark_lag_seconds", OF_PIPELINE), "step"), BY_STEP),
                unit=units.Seconds,
                least=None,
            ),
            lines(
                "Watermark skew, by source",
                "How far a source's slowest split (a Kafka partition, a file) is behind its furthest in event time. "
                "Growing: one split is stalled or silent and holds all windows back; `event_time.idle_after` lets the "
                "others go on without a silent one.",
                Query(queries.skew(OF_PIPELINE), BY_STEP),
                unit=units.Seconds,
            ),
            lines(
                "Silence, by source",
                "For how long the split that holds a source's watermark back has brought no row. Above a minute while "
                "others bring some, it is stalled: WatermarkStalled fires.",
                Query(queries.silence(OF_PIPELINE), BY_STEP),
                unit=units.Seconds,
                limits=Limits(60),
            ),
        ],
    )


def _latency() -> Line:
    buckets = total(rate(series("end_to_end_latency_seconds_bucket", OF_PIPELINE)), "le")
    return Line(
        8,
        [
            lines(
                "End-to-end latency",
                "From a row's event time to its being taken by a sink; the oldest and the newest row of each batch are "
                "counted. Readers of exactly-once sinks see it with the next checkpoint. A replay of old records is "
                "as late as the records are old.",
                *(Query(queries.latency(q, OF_PIPELINE), f"p{q * 100:.0f}") for q in (0.5, 0.95, 0.99)),
                unit=units.Seconds,
                min_interval="1m",
            ),
            spread(
                "End-to-end latency, spread",
                "How many results (darker is more) took how long. Two bands: two kinds of results, or one slow sink.",
                buckets,
            ),
        ],
    )


def _losses() -> Line:
    def by_step(metric: str) -> Query:
        return Query(total(rate(series(metric, OF_PIPELINE)), "step"), BY_STEP)

    return Line(
        8,
        [
            lines(
                "Bad records",
                "Records a second that could not be decoded or processed, and were skipped or put aside "
                "(`errors: skip`, `errors: dlq`). The page and `streamproc status` show the last ones.",
                by_step("error_records_total"),
                unit=units.RecordsPerSecond,
                limits=Limits(0.001),
            ),
            lines(
                "Late rows",
                "Rows a second that came after every window they belong to had closed. Many: a larger `out_of_order` "
                "or `accept_for`; `streamproc why` says what each would cost.",
                by_step("late_records_total"),
                unit=units.RowsPerSecond,
            ),
            lines(
                "Filtered rows",
                "Rows a second that `where`, `having` or a verb leaves out on purpose.",
                by_step("filtered_records_total"),
                unit=units.RowsPerSecond,
            ),
            lines(
                "Restarts",
                "Restarts after a failure, from the newest checkpoint.",
                Query(queries.restarts(OF_PIPELINE), "{{pipeline}}"),
            ),
        ],
    )
