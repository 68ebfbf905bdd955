"""A job with nothing to do takes next to nothing, and is awake at once. `tests.benchmarks.idle` measures at length."""

from __future__ import annotations

import statistics

import pytest

from tests.benchmarks.idle import create_topics, idle, latencies_ms
from tests.broker import Broker

pytestmark = pytest.mark.kafka


@pytest.fixture(scope="module", autouse=True)
def topics(kafka: Broker) -> None:
    create_topics(kafka)


@pytest.mark.slow
@pytest.mark.parametrize("parallelism", [1, 4])
def test_an_idle_job_is_cheap(kafka: Broker, parallelism: int) -> None:
    found = idle(kafka, parallelism, seconds=11)  # one checkpoint falls into it
    assert found.cpu < 0.03, found  # measured: 0.006 and 0.01
    assert found.rss_mb < 200, found


def test_a_single_record_passes_at_once(kafka: Broker) -> None:
    median = statistics.median(latencies_ms(kafka, 10))
    assert median < 80, f"{median} ms"  # measured: 28 on a quiet machine
