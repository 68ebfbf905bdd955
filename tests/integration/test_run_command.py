"""`streamproc run` as a process: how it ends, what it says, and that stopping it loses nothing."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import streamproc

ROOT = Path(streamproc.__file__).parent.parent

ENDLESS = """
version: 1
pipeline: endless
job: {checkpoint: {every: 200ms}}
sources:
  rows: {type: datagen, rate: 2000, columns: {id: {sequence: {start: 0}}}}
sinks:
  out: {type: file, input: rows, path: out, format: json}
"""
BOUNDED = ENDLESS.replace("rate: 2000", "rows: 5000").replace("endless", "bounded")
PLAIN_FILE = """
version: 1
pipeline: reads
job: {restart: {strategy: none}}
sources:
  rows: {type: file, path: in.json, format: json, schema: {id: int64}}
sinks:
  out: {type: file, input: rows, path: out, format: json}
"""
ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+")


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "streamproc", *arguments]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), **more}


def run(folder: Path, pipeline: str, *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "p.yaml").write_text(pipeline)
    done = subprocess.run(
        command("run", "p.yaml", *options),
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment(),
        timeout=120,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done


@contextmanager
def started(folder: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """The process and the file of its stderr."""
    (folder / "p.yaml").write_text(ENDLESS)
    log = folder / "stderr"
    with (
        log.open("w") as err,
        subprocess.Popen(
            command("run", "p.yaml", *options),
            stdout=subprocess.PIPE,
            stderr=err,
            text=True,
            cwd=folder,
            env=environment(),
        ) as process,
    ):
        try:
            yield process, log
        finally:
            process.kill()


def wait_until(condition: Callable[[], object], process: subprocess.Popen[str], log: Path) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


def ids(folder: Path) -> list[int]:
    files = (path for path in (folder / "out").rglob("*") if path.is_file() and not path.name.startswith("."))
    return sorted(json.loads(line)["id"] for path in files for line in path.read_text().splitlines())


def without_gaps(found: list[int]) -> list[int]:
    """As many ids as found of each of the generator's splits, from its first: split = id mod 8."""
    counts = Counter(number % 8 for number in found)
    return sorted(split + 8 * n for split, count in counts.items() for n in range(count))


def more_than(count: int, folder: Path) -> bool:
    return len(ids(folder)) > count


def test_bounded_input_ends_with_0_and_a_line_for_scripts(tmp_path: Path) -> None:
    done = run(tmp_path, BOUNDED, "--json")
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert (outcome["pipeline"], outcome["status"], outcome["failure"]) == ("bounded", "finished", None)
    assert (outcome["records_in"], outcome["records_out"]) == (5000, 5000)
    assert ids(tmp_path) == list(range(5000))

    again = run(tmp_path, BOUNDED)
    assert again.returncode == 0
    assert "nothing left to do" in again.stderr
    assert ids(tmp_path) == list(range(5000))


def test_sigterm_takes_a_checkpoint_and_the_next_run_goes_on_from_it(tmp_path: Path) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        before = len(ids(tmp_path))
        with started(tmp_path, "--json") as (process, log):
            wait_until(partial(more_than, before, tmp_path), process, log)
            process.send_signal(number)
            out, _ = process.communicate(timeout=60)
        assert process.returncode == 0, log.read_text()
        assert json.loads(out)["status"] == "stopped"
        written = ids(tmp_path)
        assert len(written) > before
        assert written == without_gaps(written)


def test_a_second_signal_ends_it_at_once_and_still_nothing_is_lost_or_doubled(tmp_path: Path) -> None:
    with started(tmp_path) as (process, log):
        wait_until(partial(more_than, 0, tmp_path), process, log)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == 130, log.read_text()
    assert "Traceback" not in log.read_text()

    before = len(ids(tmp_path))
    with started(tmp_path) as (process, log):
        wait_until(partial(more_than, before, tmp_path), process, log)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == 0, log.read_text()
    assert ids(tmp_path) == without_gaps(ids(tmp_path))


def test_metrics_and_health_are_served(tmp_path: Path) -> None:
    def get(path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"{address}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    with started(tmp_path, "--metrics-port", "0") as (process, log):
        wait_until(lambda: ADDRESS.search(log.read_text()), process, log)
        (address,) = ADDRESS.findall(log.read_text())
        wait_until(lambda: get("/readyz")[0] == 200, process, log)
        assert get("/healthz")[0] == 200
        wait_until(
            lambda: 'last_completed_checkpoint_id{pipeline="endless"} 0.0' not in get("/metrics")[1], process, log
        )
        metrics = get("/metrics")[1]
        assert 'streamproc_up{pipeline="endless"} 1.0' in metrics
        assert 'streamproc_records_in_total{pipeline="endless",step="rows",subtask="0"}' in metrics


def test_a_bad_record_fails_the_pipeline_with_1_and_says_which(tmp_path: Path) -> None:
    (tmp_path / "in.json").write_text('{"id": 1}\n{"id": "two"}\n')
    done = run(tmp_path, PLAIN_FILE, "--json")
    assert done.returncode == 1
    assert "reads failed" in done.stderr
    assert "in.json" in done.stderr
    assert json.loads(done.stdout)["status"] == "failed"


def test_a_checkpoint_that_is_not_there_is_wrong_input(tmp_path: Path) -> None:
    done = run(tmp_path, BOUNDED, "--from", "99")
    assert done.returncode == 2
    assert "99" in done.stderr


def test_checkpoints_may_be_kept_elsewhere_and_looked_at(tmp_path: Path) -> None:
    assert run(tmp_path, BOUNDED, "--checkpoints", "file:elsewhere").returncode == 0
    assert not (tmp_path / ".streamproc" / "checkpoints").exists()
    for action in ("list", "show", "verify"):
        done = subprocess.run(
            command("checkpoints", action, "file:elsewhere"),
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=environment(),
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "bounded" in done.stdout
