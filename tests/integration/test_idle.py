"""A job with nothing to do is small, and passes what comes. `tests.benchmarks.idle` measures CPU and latency."""

from __future__ import annotations

import pytest

from tests.benchmarks.idle import create_topics, idle, latencies_ms
from tests.broker import Broker

pytestmark = pytest.mark.kafka


@pytest.fixture(scope="module", autouse=True)
def topics(kafka: Broker) -> None:
    create_topics(kafka)


@pytest.mark.slow
@pytest.mark.parametrize("parallelism", [1, 4])
def test_an_idle_job_is_small(kafka: Broker, parallelism: int) -> None:
    found = idle(kafka, parallelism, seconds=11)  # one checkpoint falls into it
    assert found.rss_mb < 200, found


def test_single_records_pass_one_by_one(kafka: Broker) -> None:
    assert len(latencies_ms(kafka, 10)) == 10
