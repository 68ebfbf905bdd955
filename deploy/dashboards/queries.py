"""The expressions that more than one dashboard shows, so that the same words mean the same numbers everywhere.

Each takes the matchers that choose pipelines: none on Overview, `$pipeline` elsewhere.
"""

from __future__ import annotations

from deploy.dashboards.promql import RATE_INTERVAL, increase, least, most, quantile, rate, series, total

_SUBTASK = "instance, pipeline, step, subtask"


def state(*of: str) -> str:
    """0: not wanted, 1: ready, 2: runs, but waits (for a broker, say), 3: down."""
    wanted, ready, up = (series(name, *of) for name in ("wanted", "ready", "up"))
    return most(f"{wanted} * (1 + (1 - {ready}) * (2 - {up}))", "pipeline")


def read(*of: str, by: tuple[str, ...] = ("pipeline",)) -> str:
    """Records a second that sources read. Only sources have read bytes."""
    return total(f"{rate(series('records_in_total', *of))} and on ({_SUBTASK}) {series('bytes_in_total', *of)}", *by)


def written(*of: str, by: tuple[str, ...] = ("pipeline",)) -> str:
    """Records a second that sinks have handed on. Only sinks know whether they reach the outside."""
    return total(f"{rate(series('records_out_total', *of))} and on ({_SUBTASK}) {series('sink_reachable', *of)}", *by)


def source_lag(*of: str, by: tuple[str, ...] = ("pipeline",)) -> str:
    """Records between sources and the end of their splits."""
    return total(series("source_lag_records", *of), *by)


def sink_watermark_lag(*of: str, by: tuple[str, ...] = ("pipeline",)) -> str:
    """How far the slowest sink's event time is behind the clock, in seconds."""
    lag = series("watermark_lag_seconds", *of)
    return most(f"{lag} and on ({_SUBTASK}) {series('sink_reachable', *of)}", *by)


def checkpoint_age(*of: str) -> str:
    """Seconds since the last completed checkpoint."""
    return f"time() - {least(series('last_completed_checkpoint_timestamp_seconds', *of), 'pipeline')}"


def restarts(*of: str, window: str = RATE_INTERVAL) -> str:
    """Restarts within the window."""
    return total(increase(series("restarts_total", *of), window), "pipeline")


def share(of_time: str, *of: str) -> str:
    """Share of its time that a step's subtask spends so, the most of them. `of_time` is a counter of seconds."""
    spent = " + ".join(
        rate(series(name, *of)) for name in ("busy_seconds_total", "backpressured_seconds_total", "idle_seconds_total")
    )
    return most(f"{rate(series(of_time, *of))} / ({spent} > 0)", "step")


def silence(*of: str, by: tuple[str, ...] = ("step",)) -> str:
    """Seconds for which the split that holds a source's watermark back has brought no row."""
    return most(series("split_silent_seconds", *of), *by)


def skew(*of: str, by: tuple[str, ...] = ("step",)) -> str:
    """Seconds of event time between a source's fastest and slowest split; without those that had no row yet."""
    return most(f"{series('watermark_skew_seconds', *of)} < inf", *by)


def latency(q: float, *of: str, by: tuple[str, ...] = ()) -> str:
    """A quantile of the time from a row's event time to its being taken by a sink, in seconds."""
    return quantile(q, "end_to_end_latency_seconds", *of, by=by)
