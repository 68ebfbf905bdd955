"""The metric table is the contract's, and what is exposed is the table."""

from __future__ import annotations

import math

import pytest
from prometheus_client.parser import text_string_to_metric_families

from operators.element import WATERMARK_MAX, WATERMARK_MIN
from streamproc.observability.metric_table import METRICS, PREFIX, metric_table
from streamproc.observability.metrics import MetricRegistry, PipelineMetrics

CONTRACT_TEXT = """
records_in_total records_out_total bytes_in_total late_records_total error_records_total watermark_seconds
watermark_lag_seconds source_lag_records busy_seconds_total backpressured_seconds_total idle_seconds_total
channel_rows checkpoint_duration_seconds checkpoint_size_bytes checkpoint_alignment_seconds checkpoints_total
last_completed_checkpoint_id restarts_total state_bytes end_to_end_latency_seconds uncommitted_transactions
up
"""
CONTRACT = CONTRACT_TEXT.split()
OURS_TEXT = """
filtered_records_total ledger_unaccounted_records event_loop_lag_seconds watermark_skew_seconds split_silent_seconds
source_reachable sink_reachable last_completed_checkpoint_timestamp_seconds wanted ready
"""
OURS = OURS_TEXT.split()


def exposed(registry: MetricRegistry) -> dict[str, dict[tuple[str, ...], float]]:
    """Sample name → label values → value, of our own metrics."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(registry.render().decode()):
        for sample in family.samples:
            if sample.name.startswith(PREFIX):
                found.setdefault(sample.name.removeprefix(PREFIX), {})[tuple(sample.labels.values())] = sample.value
    return found


def test_the_table_is_the_contract_and_our_own_extras() -> None:
    assert sorted(metric.name for metric in METRICS) == sorted([*CONTRACT, *OURS])


def test_exposed_names_are_exactly_the_tables() -> None:
    registry = MetricRegistry()
    pipeline = PipelineMetrics(registry, "p")
    subtask = pipeline.subtask("s", 0)
    subtask.set_watermark(0)
    for use in (
        *(subtask.bytes_in, subtask.source_lag_records, subtask.channel_rows, subtask.state_bytes),
        *(subtask.watermark_skew_seconds, subtask.split_silent_seconds),
        *(subtask.source_reachable, subtask.sink_reachable),
        *(registry.gauge("wanted", "p"), registry.gauge("ready", "p")),
        *(pipeline.last_completed_checkpoint_timestamp,),
    ):
        use.inc()
    subtask.end_to_end_latency.observe(1)
    pipeline.ledger_unaccounted("s").set(0)

    names = {name for name in exposed(registry) if not name.endswith(("_bucket", "_sum", "_count"))}
    histograms = {name.removesuffix("_bucket") for name in exposed(registry) if name.endswith("_bucket")}
    assert sorted(names | histograms) == sorted([*CONTRACT, *OURS])


def test_labels_are_those_of_the_contract() -> None:
    allowed = [("pipeline", "step", "subtask"), ("pipeline", "step"), ("pipeline",), ("pipeline", "result"), ()]
    assert all(metric.labels in allowed for metric in METRICS)


def test_each_subtask_has_its_own_series_and_keeps_it_across_restarts() -> None:
    registry = MetricRegistry()
    pipeline = PipelineMetrics(registry, "p")
    pipeline.subtask("s", 0).records_in.inc(5)
    pipeline.subtask("s", 1).records_in.inc(7)
    pipeline.subtask("s", 0).records_in.inc(1)

    assert exposed(registry)["records_in_total"] == {("p", "s", "0"): 6.0, ("p", "s", "1"): 7.0}


def test_two_pipelines_share_a_registry() -> None:
    registry = MetricRegistry()
    PipelineMetrics(registry, "a").up.set(1)
    PipelineMetrics(registry, "b").up.set(0)

    assert exposed(registry)["up"] == {("a",): 1.0, ("b",): 0.0}


def test_a_series_that_means_nothing_for_a_subtask_is_absent() -> None:
    registry = MetricRegistry()
    PipelineMetrics(registry, "p").subtask("step", 0)

    found = exposed(registry)
    assert "source_lag_records" not in found
    assert "watermark_seconds" not in found
    assert found["late_records_total"] == {("p", "step", "0"): 0.0}


def test_watermark_lag_grows_while_the_watermark_stands_still() -> None:
    now = 100.0
    registry = MetricRegistry(clock=lambda: now)
    subtask = PipelineMetrics(registry, "p").subtask("s", 0)
    of = ("p", "s", "0")

    subtask.set_watermark(WATERMARK_MIN)
    assert math.isnan(exposed(registry)["watermark_lag_seconds"][of])

    subtask.set_watermark(90_500)
    assert exposed(registry)["watermark_seconds"][of] == 90.5
    assert exposed(registry)["watermark_lag_seconds"][of] == 9.5

    now = 200.0
    assert exposed(registry)["watermark_lag_seconds"][of] == 109.5

    subtask.set_watermark(WATERMARK_MAX)
    assert exposed(registry)["watermark_seconds"][of] == math.inf
    assert exposed(registry)["watermark_lag_seconds"][of] == 0.0


def test_checkpoints_are_counted_by_result() -> None:
    registry = MetricRegistry()
    metrics = PipelineMetrics(registry, "p")
    metrics.checkpoints_total("aborted").inc()

    assert exposed(registry)["checkpoints_total"] == {("p", "completed"): 0.0, ("p", "aborted"): 1.0}


def test_process_metrics_are_exposed_too() -> None:
    assert b"process_resident_memory_bytes" in MetricRegistry().render()


def test_the_documented_table_has_a_row_for_each_metric() -> None:
    rows = metric_table().splitlines()[2:]
    assert [row.split("`")[1] for row in rows] == [PREFIX + metric.name for metric in METRICS]


def test_a_pipeline_that_is_gone_leaves_no_series_behind() -> None:
    registry = MetricRegistry()
    gone, stays = PipelineMetrics(registry, "gone"), PipelineMetrics(registry, "stays")
    for each in (gone, stays):
        each.up.set(1)
        each.subtask("s", 0).set_watermark(0)
        each.subtask("s", 0).end_to_end_latency.observe(1)
    registry.forget("gone")

    text = registry.render().decode()
    assert 'pipeline="gone"' not in text
    assert 'streamproc_up{pipeline="stays"} 1.0' in text


def test_what_was_true_of_a_moment_goes_when_the_job_ends_and_comes_back_with_it() -> None:
    registry = MetricRegistry()
    pipeline = PipelineMetrics(registry, "p")
    subtask = pipeline.subtask("s", 0)
    subtask.records_in.inc(5)
    for job_ends in (True, False):
        subtask.set_watermark(60_000)
        subtask.channel_rows.set(3)
        if job_ends:
            pipeline.ended()
            assert "watermark_seconds" not in exposed(registry)
            assert "watermark_lag_seconds" not in exposed(registry)
            assert "channel_rows" not in exposed(registry)

    found = exposed(registry)
    assert found["watermark_seconds"] == {("p", "s", "0"): 60.0}
    assert found["channel_rows"] == {("p", "s", "0"): 3.0}
    assert found["records_in_total"] == {("p", "s", "0"): 5.0}, "counters only grow"


def test_a_job_that_is_built_anew_keeps_the_series_of_what_it_still_has_and_no_other() -> None:
    registry = MetricRegistry()
    pipeline = PipelineMetrics(registry, "p")
    with pipeline.building():
        for step, index in (("s", 0), ("s", 1), ("removed", 0)):
            pipeline.subtask(step, index).records_in.inc(5)
            pipeline.subtask(step, index).end_to_end_latency.observe(1)
    for step in ("s", "removed"):
        pipeline.ledger_unaccounted(step).set(0)
    pipeline.ended()
    with pipeline.building():
        pipeline.subtask("s", 0)
        pipeline.subtask("added", 0)

    text = registry.render().decode()
    assert 'step="removed"' not in text
    assert 'subtask="1"' not in text
    assert exposed(registry)["records_in_total"] == {("p", "s", "0"): 5.0, ("p", "added", "0"): 0.0}


def test_a_job_that_cannot_be_built_keeps_its_series() -> None:
    registry = MetricRegistry()
    pipeline = PipelineMetrics(registry, "p")
    with pipeline.building():
        pipeline.subtask("s", 0).records_in.inc(5)
    with pytest.raises(OSError, match="no room"), pipeline.building():
        raise OSError("no room")

    assert exposed(registry)["records_in_total"] == {("p", "s", "0"): 5.0}


async def test_a_scrape_shows_every_figure_as_it_is_then() -> None:
    registry = MetricRegistry()
    pipeline = PipelineMetrics(registry, "p")
    subtask = pipeline.subtask("s", 0)
    pipeline.refresh = lambda: subtask.spent(0.0, 1.5, 0.0)

    await registry.scrape()
    assert b'streamproc_backpressured_seconds_total{pipeline="p",step="s",subtask="0"} 3.0' in await registry.scrape()
