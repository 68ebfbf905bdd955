"""The gate keeps order per channel and reads nothing that lies behind a barrier too early."""

from __future__ import annotations

import asyncio
import random

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.element import Barrier, CheckpointId, EventTimeMs, RecordBatch, Watermark
from streamproc.dataflow.channel import Channel
from streamproc.dataflow.gate import BarrierEvent, BatchEvent, InputGate


def rows(channel: int, number: int) -> RecordBatch:
    return RecordBatch(pl.DataFrame({"channel": [channel], "number": [number]}))


async def test_a_full_channel_stops_its_writer_until_it_is_read() -> None:
    channel = Channel(rows_max=1, bytes_max=1 << 20)
    await channel.wait_room()
    channel.put_nowait(rows(0, 0))
    waiting = asyncio.create_task(channel.wait_room())
    await asyncio.sleep(0)
    assert not waiting.done()
    channel.get_nowait()
    await asyncio.wait_for(waiting, 1)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.lists(st.sampled_from(["row", "barrier", "watermark"]), max_size=12), min_size=1, max_size=3),
    st.integers(0, 2**16),
)
def test_every_snapshot_is_a_prefix_of_every_channel(scripts: list[list[str]], seed: int) -> None:
    """Barriers are numbered alike on all channels; whatever the interleaving, when barrier n is aligned exactly the
    rows before barrier n have been read."""
    barriers = min(script.count("barrier") for script in scripts)

    async def scenario() -> None:
        channels = [Channel(10_000, 1 << 30) for _ in scripts]
        gate = InputGate(channels, [0] * len(channels))
        before: list[dict[int, int]] = []  # channel → barrier → rows ahead of it
        for channel, script in enumerate(scripts):
            number = barrier = 0
            ahead: dict[int, int] = {}
            for what in script:
                if what == "row":
                    channels[channel].put_nowait(rows(channel, number))
                    number += 1
                elif what == "watermark":
                    channels[channel].put_nowait(Watermark(EventTimeMs(number)))
                elif barrier < barriers:
                    barrier += 1
                    ahead[barrier] = number
                    channels[channel].put_nowait(Barrier(CheckpointId(barrier)))
            before.append(ahead)
        read = [0] * len(scripts)
        aligned = 0
        while aligned < barriers:
            event = await asyncio.wait_for(gate.next_event(), 1)
            if isinstance(event, BatchEvent):
                channel, number = event.frame.row(0)
                assert number == read[channel]
                read[channel] += 1
            elif isinstance(event, BarrierEvent):
                aligned += 1
                assert event.checkpoint == aligned
                assert read == [ahead[aligned] for ahead in before]

    random.seed(seed)
    asyncio.run(scenario())
