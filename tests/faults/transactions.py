"""The transactions that a broker knows of one pipeline."""

from __future__ import annotations

from streamproc.connectors.kafka.client import connect
from streamproc.connectors.kafka.protocol import ListTransactionsRequest
from streamproc.pipeline.spec import KafkaConnectionSpec
from tests.broker import Broker


async def transaction_states(broker: Broker, pipeline: str) -> dict[str, str]:
    """Transactional id → state ("Ongoing", "CompleteCommit", …) of every sink of `pipeline`."""
    client = await connect(KafkaConnectionSpec(brokers=[broker.bootstrap]), why="test")
    try:
        found: dict[str, str] = {}
        for node in client.nodes():
            response = await client.send(node, ListTransactionsRequest(), coordination=True)
            found |= {state[0]: state[2] for state in response.transaction_states}
    finally:
        await client.close()
    return {name: state for name, state in found.items() if name.startswith(f"streamproc.{pipeline}.")}
