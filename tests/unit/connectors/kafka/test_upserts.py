"""A changelog becomes one record for each key that changed: its newest row, or a tombstone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.element import DELETE, INSERT, KIND, UPDATE_AFTER, UPDATE_BEFORE
from streamproc.connectors.kafka.encoding import RowEncoder
from streamproc.formats.protocol import EncodeError
from tests.unit.connectors.kafka.test_encoding import PARTITIONS, encoder, read

Change = tuple[int, str | None, int]  # kind, key, value


def changelog(changes: Sequence[Change]) -> pl.DataFrame:
    schema = {KIND: pl.Int8(), "name": pl.String(), "n": pl.Int64()}
    return pl.DataFrame(changes, schema=schema, orient="row")


def by_name(**config: Any) -> RowEncoder:
    return encoder(changelog([]).drop(KIND), key=["name"], **config)


def written(changes: Sequence[Change]) -> dict[str, Any]:
    """Key → value; None is a tombstone."""
    records = read(by_name().encode(changelog(changes), [0]))[0]
    found = {(record.key or b"").decode(): record.value and json.loads(record.value) for record in records}
    assert len(found) == len(records), "a key is written once"
    return found


def test_the_newest_row_of_each_key() -> None:
    assert written(
        [(INSERT, "a", 1), (INSERT, "b", 1), (UPDATE_BEFORE, "a", 1), (UPDATE_AFTER, "a", 2), (DELETE, "b", 1)]
    ) == {"a": {"name": "a", "n": 2}, "b": None}


def test_an_update_that_changes_the_key_deletes_the_old_one() -> None:
    assert written([(UPDATE_BEFORE, "a", 1), (UPDATE_AFTER, "b", 1)]) == {"a": None, "b": {"name": "b", "n": 1}}


def test_a_row_that_comes_back_is_there() -> None:
    assert written([(DELETE, "a", 1), (INSERT, "a", 3)]) == {"a": {"name": "a", "n": 3}}


def test_only_deletions() -> None:
    assert written([(DELETE, "a", 1), (DELETE, "b", 1)]) == {"a": None, "b": None}


def test_a_row_without_a_key_cannot_be_updated() -> None:
    with pytest.raises(EncodeError, match="null for its key 'name'"):
        by_name().encode(changelog([(INSERT, None, 1)]), [0])


@settings(max_examples=40, deadline=None)
@given(
    changes=st.lists(
        st.tuples(
            st.sampled_from([INSERT, UPDATE_BEFORE, UPDATE_AFTER, DELETE]),
            st.sampled_from(["a", "b", "c", "ä" * 70, ""]),
            st.integers(0, 10**9),
        ),
        min_size=1,
        max_size=30,
    )
)
def test_the_last_change_wins_in_every_partition(changes: list[Change]) -> None:
    records = [r for rs in read(by_name().encode(changelog(changes), PARTITIONS)).values() for r in rs]
    expected = {
        key: {"name": key, "n": value} if kind in (INSERT, UPDATE_AFTER) else None for kind, key, value in changes
    }
    assert {(r.key or b"").decode(): r.value and json.loads(r.value) for r in records} == expected
