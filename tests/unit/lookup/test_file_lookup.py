from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from streamproc.lookup.file_table import LookupFileUnreadable
from tests.unit.lookup.planning import left, operator, run

JOIN = (
    "{left: orders, kind: KIND, match: left.country = right.code, "
    "lookup: {file: countries.csv, format: csv, schema: {code: string, name: string, vat: int64}, refresh: 10s}}"
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "countries.csv"
    path.write_text("code,name,vat\nFR,France,20\nDE,Germany,19\nFR,La France,21\n,Nowhere,0\n")
    return path


@pytest.mark.parametrize("kind", ["inner", "left"])
def test_all_matches_in_the_order_of_rows(file: Path, kind: str) -> None:
    join, _ = operator(JOIN.replace("KIND", kind), file.parent)
    rows = run(join, left((1, "FR", 0), (2, "XX", 0), (3, None, 0), (4, "DE", 0)))["main"]
    found = [(row["left.id"], row["right.name"], row["__time"]) for row in rows]
    alone = [(2, None, 1), (3, None, 2)] if kind == "left" else []
    assert found == [(1, "France", 0), (1, "La France", 0), *alone, (4, "Germany", 3)]


def test_types_are_compared_as_numbers_and_the_rest_of_match_counts(file: Path) -> None:
    match = "left.n = right.vat and right.code <> left.country"
    join, _ = operator(JOIN.replace("KIND", "left").replace("left.country = right.code", match), file.parent)
    rows = run(join, left((1, "FR", 20), (2, "DE", 20), (3, "DE", 19)))["main"]
    assert [(row["left.id"], row["right.name"]) for row in rows] == [(1, None), (2, "France"), (3, None)]


def test_a_refresh_reads_again_and_one_that_fails_changes_nothing(file: Path) -> None:
    join, _ = operator(JOIN.replace("KIND", "inner"), file.parent)

    def names(now_ms: int) -> list[str]:
        list(join.on_processing_time(now_ms))
        return [row["right.name"] for row in run(join, left((1, "DE", 0))).get("main", [])]

    assert names(1_000) == ["Germany"]
    file.write_text("code,name,vat\nDE,Deutschland,19\n")
    assert names(10_999) == ["Germany"]
    assert names(11_000) == ["Deutschland"]
    file.write_text("code,name,vat\nDE,Allemagne,many\n")
    assert names(21_000) == ["Deutschland"]
    file.unlink()
    assert names(31_000) == ["Deutschland"]


def test_at_the_start_the_file_has_to_be_right(file: Path) -> None:
    join, _ = operator(JOIN.replace("KIND", "inner"), file.parent)
    file.write_text("code,name,vat\nDE,Allemagne,many\n")
    with pytest.raises(LookupFileUnreadable, match=r"countries\.csv:2: "):
        list(join.on_processing_time(0))
    file.unlink()
    with pytest.raises(LookupFileUnreadable, match="is not there"):
        list(join.on_processing_time(0))


def test_parquet(tmp_path: Path) -> None:
    pl.DataFrame({"code": ["FR"], "name": ["France"]}).write_parquet(tmp_path / "countries.parquet")
    text = JOIN.replace("KIND", "inner").replace("csv", "parquet").replace(", vat: int64", "")
    join, _ = operator(text, tmp_path)
    assert [row["right.name"] for row in run(join, left((1, "FR", 0)))["main"]] == ["France"]
