from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.testing_pipelines.playing import play

ROWS = (
    """
- {id: 1, country: FR, amount: 10, created_at: 2026-01-01T12:00:05Z}
- {id: 2, country: FR, amount: 7.5, created_at: 2026-01-01T12:00:55Z}
- {id: 3, country: DE, amount: 1, created_at: 2026-01-01T12:00:59Z}
""".replace("\n- ", ", ")
    .strip()
    .removeprefix(", ")
)


@pytest.mark.parametrize(
    ("then", "parallelism"),
    [
        ("[]", 1),
        ("[end]", 1),
        ("[{watermark: 2026-01-01T12:01:00Z}]", 1),
        ("[{watermark: 2026-01-01T12:01:00Z}, crash]", 1),
        ("[crash, {watermark: 2026-01-01T12:01:00Z}, checkpoint, crash]", 1),
        ("[crash, crash, end, crash]", 1),
        ("[end, checkpoint, crash]", 1),
        ("[{watermark: 2026-01-01T12:01:00Z}, crash]", 3),
    ],
)
def test_a_window_closes_once_whatever_happens(tmp_path: Path, then: str, parallelism: int) -> None:
    [result] = play(
        tmp_path,
        f"""
        - name: closes
          given: {{orders: [{ROWS}]}}
          then: {then}
          expect:
            revenue:
              - {{country: FR, orders: 2, eur: 17.5, window_start: 2026-01-01T12:00:00Z}}
              - {{country: DE, orders: 1, eur: 1}}
            revenue.late: []
            unread: [{{country: FR}}]
        """,
        parallelism=parallelism,
    )
    assert result.passed, result


def test_without_the_end_and_behind_the_watermark_nothing_closes(tmp_path: Path) -> None:
    [result] = play(
        tmp_path,
        f"""
        - name: waits
          given: {{orders: [{ROWS}]}}
          then: [{{watermark: 2026-01-01T12:00:58Z}}]
          expect: {{revenue: []}}
        """,
    )
    assert result.passed, result


def test_rows_given_behind_the_watermark_are_late_and_stay_so_after_a_crash(tmp_path: Path) -> None:
    [result] = play(
        tmp_path,
        f"""
        - name: late
          given: {{orders: [{ROWS}]}}
          then:
            - watermark: 2026-01-01T12:01:00Z
            - checkpoint
            - given: {{orders: [{{id: 9, country: FR, amount: 1, created_at: 2026-01-01T12:00:59Z}}]}}
            - crash
          expect:
            revenue: [{{country: FR, orders: 2}}, {{country: DE}}]
            revenue.late: [{{id: 9, at: 3, from_topic: orders}}]
        """,
    )
    assert result.passed, result


def test_a_broken_record_goes_to_the_errors_stream(tmp_path: Path) -> None:
    [result] = play(
        tmp_path,
        """
        - name: broken
          given: {orders: ["{broken", {id: 1, created_at: 2026-01-01T12:00:05Z, price: "1.50"}]}
          expect:
            orders: [{id: 1, price: 1.5, country: null, at: 1}]
            orders.errors: [{source: orders, offset: 0, value: e2Jyb2tlbg==}]
        """,
    )
    assert result.passed, result


def test_what_differs_is_told_with_its_place_and_the_nearest_row(tmp_path: Path) -> None:
    [result] = play(
        tmp_path,
        f"""
        - name: wrong
          given: {{orders: [{ROWS}]}}
          expect:
            revenue:
              - {{country: FR, orders: 3, eur: 17.5}}
              - {{country: DE, orders: 1}}
        """,
    )
    assert not result.passed
    line = next(
        n for n, text in enumerate((tmp_path / "orders.yaml").read_text().splitlines(), 1) if "orders: 3" in text
    )
    assert result.lines[:3] == (
        "revenue: 1 missing, 1 unexpected (2 expected, 2 came)",
        f"  - {{country: FR, orders: 3, eur: 17.5}}   {tmp_path}/orders.yaml:{line}",
        "      nearest: orders is 2, not 3",
    )


def test_a_pipeline_that_fails_fails_its_test_and_not_the_others(tmp_path: Path) -> None:
    failing, passing = play(
        tmp_path,
        """
        - name: fails
          given: {orders: [{id: 9223372036854775807, created_at: 2026-01-01T12:00:05Z}]}
          expect: {doubled: []}
        - name: passes
          given: {orders: [{id: 4, created_at: 2026-01-01T12:00:05Z}]}
          expect: {doubled: [{id: 8}]}
        """,
    )
    assert failing.failure is not None
    assert failing.failure.startswith("step doubled: ")
    assert passing.passed, passing


def test_only_the_tests_of_that_name(tmp_path: Path) -> None:
    results = play(
        tmp_path,
        """
        - {name: one thing, expect: {revenue: []}}
        - {name: Another, expect: {revenue: []}}
        """,
        only="another",
    )
    assert [result.name for result in results] == ["Another"]
