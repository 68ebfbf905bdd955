"""Small pieces of one fetch go through the chain in one call; nothing moves, and what a piece says ends its call."""

from __future__ import annotations

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.connector import Decoded, Fetched, SplitId
from operators.element import EventTimeMs
from streamproc.dataflow.source_subtask import _few_rows_together
from streamproc.dataflow.subtask import FEW_ROWS

PIECES = st.builds(
    lambda rows, finished, says: Fetched(
        SplitId("s"), {}, rows, 0, lambda: Decoded(pl.DataFrame()), finished, EventTimeMs(1) if says else None
    ),
    st.sampled_from([0, 1, 500, 1023, 1024, 5000]),
    st.booleans(),
    st.booleans(),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(PIECES))
def test_pieces_keep_their_order_and_calls_are_small(pieces: list[Fetched]) -> None:
    calls = list(_few_rows_together(pieces))

    assert [piece for call in calls for piece in call] == pieces
    for call in calls:
        assert call
        assert len(call) == 1 or sum(piece.rows for piece in call) <= FEW_ROWS
        assert not any(piece.finished or piece.watermark is not None for piece in call[:-1])
