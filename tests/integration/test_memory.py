"""Keys that do not fit the budget leave memory: while a window fills, after a crash, and while it closes."""

from __future__ import annotations

from pathlib import Path

import pytest

from state.store import CheckpointStore
from tests.benchmarks.memory import TAIL_ROWS, Run, integers, write_pipeline

# A tenth of the usual budget: with all keys in memory the same runs peak at 720 MB to 1 GB, with it at 400 MB.
PROGRAM = (
    "-c",
    "from streamproc import cli, process_settings; process_settings.set_threads();"
    "from streamproc.dataflow import deployment; deployment._MEMORY_ROWS_MAX = 200_000; cli.main()",
)
RSS_MB_MAX = 600


@pytest.mark.slow
@pytest.mark.parametrize("parallelism", [1, 2])
def test_memory_is_bounded_with_millions_of_open_keys(tmp_path: Path, parallelism: int) -> None:
    keys = integers(6_000_000)
    checkpoints = CheckpointStore.open(f"file:{tmp_path / 'checkpoints'}", "memory")

    held_open = write_pipeline(tmp_path, keys, parallelism, every="1s", rate=10)
    filling = Run(tmp_path, held_open, PROGRAM).kill_when(checkpoints, keys.rows, timeout_s=120)
    closing = Run(tmp_path, write_pipeline(tmp_path, keys, parallelism, every="1s"), PROGRAM).wait()

    assert closing.records_out == keys.rows + TAIL_ROWS
    assert (filling.rss_mb < RSS_MB_MAX, closing.rss_mb < RSS_MB_MAX) == (True, True), (filling, closing)
