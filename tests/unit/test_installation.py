"""Other packages called `state` or `operators` are noticed before anything of theirs runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import streamproc
from streamproc.installation import Shadowed, check_installation

ROOT = Path(streamproc.__file__).parent.parent


def test_our_own_packages_are_fine() -> None:
    check_installation()


def test_packages_elsewhere_are_not() -> None:
    with pytest.raises(Shadowed, match="the package 'operators' at"):
        check_installation(Path("/elsewhere"))


def test_the_program_says_what_is_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "__init__.py").write_text("raise SystemExit('theirs ran')")

    done = subprocess.run(
        [sys.executable, "-m", "streamproc", "schema"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": f"{tmp_path}:{ROOT}", "PATH": ""},
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"streamproc: the package 'state' at {tmp_path / 'state'} hides the one")
    assert "Traceback" not in done.stderr
