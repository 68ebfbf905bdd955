"""What flows on a channel: record batches, watermarks and barriers, in order.

A record batch is a polars DataFrame. Beside the user's columns it may carry hidden ones:
`__time` (Int64, event time in ms since the epoch, UTC) where the source declares an event time,
`__watermark` (Int64, ms) where rows are out of order: the watermark *just before that row*. With it a
row's lateness does not depend on where batches happened to be cut, so a replay after a crash
decides the same. Rows without it take the watermark of the channel at the batch's arrival.
And `__kind` (Int8) on every batch of a changelog stream: whether a row is added or taken back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NewType

import polars as pl

EventTimeMs = NewType("EventTimeMs", int)
CheckpointId = NewType("CheckpointId", int)

TIME: Final = "__time"
ROW_WATERMARK: Final = "__watermark"
KIND: Final = "__kind"
HIDDEN: Final = (TIME, ROW_WATERMARK, KIND)

# Row kinds, numbered as Flink does. An update is UPDATE_BEFORE with the old row, then UPDATE_AFTER with the new
# one, next to each other in one batch; what is to be taken back is always a row that was given before.
INSERT: Final = 0
UPDATE_BEFORE: Final = 1
UPDATE_AFTER: Final = 2
DELETE: Final = 3

WATERMARK_MIN: Final = EventTimeMs(-(2**62))
WATERMARK_MAX: Final = EventTimeMs(2**62)  # the end of input is this watermark: it closes every window

Schema = dict[str, pl.DataType]  # visible columns only, in order


@dataclass(frozen=True, slots=True)
class RecordBatch:
    """Rows of one stream; `frame` is never empty on a channel."""

    frame: pl.DataFrame


@dataclass(frozen=True, slots=True)
class Watermark:
    """No row with event time ≤ `time` is expected any more. Idle: does not hold others back."""

    time: EventTimeMs
    idle: bool = False


@dataclass(frozen=True, slots=True)
class Barrier:
    """Cuts the stream: what came before belongs to `checkpoint`, what follows does not."""

    checkpoint: CheckpointId


Element = RecordBatch | Watermark | Barrier
OutputTag = str  # "main", "late", "errors", or a side output that a process function declares
