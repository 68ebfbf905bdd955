"""`make soak`: one job under a steady load, watched from outside; what grows with time is a leak.

    python -m tests.soak [--minutes 120] [--rate 2000] [--parallelism 2]

Windows open and close, one stays open for good, a checkpoint is taken every second. Resident memory, open
files, threads, and the disk that local state and checkpoints take are sampled every few seconds; the first
third of the run is warm-up. Fails when the last third is above the second by more than samples scatter.
Results are checked as in `tests.chaos`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.broker import running
from tests.integration.job import Job
from tests.integration.orders import Orders

_SAMPLE_S: Final = 2.0
_SHOW_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Limit:
    """The last third's median may be above the second's by `factor` and `slack`."""

    unit: str
    factor: float
    slack: float


# Disk swings: checkpoints add to it, merging and collecting take away.
LIMITS: Final = {
    "memory": Limit("MB", 1.05, 10),
    "open files": Limit("", 1.0, 8),
    "threads": Limit("", 1.0, 2),
    "files of local state": Limit("", 1.25, 20),
    "disk of local state": Limit("MB", 1.25, 8),
    "files of checkpoints": Limit("", 1.25, 20),
    "disk of checkpoints": Limit("MB", 1.25, 8),
}

Sample = dict[str, float]


def sample(job: Job, directory: Path) -> Sample:
    """What the job takes now."""
    process = Path("/proc") / str(job.pid)
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    state_files, state_bytes = disk(directory / ".streamproc")
    stored_files, stored_bytes = disk(directory / "checkpoints")
    return {
        "memory": int(status["VmRSS"].split()[0]) / 1024,
        "open files": len(list((process / "fd").iterdir())),
        "threads": int(status["Threads"]),
        "files of local state": state_files,
        "disk of local state": state_bytes / 2**20,
        "files of checkpoints": stored_files,
        "disk of checkpoints": stored_bytes / 2**20,
    }


def disk(folder: Path) -> tuple[int, int]:
    """Files below a folder and their bytes; a file with several names counts once."""
    sizes: dict[int, int] = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                found = (Path(parent) / name).stat()
            except FileNotFoundError:  # just removed
                continue
            sizes[found.st_ino] = found.st_size
    return len(sizes), sum(sizes.values())


def growth(samples: Sequence[Sample]) -> dict[str, tuple[float, float, bool]]:
    """For each figure the medians of the second and the last third, and whether that is too much."""
    third = len(samples) // 3
    found = {}
    for name, limit in LIMITS.items():
        values = [each[name] for each in samples]
        before, after = statistics.median(values[third : 2 * third]), statistics.median(values[2 * third :])
        found[name] = before, after, after > before * limit.factor + limit.slack
    return found


def soak(orders: Orders, directory: Path, minutes: float, rate: int) -> list[Sample]:
    """Keep the job busy and take samples; then check its results."""
    job = Job(directory, orders.file)
    stopping = threading.Event()

    def produce() -> None:
        while not stopping.is_set():
            orders.produce(rate // 20)
            time.sleep(0.05)

    producing = threading.Thread(target=produce, daemon=True)
    producing.start()
    samples: list[Sample] = []
    began_s = time.monotonic()
    shown_s = 0.0
    try:
        job.until(lambda: orders.ledger.copied)
        while (passed_s := time.monotonic() - began_s) < 60 * minutes:
            time.sleep(_SAMPLE_S)
            assert job.alive(), job.log()
            orders.check_so_far()
            samples.append(sample(job, directory))
            if passed_s - shown_s >= _SHOW_S:
                shown_s = passed_s
                told = ", ".join(
                    f"{name} {samples[-1][name]:.0f} {limit.unit}".strip() for name, limit in LIMITS.items()
                )
                print(
                    f"{passed_s:7.0f} s  {orders.count:,} orders, {orders.ledger.copied:,} copied  {told}", flush=True
                )
        stopping.set()
        producing.join()
        orders.close_windows()
        assert job.stop() == 0, job.log()
        Job(directory, orders.file, "--until-idle").wait(120)
        orders.check(120)
        return samples
    finally:
        stopping.set()
        producing.join()
        orders.close()
        if job.alive():
            job.kill()


def main() -> None:
    """Run; exit code 1 when something grows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--rate", type=int, default=2_000, help="orders a second")
    parser.add_argument("--parallelism", type=int, default=2)
    options = parser.parse_args()
    with running() as broker, tempfile.TemporaryDirectory(prefix="streamproc-soak-") as name:
        directory = Path(name)
        orders = Orders(broker, directory, "soak", options.parallelism, every="1s")
        samples = soak(orders, directory, options.minutes, options.rate)
    found = growth(samples)
    for figure, (before, after, too_much) in found.items():
        verdict = "GROWS" if too_much else "steady"
        print(f"{figure:<22} {before:8.1f} → {after:8.1f} {LIMITS[figure].unit:<3} {verdict}")
    raise SystemExit(any(too_much for _, _, too_much in found.values()))


if __name__ == "__main__":
    main()
