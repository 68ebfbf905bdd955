"""What we build is byte for byte what aiokafka builds; what anybody builds, we read."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
import pytest
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from hypothesis import given, settings
from hypothesis import strategies as st

from streamproc.connectors.kafka.failure import UnreadableBatch
from streamproc.connectors.kafka.record_batch import (
    HEADER_SIZE,
    OutgoingBatch,
    RawBatch,
    compress,
    frame_records,
    split_batches,
    visible,
)

Row = tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]]]  # key, value, headers

STAMP = 1_700_000_000_000
ALL = (0, 2**62)

texts = st.text(max_size=40)
long_texts = st.one_of(texts, st.integers(50, 20_000).map(lambda size: "x" * size))
headers = st.lists(st.tuples(st.text(max_size=8), st.none() | st.binary(max_size=20)), max_size=3)
records = st.lists(
    st.tuples(st.none() | st.binary(max_size=30), st.none() | st.binary(max_size=200), headers), max_size=40
)


def build(
    rows: Sequence[Row],
    *,
    codec: int = 0,
    base_offset: int = 0,
    producer_id: int = -1,
    transactional: bool = False,
    offsets: Sequence[int] | None = None,
) -> bytes:
    """A batch as aiokafka writes it, at `base_offset` as a broker would place it."""
    builder = DefaultRecordBatchBuilder(2, codec, int(transactional), producer_id, 0, 0, 1 << 30)
    for index, (key, value, head) in enumerate(rows):
        builder.append(offsets[index] if offsets else index, STAMP + index, key, value, head)
    batch = builder.build()
    batch[:8] = base_offset.to_bytes(8, "big")
    return bytes(batch)


def control(kind: int, base_offset: int, producer_id: int) -> bytes:
    """A transaction marker: 0 abort, 1 commit."""
    marker = bytearray(
        build([(b"\0\0" + kind.to_bytes(2, "big"), b"", [])], base_offset=base_offset, producer_id=producer_id)
    )
    marker[22] |= 0x30  # transactional, control
    return bytes(marker)


def only(response: bytes) -> RawBatch:
    (batch,) = split_batches(response)
    return batch


@settings(deadline=None, max_examples=60)
@given(rows=st.lists(st.tuples(st.none() | long_texts, long_texts), min_size=1, max_size=300), keyed=st.booleans())
def test_framing_equals_appending_one_by_one(rows: list[tuple[str | None, str]], keyed: bool) -> None:
    keys = pl.Series([key for key, _ in rows], dtype=pl.String) if keyed else None
    framed = frame_records(pl.Series([value for _, value in rows], dtype=pl.String), keys)
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1 << 30)
    for offset, (key, value) in enumerate(rows):
        builder.append(offset, STAMP, key.encode() if keyed and key is not None else None, value.encode(), [])
    assert bytes(framed) == bytes(builder.build()[HEADER_SIZE:])


@pytest.mark.parametrize("count", [1, 63, 64, 65, 8_191, 8_193, 9_000])
def test_framing_where_offsets_grow_a_byte(count: int) -> None:
    values = pl.Series([f"{i}" for i in range(count)])
    batch = OutgoingBatch(bytes(frame_records(values)), count, 0, STAMP, transactional=False)
    assert only(batch._build()).values(*ALL) == [value.encode() for value in values]


@settings(deadline=None, max_examples=40)
@given(values=st.lists(texts, min_size=1, max_size=200))
def test_a_finished_batch_is_valid_for_anybody(values: list[str]) -> None:
    payload, codec = compress(frame_records(pl.Series(values, dtype=pl.String)))
    batch = OutgoingBatch(payload, len(values), codec, STAMP, transactional=True)
    batch._set_producer_state(producer_id=7, producer_epoch=3, base_sequence=11)
    built = batch._build()
    assert len(built) == batch.size()
    read = DefaultRecordBatch(built)
    assert read.validate_crc()
    assert (read.producer_id, read.producer_epoch, read.base_sequence) == (7, 3, 11)
    assert read.is_transactional
    assert not read.is_control_batch
    assert [(r.offset, r.timestamp, r.key, r.value) for r in read] == [
        (offset, STAMP, None, value.encode()) for offset, value in enumerate(values)
    ]


def test_compression_is_left_out_where_it_does_not_help() -> None:
    assert compress(bytearray(b"ab")) == (b"ab", 0)
    packed, codec = compress(bytearray(b"ab" * 100_000))
    assert codec == 3
    assert len(packed) < 10_000


@settings(deadline=None, max_examples=60)
@given(
    rows=records.filter(bool),
    codec=st.sampled_from([0, 1, 2, 3, 4]),
    first=st.integers(0, 45),
    stop=st.integers(0, 45),
    compacted=st.booleans(),
)
def test_values_of_any_batch_between_any_offsets(
    rows: list[Row],
    codec: int,
    first: int,
    stop: int,
    compacted: bool,
) -> None:
    offsets = [index * 2 if compacted else index for index in range(len(rows))]
    batch = only(build(rows, codec=codec, offsets=offsets))
    wanted = [(o, key, value) for o, (key, value, _) in zip(offsets, rows, strict=True) if first <= o < stop]
    assert [(r.offset, r.key, r.value) for r in batch.records(first, stop)] == wanted
    assert batch.values(first, stop) == [value for _, _, value in wanted]
    assert batch.rows_between(first, stop) >= len(wanted)
    if batch.is_gapless:
        assert batch.rows_between(first, stop) == len(wanted)


def test_a_response_is_split_and_its_torn_end_left_out() -> None:
    batches = [build([(None, b"%d" % i, [])] * 3, base_offset=i * 3) for i in range(4)]
    response = b"".join(batches)
    assert [batch.base_offset for batch in split_batches(response)] == [0, 3, 6, 9]
    for cut in (1, 20, HEADER_SIZE, len(batches[3]) - 1):
        assert [batch.base_offset for batch in split_batches(response[: -len(batches[3]) + cut])] == [0, 3, 6]


def test_old_message_formats_are_refused_by_name() -> None:
    old = bytearray(build([(None, b"x", [])], base_offset=17))
    old[16] = 1
    with pytest.raises(UnreadableBatch, match="offset 17 has message format v1"):
        list(split_batches(bytes(old)))


@pytest.mark.parametrize("codec", [0, 2, 3, 4])
def test_a_corrupt_batch_is_refused_with_its_offset(codec: int) -> None:
    broken = bytearray(build([(None, b"some value " * 50, [])] * 20, codec=codec, base_offset=5))
    broken[HEADER_SIZE : HEADER_SIZE + 8] = b"\xff" * 8
    with pytest.raises(UnreadableBatch, match="offset 5"):
        only(bytes(broken)).values(*ALL)


def test_aborted_transactions_are_hidden_and_others_are_not() -> None:
    row: list[Row] = [(None, b"v", [])]

    def written(offset: int, producer: int, transactional: bool = True) -> bytes:
        return build(row, base_offset=offset, producer_id=producer, transactional=transactional)

    response = b"".join(
        [
            written(0, 1),  # aborted by 3
            written(1, 2),  # committed by 4
            written(2, 9, transactional=False),
            control(0, 3, 1),
            control(1, 4, 2),
            written(5, 1),  # the next transaction of producer 1 is committed
            control(1, 6, 1),
            written(7, 1),  # and the one after it aborted again
            control(0, 8, 1),
        ]
    )
    seen = [batch.base_offset for batch, readable in visible(split_batches(response), [(1, 7), (1, 0)]) if readable]
    assert seen == [1, 2, 5]
    everything = [batch.base_offset for batch, readable in visible(split_batches(response), None) if readable]
    assert everything == [0, 1, 2, 5, 7]


def test_a_fetch_that_begins_inside_an_aborted_transaction() -> None:
    response = build([(None, b"v", [])], base_offset=50, producer_id=1, transactional=True) + control(0, 51, 1)
    assert [readable for _, readable in visible(split_batches(response), [(1, 3)])] == [False, False]
