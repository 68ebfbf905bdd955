"""`demo`: the bundled pipeline on bundled data, run for real, with its results drawn on the terminal."""

from __future__ import annotations

import os
import shutil
import sys
from importlib.resources import as_file, files
from pathlib import Path
from typing import Final

from state.failure import Failure
from streamproc.commands.run import RunRequest, run_graph
from streamproc.commands.session import DONE, FAILED, Session, describe, table_console
from streamproc.demo.report import read_hourly, read_weekly, report
from streamproc.observability.logging import configure_logging
from streamproc.pipeline.planner import load_pipeline

_FILES: Final = ("flights.yaml", "flights.parquet", "NOTICE")
_MARKER: Final = ".made-by-streamproc-demo"


class NotOurs(Failure):
    """The folder holds something that the demo did not make."""

    acts = "user"


def run_demo(session: Session, directory: Path) -> int:
    """Start anew in `directory`, run, show. Raises NotOurs rather than clear what somebody else made."""
    console = table_console()
    configure_logging(session.redaction, "debug" if session.debug else "warning")
    prepare(directory)
    console.print(
        "A year of departures from New York, in the order aircraft left; each carries the time it was scheduled.\n"
        "The pipeline waits for delayed flights, then closes each week (by airline and airport) and each hour.\n",
        highlight=False,
    )
    here = Path.cwd()
    os.chdir(directory)  # the pipeline's paths are relative, and nothing it writes shall be elsewhere
    try:
        graph = load_pipeline(Path("flights.yaml"))
        outcome = run_graph(session, graph, RunRequest())
        if outcome.result.status != "finished":
            reason = outcome.result.failure
            session.say(f"streamproc: the demo {outcome.result.status}{f': {describe(reason)}' if reason else ''}")
            return FAILED if outcome.result.status == "failed" else DONE
        weekly, hourly = read_weekly(Path("results/weekly")), read_hourly(Path("results/hourly"))
    finally:
        os.chdir(here)
    console.print(report(weekly, hourly))
    read, seconds = outcome.status.records_in, outcome.seconds
    rate = f"{read / seconds:,.0f} a second"
    console.print(f"{read:,} flights in {seconds:.1f} s ({rate}), every one counted once.\n", highlight=False)
    console.print(_next(directory), highlight=False, soft_wrap=True)
    return DONE


def prepare(directory: Path) -> None:
    """An empty folder with the demo's files."""
    if directory.exists():
        if not directory.is_dir() or (any(directory.iterdir()) and not (directory / _MARKER).is_file()):
            raise NotOurs(f"{directory} is there and was not made by the demo: give another one with --directory")
        shutil.rmtree(directory)
    directory.mkdir(parents=True)
    (directory / _MARKER).touch()
    for name in _FILES:
        with as_file(files("streamproc.demo") / name) as bundled:
            shutil.copyfile(bundled, directory / name)


def _next(directory: Path) -> str:
    program = _program()
    return f"""The pipeline      {directory}/flights.yaml
Its results       {directory}/results
Its checkpoints   {directory}/checkpoints

Try next:
  cd {directory}
  {program} explain flights.yaml                 # the plan
  {program} checkpoints verify file:checkpoints  # what a restart would go on from
  {program} run flights.yaml                     # finished already: nothing is counted twice
Change flights.yaml as you like, then:
  {program} validate flights.yaml && {program} run flights.yaml --checkpoints file:mine"""


def _program() -> str:
    """How to call us from another folder: an environment that is not activated is not on the path."""
    beside = Path(sys.executable).with_name("streamproc")
    if shutil.which("streamproc") or not beside.is_file():
        return "streamproc"
    return str(beside)
