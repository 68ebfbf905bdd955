"""Signals of this very process: what the first means, what a later one, and what comes twice."""

from __future__ import annotations

import os
import signal

import pytest

from streamproc.stop_signals import SAME_WISH_S, stop_signals
from tests.eventually import eventually


@pytest.mark.parametrize(
    ("again", "after_s", "told"),
    [
        (signal.SIGTERM, 0.0, ["stop"]),
        (signal.SIGTERM, SAME_WISH_S / 2, ["stop"]),
        (signal.SIGTERM, SAME_WISH_S, ["stop", "at once"]),
        (signal.SIGINT, 0.0, ["stop", "at once"]),
    ],
)
async def test_a_second_signal_ends_at_once_unless_it_is_the_first_passed_on(
    again: signal.Signals, after_s: float, told: list[str]
) -> None:
    heard: list[str] = []
    now, looks = 100.0, 0

    def clock() -> float:
        nonlocal looks
        looks += 1
        return now

    with stop_signals(lambda: heard.append("stop"), lambda: heard.append("at once"), clock):
        os.kill(os.getpid(), signal.SIGTERM)
        await eventually(lambda: looks == 1)
        now += after_s
        os.kill(os.getpid(), again)
        await eventually(lambda: looks == 2)
    assert heard == told
