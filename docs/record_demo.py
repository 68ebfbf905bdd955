"""Runs the demo on a terminal of its own and draws what it printed: `python docs/record_demo.py > docs/demo.svg`."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import tempfile
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

COLUMNS = 82
BEHIND_THE_RESULTS = "The pipeline  "  # what follows names files and what to try next


def record() -> str:
    """The demo's standard output, with its colours."""
    terminal, inside = pty.openpty()
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "TERM": "xterm-256color",
        "COLUMNS": str(COLUMNS),
    }
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(
            ["streamproc", "demo"], cwd=folder, env=environment, stdout=inside, stderr=subprocess.DEVNULL
        ) as demo,
    ):
        os.close(inside)
        printed = b""
        while True:
            try:
                piece = os.read(terminal, 65_536)
            except OSError:  # how Linux says that nobody writes any more
                break
            if not piece:
                break
            printed += piece
    os.close(terminal)
    if demo.returncode:
        raise SystemExit(f"the demo ended with {demo.returncode}")
    return printed.decode().replace("\r\n", "\n")


def draw(printed: str) -> str:
    """An SVG of the results."""
    results = "\n".join(line.rstrip() for line in printed.partition(BEHIND_THE_RESULTS)[0].splitlines())
    console = Console(record=True, width=COLUMNS, file=StringIO())
    console.print(Text("$ streamproc demo", style="bold"))
    console.print(Text.from_ansi(results.rstrip()))
    drawn = console.export_svg(title="streamproc demo", theme=MONOKAI, unique_id="demo")
    return re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.DOTALL)  # a picture loads nothing from elsewhere


if __name__ == "__main__":
    print(draw(record()), end="")
