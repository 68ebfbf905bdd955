"""Sources that flow together keep together in event time; none is held back by one that brings nothing."""

from __future__ import annotations

import asyncio
import time

import pytest

from operators.element import EventTimeMs
from streamproc.dataflow import source_alignment
from streamproc.dataflow.source_alignment import DRIFT_MS, SourceAlignment, SourceProgress


def at(time_ms: int, *, behind: bool = True) -> SourceProgress:
    return SourceProgress(EventTimeMs(time_ms), behind)


async def goes_on(alignment: SourceAlignment, within_s: float = 0.1) -> bool:
    try:
        async with asyncio.timeout(within_s):
            await alignment.wait_for_peers()
    except TimeoutError:
        return False
    return True


@pytest.mark.parametrize(
    "peer",
    [
        at(0),
        at(1, behind=False),
        SourceProgress(None, behind=True),
        at(10 * DRIFT_MS),
    ],
    ids=["as far behind as it may be", "silent, or at its end", "without event time so far", "ahead"],
)
async def test_who_holds_nobody_back(peer: SourceProgress) -> None:
    assert await goes_on(SourceAlignment(at(DRIFT_MS), [peer]))


async def test_a_source_that_has_read_nothing_waits_for_nobody() -> None:
    assert await goes_on(SourceAlignment(SourceProgress(), [at(0)]))


async def test_the_faster_source_waits_until_the_slowest_has_come_near() -> None:
    slow, slower = at(5), at(0)
    alignment = SourceAlignment(at(DRIFT_MS + 50), [slow, slower])
    waiting = asyncio.create_task(alignment.wait_for_peers())
    slow.latest = EventTimeMs(50)
    await asyncio.sleep(0.02)
    assert not waiting.done(), "the other is still behind"
    slower.latest = EventTimeMs(50)
    await asyncio.wait_for(waiting, 1)


async def test_a_peer_that_falls_silent_lets_go() -> None:
    peer = at(0)
    waiting = asyncio.create_task(SourceAlignment(at(2 * DRIFT_MS), [peer]).wait_for_peers())
    await asyncio.sleep(0.01)
    assert not waiting.done()
    peer.behind = False
    await asyncio.wait_for(waiting, 1)


async def test_a_peer_whose_event_time_stands_still_lets_go_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_alignment, "STANDSTILL_S", 0.1)
    peer = at(0)
    alignment = SourceAlignment(at(2 * DRIFT_MS), [peer])
    began_s = time.monotonic()
    waiting = asyncio.create_task(alignment.wait_for_peers())
    await asyncio.sleep(0.06)
    peer.latest = EventTimeMs(1)  # it has moved: the wait begins anew
    await asyncio.wait_for(waiting, 5)
    assert time.monotonic() - began_s >= 0.15


async def test_two_sources_never_wait_for_each_other() -> None:
    fast, slow = at(2 * DRIFT_MS), at(0)
    assert await goes_on(SourceAlignment(slow, [fast]))
    assert not await goes_on(SourceAlignment(fast, [slow]))


@pytest.mark.parametrize(
    ("rows", "lag_records", "behind"),
    [
        (16_384, None, True),
        (20, None, False),
        (20, 0, False),
        (16_384, 300, False),
        (20, 1_000_000, True),
        (0, 0, False),
    ],
)
def test_only_a_backlog_holds_others_back(rows: int, lag_records: int | None, behind: bool) -> None:
    progress = SourceProgress()
    progress.fetched(rows, lag_records, max_rows=16_384)
    assert progress.behind == behind
