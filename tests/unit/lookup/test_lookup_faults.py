from __future__ import annotations

from pathlib import Path

import pytest

from streamproc.pipeline.logical import Changelog
from tests.unit.lookup.planning import planned

HTTP = "http: 'https://host/{country}', schema: {code: string}"
FILE = "file: c.csv, format: csv, schema: {code: string}"


@pytest.mark.parametrize(
    ("join", "fault"),
    [
        (f"lookup: {{{FILE}}}, kind: full", "kind: a look-up join is inner or left, not full"),
        (f"lookup: {{{FILE}}}, ttl: 1h", "ttl: 'ttl' is for joins of two streams, and 'lookup' is here"),
        ("lookup: {schema: {code: string}}", "lookup: needs 'file' or 'http'"),
        (f"lookup: {{{FILE}, retries: 1}}", "lookup.retries: 'retries' means nothing where a look-up has 'file'"),
        (f"lookup: {{{HTTP}, refresh: 1m}}", "lookup.refresh: 'refresh' means nothing where a look-up has 'http'"),
        (f"lookup: {{{HTTP}, allow_hosts: [other]}}", "lookup.http: the host 'host' is not in 'allow_hosts'"),
        (f"lookup: {{{HTTP.replace('country', 'contry')}}}", "lookup.http: unknown column 'contry' of the left side"),
        (f"lookup: {{{HTTP.replace('host', '{country}')}}}", "lookup.http: the host must stand in the file"),
        (f"lookup: {{{HTTP.replace('https', 'ftp')}}}", "lookup.http: must be an http or https URL"),
        (f"lookup: {{{HTTP.replace('host', '169.254.169.254')}}}", "lookup.http: '169.254.169.254' is an address"),
        (f"lookup: {{{HTTP.replace('{country}', 'x')}}}", "lookup.http: has no place for a column"),
    ],
)
def test_a_fault_stands_at_its_place(tmp_path: Path, join: str, fault: str) -> None:
    _, faults = planned(f"{{left: orders, match: left.country = right.code, {join}}}", tmp_path)
    assert any(found.startswith(f"steps.enriched.join.{fault}") for found in faults), faults


def test_match_needs_an_equality(tmp_path: Path) -> None:
    _, faults = planned(f"{{left: orders, match: left.country > right.code, lookup: {{{FILE}}}}}", tmp_path)
    assert faults == ["steps.enriched.join.match: needs an equality between a left and a right column"]


def test_a_changelog_is_refused(tmp_path: Path) -> None:
    join = f"{{left: orders, match: left.country = right.code, lookup: {{{FILE}}}}}"
    _, faults = planned(join, tmp_path, changelog=Changelog(("id",)))
    assert faults == [
        "steps.enriched.join.left: a look-up join cannot read 'orders': its rows are updated and taken back"
    ]
