from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.testing_pipelines.playing import faults


@pytest.mark.parametrize(
    ("entry", "fault"),
    [
        ("given: {order: []}", "tests[0].given.order: unknown source 'order'; did you mean 'orders'?"),
        (
            "given: {orders: [{idd: 1}]}",
            "tests[0].given.orders[0].idd: 'orders' has no column 'idd'; did you mean 'id'?",
        ),
        ("expect: {revnue: []}", "tests[0].expect.revnue: unknown stream 'revnue'; did you mean 'revenue'?"),
        ("expect: {unread.errors: []}", "tests[0].expect.unread.errors: unknown stream 'unread.errors'"),
        (
            "expect: {revenue: [{eurs: 1}]}",
            "tests[0].expect.revenue[0].eurs: 'revenue' has no column 'eurs'; did you mean 'eur'?",
        ),
        ("then: [{watermark: soon}]", "tests[0].then[0].watermark: 'soon' is not a timestamp"),
        ("then: [end, {given: {}}]", "tests[0].then[1]: the input has ended before"),
        ("then: [{}]", "tests[0].then[0]: says nothing to do"),
        ("then: [{end: true, crash: true}]", "tests[0].then[0]: has crash and end: one thing at a time"),
    ],
)
def test_a_fault_stands_at_its_place(tmp_path: Path, entry: str, fault: str) -> None:
    fields = {"expect": "expect: {revenue: []}", entry.partition(":")[0]: entry}
    text = "- name: one\n" + "".join(f"  {line}\n" for line in fields.values())
    assert any(found.startswith(fault) for found in faults(tmp_path, text)), faults(tmp_path, text)


def test_a_row_the_source_would_refuse_is_told_with_the_reason(tmp_path: Path) -> None:
    text = """
    - name: one
      given: {orders: [{id: 1, created_at: 2026-01-01T12:00:05Z}, {id: x, created_at: 2026-01-01T12:00:05Z}, {id: 1}]}
      expect: {revenue: []}
    """
    found = [fault for fault in faults(tmp_path, text) if "would refuse this row" in fault]
    assert [fault.partition(":")[0] for fault in found] == ["tests[0].given.orders[1]", "tests[0].given.orders[2]"]


def test_two_tests_of_one_name(tmp_path: Path) -> None:
    text = """
    - {name: one, expect: {revenue: []}}
    - {name: one, expect: {revenue: []}}
    """
    assert faults(tmp_path, text) == ["tests[1].name: the test 'one' is here twice: names tell tests apart"]
