"""Stories of pipelines out of which nothing comes, and the first thing that `why` says of each."""
# ruff: noqa: E501 — a finding stands on one line, as a user reads it

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inline_snapshot import snapshot

from operators.element import WATERMARK_MAX, WATERMARK_MIN
from state.failure import Failure
from streamproc.observability.facts import Doing, InputFacts, Lateness, SourceFacts, SplitFacts, SubtaskFacts
from streamproc.observability.status import JobFailure, RecordError
from tests.unit.diagnosis.situations import (
    NOW,
    SHOP,
    ask,
    at,
    inlet,
    job,
    orders_quiet,
    rates,
    revenue,
    running,
    source,
    split,
    step,
    subtask,
    told,
    with_lateness,
)


class BadBroker(Failure):
    acts = "world"
    retry_helps = True


def test_a_failed_pipeline_says_who_can_mend_it() -> None:
    failed = JobFailure(NOW / 1000, BadBroker("broker kafka:9092 refuses the password"))
    status = running(state="failed", message=str(failed.failure), restarts=3)
    status.failures.append(failed)
    assert told(ask(None, "out", status=status)) == snapshot(
        "not_running (job): the pipeline has failed and does not start again by itself: broker kafka:9092 refuses the password (last failure 2026-01-01 12:05:00 UTC, 3 restarts); the outside world has to mend it: a broker, a disk, a network; starting it again may help"
    )


def test_a_stopped_pipeline() -> None:
    assert told(ask(None, "out", status=running(state="stopped"))) == snapshot(
        "not_running (job): the pipeline is stopped; start it to go on from its last checkpoint"
    )


def test_a_pipeline_that_waits_for_its_broker() -> None:
    status = running(state="waiting", message="broker kafka:9092 does not answer")
    assert told(ask(None, "out", status=status)) == snapshot(
        "unreachable (job): the pipeline waits for the outside world: broker kafka:9092 does not answer"
    )


def test_between_two_attempts() -> None:
    assert told(ask(None, "out")) == snapshot(
        "not_running (job): the pipeline is between two attempts: it is about to start"
    )


def test_the_end_of_input() -> None:
    done = split("orders-0", finished=True)
    facts = job(
        subtask(
            "orders", step("orders", 9, 9), step("big", 9, 4), source=source("orders", done), watermark=WATERMARK_MAX
        ),
        subtask("revenue", step("revenue", 4, 2), step("out", 2, 2), watermark=WATERMARK_MAX),
    )
    assert told(ask(facts, "out")) == snapshot(
        "end_of_input (out): the input has ended (orders); out has taken 2 rows, and nothing more will come"
    )


def test_a_source_that_cannot_be_reached() -> None:
    reader = source("orders", split("orders-0"), listening=False)
    view = ask(job(orders_quiet(source=reader), revenue()), "out")
    assert told(view) == snapshot("""\
unreachable (orders): source orders cannot be reached: what it reads from does not answer; it goes on by itself as soon as it can
window_open (revenue): revenue gives its next results when the watermark reaches 12:01:00 UTC; it is at 12:00:00 UTC, 1 min of event time to go; orders has to bring a row with at of 12:01:10 UTC or later (out_of_order: 10s holds every result back by that)\
""")


def test_a_silent_partition_without_an_idle_rule() -> None:
    splits = [split("orders-0", "12:04:00"), split("orders-1", "12:00:00", 240.0), split("orders-2", "12:04:30")]
    view = ask(job(orders_quiet(*splits), revenue()), "out")
    assert view.findings[0].node == "orders"
    assert view.findings[0].split == "orders-1"
    assert view.findings[0].seconds == 240.0
    assert told(view) == snapshot("""\
watermark_held_back (orders-1): partition orders-1 holds the watermark back: it is at 12:00:00 UTC, 4 min behind the others, and silent for 4 min; `idle_after` is not set: a silent partition holds the watermark back for ever; set sources.orders.event_time.idle_after, to 1m say; revenue waits for 12:01:00 UTC
window_open (revenue): revenue gives its next results when the watermark reaches 12:01:00 UTC; it is at 12:00:00 UTC, 1 min of event time to go; partition orders-1 has to bring a row with at of 12:01:10 UTC or later (out_of_order: 10s holds every result back by that)
ruled_out (job): ruled out: its sources answer, its sources bring rows, no row was late, no record was bad, conditions let rows through, nobody waits for room\
""")


def test_a_silent_partition_with_an_idle_rule() -> None:
    splits = [split("orders-0", "12:04:00"), split("orders-1", "12:00:00", 20.0)]
    reader = source("orders", *splits, idle_after_ms=60_000)
    assert told(ask(job(orders_quiet(source=reader), revenue()), "revenue")) == snapshot("""\
watermark_held_back (orders-1): partition orders-1 holds the watermark back: it is at 12:00:00 UTC, 4 min behind the others, and silent for 20 s; sources.orders.event_time.idle_after is 1m: in 40 s of silence more it will not count any longer; revenue waits for 12:01:00 UTC
window_open (revenue): revenue gives its next results when the watermark reaches 12:01:00 UTC; it is at 12:00:00 UTC, 1 min of event time to go; partition orders-1 has to bring a row with at of 12:01:10 UTC or later (out_of_order: 10s holds every result back by that)
ruled_out (job): ruled out: its sources answer, its sources bring rows, no row was late, no record was bad, conditions let rows through, nobody waits for room\
""")


def test_a_partition_that_has_never_brought_a_row() -> None:
    splits = [split("orders-0", "12:04:00"), split("orders-1", None, 30.0)]
    assert told(ask(job(orders_quiet(*splits), revenue(None)), "out")) == snapshot("""\
watermark_held_back (orders-1): partition orders-1 holds the watermark back: it has brought no row yet, silent for 30 s; `idle_after` is not set: a silent partition holds the watermark back for ever; set sources.orders.event_time.idle_after, to 1m say; revenue waits for 12:01:00 UTC
window_open (revenue): revenue gives its next results when the watermark reaches 12:01:00 UTC; there is no watermark yet; partition orders-1 has to bring a row with at of 12:01:10 UTC or later (out_of_order: 10s holds every result back by that)
ruled_out (job): ruled out: its sources answer, its sources bring rows, no row was late, no record was bad, conditions let rows through, nobody waits for room\
""")


def test_a_window_that_is_simply_open() -> None:
    flow = rates({"orders": 50.0, "big": 25.0}, pace={"revenue": 1000.0})
    view = ask(job(orders_quiet(split("orders-0", "12:00:40")), revenue("12:00:40")), "out", flow=flow)
    assert told(view) == snapshot("""\
window_open (revenue): revenue gives its next results when the watermark reaches 12:01:00 UTC; it is at 12:00:40 UTC, 20 s of event time to go, at the present pace in about 20 s; orders has to bring a row with at of 12:01:10 UTC or later (out_of_order: 10s holds every result back by that)
ruled_out (job): ruled out: its sources answer, its sources bring rows, no split holds the watermark back, no row was late, no record was bad, conditions let rows through, nobody waits for room\
""")


def test_a_window_that_no_newer_row_closes() -> None:
    view = ask(job(orders_quiet(split("orders-0", "12:00:40", 90.0)), revenue("12:00:40")), "out", flow=rates())
    assert told(view) == snapshot("""\
no_input (orders): source orders has brought no row for 1 min 30 s; everything that is there has been read (lag 0): look at what writes to it
window_open (revenue): revenue gives its next results when the watermark reaches 12:01:00 UTC; it is at 12:00:40 UTC, 20 s of event time to go, and has not moved in the last 10 s; orders has to bring a row with at of 12:01:10 UTC or later (out_of_order: 10s holds every result back by that)
ruled_out (job): ruled out: its sources answer, no split holds the watermark back, no row was late, no record was bad, conditions let rows through, nobody waits for room\
""")


def test_no_row_at_all() -> None:
    quiet = orders_quiet(split("orders-0", None, 75.0), rows=0)
    idle = subtask("revenue", step("revenue"), step("out"), inputs=(inlet("orders", None),))
    assert told(ask(job(quiet, idle), "out")) == snapshot("""\
no_input (orders): source orders has brought no row at all since it started, 1 min 15 s ago; everything that is there has been read (lag 0): look at what writes to it
ruled_out (job): ruled out: its sources answer, no split holds the watermark back, no row was late, no record was bad, conditions let rows through, nobody waits for room\
""")


def test_everything_is_filtered_away() -> None:
    facts = job(
        subtask(
            "orders",
            step("orders", 500, 500),
            step("big", 500, filtered=500),
            source=source("orders", split("orders-0")),
        ),
        subtask("revenue", step("revenue"), step("out"), inputs=(inlet("orders"),)),
    )
    view = ask(facts, "out")
    assert view.findings[0].node == "big"
    assert told(view) == snapshot("""\
filtered (big): big leaves out 500 rows of 500 (100 %): `where amount > 100` lets no row through
ruled_out (job): ruled out: its sources answer, its sources bring rows, no split holds the watermark back, no row was late, no record was bad, nobody waits for room\
""")


def test_every_row_is_late() -> None:
    facts = job(
        orders_quiet(split("orders-0")),
        revenue(counted={"late": 240, "held": 0, "next_close": None}),
    )
    view = ask(facts, "out")
    assert told(view) == snapshot("""\
late_rows (revenue): 240 rows of 250 (96 %) came to revenue too late: they are dropped; the advice says what a larger out_of_order would save; raise sources.orders.event_time.out_of_order or steps.revenue.late.accept_for
ruled_out (job): ruled out: its sources answer, its sources bring rows, no split holds the watermark back, no record was bad, conditions let rows through, nobody waits for room\
""")


def test_rows_that_nobody_waited_for_because_their_partition_was_idle() -> None:
    splits = (split("orders-0", "12:04:00"), split("orders-1", "12:04:00"))
    reader = source("orders", *splits, idle_after_ms=1_000)
    late = revenue(counted={"late": 240, "held": 0, "next_close": None})
    in_order = with_lateness(orders_quiet(source=reader), Lateness((0, 10_000, 60_000), (493, 0, 7, 0), 500))
    assert told(ask(job(in_order, late), "out")).splitlines()[0] == snapshot(
        "late_rows (revenue): 240 rows of 250 (96 %) came to revenue too late: they are dropped; at most 7 of them came later than out_of_order within their own partition: the others are of one that had been silent for idle_after, so that nobody waited for it; raise sources.orders.event_time.idle_after or steps.revenue.late.accept_for"
    )
    disordered = with_lateness(orders_quiet(source=reader), Lateness((0, 10_000, 60_000), (200, 0, 300, 0), 500))
    assert "raise sources.orders.event_time.out_of_order" in told(ask(job(disordered, late), "out"))


def test_every_record_is_bad() -> None:
    status = running()
    status.errors.append(RecordError(NOW / 1000, "orders", "orders-0", 41, "not JSON: unexpected end", 2))
    facts = job(
        subtask(
            "orders", step("orders", 500, 0, errors=500), step("big"), source=source("orders", split("orders-0", None))
        ),
        subtask("revenue", step("revenue"), step("out"), inputs=(inlet("orders", None),)),
    )
    assert told(ask(facts, "out", status=status)) == snapshot("""\
errors (orders-0): 500 records of 500 (100 %) could not be decoded by orders and are skipped (errors: skip); the last: not JSON: unexpected end (orders-0, offset 41)
ruled_out (job): ruled out: its sources answer, its sources bring rows, no split holds the watermark back, no row was late, conditions let rows through, nobody waits for room\
""")


PYTHON = SHOP.replace(
    "  revenue:\n    input: big", "  scored: {input: big, parallelism: 2}\n  revenue:\n    input: scored"
)


def held_up(vertex: SubtaskFacts, toward: str) -> SubtaskFacts:
    return replace(
        vertex, doing="waiting for room", doing_s=30.0, toward=toward, backpressured=0.97, busy=0.03, idle=0.0
    )


def test_a_slow_step_is_found_behind_those_that_wait_for_room() -> None:
    facts = job(
        held_up(orders_quiet(split("orders-0", "12:04:00")), "scored"),
        held_up(subtask("scored", step("scored", 200, 200), inputs=(inlet("orders"),)), "revenue"),
        subtask("scored", step("scored", 200, 200), index=1, inputs=(inlet("orders"),)),
        revenue(
            doing="computing",
            doing_s=40.0,
            busy=1.0,
            idle=0.0,
            inputs=(inlet("scored", rows_waiting=32_768),),
            counted={"next_close": None},
        ),
    )
    view = ask(facts, "out", file=PYTHON, flow=rates())
    assert view.findings[0].node == "revenue"
    assert told(view) == snapshot("""\
backpressure (revenue): revenue is the bottleneck: busy in one call for 40 s (100 % of the time) (the chain revenue → out): make it cheaper, or raise steps.revenue.parallelism; 32,768 rows wait in front of it; scored waits for room 97 % of its time, and reads no faster
ruled_out (job): ruled out: its sources answer, its sources bring rows, no split holds the watermark back, no row was late, no record was bad, conditions let rows through\
""")


def test_a_slow_sink() -> None:
    facts = job(
        held_up(orders_quiet(split("orders-0", "12:04:00")), "revenue"),
        revenue(
            doing="writing",
            doing_s=25.0,
            toward="out",
            busy=0.01,
            backpressured=0.99,
            idle=0.0,
            inputs=(inlet("orders", rows_waiting=32_768),),
            counted={"next_close": None},
        ),
    )
    for node in ("orders", "revenue", "out"):
        view = ask(facts, node, flow=rates())
        assert (view.findings[0].cause, view.findings[0].node) == ("slow_sink", "out")
    assert told(view) == snapshot("""\
slow_sink (out): sink out has been writing one batch for 25 s (99 % of the time): what it writes to takes rows slowly; 32,768 rows wait in front of it
ruled_out (job): ruled out: its sources answer, its sources bring rows, no split holds the watermark back, no row was late, no record was bad, conditions let rows through\
""")


def test_a_sink_whose_writes_take_their_time_and_that_keeps_up_is_not_slow() -> None:
    writing: dict[str, Any] = {"doing": "writing", "doing_s": 0.02, "toward": "out", "busy": 0.02}
    for idle, cause in ((0.17, "flowing"), (0.02, "slow_sink")):
        facts = job(
            orders_quiet(split("orders-0", "12:04:00")),
            revenue(**writing, backpressured=0.98 - idle, idle=idle, counted={"next_close": None}),
        )
        assert ask(facts, "out", flow=rates({"out": 4000.0})).findings[0].cause == cause


def test_a_sink_that_gets_no_answer_is_not_called_slow() -> None:
    writing: dict[str, Any] = {
        "doing": "writing",
        "doing_s": 18.0,
        "toward": "out",
        "busy": 0.0,
        "backpressured": 1.0,
        "idle": 0.0,
    }
    status = running(state="waiting", message="sink out: the broker does not answer")
    timed = with_lateness(orders_quiet(split("orders-0", "12:04:00")), Lateness((0, 1_000), (600, 100, 0), 700))
    view = ask(job(timed, revenue(**writing)), "out", status=status, flow=rates())
    assert view.findings[0].cause == "unreachable"
    assert "slow_sink" not in {finding.cause for finding in view.findings}
    assert view.advice == ()


def test_a_step_that_asks_the_outside() -> None:
    facts = job(
        orders_quiet(split("orders-0")),
        revenue(doing="computing", doing_s=12.0, busy=1.0, idle=0.0, counted={"waits": True, "next_close": None}),
    )
    assert told(ask(facts, "out", flow=rates())) == snapshot("""\
waiting_outside (revenue): revenue waits for answers from outside in one call for 12 s (100 % of the time): make what it asks faster, or raise its in_flight, or steps.revenue.parallelism
ruled_out (job): ruled out: its sources answer, its sources bring rows, no split holds the watermark back, no row was late, no record was bad, conditions let rows through\
""")


FILES = SHOP.replace("out: {type: blackhole, input: revenue}", "out: {type: file, path: out, input: revenue}")


def test_a_sink_whose_checkpoint_does_not_come() -> None:
    facts = job(
        orders_quiet(split("orders-0", "12:04:00")),
        subtask(
            "revenue",
            step("revenue", 250, 40),
            step("out", 40, 40),
            inputs=(inlet("orders", "12:04:00"),),
            doing="computing",
            doing_s=8.0,
        ),
        checkpoint_pending_s=45.0,
        unacknowledged=(("revenue", 0),),
    )
    status = running(checkpoint=None, checkpoint_at=None)
    view = ask(facts, "out", file=FILES, status=status, flow=rates({"out": 4.0, "revenue": 4.0}))
    assert told(view) == snapshot("""\
checkpoint_pending (out): sink out has taken 40 rows; each becomes visible with the first checkpoint after it, one every 10s: none has been completed since the pipeline was started here; a checkpoint has been under way for 45 s and waits for revenue[0]: revenue[0] has been computing for 8 s
flowing (out): it flows: 4 rows/s; out has taken 40 rows since it started
ruled_out (job): ruled out: its sources answer, its sources bring rows, no split holds the watermark back, no row was late, no record was bad, conditions let rows through, nobody waits for room\
""")


def test_a_sink_that_flows_and_commits() -> None:
    facts = job(
        orders_quiet(split("orders-0", "12:04:00")),
        subtask("revenue", step("revenue", 250, 40), step("out", 40, 40), inputs=(inlet("orders", "12:04:00"),)),
    )
    view = ask(facts, "out", file=FILES, flow=rates({"out": 4.0, "revenue": 4.0}))
    assert view.findings[0].cause == "flowing"
    assert told(view) == snapshot("""\
flowing (out): it flows: 4 rows/s; out has taken 40 rows since it started
checkpoint_pending (out): sink out has taken 40 rows; each becomes visible with the first checkpoint after it, one every 10s: the last one, 7, was completed 3 s ago
ruled_out (job): ruled out: its sources answer, its sources bring rows, no split holds the watermark back, no row was late, no record was bad, conditions let rows through, nobody waits for room\
""")


JOIN = """\
version: 1
pipeline: shop
sources:
  orders: {type: kafka, brokers: ["kafka:9092"], topic: orders, schema: {id: int64, at: timestamp_ms}, event_time: {column: at, out_of_order: 10s}}
  payments: {type: kafka, brokers: ["kafka:9092"], topic: payments, schema: {id: int64, at: timestamp_ms}, event_time: {column: at, out_of_order: 30s}}
steps:
  paid:
    join: {left: orders, right: payments, match: left.id = right.id, within: [-5m, 1h]}
    select: {id: left.id}
sinks:
  out: {type: blackhole, input: paid}
"""


def joined(orders_rows: int, payments_rows: int, payments: SubtaskFacts) -> list[SubtaskFacts]:
    return [
        subtask(
            "orders",
            step("orders", orders_rows, orders_rows),
            source=source("orders", split("orders-0", "12:04:00")),
            edge_rows={("orders", "paid"): orders_rows},
        ),
        payments,
        subtask(
            "paid",
            step("paid", orders_rows + payments_rows, held=orders_rows + payments_rows),
            step("out"),
            inputs=(inlet("orders", "12:04:00"), inlet("payments", "12:00:00", port=1)),
        ),
    ]


def payments(rows: int, watermark: str | None = "12:00:00", silent_s: float = 0.0) -> SubtaskFacts:
    return subtask(
        "payments",
        step("payments", rows, rows),
        source=source("payments", split("payments-0", watermark, silent_s), out_of_order_ms=30_000),
        edge_rows={("payments", "paid"): rows},
    )


def test_a_join_of_which_one_side_brings_nothing() -> None:
    view = ask(job(*joined(100, 0, payments(0, None, 60.0))), "out", file=JOIN)
    assert told(view) == snapshot("""\
no_input (payments): nothing has come through the right input of paid, payments, so no pair was found: inner join on left.id = right.id, right time within [-5m, 1h] of the left
watermark_held_back (payments-0): partition payments-0 holds the watermark back: it has brought no row yet, silent for 1 min; it comes through the right input of paid; `idle_after` is not set: a silent partition holds the watermark back for ever; set sources.payments.event_time.idle_after, to 1m say
no_input (payments): source payments has brought no row at all since it started, 1 min ago; everything that is there has been read (lag 0): look at what writes to it
ruled_out (job): ruled out: its sources answer, no row was late, no record was bad, conditions let rows through, nobody waits for room\
""")


def test_a_join_that_finds_no_pair() -> None:
    view = ask(job(*joined(100, 80, payments(80, "12:03:50"))), "out", file=JOIN)
    assert told(view) == snapshot("""\
filtered (paid): 180 rows came to paid, and no pair was given out yet: inner join on left.id = right.id, right time within [-5m, 1h] of the left
watermark_held_back (payments-0): partition payments-0 holds the watermark back: it is at 12:03:50 UTC, 10 s behind the others; it comes through the right input of paid
ruled_out (job): ruled out: its sources answer, its sources bring rows, no row was late, no record was bad, nobody waits for room\
""")


def test_it_flows() -> None:
    facts = job(
        orders_quiet(split("orders-0", "12:04:00")),
        subtask("revenue", step("revenue", 250, 40), step("out", 40, 40), inputs=(inlet("orders", "12:04:00"),)),
    )
    assert told(ask(facts, "out", flow=rates({"out": 4.0}))) == snapshot("""\
flowing (out): it flows: 4 rows/s; out has taken 40 rows since it started
ruled_out (job): ruled out: its sources answer, its sources bring rows, no split holds the watermark back, no row was late, no record was bad, conditions let rows through, nobody waits for room\
""")


def test_a_sink_of_late_rows_where_no_row_is_late() -> None:
    file = SHOP.replace("aggregate: {eur: sum(amount)}", "aggregate: {eur: sum(amount)}\n    late: {then: side_output}")
    file += "  late: {type: print, input: revenue.late}\n"
    facts = job(orders_quiet(split("orders-0")), revenue(), subtask("late", step("late"), inputs=(inlet("revenue"),)))
    assert told(ask(facts, "late", file=file)) == snapshot(
        "no_input (revenue): late reads the late rows of revenue, and no row has been late: nothing is wrong"
    )


def test_a_sink_of_late_rows_of_which_none_has_come_lately() -> None:
    file = FILES.replace(
        "aggregate: {eur: sum(amount)}", "aggregate: {eur: sum(amount)}\n    late: {then: side_output}"
    )
    file += "  late: {type: file, path: late, input: revenue.late}\n"
    silent = orders_quiet(split("orders-0", "12:04:00"), split("orders-1", "12:00:00", 240.0))
    counted = revenue(counted={"late": 40})
    through = subtask("late", step("late", 40, 40), inputs=(inlet("revenue"),))
    assert told(ask(job(silent, counted, through), "late", file=file, flow=rates())) == snapshot("""\
no_input (revenue): late reads the late rows of revenue: 40 since it started, and none in the last 10 s
checkpoint_pending (late): sink late has taken 40 rows; each becomes visible with the first checkpoint after it, one every 10s: the last one, 7, was completed 3 s ago\
""")
    on_their_way = subtask("late", step("late", 30, 30), inputs=(inlet("revenue", rows_waiting=10),))
    view = ask(job(silent, counted, on_their_way), "late", file=file, flow=rates())
    assert not any("none in the last" in finding.says for finding in view.findings)
    late_now = rates(late={"revenue": 4.0})
    view = ask(job(silent, counted, through), "late", file=file, flow=late_now)
    assert not any("none in the last" in finding.says for finding in view.findings)


def test_a_node_that_is_not_there() -> None:
    with pytest.raises(KeyError):
        ask(None, "nothing")


def test_event_times_beyond_any_date_are_told() -> None:
    facts = job(orders_quiet(split("orders-0")), revenue(counted={"next_close": at("12:01:00") * 1_000_000}))
    assert "ms" in ask(facts, "out").summary


def test_a_source_that_waits_for_another() -> None:
    orders = subtask(
        "orders",
        step("orders", 100, 100),
        source=source("orders", split("orders-0", "12:04:00")),
        doing="waiting for peers",
        doing_s=6.0,
        edge_rows={("orders", "paid"): 100},
    )
    rest = joined(100, 80, payments(80, "12:03:50"))[1:]
    causes = [(f.cause, f.node) for f in ask(job(orders, *rest), "out", file=JOIN, flow=rates({"out": 5.0})).findings]
    assert ("backpressure", "orders") in causes


def test_a_step_that_passes_the_watermark_on_later_than_it_comes() -> None:
    facts = job(
        *joined(100, 80, payments(80, "12:03:50"))[:2],
        subtask(
            "paid",
            step("paid", 180, 5),
            step("out", 5, 5),
            inputs=(inlet("orders", "12:04:00"), inlet("payments", "12:03:50", port=1)),
            watermark=at("11:03:50"),
        ),
        subtask("hours", step("hours", 5), inputs=(inlet("paid", "11:03:50"),)),
    )
    file = JOIN.replace("sinks:", "  hours: {input: paid, where: id > 0, parallelism: 2}\nsinks:")
    file = file.replace("input: paid}", "input: hours}")
    says = [f.says for f in ask(facts, "hours", file=file).findings if f.node == "paid"]
    assert says == snapshot(
        [
            "paid passes the watermark on 1 h later than it comes: its rows may wait for partners that long, and what follows closes later by as much"
        ]
    )


def test_a_step_that_is_merely_busy_is_not_said_to_wait_for_partners() -> None:
    facts = job(
        orders_quiet(split("orders-0", "12:04:00")),
        subtask(
            "scored",
            step("scored", 250, 200),
            inputs=(inlet("orders", "12:04:00"),),
            watermark=at("12:00:00"),
            doing="computing",
            doing_s=1.0,
        ),
        revenue("12:00:00"),
    )
    assert not any("later than it comes" in f.says for f in ask(facts, "out", file=PYTHON).findings)


def test_a_bounded_file_that_is_not_read_yet() -> None:
    file = SHOP.replace(
        'type: kafka\n    brokers: ["kafka:9092"]\n    topic: orders', "type: file\n    path: in/*.json"
    )
    reader = source("orders", split("a.json", "12:04:00"), split("b.json", None, 30.0), bounded=True, lag_records=None)
    view = ask(job(orders_quiet(source=reader), revenue(None)), "out", file=file)
    assert view.summary == snapshot(
        "file b.json holds the watermark back: it has brought no row yet, silent for 30 s; its rows are still to be read: a bounded file counts until its end; revenue waits for 12:01:00 UTC"
    )


def test_a_sink_whose_broker_is_down() -> None:
    message = "source orders: no broker answers; it is tried again; sink out: broker kafka:9092 does not answer"
    facts = job(orders_quiet(split("orders-0")), revenue())
    view = ask(facts, "revenue", status=running(state="waiting", message=message))
    assert [(f.cause, f.node) for f in view.findings[:2]] == [("unreachable", "orders"), ("unreachable", "out")]
    assert [f.says for f in view.findings[:2]] == snapshot(
        [
            "source orders cannot be reached: no broker answers; it is tried again; it goes on by itself as soon as it can",
            "sink out cannot be reached: broker kafka:9092 does not answer; it goes on by itself as soon as it can",
        ]
    )


def test_two_partitions_that_have_stalled_are_both_named() -> None:
    splits = [
        split("orders-0", "12:04:00"),
        split("orders-1", "12:00:00", 60.0),
        split("orders-2", "12:00:30", 60.0),
    ]
    view = ask(job(orders_quiet(*splits), revenue()), "out")
    assert [(f.cause, f.split) for f in view.findings[:2]] == [
        ("watermark_held_back", "orders-1"),
        ("watermark_held_back", "orders-2"),
    ]


def test_a_row_from_the_future_makes_all_that_come_now_late() -> None:
    flow = rates({"orders": 50.0, "big": 25.0}, rows_in={"revenue": 25.0}, late={"revenue": 25.0})
    ahead = revenue("12:04:50", counted={"late": 30, "next_close": at("12:05:00") - 1})
    grown = replace(ahead, steps=(replace(ahead.steps[0], rows_in=100_000, rows_out=900), ahead.steps[1]))
    view = ask(job(orders_quiet(split("orders-0", "12:04:50")), grown), "out", flow=flow)
    assert (view.findings[0].cause, view.findings[0].node) == ("late_rows", "revenue")


def test_an_idle_partition_holds_nobody_back() -> None:
    reader = source(
        "orders", split("orders-0", "12:04:00"), split("orders-1", None, 90.0, idle=True), idle_after_ms=60_000
    )
    view = ask(job(orders_quiet(source=reader), revenue("12:04:00", counted={"next_close": at("12:04:59")})), "out")
    assert "watermark_held_back" not in {f.cause for f in view.findings}


def test_a_global_group_cannot_be_made_faster_by_parallelism() -> None:
    file = SHOP.replace("    key: [country]\n", "")
    facts = job(
        held_up(orders_quiet(split("orders-0", "12:04:00")), "revenue"),
        revenue(doing="computing", doing_s=40.0, busy=1.0, idle=0.0, counted={"next_close": None}),
    )
    assert "give steps.revenue a key" in ask(facts, "out", file=file).summary


def test_while_it_starts_nothing_else_is_said_than_what_cannot_be_reached() -> None:
    facts = job(orders_quiet(source=source("orders", listening=False), rows=0))
    view = ask(facts, "out", status=running(state="starting"))
    assert [(f.cause, f.node) for f in view.findings] == [("not_running", None), ("unreachable", "orders")]


TIMES = st.sampled_from([WATERMARK_MIN, at("12:00:00"), at("12:04:00"), WATERMARK_MAX])
COUNTS = st.integers(0, 3)
SECONDS = st.sampled_from([0.0, 0.5, 4.0, 90.0])
SHARES = st.sampled_from([0.0, 0.5, 1.0])
SPLITS = st.lists(
    st.builds(SplitFacts, st.sampled_from(["a", "b"]), TIMES, SECONDS, st.booleans(), st.booleans(), st.just({})),
    max_size=3,
)


@st.composite
def any_subtask(draw: st.DrawFn, vertex: str, *nodes: str) -> SubtaskFacts:
    """Facts of every kind, also such as no job would show."""
    steps = [
        step(
            node,
            draw(COUNTS),
            draw(COUNTS),
            **{name: draw(COUNTS) for name in ("filtered", "late", "errors", "held")},
            next_close=draw(st.none() | TIMES),
            waits=draw(st.booleans()),
        )
        for node in nodes
    ]
    reader = SourceFacts(
        vertex, tuple(draw(SPLITS)), 1000, draw(st.sampled_from([None, 60_000])), draw(st.sampled_from([None, 0, 7])),
        draw(st.booleans()), draw(st.booleans()), None,
    )  # fmt: skip
    doing = draw(st.sampled_from(get_args(Doing)))
    inputs = tuple(
        InputFacts(up, 0, port, draw(TIMES), draw(st.booleans()), draw(COUNTS), False)
        for port, up in enumerate(("orders", "payments"))
    )
    return SubtaskFacts(
        vertex, 0, nodes, draw(TIMES), doing, draw(SECONDS), draw(st.sampled_from([None, "paid", "out"])),
        draw(SHARES), draw(SHARES), draw(SHARES), None if vertex == "paid" else reader,
        inputs if vertex == "paid" else (), tuple(steps), {(vertex, "paid"): draw(COUNTS)},
    )  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(any_subtask("orders", "orders"), any_subtask("payments", "payments"), any_subtask("paid", "paid", "out")),
    st.sampled_from(["orders", "payments", "paid", "out"]),
    st.none() | SECONDS,
    st.booleans(),
)
def test_whatever_the_facts_there_is_an_answer(
    subtasks: tuple[SubtaskFacts, ...], node: str, pending_s: float | None, flows: bool
) -> None:
    facts = job(*subtasks, checkpoint_pending_s=pending_s, unacknowledged=(("paid", 0),))
    flow = rates({node: 1.0} if flows else {}, pace={"paid": 1000.0})
    view = ask(facts, node, file=JOIN, flow=flow)
    assert view.summary == view.findings[0].says != ""
    assert all(finding.cause != "ruled_out" for finding in view.findings[:-1])
    assert view == ask(facts, node, file=JOIN, flow=flow)
