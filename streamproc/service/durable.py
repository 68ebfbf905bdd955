"""Files that are there whole or not at all, whatever happens to the process or the machine.

A new content is written beside the old one, flushed, and renamed over it; then the folder is flushed, so that
what a function here has returned from is still there after a power cut.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

UNFINISHED: Final = ".new"  # what a killed process may leave behind; the next write of that file goes over it


def write_file(path: Path, content: bytes) -> None:
    """Replace the file, or make it."""
    beside = path.with_name(path.name + UNFINISHED)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        written = 0
        while written < len(content):
            written += os.write(descriptor, content[written:])
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    rename(beside, path)


def rename(path: Path, target: Path) -> None:
    """Give a file or a folder another name in the same folder."""
    path.rename(target)
    flush_folder(target.parent)


def flush_folder(path: Path) -> None:
    """Names made, changed and removed in it until now are durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
