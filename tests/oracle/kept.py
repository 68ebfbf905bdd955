"""A small input and Flink's rows for it, kept in the repository, so that every test run compares with Flink."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

import polars as pl

FOLDER: Final = Path(__file__).parent / "data"
_FILES: Final = 4
_TABLES: Final = {
    "bid": ("auction", "dateTime"),
    "auction": ("id", "dateTime", "expires"),
    "person": ("id", "dateTime"),
}


def save(generated: Path, results: Path, target: Path) -> None:
    """Keep generated events (JSON lines) as Parquet, four files for each table, and the results as they are.

    Rows of one auction stay in one file: where they tie, the order of arrival counts.
    """
    target.mkdir(parents=True, exist_ok=True)
    for table, (key, *times) in _TABLES.items():
        rows = pl.read_ndjson(generated / f"{table}.jsonl").with_columns(pl.from_epoch(time, "ms") for time in times)
        rows = rows.with_columns(pl.col(time).dt.replace_time_zone("UTC") for time in times)
        for number in range(_FILES):
            rows.filter(pl.col(key) % _FILES == number).write_parquet(target / f"{table}-{number}.parquet")
    for result in results.glob("*.csv"):
        shutil.copy(result, target)
