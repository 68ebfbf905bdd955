"""The command line from outside: exit codes, stderr, no tracebacks; loads little before it knows what is wanted."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import structlog

import streamproc
from streamproc.cli import main

ROOT = Path(streamproc.__file__).parent.parent

GOOD = """
version: 1
pipeline: numbers
sources:
  rows: {type: datagen, rows: 1000, columns: {id: {sequence: {start: 0}}}}
sinks:
  out: {type: blackhole, input: rows}
"""
WRONG = """
version: 1
pipeline: numbers
sources:
  rows: {type: datagen, rows: 10, columns: {id: {sequence: {start: 0}}}, colour: blue}
sinks:
  out: {type: blackhole, input: row}
"""


@dataclass(frozen=True, slots=True)
class Done:
    code: int
    out: str
    err: str


Call = Callable[..., Done]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Call]:
    """Calls the program as a shell would, in an empty folder but for `good.yaml` and `wrong.yaml`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    (tmp_path / "good.yaml").write_text(GOOD)
    (tmp_path / "wrong.yaml").write_text(WRONG)
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level

    def run(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["streamproc", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return Done(int(ended.value.code or 0), said.out, said.err)

    yield run
    root.handlers[:], root.level = handlers, level
    logging.captureWarnings(False)
    structlog.reset_defaults()


def test_help_lists_the_commands(call: Call) -> None:
    done = call("--help")
    assert done.code == 0
    for command in ("validate", "explain", "run", "schema", "checkpoints", "demo"):
        assert command in done.out


def test_what_help_needs_is_little() -> None:
    """Start-up stays quick only as long as the heavy packages come later."""
    heavy = ("polars", "pydantic", "aiokafka", "pyarrow", "structlog")
    code = f"import sys, streamproc.cli, streamproc.commands.session; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_polars_gets_one_thread_unless_the_user_says_otherwise() -> None:
    code = (
        "import sys, os; sys.argv = ['streamproc', '--version']\n"
        "import streamproc.cli\n"
        "try: streamproc.cli.main()\n"
        "except SystemExit: pass\n"
        "print(os.environ['POLARS_MAX_THREADS'])"
    )
    for given, found in ((None, "1"), ("3", "3")):
        environment = {name: value for name, value in os.environ.items() if name != "POLARS_MAX_THREADS"}
        environment |= {"PYTHONPATH": str(ROOT)} | ({"POLARS_MAX_THREADS": given} if given else {})
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
        assert done.stdout.splitlines()[-1] == found


def test_the_version_is_that_of_the_package(call: Call) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert streamproc.__version__ == project["version"]
    assert call("--version").out == f"streamproc {project['version']}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["frobnicate"], "frobnicate"),
        (["run"], "FILE"),
        (["run", "good.yaml", "--from", "yesterday"], "latest or a checkpoint"),
        (["run", "good.yaml", "--from", "-1"], "latest or a checkpoint"),
        (["run", "good.yaml", "--runner", "ray"], "not available yet"),
        (["run", "good.yaml", "--runner", "processes"], "not available yet"),
        (["run", "good.yaml", "--runner", "processes", "--workers", "2"], "not available yet"),
        (["run", "good.yaml", "--workers", "2"], "one process"),
        (["run", "good.yaml", "--runner", "spark"], "spark"),
        (["run", "good.yaml", "--checkpoints", "nonsense://x"], "nonsense"),
        (["run", "good.yaml", "--checkpoints", ""], "checkpoint store ''"),
        (["run", "good.yaml", "--metrics-port", "70000"], "65535"),
        (["run", "good.yaml", "--metrics-host", "0.0.0.0"], "--metrics-port"),
        (["run", "good.yaml", "--log-level", "loud"], "debug, info"),
        (["run", "absent.yaml"], "absent.yaml"),
        (["validate", "absent.yaml"], "absent.yaml"),
        (["explain", "absent.yaml"], "absent.yaml"),
        (["checkpoints", "list", "file:absent"], "no checkpoint"),
        (["checkpoints", "verify", "nonsense://x"], "nonsense"),
        (["run", "wrong.yaml"], "colour"),
        (["explain", "wrong.yaml"], "colour"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_input_ends_with_2_and_a_message(arguments: list[str], said: str, call: Call) -> None:
    done = call(*arguments)
    assert done.code == 2
    assert said in done.err
    assert done.out == ""


def test_validate_says_nothing_of_a_good_file(call: Call) -> None:
    done = call("validate", "good.yaml")
    assert done == Done(0, "", "")


def test_validate_tells_all_faults_of_all_files_with_their_places(call: Call, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(WRONG)
    (tmp_path / "b.yaml").write_text(WRONG)
    done = call("validate", "a.yaml", "b.yaml")
    assert done.code == 2
    for file in ("a.yaml", "b.yaml"):
        assert f"{file}:5:" in done.err

    faults = json.loads(call("validate", "--json", "a.yaml").out)
    assert faults[0]["line"] == 5


def test_the_schema_is_json(call: Call) -> None:
    done = call("schema")
    assert done.code == 0
    assert "sources" in json.loads(done.out)["properties"]


def test_explain_as_text_and_as_json(call: Call) -> None:
    text = call("explain", "good.yaml")
    assert text.code == 0
    assert "rows" in text.out
    assert isinstance(json.loads(call("explain", "good.yaml", "--json").out), dict)
