"""Records that cannot be decoded, computed with or written: the pipeline fails, skips or sets aside, as told."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Message

from operators.row_errors import RecordFailed
from streamproc.connectors.kafka.failure import RecordTooLarge
from streamproc.dataflow.source_subtask import PoisonRecord
from tests.broker import Broker
from tests.faults.kafka_orders import KafkaOrders
from tests.faults.running import running

pytestmark = pytest.mark.kafka

POISON: dict[str, bytes | None] = {
    "broken": b'{"id": 1, "acc',
    "null": None,
    "empty": b"",
    "garbage": bytes(range(1, 256)) * 3_900,  # a megabyte
    "not-utf-8": b'{"id": 1, "account": "\xff\xfe", "amount": 1, "at": 1767225600000}',
    "wrong-type": b'{"id": "one", "account": "a1", "amount": 1, "at": 1767225600000}',
    "no-event-time": b'{"id": 1, "account": "a1", "amount": 1}',
    "array": b"[1, 2]",
    "text": b'"hello"',
    "two-objects": b'{"id": 1, "at": 1767225600000} {"id": 2, "at": 1767225600000}',
}


@pytest.fixture
def orders(kafka: Broker, tmp_path: Path) -> KafkaOrders:
    return KafkaOrders(kafka, tmp_path)


def poison(orders: KafkaOrders, *kinds: str) -> None:
    """Bad records of partition 1, with a good one before each."""
    for kind in kinds:
        good = orders.order(account=1)
        values = [json.dumps(good).encode(), POISON[kind]]
        orders.broker.produce(orders.topics["orders"], values, partition=1, keys=[None, kind.encode()])


@pytest.mark.parametrize("kind", POISON)
async def test_fail_names_the_record_and_the_way_out_and_starts_nothing_again(orders: KafkaOrders, kind: str) -> None:
    orders.produce(50)
    poison(orders, kind)
    (offset,) = [m.offset() for m in orders.broker.read(orders.topics["orders"]) if m.key() == kind.encode()]
    orders.produce(50)
    async with running(orders.file) as run:
        result = await run.result()
    assert isinstance(result.failure, PoisonRecord), result
    assert f"{orders.topics['orders']}-1 offset {offset}: " in str(result.failure)
    assert "`errors: skip` or `errors: dlq` on sources.orders" in str(result.failure)
    assert len(str(result.failure)) < 1000
    assert run.status.restarts == 0
    assert run.status.state == "failed"


@pytest.mark.parametrize("policy", ["skip", "dlq"])
async def test_bad_records_mid_stream(orders: KafkaOrders, policy: str) -> None:
    """Half of them before a crash, half after it; what was set aside can be sent again as it was."""
    orders.pipeline["sources"]["orders"]["errors"] = policy
    dead = orders.broker.create_topic(f"{orders.name}-dead")
    if policy == "dlq":
        sink = {"type": "kafka", "brokers": [orders.broker.bootstrap], "input": "*.errors", "topic": dead}
        orders.pipeline["sinks"]["dead"] = sink
    orders.write()
    orders.produce(200)
    async with running(orders.file) as run:
        poison(orders, *list(POISON)[:5])
        await run.until(lambda: run.status.error_records == 5)
    async with running(orders.file) as run:
        poison(orders, *list(POISON)[5:])
        orders.produce(200)
        orders.close_windows()
        await run.until_seen(lambda: len(orders.copied()) == len(orders.made))
        await run.stop()
        assert 5 <= run.status.error_records <= len(POISON), "counted, those after the last checkpoint once more"
    orders.check()
    messages = orders.broker.read(dead)
    if policy == "skip":
        assert not messages
        return
    assert {(message.key() or b"").decode(): message.value() for message in messages} == POISON
    assert len(messages) == len(POISON)
    sent = {m.key(): m for m in orders.broker.read(orders.topics["orders"]) if m.key()}
    for message in messages:
        headers = headers_of(message)
        assert headers["source"] == "orders"
        assert headers["split"] == f"{orders.topics['orders']}-1"
        assert int(headers["offset"]) == sent[message.key()].offset()
        assert headers["error"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", headers["time"])


def headers_of(message: Message) -> dict[str, str]:
    headers: list[tuple[str, bytes]] = message.headers() or []  # type: ignore[assignment]
    return {name: value.decode() for name, value in headers}


def with_numbers(orders: KafkaOrders, errors: str) -> None:
    """A step that fails where an account is not a number."""
    orders.pipeline["steps"]["numbers"] = {
        "input": "valid",
        "select": {"id": "id", "number": "cast(substring(account, 2) as bigint)"},
        "errors": errors,
    }
    orders.pipeline["sinks"]["copies"] |= {"input": "numbers", "key": None}
    del orders.pipeline["sinks"]["copies"]["key"]


async def test_an_expression_that_fails_names_the_step_and_the_row(orders: KafkaOrders) -> None:
    with_numbers(orders, "fail")
    orders.write()
    orders.produce(50)
    bad = orders.order(account=7) | {"account": "a-few"}
    orders.broker.produce(orders.topics["orders"], [json.dumps(bad).encode()])
    for _ in range(2):  # it is there the next time, too
        async with running(orders.file) as run:
            result = await run.result()
        assert isinstance(result.failure, RecordFailed), result
        assert "step numbers" in str(result.failure)
        assert "substring" in str(result.failure)
        assert f'"id": {bad["id"]}, "account": "a-few"' in str(result.failure)
        assert run.status.restarts == 0


async def test_rows_on_which_an_expression_fails_are_set_aside(orders: KafkaOrders) -> None:
    with_numbers(orders, "dlq")
    dead = orders.broker.create_topic(f"{orders.name}-dead")
    sink = {"type": "kafka", "brokers": [orders.broker.bootstrap], "input": "numbers.errors", "topic": dead}
    orders.pipeline["sinks"]["dead"] = sink
    orders.write()
    orders.produce(50)
    bad = orders.order(account=7) | {"account": "a-few"}
    orders.broker.produce(orders.topics["orders"], [json.dumps(bad).encode()])
    orders.produce(50)
    async with running(orders.file) as run:
        await run.until_seen(lambda: len(orders.copied()) == 100)
        await run.stop()
        assert run.status.error_records == 1
    (message,) = orders.broker.read(dead)
    assert json.loads(message.value() or b"")["account"] == "a-few"
    assert headers_of(message)["step"] == "numbers"
    assert set(orders.copied()) == set(range(101)) - {bad["id"]}


@pytest.mark.parametrize("delivery", ["exactly_once", "at_least_once"])
async def test_a_record_too_large_for_the_sink_topic(kafka: Broker, orders: KafkaOrders, delivery: str) -> None:
    small = kafka.create_topic(f"{orders.name}-small", 2, {"max.message.bytes": "2000"})
    orders.pipeline["sinks"]["copies"] |= {"topic": small, "delivery": delivery}
    orders.write()
    orders.produce(200)
    async with running(orders.file) as run:
        await run.until_seen(lambda: len(kafka.read(small)) == 200)
        noise = "".join(chr(orders.random.randrange(33, 127)) for _ in range(5000))
        large: dict[str, Any] = orders.order(account=3) | {"account": noise}
        kafka.produce(orders.topics["orders"], [json.dumps(large).encode()])
        result = await run.result()
    assert isinstance(result.failure, RecordTooLarge), result
    assert "sink copies" in str(result.failure)
    assert small in str(result.failure)
    assert "max.message.bytes" in str(result.failure)
    assert run.status.restarts == 0
