"""Frames that memory has no room for: written to a file each and mapped back, so that reading a row reads its pages.

Files are a working copy, like the database they lie beside: never synced, deleted with the rows, thrown away after
a crash. A mapped frame takes address space, and page cache that the system may take back at any time.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import polars as pl

from state.failure import state_error

_SUFFIX: Final = ".arrow"


@dataclass(frozen=True, slots=True)
class SpilledFrame:
    """A frame of one file. What was gathered from it stays good when it is deleted."""

    frame: pl.DataFrame
    path: Path

    def delete(self) -> None:
        """Remove the file; the disk gets its room back when nothing refers to `frame` any more."""
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            raise state_error(f"cannot delete spilled rows in {self.path}", error) from error


class SpillFolder:
    """The spilled frames of one name in a folder that others share."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name
        self._next_number = 0

    def write(self, frame: pl.DataFrame) -> SpilledFrame:
        """Move a frame to disk: the same rows in one chunk, mapped. Raises StateError, say on a full disk."""
        path = self._folder / f"{self._name}-{self._next_number}{_SUFFIX}"
        self._next_number += 1
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            frame.write_ipc(path, compression="uncompressed", record_batch_size=frame.height)
            return SpilledFrame(_mapped(path), path)
        except (OSError, pl.exceptions.PolarsError) as error:
            path.unlink(missing_ok=True)
            raise state_error(f"cannot spill {frame.height} rows of {self._name!r} to {path}", error) from error


def _mapped(path: Path) -> pl.DataFrame:
    # polars reads whole files since it dropped its own mapping. Imported late: 25 MB that most jobs never need.
    import pyarrow as pa

    with pa.memory_map(str(path)) as file:
        table = pa.ipc.open_file(file).read_all()
    frame = pl.from_arrow(table, rechunk=False)
    assert isinstance(frame, pl.DataFrame)
    return frame
