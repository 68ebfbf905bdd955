"""How sources and sinks look from the dataflow. They do I/O on the event loop; decoding and encoding
are plain functions that the dataflow runs on a worker thread.

A source subtask owns splits (a Kafka partition, a file). Which splits is a pure function of the
split's name, so that no coordinator has to assign them. A position is a small JSON object that only
the source reads: with it a split is read again from exactly there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NewType, Protocol, runtime_checkable

import polars as pl

from operators.element import EventTimeMs, Schema

SplitId = NewType("SplitId", str)  # stable and readable: "orders-3", "data/2013-01.csv"
Position = Mapping[str, Any]
ErrorPolicy = Literal["fail", "skip", "dlq"]

ERRORS_SCHEMA: Schema = {
    "time": pl.Datetime("ms", "UTC"),
    "source": pl.String(),
    "split": pl.String(),
    "offset": pl.Int64(),
    "key": pl.Binary(),
    "value": pl.Binary(),
    "step": pl.String(),
    "error": pl.String(),
}


@dataclass(frozen=True, slots=True)
class Decoded:
    """Rows of one fetched piece: good ones with the source's visible columns (payload and metadata; of the hidden
    ones `__kind` where the source is a changelog), bad ones as rows of `ERRORS_SCHEMA` (None: there are none).

    Where a record is not one row: `silent` records say nothing (blank lines, tombstones), `seconds` rows are the second
    one of their record (an update's new row). So records = rows − seconds + errors + silent.
    """

    frame: pl.DataFrame
    errors: pl.DataFrame | None = None
    silent: int = 0
    seconds: int = 0


@dataclass(frozen=True, slots=True)
class Fetched:
    """Raw records of one split and the position after them. `decode` is CPU work for a worker
    thread; it never does I/O. `rows` may be 0 (control records only)."""

    split: SplitId
    position: Position
    rows: int
    bytes: int
    decode: Callable[[], Decoded]
    finished: bool = False  # bounded split: nothing follows
    watermark: EventTimeMs | None = None  # the split's event time comes at least to it, whatever its rows say


class SourceReader(Protocol):
    """One source subtask's reader."""

    async def open(self, restored: Mapping[SplitId, Position] | None) -> None:
        """Find our splits. `restored` holds positions of *all* splits of the source in the checkpoint
        (read ours); None: no checkpoint, begin where the pipeline says."""

    def splits(self) -> Mapping[SplitId, Position]:
        """Every split of ours known so far, finished ones included, with the position that has been
        handed out by `fetch` (or the start position)."""

    async def fetch(self, max_rows: int, timeout_s: float) -> Sequence[Fetched]:
        """What is there now, at most about `max_rows` rows a piece; waits up to `timeout_s` for the first.
        Empty: nothing came. New splits may have appeared in `splits()`."""

    def exhausted(self) -> bool:
        """All splits are finished and none can appear."""

    def lag_records(self) -> int | None:
        """Records behind the end of our splits as last heard; None when unknown."""

    def listening(self) -> bool:
        """Whether rows would come if there were some: the silence of a source that cannot be reached says nothing."""

    async def close(self) -> None:
        """Release connections; idempotent."""


@runtime_checkable
class KnowsOutside(Protocol):
    """A reader or writer that knows whether what it (or, while it recovers, its sink) talks to answers."""

    def unreachable(self) -> str | None:
        """What is wrong at this moment (`the broker does not answer`), connecting included; None: nothing is known
        to be. Cheap, on the event loop."""


class Source(Protocol):
    """A configured source; makes readers."""

    @property
    def bounded(self) -> bool:
        """Whether input ends by itself."""

    def reader(self, subtask: int, parallelism: int) -> SourceReader:
        """The reader of one subtask."""


Committable = Mapping[str, Any]  # JSON: what another process needs to finish this commit


class SinkWriter(Protocol):
    """One sink subtask. Only what `prepare` returned may ever become visible of an exactly-once sink."""

    async def open(self) -> None:
        """Connect; called after `Sink.recover`."""

    async def write(self, frame: pl.DataFrame) -> None:
        """Take one batch (hidden columns included: drop them). Blocks while the outside is slow."""

    async def prepare(self, checkpoint: int) -> Sequence[Committable]:
        """Pre-commit: flush, check every record was taken, return what `commit` needs for everything
        written since the last *completed* checkpoint (earlier, aborted ones included)."""

    async def commit(self, checkpoint: int) -> None:
        """The checkpoint is complete: make its records visible. Harmless when repeated."""

    async def close(self) -> None:
        """Release connections, leaving prepared work as it is; idempotent."""


class Sink(Protocol):
    """A configured sink; makes writers."""

    async def recover(self, committables: Sequence[Committable], parallelism: int) -> None:
        """Before any writer opens: finish the commits of the restored checkpoint (they may be done
        already), then fence whatever an earlier attempt left: open transactions, unfinished files."""

    def writer(self, subtask: int, parallelism: int) -> SinkWriter:
        """The writer of one subtask."""

    async def close(self) -> None:
        """Release what `recover` opened."""
