"""What an operator does all day to a service on Kafka, with kill -9 in between: results exactly once throughout."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.broker import Broker
from tests.faults.kafka_orders import KafkaOrders
from tests.serving import Service

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    service = Service(tmp_path)
    service.start()
    try:
        yield service
    finally:
        service.kill()


def orders_of(kafka: Broker, folder: Path, name: str) -> KafkaOrders:
    (folder / name).mkdir()
    return KafkaOrders(kafka, folder / name, partitions=3)


def test_upgrade_rescale_savepoint_and_kills(kafka: Broker, tmp_path: Path, service: Service) -> None:
    upgraded, rescaled, restored = everything = [orders_of(kafka, tmp_path, name) for name in ("a", "b", "c")]
    for orders in everything:
        orders.produce(200)
        service.do("apply", orders.file)
    flowing(service, everything)

    produce(everything, 200)
    service.kill()
    produce(everything, 200)
    service.start()
    flowing(service, everything)

    # An added step; the others keep their state.
    upgraded.pipeline["steps"]["counts"] = {
        "input": "orders",
        "where": "id >= 0",
        "key": ["account"],
        "window": {"tumble": "1s"},
        "aggregate": {"orders": "count(*)"},
    }
    counts = kafka.create_topic(f"{upgraded.name}-counts", 3)
    upgraded.pipeline["sinks"]["counted"] = {
        "type": "kafka",
        "input": "counts",
        "brokers": [kafka.bootstrap],
        "topic": counts,
    }
    before = len(upgraded.made)
    upgraded.write()
    plan = json.loads(service.do("plan", upgraded.file, "--json"))
    verdicts = {change["name"]: (change["change"], change["state"]) for change in plan["changes"]}
    assert verdicts["counts"][0] == "added"
    assert verdicts["sums"] == ("unchanged", "kept")
    assert not plan["drops_state"]
    service.do("apply", upgraded.file)
    upgraded.produce(200)

    service.do("rescale", rescaled.name, "3")
    rescaled.produce(200)
    flowing(service, [upgraded, rescaled])
    service.kill()
    service.start()
    flowing(service, everything)
    assert service.get(f"/v1/pipelines/{rescaled.name}")["parallelism"] == 3
    service.do("rescale", rescaled.name, "2")
    rescaled.produce(200)

    savepoint = json.loads(service.do("savepoint", restored.name, "--json"))["id"]
    service.do("stop", restored.name)
    restored.produce(200)
    service.do("start", restored.name, "--from", str(savepoint))
    flowing(service, everything)

    for orders in everything:
        orders.close_windows()
    for orders in everything:
        service.until(lambda orders=orders: orders.sums() == orders.expected_sums())  # type: ignore[misc]
        detail = service.get(f"/v1/pipelines/{orders.name}")
        assert [line for line in detail["ledger"] if line["unaccounted"]] == []
    added = Counter[str]()
    for value in kafka.values(counts):
        row = json.loads(value)
        added[row["account"]] += row["orders"]
    new = Counter(order["account"] for order in upgraded.made[before:])
    assert all(new[account] <= added[account] for account in new), "the added step has seen all that came after it"
    assert sum(added.values()) <= len(upgraded.made)
    assert service.stop() == 0, service.log()
    for orders in everything:
        orders.check()


def produce(everything: list[KafkaOrders], count: int) -> None:
    for orders in everything:
        orders.produce(count)


def flowing(service: Service, everything: list[KafkaOrders]) -> None:
    """Until each has copied all that was made."""
    for orders in everything:
        service.until(lambda orders=orders: len(orders.copied()) >= len(orders.made))  # type: ignore[misc]
