"""Finds the refused records of a batch by halving it, so that good ones are still decoded together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import polars as pl

from streamproc.formats.protocol import BadRecord, DecodeError, RefusedRows

Records = list[tuple[int, bytes]]  # a record and its index in what was given
_REASON_LENGTH_MAX: Final = 200


def isolate(records: Records, decode: Callable[[Records], pl.DataFrame], bad: list[BadRecord]) -> list[pl.DataFrame]:
    """Frames of the records that `decode` takes, in order; the others are added to `bad`."""
    if not records:
        return []
    try:
        return [decode(records)]
    except RefusedRows as refused:
        unfit = dict(refused.bad)
        bad.extend(BadRecord(records[i][0], message) for i, message in unfit.items())
        return isolate([record for i, record in enumerate(records) if i not in unfit], decode, bad)
    except DecodeError as error:
        if len(records) == 1:
            bad.append(BadRecord(records[0][0], str(error)))
            return []
    half = len(records) // 2
    return isolate(records[:half], decode, bad) + isolate(records[half:], decode, bad)


def short_reason(error: BaseException) -> str:
    """The first line of a library's message, cut to a bounded length."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:_REASON_LENGTH_MAX]
