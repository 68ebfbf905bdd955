"""Overview: all pipelines of the service, red or green at a glance, and the process that carries them."""

from __future__ import annotations

from grafana_foundation_sdk.builders import statetimeline, table
from grafana_foundation_sdk.models import dashboard, units

from deploy.dashboards import queries
from deploy.dashboards.layout import FIRING, Line, Section, lay_out
from deploy.dashboards.panels import RED_FROM_ONE, STATES, Column, Limits, Query, figure, lines, rows, timeline
from deploy.dashboards.promql import increase, most, process, quantile, rate, series, total

TO_PIPELINE = "/d/streamproc-pipeline?var-pipeline=${__value.raw}&${__url_time_range}"
LAG = Limits(10_000, 1_000_000)
CHECKPOINT_AGE = Limits(120, 600)


def build() -> dashboard.Dashboard:
    """The dashboard."""
    return lay_out(
        "streamproc-overview",
        "Streamproc / Overview",
        "All pipelines of the service. Red wants somebody now; a click on a pipeline's name shows what it does.",
        [
            Section("At a glance", [_figures(), Line(9, [_table()]), Line(6, [_states()])]),
            Section("Flow", [_flow(), _trouble()]),
            Section("The process", [_process()]),
        ],
    )


def _figures() -> Line:
    not_ready = f"{series('wanted')} == 1 unless {series('ready')} == 1"
    return Line(
        4,
        [
            figure(
                "Pipelines wanted",
                "How many pipelines are meant to run.",
                f"{total(series('wanted'))} or vector(0)",
            ),
            figure(
                "Not ready",
                "Pipelines that are meant to run and do not read, transform and write now. Anything but 0: "
                "the table below says which, `streamproc status NAME` why.",
                f"count({not_ready}) or vector(0)",
                limits=RED_FROM_ONE,
                colored=True,
            ),
            figure(
                "Alerts firing",
                "Alerts of streamproc that fire now. Each has a section in docs/runbooks.md.",
                f"count({FIRING}) or vector(0)",
                limits=RED_FROM_ONE,
                colored=True,
            ),
            figure(
                "Read",
                "Records a second that all sources together read.",
                f"{total(queries.read())} or vector(0)",
                unit=units.RecordsPerSecond,
            ),
            figure(
                "Written",
                "Records a second that all sinks together hand to the outside.",
                f"{total(queries.written())} or vector(0)",
                unit=units.RecordsPerSecond,
            ),
            figure(
                "Records behind",
                "Records that wait in the sources of all pipelines. Growing: what comes in is more than what is done.",
                f"{total(series('source_lag_records'))} or vector(0)",
                limits=LAG,
            ),
        ],
    )


def _table() -> table.Panel:
    return rows(
        "Pipelines",
        "One line a pipeline, worst state first. Ready: it does what is wanted of it. Waiting: it runs, and something "
        "outside does not answer. Down: it is meant to run and does not, or is being started again. "
        "Click on a name to see that pipeline.",
        "pipeline",
        [
            Column("State", queries.state(), words=STATES),
            Column(
                "Alerts",
                f"count by (pipeline) ({FIRING}) or 0 * {most(series('wanted'), 'pipeline')}",
                limits=RED_FROM_ONE,
            ),
            Column("Read", queries.read(), unit=units.RecordsPerSecond, decimals=0),
            Column("Written", queries.written(), unit=units.RecordsPerSecond, decimals=0),
            Column("Behind", queries.source_lag(), limits=LAG),
            Column("Event time behind", queries.sink_watermark_lag(), unit=units.Seconds, decimals=0),
            Column("Last checkpoint", queries.checkpoint_age(), unit=units.Seconds, limits=CHECKPOINT_AGE, decimals=0),
            Column("Restarts (1 h)", queries.restarts(window="1h"), limits=Limits(1, 3), decimals=0),
            Column(
                "Bad records (1 h)",
                total(increase(series("error_records_total"), "1h"), "pipeline"),
                limits=Limits(1),
                decimals=0,
            ),
        ],
        TO_PIPELINE,
    )


def _states() -> statetimeline.Panel:
    return timeline(
        "Pipelines over time",
        "When each pipeline was ready, waited for something outside, or was down.",
        Query(queries.state(), "{{pipeline}}"),
        STATES,
    )


def _flow() -> Line:
    return Line(
        8,
        [
            lines(
                "Read, by pipeline",
                "Records a second that each pipeline's sources read.",
                Query(queries.read(), "{{pipeline}}"),
                unit=units.RecordsPerSecond,
            ),
            lines(
                "Records behind, by pipeline",
                "Records between each pipeline and the end of its input. Growing for minutes: look at which step of "
                "that pipeline is busy or backpressured, give it more parallelism.",
                Query(queries.source_lag(), "{{pipeline}}"),
            ),
            lines(
                "Event time behind the clock",
                "Clock minus the watermark of each pipeline's slowest sink. Windows close only as the watermark "
                "passes them: a steady climb of one second a second is a watermark that stands still.",
                Query(queries.sink_watermark_lag(), "{{pipeline}}"),
                unit=units.Seconds,
                least=None,
            ),
        ],
    )


def _trouble() -> Line:
    bad = total(rate(series("error_records_total")), "pipeline")
    return Line(
        8,
        [
            lines(
                "Age of the last checkpoint",
                "A saw: it falls to nothing with every completed checkpoint. A line that only climbs is a pipeline "
                "that would repeat all that time's work after a crash, and whose exactly-once results nobody sees yet.",
                Query(queries.checkpoint_age(), "{{pipeline}}"),
                unit=units.Seconds,
                limits=CHECKPOINT_AGE,
            ),
            lines(
                "Restarts",
                "Restarts after a failure. One heals itself; several in a row are a failure that comes again: "
                "`streamproc status NAME` shows the last ones.",
                Query(queries.restarts(), "{{pipeline}}"),
            ),
            lines(
                "Bad records",
                "Records a second that could not be decoded or processed, and were skipped or put aside.",
                Query(bad, "{{pipeline}}"),
                unit=units.RecordsPerSecond,
                limits=Limits(0.001),
            ),
        ],
    )


def _process() -> Line:
    return Line(
        7,
        [
            lines(
                "CPU",
                "Cores that the process uses. At the number of cores it has, every pipeline slows down.",
                Query(rate(process("process_cpu_seconds_total")), "{{instance}}"),
                unit=units.Short,
            ),
            lines(
                "Memory",
                "Resident memory of the process. It is bounded by channels and budgets: a steady climb is a defect.",
                Query(process("process_resident_memory_bytes"), "{{instance}}"),
                unit=units.BytesIEC,
            ),
            lines(
                "Event loop lag",
                "How late the event loop wakes a timer, 99th percentile. Above half a second the API, health checks "
                "and every pipeline stutter: something computes on the loop, or the machine has no CPU left.",
                Query(quantile(0.99, "event_loop_lag_seconds", by=("instance",)), "{{instance}}"),
                unit=units.Seconds,
                limits=Limits(0.1, 0.5),
            ),
            lines(
                "Open files",
                "File descriptors in use (state files, sockets) as a share of what the process may have. At 100 % "
                "pipelines fail: raise the limit (`LimitNOFILE` of the unit).",
                Query(f"{process('process_open_fds')} / {process('process_max_fds')}", "{{instance}}"),
                unit=units.PercentUnit,
                limits=Limits(0.7, 0.9),
            ),
        ],
    )
