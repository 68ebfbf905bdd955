"""The demo's results as a picture for a terminal: who was late, when, and how busy the airports were."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import polars as pl
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

_BARS: Final = " ▁▂▃▄▅▆▇█"
_ZONE: Final = "America/New_York"
_AIRPORTS: Final = {"EWR": "Newark", "JFK": "John F. Kennedy", "LGA": "LaGuardia"}
_SHORTER: Final = r" (Inc\.|Co\.|Corporation)$"

_WEEKLY: Final = {
    "airline": pl.String(),
    "origin": pl.String(),
    "window_start": pl.String(),
    "window_end": pl.String(),
    "flights": pl.Int64(),
    "mean_delay": pl.Float64(),
    "worst_delay": pl.Int64(),
}


def read_weekly(folder: Path) -> pl.DataFrame:
    """The results of the step `weekly`: CSV files."""
    frames = [pl.read_csv(file, schema_overrides=_WEEKLY) for file in sorted(folder.rglob("*.csv"))]
    return _with_time(pl.concat(frames).select(list(_WEEKLY)))


def read_hourly(folder: Path) -> pl.DataFrame:
    """The results of the step `hourly`: JSON lines."""
    return _with_time(pl.concat(pl.read_ndjson(file) for file in sorted(folder.rglob("*.jsonl"))))


def sparkline(values: Sequence[float | None], top: float) -> str:
    """One character a value, from 0 to `top`; blank where there is none."""
    steps = len(_BARS) - 2
    return "".join(
        _BARS[0] if value is None else _BARS[1 + round(min(max(value / top, 0.0), 1.0) * steps)] for value in values
    )


def report(weekly: pl.DataFrame, hourly: pl.DataFrame) -> RenderableType:
    """Everything the demo shows of its results."""
    return Group(_airlines(weekly), _airports(hourly), _worst_day(hourly))


def _airlines(weekly: pl.DataFrame) -> Table:
    total = (pl.col("mean_delay") * pl.col("flights")).sum()
    mean = (total / pl.col("flights").sum()).alias("mean")
    airlines = weekly.group_by("airline").agg(mean, pl.col("flights").sum(), pl.col("worst_delay").max())
    fortnight = ((pl.col("time") - pl.col("time").min()).dt.total_days() // 14).alias("fortnight")
    by_time = weekly.with_columns(fortnight).group_by("airline", "fortnight").agg(mean)
    fortnights = range(by_time.select(pl.col("fortnight").max()).item() + 1)

    table = _table("Departure delay by airline: mean in minutes, worst in hours")
    table.add_column("airline", no_wrap=True)
    table.add_column("flights", justify="right", no_wrap=True)
    table.add_column("mean", justify="right", no_wrap=True)
    table.add_column("worst", justify="right", no_wrap=True)
    table.add_column("January → December", no_wrap=True)
    for airline, delay, flights, worst in airlines.sort("mean", descending=True).iter_rows():
        seen = dict(by_time.filter(airline=airline).select("fortnight", "mean").iter_rows())
        table.add_row(
            airline,
            f"{flights:,}",
            f"{delay:.1f}",
            f"{worst / 60:.1f}",
            Text(sparkline([seen.get(n) for n in fortnights], top=40.0), style=_colour(delay)),
        )
    return table


def _airports(hourly: pl.DataFrame) -> Table:
    table = _table("Departures by hour of the day")
    table.add_column("airport", no_wrap=True)
    table.add_column("departed", justify="right")
    table.add_column("cancelled", justify="right")
    table.add_column("0h    6h    12h   18h", no_wrap=True)
    hour = pl.col("time").dt.convert_time_zone(_ZONE).dt.hour().alias("hour")
    by_hour = hourly.group_by("origin", hour).agg(pl.col("departed").sum())
    top = float(by_hour.select(pl.col("departed").max()).item())
    for origin, departed, cancelled in (
        hourly.group_by("origin").agg(pl.col("departed").sum(), pl.col("cancelled").sum()).sort("origin").iter_rows()
    ):
        seen = dict(by_hour.filter(origin=origin).select("hour", "departed").iter_rows())
        picture = sparkline([seen.get(hour) for hour in range(24)], top)
        table.add_row(_AIRPORTS.get(origin, origin), f"{departed:,}", f"{cancelled:,}", Text(picture, style="cyan"))
    return table


def _worst_day(hourly: pl.DataFrame) -> Text:
    day = pl.col("time").dt.convert_time_zone(_ZONE).dt.date().alias("day")
    days = hourly.group_by(day).agg(
        pl.col("cancelled").sum(), (pl.col("departed") + pl.col("cancelled")).sum().alias("all")
    )
    worst, cancelled, planned = days.sort("cancelled").row(-1)
    return Text(f"  The worst day was {worst:%-d %B}: {cancelled:,} of {planned:,} flights were cancelled.\n")


def _table(title: str) -> Table:
    return Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)


def _with_time(frame: pl.DataFrame) -> pl.DataFrame:
    start = pl.col("window_start").str.to_datetime("%Y-%m-%dT%H:%M:%S%.fZ", time_unit="ms", time_zone="UTC")
    shorter = [pl.col("airline").str.replace(_SHORTER, "")] if "airline" in frame.columns else []
    return frame.with_columns(start.alias("time"), *shorter)


def _colour(delay: float) -> str:
    return "red" if delay > 15 else "yellow" if delay > 8 else "green"
