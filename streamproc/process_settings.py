"""Settings of the whole process that the data path is measured with; made once, before work begins.

- polars and OpenBLAS get no thread pools of their own: parallelism comes from subtasks.
- glibc keeps freed blocks of batch size instead of giving them back to the system: a batch's buffers are
  freed and wanted again every few milliseconds, and each round through the system costs page faults
  (measured: 0.3 µs of CPU per record of 250 bytes).
- Objects that live as long as the process are left out of garbage collections, which come less often:
  batches are freed by reference counting.
"""

from __future__ import annotations

import ctypes
import gc
import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_KEPT_BLOCK_BYTES_MAX: Final = 32 << 20
_KEPT_BYTES_MAX: Final = 128 << 20
_COLLECT_AFTER: Final = (50_000, 20, 50)  # net new objects, then multiples


def set_threads() -> None:
    """Has to come before polars and numpy are imported; what the user has set stays."""
    os.environ.setdefault("POLARS_MAX_THREADS", "1")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def new_loop() -> asyncio.AbstractEventLoop:
    """uvloop's where there is one: sockets cost half of the time."""
    try:
        import uvloop
    except ImportError:  # not on every platform
        import asyncio

        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def set_memory() -> None:
    """For a process that is about to run a pipeline, after everything has been imported."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return  # not glibc
    mallopt(_M_MMAP_THRESHOLD, _KEPT_BLOCK_BYTES_MAX)
    mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES_MAX)
