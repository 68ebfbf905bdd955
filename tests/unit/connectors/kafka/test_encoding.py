"""Frames become batches that respect the topic's limit, each row in its right partition."""

from __future__ import annotations

import json
import random
import string
from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import UTC, datetime

import polars as pl
import pytest
from aiokafka.partitioner import murmur2 as reference

from operators.connector import ERRORS_SCHEMA
from streamproc.connectors.kafka.encoding import Batches, ErrorRecordEncoder, RowEncoder
from streamproc.connectors.kafka.record_batch import Record, split_batches
from streamproc.formats.protocol import EncodeError, FormatError
from streamproc.pipeline.spec import KafkaSinkSpec

PARTITIONS = [0, 1, 2, 3]
murmur2: Callable[[bytes], int] = reference


def encoder(frame: pl.DataFrame, *, limit: int = 1_048_588, **config: object) -> RowEncoder:
    spec = KafkaSinkSpec.model_validate({"type": "kafka", "input": "x", "topic": "t", **config})
    return RowEncoder(spec, dict(frame.schema), transactional=True, batch_bytes_max=limit)


def read(batches: Batches) -> dict[int, list[Record]]:
    """Records by partition, as a consumer would see them."""
    records: dict[int, list[Record]] = defaultdict(list)
    for partition, batch in batches:
        batch._set_producer_state(1, 0, 0)
        (raw,) = split_batches(batch._build())
        assert raw.is_transactional
        assert raw.count == batch.record_count()
        records[partition] += raw.records(0, 2**62)
    return records


def rows(count: int) -> pl.DataFrame:
    return pl.DataFrame({"id": range(count), "name": [f"n{i % 7}" for i in range(count)]})


@pytest.mark.parametrize("count", [1, 10, 1_000, 5_000, 20_000])
def test_without_a_key_every_row_goes_somewhere_once_and_evenly_over_time(count: int) -> None:
    frame = rows(count)
    one = encoder(frame)
    seen: Counter[int] = Counter()
    for _ in range(8):
        by_partition = read(one.encode(frame, PARTITIONS))
        assert sorted(r.value or b"" for rs in by_partition.values() for r in rs) == sorted(
            b'{"id":%d,"name":"n%d"}' % (i, i % 7) for i in range(count)
        )
        seen.update({partition: len(records) for partition, records in by_partition.items()})
    assert set(seen) == set(PARTITIONS)
    assert max(seen.values()) <= 1.2 * min(seen.values()) + 1


def test_a_key_decides_the_partition_as_kafka_does_and_order_is_kept() -> None:
    frame = rows(3_000)
    by_partition = read(encoder(frame, key=["name"]).encode(frame, PARTITIONS))
    for partition, records in by_partition.items():
        values = [int((r.value or b"").split(b":")[1].split(b",")[0]) for r in records]
        assert values == sorted(values)
        for record in records:
            assert record.key is not None
            assert (murmur2(record.key) & 0x7FFFFFFF) % 4 == partition
    assert sum(map(len, by_partition.values())) == 3_000


def test_keys_plain_json_and_null() -> None:
    frame = pl.DataFrame({"a": [1, None], "b": ["x", "y"]})
    plain = read(encoder(frame, key=["a"]).encode(frame, [0]))[0]
    assert [record.key for record in plain] == [b"1", None]
    both = read(encoder(frame, key=["a", "b"]).encode(frame, [0]))[0]
    assert [record.key for record in both] == [b'{"a":1,"b":"x"}', b'{"a":null,"b":"y"}']


def test_batches_stay_below_a_small_limit_and_a_larger_record_comes_alone() -> None:
    letters = random.Random(1)  # texts that hardly compress
    texts = ["".join(letters.choices(string.ascii_letters, k=5_000 if n == 50 else 100)) for n in range(101)]
    frame = pl.DataFrame({"id": texts})
    batches = encoder(frame, limit=2_000).encode(frame, [0])
    assert [batch.record_count() for _, batch in batches if batch.size() > 2_000] == [1]
    assert len(batches) < 30
    assert [json.loads(r.value or b"")["id"] for r in read(batches)[0]] == texts


def test_records_are_stamped_with_the_time_of_writing() -> None:
    before = datetime.now(UTC).timestamp() * 1000 - 1
    (record,) = read(encoder(rows(1)).encode(rows(1), [0]))[0]
    assert before <= record.timestamp <= datetime.now(UTC).timestamp() * 1000


def test_csv_records_and_a_value_that_cannot_be_one() -> None:
    frame = pl.DataFrame({"id": [1, 2], "name": ["a,b", None]})
    csv = encoder(frame, format="csv")
    assert [record.value for record in read(csv.encode(frame, [0]))[0]] == [b'1,"a,b"', b"2,"]
    with pytest.raises(EncodeError, match="line break"):
        csv.encode(pl.DataFrame({"id": [1], "name": ["a\nb"]}), [0])
    with pytest.raises(FormatError, match="parquet"):
        encoder(frame, format="parquet")


def test_errors_are_the_original_records_with_the_rest_as_headers() -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, 6000, tzinfo=UTC)
    columns = [
        (moment, "orders", "orders-3", 42, b"\xffkey", b'{"broken', "orders", "no closing brace"),
        (moment, "orders", "orders-3", 43, None, None, None, "null value"),
    ]
    frame = pl.DataFrame(columns, schema=ERRORS_SCHEMA, orient="row")
    one = ErrorRecordEncoder(transactional=True, batch_bytes_max=1_048_588)
    by_partition = read(one.encode(frame, PARTITIONS))
    records = {record.key: record for rs in by_partition.values() for record in rs}
    assert records[b"\xffkey"].value == b'{"broken'
    assert dict(records[b"\xffkey"].headers) == {
        "time": b"2026-01-02T03:04:05.006Z",
        "source": b"orders",
        "split": b"orders-3",
        "offset": b"42",
        "step": b"orders",
        "error": b"no closing brace",
    }
    assert records[None].value is None
    assert "step" not in dict(records[None].headers)
    keyed = next(p for p, rs in by_partition.items() if any(r.key for r in rs))
    assert keyed == (murmur2(b"\xffkey") & 0x7FFFFFFF) % 4


def test_many_errors_fill_several_batches() -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    columns = [(moment, "s", "s-0", i, b"k", b"x" * 300, "s", "bad") for i in range(100)]
    frame = pl.DataFrame(columns, schema=ERRORS_SCHEMA, orient="row")
    batches = ErrorRecordEncoder(transactional=True, batch_bytes_max=2_000).encode(frame, [0])
    assert len(batches) > 10
    offsets = [dict(record.headers)["offset"] for record in read(batches)[0]]
    assert offsets == [b"%d" % i for i in range(100)]
