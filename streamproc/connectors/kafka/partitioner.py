"""Kafka's default partitioner over whole columns: murmur2 of the key's bytes, the same as every Kafka client."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

_SEED: Final = np.uint32(0x9747B28C)
_MIX: Final = np.uint32(0x5BD1E995)
_POSITIVE: Final = np.uint32(0x7FFFFFFF)
_TAIL_MASKS: Final = np.array([0, 0xFF, 0xFFFF, 0xFFFFFF], np.uint32)
_WORD: Final = 4


def murmur2(keys: pl.Series) -> npt.NDArray[np.uint32]:
    """The 32-bit hash of each key (String or Binary, no nulls).

    Word by word over all keys at once; the work grows with the bytes, the steps with the longest key.
    """
    text = keys.cast(pl.Binary).to_arrow(compat_level=pl.CompatLevel.oldest())
    _, offset_bytes, content = text.buffers()
    offsets = np.frombuffer(offset_bytes, np.int64)[text.offset : text.offset + len(keys) + 1]
    start, end = (int(offsets[0]), int(offsets[-1])) if len(keys) else (0, 0)
    # Every word at every byte, aligned or not; three bytes more so that the last tail has its word.
    padded = (bytes(memoryview(content)[start:end]) if content is not None else b"") + bytes(_WORD)
    words: npt.NDArray[np.uint32] = np.ndarray(len(padded) - _WORD + 1, np.dtype("<u4"), padded, strides=(1,))

    at = offsets[:-1] - start
    sizes = np.diff(offsets)
    hashes: npt.NDArray[np.uint32] = _SEED ^ sizes.astype(np.uint32)
    whole_words = sizes // _WORD
    for index in range(int(whole_words.max(initial=0))):
        rows = np.flatnonzero(whole_words > index)
        word = words[at[rows] + index * _WORD] * _MIX
        word ^= word >> 24
        hashes[rows] = (hashes[rows] * _MIX) ^ (word * _MIX)

    rows = np.flatnonzero(sizes % _WORD)
    tail = words[at[rows] + whole_words[rows] * _WORD] & _TAIL_MASKS[sizes[rows] % _WORD]
    hashes[rows] = (hashes[rows] ^ tail) * _MIX
    hashes ^= hashes >> 13
    hashes *= _MIX
    hashes ^= hashes >> 15
    return hashes


def partitions_of(keys: pl.Series, partitions: int) -> npt.NDArray[np.int64]:
    """The partition each key belongs to, of `partitions` in all."""
    return ((murmur2(keys) & _POSITIVE) % np.uint32(partitions)).astype(np.int64)
