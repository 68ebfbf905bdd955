"""The bundled demo from outside, checked against the same sums made without streaming."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import polars as pl

import streamproc
from streamproc.demo.report import read_hourly

ROOT = Path(streamproc.__file__).parent.parent
FLIGHTS = ROOT / "streamproc" / "demo" / "flights.parquet"


def demo(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "streamproc", "demo"],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=120,
        check=False,
    )


def read_weekly_plainly(folder: Path) -> pl.DataFrame:
    frames = [pl.read_csv(file, try_parse_dates=True) for file in sorted(folder.rglob("*.csv"))]
    return pl.concat(frames).sort("airline", "origin", "window_start")


def test_the_demo_counts_every_flight_once_and_can_be_run_again(tmp_path: Path) -> None:
    flights = pl.read_parquet(FLIGHTS)
    expected = (
        flights.drop_nulls("delay")
        .group_by("airline", "origin", window_start=pl.col("scheduled").dt.truncate("1w"))
        .agg(flights=pl.len().cast(pl.Int64), mean_delay=pl.col("delay").mean(), worst_delay=pl.col("delay").max())
        .sort("airline", "origin", "window_start")
    )
    for _ in range(2):
        done = demo(tmp_path)
        assert done.returncode == 0, done.stderr
        assert "336,776 flights" in done.stdout
        assert "JetBlue Airways" in done.stdout

        weekly = read_weekly_plainly(tmp_path / "demo-output" / "results" / "weekly")
        assert weekly.columns == [
            "airline",
            "origin",
            "window_start",
            "window_end",
            "flights",
            "mean_delay",
            "worst_delay",
        ]
        for name in ("airline", "origin", "flights", "worst_delay"):
            assert weekly[name].to_list() == expected[name].to_list()
        assert weekly["window_start"].dt.epoch("ms").to_list() == expected["window_start"].dt.epoch("ms").to_list()
        assert max((weekly["mean_delay"] - expected["mean_delay"]).abs()) < 1e-9

        hourly = read_hourly(tmp_path / "demo-output" / "results" / "hourly")
        assert hourly["departed"].sum() == flights["delay"].count()
        assert hourly["cancelled"].sum() == flights["delay"].null_count()
        assert hourly.select("origin", "time").is_unique().all()

    assert [path.name for path in tmp_path.iterdir()] == ["demo-output"]
