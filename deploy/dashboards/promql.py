"""PromQL as text: no expression can be written here with a metric that the code does not have.

`series` checks names against the metric table when a dashboard is built; `metrics_of` finds the names in
expressions written elsewhere (alerts), so that a test can do the same.
"""

from __future__ import annotations

import re
from typing import Final

from streamproc.observability.metric_table import METRICS, PREFIX

PROCESS: Final = frozenset(
    {
        "process_cpu_seconds_total",
        "process_max_fds",
        "process_open_fds",
        "process_resident_memory_bytes",
        "process_start_time_seconds",
    }
)
"""What prometheus_client says of the process, under names every Prometheus user knows."""

OF_PROMETHEUS: Final = frozenset({"up", "ALERTS"})
"""Made by Prometheus itself: whether a scrape worked, and what alerts."""

RATE_INTERVAL: Final = "$__rate_interval"
OF_PIPELINE: Final = 'pipeline=~"$pipeline"'

_SUFFIXES: Final = {"counter": ("",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
EXPOSED: Final = frozenset(PREFIX + metric.name + suffix for metric in METRICS for suffix in _SUFFIXES[metric.kind])
"""Every series name of the table, as Prometheus stores it."""

_LABEL_LISTS = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)")
_STRINGS = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'")
_MATCHERS_AND_RANGES = re.compile(r"\{[^}]*\}|\[[^\]]*\]")
_NAME_NOT_CALLED = re.compile(r"(?<![\w$.:])[a-zA-Z_:][\w:]*\b(?!\s*\()")
_WORDS: Final = frozenset(
    {"and", "or", "unless", "bool", "offset", "by", "without", "on", "ignoring", "group_left", "group_right"}
)
_NUMBERS: Final = frozenset({"inf", "nan"})


class UnknownMetric(ValueError):
    """An expression names a metric that is in no table."""


def series(name: str, *matchers: str) -> str:
    """The series of a metric of the table, e.g. `series("up", OF_PIPELINE)`; `name` as in the table, with a
    histogram's suffix. Raises UnknownMetric."""
    if PREFIX + name not in EXPOSED:
        raise UnknownMetric(f"{PREFIX}{name} is not in streamproc.observability.metrics")
    return PREFIX + name + (f"{{{', '.join(matchers)}}}" if matchers else "")


def process(name: str) -> str:
    """A metric of the process. Raises UnknownMetric."""
    if name not in PROCESS:
        raise UnknownMetric(f"{name} is not among deploy.dashboards.promql.PROCESS")
    return name


def rate(series_of: str, window: str = RATE_INTERVAL) -> str:
    """Increase a second."""
    return f"rate({series_of}[{window}])"


def increase(series_of: str, window: str = RATE_INTERVAL) -> str:
    """Increase within the window."""
    return f"increase({series_of}[{window}])"


def total(expression: str, *by: str) -> str:
    """Summed, for each value of the labels."""
    return f"sum by ({', '.join(by)}) ({expression})" if by else f"sum({expression})"


def most(expression: str, *by: str) -> str:
    """The greatest, for each value of the labels."""
    return f"max by ({', '.join(by)}) ({expression})" if by else f"max({expression})"


def least(expression: str, *by: str) -> str:
    """The least, for each value of the labels."""
    return f"min by ({', '.join(by)}) ({expression})" if by else f"min({expression})"


def quantile(q: float, histogram: str, *matchers: str, by: tuple[str, ...] = ()) -> str:
    """A quantile of a histogram of the table over the rate window."""
    buckets = total(rate(series(f"{histogram}_bucket", *matchers)), *by, "le")
    return f"histogram_quantile({q:g}, {buckets})"


def metrics_of(expression: str) -> set[str]:
    """Names of the metrics an expression asks for. Functions, labels, matchers and durations are none."""
    text = _STRINGS.sub('""', expression)
    text = _MATCHERS_AND_RANGES.sub("", text)
    text = _LABEL_LISTS.sub("", text)
    names = {match[0] for match in _NAME_NOT_CALLED.finditer(text)}
    return {name for name in names if name not in _WORDS and name.lower() not in _NUMBERS and not name.isdigit()}
