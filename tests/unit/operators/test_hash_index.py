"""The index finds every row of a hash, whatever runs it has come to be in."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.hash_index import HashIndex

HIGHEST = 2**64 - 1
HASHES = st.sampled_from([0, 1, 2**63, HIGHEST - 1, HIGHEST]) | st.integers(0, 20)


@settings(max_examples=60, deadline=None)
@given(
    batches=st.lists(st.lists(HASHES, max_size=30), max_size=8),
    asked=st.lists(HASHES, max_size=12),
    dead=st.sets(st.integers(0, 100)),
)
def test_agrees_with_a_list(batches: list[list[int]], asked: list[int], dead: set[int]) -> None:
    index, held = HashIndex(), list[int]()
    for batch in batches:
        index.add(np.array(batch, dtype=np.uint64), np.arange(len(held), len(held) + len(batch)))
        held += batch
    assert found(index, asked) == [(at, row) for at, a in enumerate(asked) for row, h in enumerate(held) if h == a]

    alive = np.array([row not in dead for row in range(len(held))], dtype=np.bool_)
    index.keep(alive, np.cumsum(alive) - 1)
    left = [h for row, h in enumerate(held) if row not in dead]
    assert found(index, asked) == [(at, row) for at, a in enumerate(asked) for row, h in enumerate(left) if h == a]
    assert len(index) == len(left)


def test_a_hash_of_many_rows_among_many_hashes() -> None:
    index = HashIndex()
    random = np.random.default_rng(3)
    hashes = random.integers(0, 2**64, 50_000, dtype=np.uint64)
    hashes[::5] = 42
    for first in range(0, len(hashes), 3000):
        rows = np.arange(first, min(first + 3000, len(hashes)))
        index.add(hashes[rows], rows)

    at, rows = index.find(np.array([7, 42, hashes[1], 42], dtype=np.uint64))

    hot = np.arange(0, len(hashes), 5)
    assert np.array_equal(at, np.repeat([1, 2, 3], [len(hot), 1, len(hot)]))
    assert np.array_equal(rows, np.concatenate((hot, [1], hot)))


def test_a_hot_hash_asked_for_often_comes_in_pieces() -> None:
    """16,000 × 20,000 pairs: more than there is memory for."""
    index = HashIndex()
    for first in range(0, 20_000, 3000):
        rows = np.arange(first, min(first + 3000, 20_000))
        index.add(np.full(len(rows), 42, dtype=np.uint64), rows)
    pieces = index.find_pieces(np.full(16_000, 42, dtype=np.uint64), 30_000)

    at, rows = next(pieces)
    assert np.array_equal(at, np.repeat([0, 1], [20_000, 10_000]))
    assert np.array_equal(rows, np.arange(30_000) % 20_000)
    at, rows = next(pieces)
    assert np.array_equal(rows, np.arange(30_000, 60_000) % 20_000)


def found(index: HashIndex, asked: list[int]) -> list[tuple[int, int]]:
    at, rows = index.find(np.array(asked, dtype=np.uint64))
    pieces = list(index.find_pieces(np.array(asked, dtype=np.uint64), 3))
    assert [len(piece.at) for piece in pieces] == [min(3, len(at) - first) for first in range(0, len(at), 3)]
    assert [pair for piece in pieces for pair in zip(*piece, strict=True)] == list(zip(at, rows, strict=True))
    return list(zip(at.tolist(), rows.tolist(), strict=True))
