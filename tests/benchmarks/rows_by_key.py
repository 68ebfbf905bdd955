"""Memory and CPU of rows kept by key (`operators.keyed_rows`): held in memory, and spilled beyond a budget.

    python -m tests.benchmarks.rows_by_key [--million 5] [--budget 200000 1000000000]

One process for each budget (`memory_rows_max`) on RocksDB: adds rows of 58 bytes in batches of 8192, asks for random
and for recent ones, in large and in small batches, writes a checkpoint, and is restored from it. `anonymous` is
memory that the system cannot take back (RssAnon); pages of spilled files are not.

Last figures, 5 million rows, on two busy cores (µs of CPU a row):

                                      budget 200,000        all in memory
    anonymous memory, peak            332 MB, 360 MB        619 MB            75 files of 295 MB on disk
    add                               0.40                  0.38
    find, rows: random, by 8192       0.32, 0.39            0.33, 0.36
                random, by 100        2.4, 1.2              2.6, 1.3
                recent, by 8192       0.31, 0.23            0.30, 0.20
                recent, by 100        2.2, 1.1              2.5, 1.1
    flush, restore                    0.53, 0.56            0.48, 0.56
    restore: memory more than before  221 MB, peak 289 MB   182 MB, peak 248 MB  (the process reuses what it had)

Of the 332 MB 8 are rows; slots and index take 45 bytes a row (227 MB), the rest is heap kept for the next merge.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt
import polars as pl

from operators.keyed_rows import KeyedRows
from operators.operator import OperatorContext
from state.key_group import KeyGroupRange
from state.rocksdb import RocksBackend
from streamproc.process_settings import set_memory

T = TypeVar("T")

BATCH: Final = 8192
SMALL_BATCH: Final = 100
RECENT: Final = 100_000
BATCHES: Final = 50
ALL: Final = KeyGroupRange(0, 127)
_SCHEMA: Final[dict[str, pl.DataType]] = {"key": pl.Int64(), "at": pl.Int64(), "name": pl.String()}


def anonymous_mb() -> int:
    """Of this process, now."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) // 1024


@contextmanager
def peak_mb() -> Iterator[list[int]]:
    """The highest `anonymous_mb` while the block runs, in a list of one."""
    peak, done = [anonymous_mb()], threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            peak[0] = max(peak[0], anonymous_mb())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()
        peak[0] = max(peak[0], anonymous_mb())


class Stopwatch:
    """CPU seconds of calls."""

    def __init__(self) -> None:
        self.spent_s = 0.0

    def time(self, call: Callable[[], T]) -> T:
        """What `call` gives."""
        began = time.process_time()
        result = call()
        self.spent_s += time.process_time() - began
        return result

    def per(self, count: int) -> str:
        """For each of so many."""
        return f"{self.spent_s / count * 1e6:.2f} µs"


def frame(keys: npt.NDArray[np.int64]) -> pl.DataFrame:
    """Rows of 58 bytes."""
    names = "customer-of-the-shop-" + pl.Series(keys + 10**9).cast(pl.String)
    return pl.DataFrame({"key": keys, "at": keys, "name": names}, schema=_SCHEMA)


def kept(backend: RocksBackend, budget: int) -> KeyedRows:
    """The rows of one subtask."""
    return KeyedRows(OperatorContext("step", 0, 128, ALL, backend, memory_rows_max=budget), "rows", _SCHEMA, ["key"])


def measure(rows: int, budget: int, folder: Path) -> None:
    """Print what one process takes."""
    base = anonymous_mb()
    backend = RocksBackend.create(folder / "db", ALL)
    held, adding = kept(backend, budget), Stopwatch()
    with peak_mb() as peak:
        for first in range(0, rows, BATCH):
            batch = frame(np.arange(first, min(rows, first + BATCH)))
            adding.time(lambda batch=batch: held.add(batch))  # type: ignore[misc]
    files = [path.stat().st_size for path in backend.spill_folder().glob("*")]
    print(f"{rows:,} rows, budget {budget:,}: {len(files)} files of {sum(files) >> 20} MB")
    print(f"  add {adding.per(rows)}; anonymous {anonymous_mb() - base} MB, peak {peak[0] - base} MB")
    random = np.random.default_rng(1)
    for name, among in (("random", rows), ("recent", RECENT)):
        for size in (BATCH, SMALL_BATCH):
            finding, gathering = Stopwatch(), Stopwatch()
            for _ in range(BATCHES):
                asked = frame(rows - 1 - random.integers(0, among, size))
                found = finding.time(lambda asked=asked: held.find(asked))  # type: ignore[misc]
                gathered = gathering.time(lambda found=found: held.rows(found.ids))  # type: ignore[misc]
                assert gathered.equals(asked)
            print(f"  {name}, {size} at a time: find {finding.per(BATCHES * size)}, rows", end=" ")
            print(f"{gathering.per(BATCHES * size)} a row")
    flushing = Stopwatch()
    flushing.time(held.flush)
    snapshot = backend.snapshot(folder / "checkpoint")
    backend.close()
    del held

    backend, restoring = RocksBackend.open_restored(snapshot.directory, ALL), Stopwatch()
    held, before = kept(backend, budget), anonymous_mb()
    with peak_mb() as peak:
        restoring.time(held.restore)
    assert len(held) == rows
    print(f"  flush {flushing.per(rows)}, restore {restoring.per(rows)} a row; anonymous", end=" ")
    print(f"{anonymous_mb() - before} MB, peak {peak[0] - before} MB")
    backend.close()


def main() -> None:
    """One process for each budget."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--million", type=float, default=5)
    parser.add_argument("--budget", type=int, nargs="+", default=[200_000, 10**9])
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)  # in this process, the first budget
    options = parser.parse_args()
    if options.here:
        set_memory()
        with tempfile.TemporaryDirectory() as folder:
            measure(int(options.million * 1e6), options.budget[0], Path(folder))
        return
    for budget in options.budget:
        own = ["--here", "--million", str(options.million), "--budget", str(budget)]
        env = {**os.environ, "POLARS_MAX_THREADS": "1"}
        subprocess.run([sys.executable, "-m", "tests.benchmarks.rows_by_key", *own], check=True, env=env)


if __name__ == "__main__":
    main()
