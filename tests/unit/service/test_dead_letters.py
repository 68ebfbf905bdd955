"""Dead letters of a cluster that is away: whoever asks is told so at once, and what is wrong."""

from __future__ import annotations

import socket

import pytest

from streamproc.pipeline.logical import LogicalGraph
from streamproc.service.api import ServiceFault
from streamproc.service.dead_letters import list_letters, replay_letters
from tests.unit.pipeline.files import graph_of

FILE = """
version: 1
pipeline: shop
connections:
  main: {{type: kafka, brokers: ["127.0.0.1:{port}"]}}
sources:
  orders: {{type: kafka, connection: main, topic: orders, schema: {{id: int64}}, errors: dlq}}
sinks:
  out: {{type: blackhole, input: orders}}
  dead: {{type: kafka, connection: main, input: orders.errors, topic: dead}}
"""


@pytest.fixture
def graph() -> LogicalGraph:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return graph_of(FILE.format(port=probe.getsockname()[1]))  # nobody listens there any more


async def test_a_broker_that_is_away_is_told_at_once(graph: LogicalGraph) -> None:
    broker = next(iter(graph.sources.values())).connection
    assert broker is not None
    for asked in (list_letters(graph, "dead", 5), replay_letters(graph, "dead", None)):
        with pytest.raises(ServiceFault) as refused:
            await asked
        assert refused.value.status == 503
        assert str(refused.value) == f"no broker takes a connection: {broker.brokers[0]}: Connection refused"
