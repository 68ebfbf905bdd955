"""What is recorded of replays against a plain set of offsets."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamproc.service.replayed import Replayed


@settings(max_examples=60, deadline=None)
@given(
    letters=st.sets(st.integers(0, 120), max_size=60),
    replays=st.lists(st.sets(st.integers(0, 120), max_size=20), max_size=6),
    windows=st.lists(st.tuples(st.integers(0, 120), st.integers(0, 130)), min_size=6, max_size=6),
)
def test_exactly_what_was_replayed(letters: set[int], replays: list[set[int]], windows: list[tuple[int, int]]) -> None:
    """Letters are where they are; each replay has looked at one window, and knows nothing beyond it."""
    done: set[int] = set()
    recorded = Replayed()
    for wanted, (first, stop) in zip(replays, windows, strict=False):
        chosen = {offset for offset in wanted & letters if first <= offset < stop and offset not in recorded}
        waiting = sorted(offset for offset in letters - done - chosen if first <= offset < stop)
        recorded = recorded.adding(chosen, waiting, (first, stop))
        done |= chosen
        recorded = Replayed.from_committed(recorded.below, recorded.metadata())
        assert {offset for offset in letters if offset in recorded} == done


def test_all_replayed_is_one_number() -> None:
    offsets = range(3, 30_000, 2)  # ends of transactions lie between
    assert Replayed().adding(offsets, [], (0, 30_000)) == Replayed(30_000)


def test_what_is_not_ours_is_refused() -> None:
    with pytest.raises(ValueError, match="not written by us"):
        Replayed.from_committed(3, "")
