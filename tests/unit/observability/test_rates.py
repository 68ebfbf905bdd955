"""Rates out of facts that are taken now and then."""

from __future__ import annotations

from dataclasses import replace

from operators.element import EventTimeMs
from streamproc.observability.facts import JobFacts
from streamproc.observability.rates import RateWindow
from tests.unit.diagnosis.situations import NOW, at, job, revenue, step, subtask


def look(second: float, rows: int) -> JobFacts:
    """A subtask that has taken `rows` rows in, and half as many out; its event time goes twice as fast as time."""
    watermark = EventTimeMs(at("12:00:00") + int(second * 2000))
    only = subtask("a", step("a", rows, rows // 2), watermark=watermark, edge_rows={("a", "b"): rows // 2})
    return replace(job(only), taken_ms=NOW + int(second * 1000))


def test_one_look_is_no_rate() -> None:
    window = RateWindow()
    window.sample(look(0, 100))
    assert not window.rates().known


def test_rates_over_the_window() -> None:
    window = RateWindow()
    for second in range(31):
        window.sample(look(second, 100 * second if second <= 20 else 2000))
    rates = window.rates()
    assert rates.span_s == 10
    assert rates.rows_in == {"a": 0.0}
    assert rates.pace == {"a": 2000.0}


def test_rare_looks_give_rates_too() -> None:
    window = RateWindow()
    window.sample(look(0, 0))
    window.sample(look(60, 6000))
    rates = window.rates()
    assert (rates.span_s, rates.rows_in["a"], rates.rows_out["a"]) == (60, 100.0, 50.0)
    assert rates.edges == {("a", "b"): 50.0}


def test_a_new_attempt_counts_from_zero() -> None:
    window = RateWindow()
    window.sample(look(0, 5000))
    window.sample(look(5, 10))
    assert not window.rates().known
    window.sample(look(6, 20))
    assert window.rates().rows_in == {"a": 10.0}


def test_a_job_that_does_not_run_has_no_rate() -> None:
    window = RateWindow()
    window.sample(look(0, 0))
    window.sample(None)
    window.sample(look(2, 10))
    assert not window.rates().known


def test_no_pace_before_the_first_watermark() -> None:
    window = RateWindow()
    window.sample(job(revenue(None)))
    window.sample(replace(job(revenue("12:00:00")), taken_ms=NOW + 1000))
    assert window.rates().pace == {}
