"""Searching is what numpy's search is, for any spread of values."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from operators.radix_search import RadixSearch

N = 5000


def spreads() -> dict[str, npt.NDArray[Any]]:
    random = np.random.default_rng(7)
    return {
        "even": random.integers(0, 2**64, N, dtype=np.uint64),
        "of one key group": random.integers(2**63, 2**63 + 2**40, N, dtype=np.uint64),
        "few values": random.integers(0, 5, N).astype(np.uint64),
        "one value": np.full(N, 2**64 - 1, dtype=np.uint64),
        "clustered": np.concatenate((np.arange(N), np.arange(N) + 2**50)),
        "negative": random.integers(-(2**62), 2**62, N),
        "the whole range": np.append(np.arange(N, dtype=np.uint64), np.uint64(2**64 - 1)),
        "short": np.arange(10),
        "empty": np.empty(0, dtype=np.int64),
    }


@pytest.mark.parametrize("name", list(spreads()))
def test_finds_what_numpy_finds(name: str) -> None:
    values = np.sort(spreads()[name])
    limits = np.iinfo(values.dtype)
    near = np.concatenate((values, values[:-1] + values.dtype.type(1), values[1:] - values.dtype.type(1)))
    asked = np.concatenate((near, np.array([limits.min, limits.max, 0, 3], dtype=values.dtype)))
    np.random.default_rng(8).shuffle(asked)

    assert np.array_equal(RadixSearch(values).left(asked), np.searchsorted(values, asked))
