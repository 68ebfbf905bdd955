"""`streamproc test` as it is called: exit codes, what it prints, and the example of the documentation."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
EXAMPLE = re.search(r"```yaml\n# file: tested.yaml\n(.*?)```", (ROOT / "docs" / "testing.md").read_text(), re.DOTALL)


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "BROKERS"}
    return subprocess.run(
        [sys.executable, "-m", "streamproc", "test", *arguments],
        cwd=folder,
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    assert EXAMPLE is not None
    path = tmp_path / "tested.yaml"
    path.write_text(EXAMPLE[1])
    return path


def test_the_documented_example_passes(file: Path) -> None:
    done = run(file.parent, file.name)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.findall(r"^(PASS|FAIL)  (.*)  \(", done.stdout, re.MULTILINE) == [
        ("PASS", "closes on the watermark and survives a crash"),
        ("PASS", "keeps what comes late"),
    ]
    assert "2 passed in " in done.stdout
    assert list(file.parent.iterdir()) == [file]


def test_one_that_fails_ends_with_1_and_says_where(file: Path) -> None:
    file.write_text(file.read_text().replace("orders: 2, eur: 17.5", "orders: 3, eur: 17.5"))
    done = run(file.parent, file.name, "-k", "survives")
    assert done.returncode == 1
    assert "nearest: orders is 2, not 3" in done.stdout
    assert re.search(r"- \{country: FR, orders: 3, eur: 17.5\}   tested.yaml:\d+", done.stdout)
    assert "1 failed" in done.stdout


def test_a_script_gets_json(file: Path) -> None:
    file.write_text(file.read_text().replace("orders: 2, eur: 17.5", "orders: 3, eur: 17.5"))
    done = run(file.parent, file.name, "--json")
    assert done.returncode == 1
    first, second = json.loads(done.stdout)["tests"]
    assert (first["passed"], second["passed"]) == (False, True)
    assert first["streams"][0]["missing"] == [{"country": "FR", "orders": 3, "eur": 17.5}]


def test_a_wrong_file_ends_with_2_and_runs_nothing(file: Path) -> None:
    file.write_text(file.read_text().replace("revenue.late: []", "revenue.lates: []"))
    done = run(file.parent, file.name)
    assert done.returncode == 2
    assert "tests[0].expect.revenue.lates: unknown stream 'revenue.lates'; did you mean 'revenue.late'?" in done.stderr
    assert done.stdout == ""


def test_no_such_test_ends_with_2(file: Path) -> None:
    done = run(file.parent, file.name, "-k", "nothing")
    assert done.returncode == 2
    assert "no test has a name with 'nothing' in it" in done.stderr
