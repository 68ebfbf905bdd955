"""`test`: the tests in pipeline files, run one after the other, and what differs."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from streamproc.commands.session import DONE, FAILED, WRONG_INPUT, Session, print_json
from streamproc.pipeline.faults import Fault
from streamproc.testing.pipeline_tests import CaseResult, FileTests, load_tests, run_tests

if TYPE_CHECKING:
    from rich.console import Console


def test_files(session: Session, files: Sequence[Path], *, only: str, as_json: bool) -> int:
    """Run the tests whose name holds `only`. 0: all passed; 1: one did not; 2: a file is wrong, or nothing ran."""
    loaded, faults = _load(session, files)
    if any(fault.severity == "error" for fault in faults):
        if as_json:
            print_json({"faults": [fault.as_json() for fault in faults], "tests": []}, indent=2)
        else:
            for fault in faults:
                session.say(str(fault))
        return WRONG_INPUT
    if not session.debug:
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    results = asyncio.run(_run(loaded, only, None if as_json else _console()))
    if as_json:
        print_json({"faults": [], "tests": [_as_json(result) for result in results]}, indent=2)
    if not results:
        session.say(f"streamproc: no test has a name with '{only}' in it" if only else "streamproc: there are no tests")
        return WRONG_INPUT
    return DONE if all(result.passed for result in results) else FAILED


def _load(session: Session, files: Sequence[Path]) -> tuple[list[FileTests], list[Fault]]:
    loaded: list[FileTests] = []
    faults: list[Fault] = []
    for file in files:
        tests, found = load_tests(file)
        faults += found
        if tests is not None:
            session.redaction.add(tests.graph.secrets)
            loaded.append(tests)
    return loaded, faults


async def _run(loaded: Sequence[FileTests], only: str, console: Console | None) -> list[CaseResult]:
    results: list[CaseResult] = []
    for tests in loaded:
        async with aclosing(run_tests(tests, only=only)) as running:
            async for result in running:
                results.append(result)
                if console is not None:
                    _show(result, console)
    if console is not None and results:
        failed = sum(not result.passed for result in results)
        took = f"in {sum(result.seconds for result in results):.2f} s"
        counted = f"{len(results) - failed} passed" + (f", {failed} failed" if failed else "")
        console.print(f"{counted} {took}", style="bold red" if failed else "bold green", markup=False)
    return results


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=10_000)


def _show(result: CaseResult, console: Console) -> None:
    word, style = ("PASS", "green") if result.passed else ("FAIL", "red")
    console.print(word, style=style, end="  ")
    where = f"{result.file}:{result.line}"
    console.print(f"{result.name}  ({result.seconds:.2f} s)" + ("" if result.passed else f"  {where}"), markup=False)
    if result.failure is not None:
        console.print(f"  the pipeline failed: {result.failure}", markup=False)
    for line in result.lines:
        mark = line.lstrip()[:2]
        style = {"- ": "red", "+ ": "green"}.get(mark, "")
        console.print(f"  {line}", style=style, markup=False, soft_wrap=True)


def _as_json(result: CaseResult) -> dict[str, Any]:
    return {
        "file": result.file,
        "line": result.line,
        "name": result.name,
        "passed": result.passed,
        "seconds": round(result.seconds, 3),
        "failure": result.failure,
        "streams": [
            {
                "stream": difference.stream,
                "missing": [dict(missing.expected) for missing in difference.missing],
                "unexpected": [dict(row) for row in difference.unexpected],
            }
            for difference in result.differences
        ],
    }
