"""The signals that end a process: the first asks it to stop, a later one is for ending it at once.

The same signal right behind the first is the same wish: what runs us (`timeout`, a launcher) often passes on what we
have got already, as a member of its process group.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

ABORTED: Final = 130  # the exit code of a process that ended at once
SAME_WISH_S: Final = 0.5

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stop_signals(
    stop: Callable[[], None], at_once: Callable[[], None], clock: Callable[[], float] = time.monotonic
) -> Iterator[None]:
    """While the block runs, on the running loop. `stop` is called once, `at_once` for each later wish; `clock` gives
    seconds."""
    first: tuple[signal.Signals, float] | None = None

    def received(number: signal.Signals) -> None:
        nonlocal first
        now = clock()
        if first is None:
            first = number, now
            stop()
        elif number != first[0] or now - first[1] >= SAME_WISH_S:
            at_once()

    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, received, number)
    try:
        yield
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
