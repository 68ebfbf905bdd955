"""Peak memory of a whole process with many keys in an open window, and of one that is restored with them.

    python -m tests.benchmarks.memory [--million 10] [--parallelism 1 2]

Three runs for each kind of key: straight through to the end of input, which closes the window; one that is
killed (-9) once a checkpoint holds every key; and one that goes on from there and closes the window.
Checkpoints are taken all along. Prints MB of resident memory at the peak.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from state.store import CheckpointStore
from streamproc.checkpoint.recovery import list_checkpoints, read_manifest
from tests.benchmarks.usage import Usage, ended, killed

TAIL_ROWS = 100_000  # of keys of their own, from a second source; slow, it keeps the window open

# Every row has a key of its own. The window is as long as event time is.
_PIPELINE = """
version: 1
pipeline: memory
job:
  parallelism: {parallelism}
  checkpoint: {{every: {every}, storage: "file:checkpoints"}}
sources:
  rows:
    type: datagen
    rows: {rows}
    columns:
      id: {{sequence: {{start: 0, step: 1}}}}
      at: {{time: {{start: "2026-01-01T00:00:00Z", step: 1ms}}}}
    event_time: {{column: at}}
  tail:
    type: datagen
    rows: {tail_rows}{rate}
    columns:
      id: {{sequence: {{start: -1, step: -1}}}}
      at: {{time: {{start: "2026-01-01T00:00:00Z", step: 1ms}}}}
    event_time: {{column: at}}
steps:
  named:
    input: [rows, tail]
    select: {{key: "{key}", id: id}}
  sums:
    input: named
    key: [key]
    window: {{tumble: 1d}}
    aggregate: {{rows: count(*), total: sum(id)}}
sinks:
  out: {{type: {sink}, input: sums}}
"""


@dataclass(frozen=True, slots=True)
class Keys:
    """What the window holds."""

    name: str
    rows: int
    expression: str


def integers(count: int) -> Keys:
    """Keys of 8 bytes."""
    return Keys("int64", count, "id")


def texts(count: int) -> Keys:
    """Keys of 31 characters."""
    return Keys("text", count, "concat('customer-of-the-shop-', cast(id + 1000000000 as varchar))")


@dataclass(frozen=True, slots=True)
class Peak:
    """What one process took; `records_out` is 0 when it was killed."""

    rss_mb: int
    cpu_s: float
    wall_s: float
    records_out: int


class Run:
    """One process that runs the pipeline. `program` is what starts the command line."""

    def __init__(self, directory: Path, file: Path, program: Sequence[str] = ("-m", "streamproc")) -> None:
        self._began_s = time.monotonic()
        self._process = subprocess.Popen(
            [sys.executable, *program, "run", str(file), "--json", "--log-level", "warning"],
            cwd=directory,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            stdout=subprocess.PIPE,
        )

    def kill_when(self, checkpoints: CheckpointStore, rows: int, timeout_s: float = 600) -> Peak:
        """kill -9 as soon as a checkpoint holds the first `rows` rows."""
        while rows_held(checkpoints) < rows:
            assert self._process.poll() is None, "the run ended before a checkpoint held every key"
            assert time.monotonic() - self._began_s < timeout_s, f"no checkpoint held every key after {timeout_s} s"
            time.sleep(0.2)
        return self._peak(killed(self._process), -signal.SIGKILL)

    def wait(self) -> Peak:
        """Until the end of input."""
        return self._peak(ended(self._process), 0)

    def _peak(self, usage: Usage, expected: int) -> Peak:
        assert self._process.stdout is not None
        with self._process.stdout as stdout:
            printed = stdout.read()
        assert usage.status == expected, f"exit code {usage.status}: {printed.decode()}"
        result: Mapping[str, int] = json.loads(printed.splitlines()[-1]) if printed else {}
        return Peak(usage.rss_mb, usage.cpu_s, time.monotonic() - self._began_s, result.get("records_out", 0))


def rows_held(checkpoints: CheckpointStore) -> int:
    """Rows of the source `rows` before the newest checkpoint."""
    numbers = list_checkpoints(checkpoints)
    if not numbers:
        return 0
    return sum(split["position"]["row"] for split in read_manifest(checkpoints, numbers[-1]).sources["rows"].values())


def write_pipeline(
    directory: Path,
    keys: Keys,
    parallelism: int,
    *,
    sink: str = "blackhole",
    every: str = "5s",
    rate: int | None = None,
) -> Path:
    """The pipeline file; `rate` keeps the window open."""
    file = directory / "pipeline.yaml"
    file.write_text(
        _PIPELINE.format(
            parallelism=parallelism,
            every=every,
            rows=keys.rows,
            tail_rows=TAIL_ROWS,
            rate="" if rate is None else f"\n    rate: {rate}",
            key=keys.expression,
            sink=sink,
        )
    )
    return file


def measure(keys: Keys, parallelism: int, sink: str) -> tuple[Peak, Peak, Peak]:
    """Straight through; filling, then killed; restored and closing."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        through = Run(directory, write_pipeline(directory, keys, parallelism, sink=sink)).wait()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        checkpoints = CheckpointStore.open(f"file:{directory / 'checkpoints'}", "memory")
        slow = write_pipeline(directory, keys, parallelism, sink=sink, rate=10)
        filling = Run(directory, slow).kill_when(checkpoints, keys.rows)
        closing = Run(directory, write_pipeline(directory, keys, parallelism, sink=sink)).wait()
    for finished in (through, closing):
        assert finished.records_out == keys.rows + TAIL_ROWS, f"{finished.records_out} results"
    return through, filling, closing


def main() -> None:
    """Print a line for every kind of key and parallelism."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--million", type=float, default=10, help="million int64 keys; texts are 3 for every 10")
    parser.add_argument("--parallelism", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--sink", default="blackhole", help='or "file, path: out, format: json" and the like')
    options = parser.parse_args()
    for keys in (integers(int(options.million * 1e6)), texts(int(options.million * 0.3e6))):
        for parallelism in options.parallelism:
            peaks = measure(keys, parallelism, options.sink)
            shown = ", ".join(
                f"{what} {peak.rss_mb} MB ({peak.wall_s:.0f} s, {peak.cpu_s:.0f} s CPU)"
                for what, peak in zip(("through", "filling", "restored and closing"), peaks, strict=True)
            )
            print(f"{keys.rows:,} {keys.name} keys, parallelism {parallelism}: {shown}", flush=True)


if __name__ == "__main__":
    main()
