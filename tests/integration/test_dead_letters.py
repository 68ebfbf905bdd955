"""Dead letters on a real broker: bad records are seen, and sent again once after a fix, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from streamproc.pipeline.logical import LogicalGraph
from streamproc.pipeline.planner import load_pipeline
from streamproc.service import dead_letters
from streamproc.service.api import Conflict, ServiceFault
from streamproc.service.dead_letters import list_letters, replay_letters
from tests.broker import Broker
from tests.faults.running import running

pytestmark = pytest.mark.kafka

FILE = """
version: 1
pipeline: {name}
job: {{checkpoint: {{every: 200ms, storage: "file:{storage}"}}}}
connections:
  main: {{type: kafka, brokers: ["{brokers}"]}}
sources:
  orders: {{type: kafka, connection: main, topic: {name}, schema: {{id: int64, amount: {amount}}}, errors: dlq}}
steps:
  halves: {{input: orders, select: {{id: id, half: cast(100 / id as int32)}}, errors: dlq}}
sinks:
  out: {{type: kafka, connection: main, input: halves, topic: {name}-out}}
  dead: {{type: kafka, connection: main, input: "*.errors", topic: {name}-dead}}
  elsewhere: {{type: blackhole, input: orders}}
"""


@dataclass
class Orders:
    """Topics of a pipeline of its own, and its file."""

    kafka: Broker
    folder: Path
    name: str

    def file(self, amount: str) -> Path:
        folder = self.folder / amount
        folder.mkdir(exist_ok=True)
        text = FILE.format(name=self.name, brokers=self.kafka.bootstrap, amount=amount, storage=folder / "checkpoints")
        (folder / "orders.yaml").write_text(text)
        return folder / "orders.yaml"

    def graph(self, amount: str = "int64") -> LogicalGraph:
        return load_pipeline(self.file(amount))

    def letter(self, value: bytes, *, offset: int, key: bytes | None = None, partition: int = 1) -> None:
        """A letter as the sink writes it."""
        headers: list[tuple[str, str | bytes | None]] = [
            ("source", "orders"),
            ("split", f"{self.name}-{partition}"),
            ("offset", str(offset)),
            ("step", "orders"),
            ("error", "bad"),
        ]
        self.kafka.produce(f"{self.name}-dead", [value], keys=[key], headers=headers, partition=offset % 2)

    def sent_back(self) -> list[tuple[int | None, bytes | None, bytes | None]]:
        """Partition, key and value of what is in the source's topic."""
        return [(one.partition(), one.key(), one.value()) for one in self.kafka.read(self.name)]


@pytest.fixture
def orders(kafka: Broker, tmp_path: Path) -> Orders:
    name = f"orders-{uuid.uuid4().hex[:8]}"
    for topic in (name, f"{name}-out", f"{name}-dead"):
        kafka.create_topic(topic, 2)
    return Orders(kafka, tmp_path, name)


async def test_what_a_pipeline_refused_comes_through_after_a_fix(orders: Orders) -> None:
    kafka = orders.kafka
    good, text, hostile = b'{"id": 1, "amount": 5}', b'{"id": 2, "amount": 1.5}', b"\xff\x00<script>"
    kafka.produce(orders.name, [good, text], keys=[b"a", b"b"], partition=1)
    kafka.produce(orders.name, [hostile], partition=0)
    async with running(orders.file("int64")) as run:
        await run.until_seen(lambda: len(kafka.values(f"{orders.name}-dead")) == 2)

    listed = await list_letters(orders.graph(), "dead", 50)
    assert listed.waiting == 2
    letters = {letter.key: letter for letter in listed.letters}
    assert (letters["b"].split, letters["b"].offset, letters["b"].node) == (f"{orders.name}-1", 1, "orders")
    assert letters["b"].value == text.decode()
    assert letters[None].binary
    assert letters[None].value == hostile.hex()

    assert await replay_letters(orders.graph("float64"), "dead", [letters["b"].id]) == 1
    assert orders.sent_back()[-1] == (1, b"b", text)
    async with running(orders.file("float64")) as run:
        await run.until_seen(lambda: len(kafka.values(f"{orders.name}-out")) >= 4)  # the good one again, and two halves
    listed = await list_letters(orders.graph(), "dead", 50)
    assert {letter.key for letter in listed.letters if letter.replayed} == {"b"}


async def test_each_is_sent_once_however_often_it_is_asked_for(orders: Orders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_letters, "LETTERS_OF_A_TRANSACTION", 4)
    for offset in range(11):
        orders.letter(b"%d" % offset, offset=offset, key=b"k")
    graph = orders.graph()
    listed = await list_letters(graph, "dead", 3)
    assert (listed.waiting, len(listed.letters)) == (11, 3)
    chosen = [letter.id for letter in listed.letters[:2]]
    assert await replay_letters(graph, "dead", chosen) == 2
    assert await replay_letters(graph, "dead", chosen) == 0
    assert (await list_letters(graph, "dead", 50)).waiting == 9
    assert await replay_letters(graph, "dead", None) == 9
    assert await replay_letters(graph, "dead", None) == 0
    orders.letter(b"11", offset=11)
    assert await replay_letters(graph, "dead", None) == 1
    assert sorted(int(value or b"") for _, _, value in orders.sent_back()) == list(range(12))
    assert {partition for partition, _, _ in orders.sent_back()} == {1}
    assert (await list_letters(graph, "dead", 50)).waiting == 0


async def test_a_replay_that_dies_before_its_commit_has_sent_nothing(
    orders: Orders, monkeypatch: pytest.MonkeyPatch
) -> None:
    for offset in range(3):
        orders.letter(b"%d" % offset, offset=offset)
    graph = orders.graph()
    recorded = asyncio.Event()

    async def never(_: AIOKafkaProducer) -> None:
        recorded.set()
        await asyncio.Event().wait()

    with monkeypatch.context() as dying:
        dying.setattr(AIOKafkaProducer, "commit_transaction", never)
        dying.setattr(AIOKafkaProducer, "abort_transaction", never)  # a killed process aborts nothing either
        replay = asyncio.create_task(replay_letters(graph, "dead", None))
        await recorded.wait()
        # Its transaction is open, with the letters and the record of them in it: another takes over, then sends all.
        dying.undo()
        assert await replay_letters(graph, "dead", None) == 3
        replay.cancel()
        await asyncio.gather(replay, return_exceptions=True)
    assert sorted(value or b"" for _, _, value in orders.sent_back()) == [b"0", b"1", b"2"]


async def test_what_cannot_be_replayed_says_why(orders: Orders) -> None:
    graph = orders.graph()
    orders.kafka.produce(f"{orders.name}-dead", [b'{"id": 0}'], headers=[("step", "halves"), ("error", "by zero")])
    [letter] = (await list_letters(graph, "dead", 50)).letters
    assert not letter.replayable
    assert "original record is not in the letter" in (letter.reason or "")
    with pytest.raises(Conflict, match="original record"):
        await replay_letters(graph, "dead", [letter.id])
    assert await replay_letters(graph, "dead", None) == 0
    for sink, status in (("nowhere", 404), ("elsewhere", 409), ("out", 409)):
        with pytest.raises(ServiceFault) as refused:
            await list_letters(graph, sink, 50)
        assert refused.value.status == status
    for unknown, status in (("0:99", 404), ("9:0", 404), ("x", 422), ("0:-1", 422)):
        with pytest.raises(ServiceFault) as refused:
            await replay_letters(graph, "dead", [unknown])
        assert refused.value.status == status
    assert orders.sent_back() == []
