"""What another `out_of_order` would cost."""
# ruff: noqa: E501 — a sentence stands on one line, as a user reads it

from __future__ import annotations

from inline_snapshot import snapshot

from streamproc.diagnosis.adviser import advise, late_rows
from streamproc.observability.facts import Lateness
from streamproc.service.views import SourceAdvice
from tests.unit.diagnosis.situations import ask, job, orders_quiet, revenue, source, split, with_lateness

BOUNDS = (0, 100, 1_000, 5_000, 10_000, 30_000, 60_000)


def advice(*counts: int, out_of_order_ms: int = 30_000) -> SourceAdvice:
    """For a source whose rows were behind as counted: by 0, up to 100 ms, 1 s, 5 s, 10 s, 30 s, 1 min, and more."""
    reader = source("orders", split("orders-0"), out_of_order_ms=out_of_order_ms)
    facts = job(with_lateness(orders_quiet(source=reader), Lateness(BOUNDS, counts, sum(counts))))
    found = advise(facts, "orders")
    assert found is not None
    return found


def test_what_has_been_too_careful() -> None:
    found = advice(119_000, 900, 80, 8, 12, 0, 0, 0)
    assert [(a.out_of_order, a.late_rows, a.current) for a in found.advice] == snapshot(
        [
            ("0s", 1000, False),
            ("100ms", 100, False),
            ("1s", 20, False),
            ("5s", 12, False),
            ("10s", 0, False),
            ("30s", 0, True),
        ]
    )
    assert found.says == snapshot(
        "5s would cost at most 12 rows of 120,000 (0.01 %); you have 30s: results could come 25 s earlier"
    )


def test_what_has_been_too_bold() -> None:
    assert advice(90_000, 5_000, 4_000, 995, 5, 0, 0, 0, out_of_order_ms=1_000).says == snapshot(
        "5s would cost at most 5 rows of 100,000 (0.01 %); you have 1s, which costs at most 1,000 rows of 100,000 (1 %): results would come 4 s later"
    )


def test_what_is_right() -> None:
    assert advice(99_000, 500, 300, 200, 0, 0, 0, 0, out_of_order_ms=5_000).says == snapshot(
        "5s, as it is, is right: it costs none of 100,000 rows"
    )


def test_rows_so_late_that_no_value_would_do() -> None:
    assert advice(90_000, 0, 0, 0, 0, 0, 0, 10_000).says == snapshot(
        "no out_of_order up to 1m would do: 1m still costs at most 10,000 rows of 100,000 (10 %); use late: {accept_for: …} or a side output for such rows of orders"
    )


def test_too_few_rows_to_advise() -> None:
    assert advice(90, 5, 5, 0, 0, 0, 0, 0).says == snapshot(
        "only 100 rows of orders seen so far: too few to advise; out_of_order: 30s costs none of 100 rows"
    )


def test_a_value_between_two_bounds_costs_at_most_the_whole_piece() -> None:
    lateness = Lateness((0, 1_000, 10_000), (5, 3, 2, 1), 11)
    assert [late_rows(lateness, ms) for ms in (0, 500, 1_000, 2_000, 10_000, 60_000)] == [6, 6, 3, 3, 1, 1]


def test_all_readers_of_a_source_count_together() -> None:
    half = Lateness((0, 1_000), (600, 100, 0), 700)
    facts = job(with_lateness(orders_quiet(split("a")), half), with_lateness(orders_quiet(split("b")), half))
    found = advise(facts, "orders")
    assert found is not None
    assert (found.rows, found.advice[0].late_rows, found.advice[0].late_share) == (1_400, 200, 1 / 7)


def test_a_source_of_which_nothing_is_known() -> None:
    assert advise(job(orders_quiet(split("a"))), "orders") is None


def test_advice_comes_with_the_answer_where_event_time_has_a_part_in_it() -> None:
    facts = job(with_lateness(orders_quiet(split("a")), Lateness((0, 1_000), (600, 100, 0), 700)), revenue())
    assert [each.source for each in ask(facts, "out").advice] == ["orders"]
