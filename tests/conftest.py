"""Fixtures that every test may use."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.broker import Broker, BrokerUnavailable, running


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, else in the order they were shuffled to: the last file that one process begins
    should not be what the other has to wait for."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


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
