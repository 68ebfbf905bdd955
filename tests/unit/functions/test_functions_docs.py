"""What docs/functions.md shows is valid and does what it says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import streamproc
from streamproc.pipeline.planner import check_pipeline

PAGE = Path(streamproc.__file__).parent.parent / "docs" / "functions.md"


def test_the_pipeline_is_valid_and_the_tests_pass(tmp_path: Path) -> None:
    text = PAGE.read_text()
    for name, content in re.findall(r"^```python\n# file: (\S+)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        (tmp_path / name).write_text(content)
    [pipeline] = re.findall(r"^```yaml\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    (tmp_path / "shop.yaml").write_text(pipeline)
    _, faults = check_pipeline(tmp_path / "shop.yaml")
    assert [str(fault) for fault in faults] == []
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", "test_shop.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "2 passed" in ran.stdout
