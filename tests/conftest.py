"""Fixtures that every test may use."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.broker import Broker, BrokerUnavailable, running


@pytest.fixture(scope="session")
def kafka() -> Iterator[Broker]:
    """One real broker for the whole session. Without Java or Maven the test is skipped; on CI it fails."""
    yield from _broker()


@pytest.fixture
def kafka_to_kill() -> Iterator[Broker]:
    """As `kafka`, for one test alone, which may do with it what it likes."""
    yield from _broker()


def _broker() -> Iterator[Broker]:
    try:
        with running() as broker:
            yield broker
    except BrokerUnavailable as unavailable:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"no Kafka broker: {unavailable}")
