"""What another process takes: CPU from the kernel's account at its end, memory while it lives.

The kernel's `ru_maxrss` is of no use here: a process inherits the peak of the one that started it.
"""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_EVERY_S: Final = 0.02


@dataclass(frozen=True, slots=True)
class Usage:
    """`rss_mb` is the peak of resident memory, `cpu_s` user and system time."""

    status: int
    cpu_s: float
    rss_mb: int


def killed(process: subprocess.Popen[bytes]) -> Usage:
    """kill -9."""
    peak_kb = _peak_kb(process.pid)
    process.kill()
    return ended(process, peak_kb)


def ended(process: subprocess.Popen[bytes], peak_kb: int = 0) -> Usage:
    """Wait for the end of a process whose output fits into a pipe."""
    while True:
        peak_kb = max(peak_kb, _peak_kb(process.pid))
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid != 0:
            process.returncode = os.waitstatus_to_exitcode(status)
            return Usage(process.returncode, usage.ru_utime + usage.ru_stime, peak_kb // 1024)
        time.sleep(_EVERY_S)


def _peak_kb(pid: int) -> int:
    """0 for a process that has ended and has not been waited for."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    return 0
