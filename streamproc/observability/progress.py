"""Shows a running job to whoever started it: one live line on a terminal, a plain line now and then otherwise.

Always on stderr: stdout belongs to what the job prints.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.live import Live
from rich.text import Text

from operators.element import WATERMARK_MAX, WATERMARK_MIN
from streamproc.observability.alongside import alongside
from streamproc.observability.status import JobStatus

TERMINAL_INTERVAL_S = 0.25
PLAIN_INTERVAL_S = 10.0
_RATE_OVER_S = 2.0


@dataclass(slots=True)
class Rate:
    """Records a second over the last two seconds or so."""

    since: float
    count: int = 0
    per_second: float = 0.0

    def update(self, now: float, count: int) -> float:
        """`count` is the total so far; `now` in seconds of any clock."""
        if now - self.since >= _RATE_OVER_S:
            self.per_second = (count - self.count) / (now - self.since)
            self.since, self.count = now, count
        elif not self.per_second and now > self.since:
            return (count - self.count) / (now - self.since)
        return self.per_second


def progress_line(status: JobStatus, rate: float, now: float) -> str:
    """One line, e.g. `carrier-delays running · 120,000 in (40,000/s) · 12 out · watermark 2013-01-02 10:00:00`.
    `now` in seconds since the epoch."""
    parts = [
        f"{status.pipeline} {status.state}",
        f"{status.records_in:,} in ({rate:,.0f}/s)",
        f"{status.records_out:,} out",
    ]
    if status.late_records:
        parts.append(f"{status.late_records:,} late")
    if status.error_records:
        parts.append(f"{status.error_records:,} bad")
    if watermark := _watermark(status.watermark_ms, now):
        parts.append(f"watermark {watermark}")
    if status.checkpoint is not None:
        ago = f", {_age(now - status.checkpoint_at)} ago" if status.checkpoint_at else ""
        took = f" in {status.checkpoint_duration_s:.2f} s" if status.checkpoint_duration_s is not None else ""
        parts.append(f"checkpoint {status.checkpoint}{took}{ago}")
    if status.restarts:
        parts.append(f"{status.restarts} restarts")
    if status.message:
        parts.append(status.message)
    return " · ".join(parts)


@asynccontextmanager
async def progress_shown(
    status: JobStatus,
    console: Console,
    *,
    live: bool | None = None,
    interval_s: float | None = None,
    clock: Callable[[], float] = time.time,
) -> AsyncIterator[None]:
    """Show `status` on `console` while the block runs, and its last state at the end. `live`: draw one line
    over and over (None: where the console is a terminal)."""
    live = console.is_terminal if live is None else live
    every = interval_s or (TERMINAL_INTERVAL_S if live else PLAIN_INTERVAL_S)
    rate = Rate(since=clock())

    def line() -> str:
        now = clock()
        return progress_line(status, rate.update(now, status.records_in), now)

    try:
        async with alongside((_live if live else _plain)(console, line, every), name="progress"):
            yield
    finally:
        _print(console, line())


async def _plain(console: Console, line: Callable[[], str], every_s: float) -> None:
    while True:
        await asyncio.sleep(every_s)
        _print(console, line())


async def _live(console: Console, line: Callable[[], str], every_s: float) -> None:
    # No refresh thread: the line is drawn on the loop, a few times a second.
    with Live(console=console, auto_refresh=False, transient=True, redirect_stdout=False) as shown:
        while True:
            shown.update(Text(line(), overflow="ellipsis", no_wrap=True), refresh=True)
            await asyncio.sleep(every_s)


def _print(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def _watermark(watermark_ms: int | None, now: float) -> str:
    if watermark_ms is None or watermark_ms <= WATERMARK_MIN:
        return ""
    if watermark_ms >= WATERMARK_MAX:
        return "at the end"
    behind = now - watermark_ms / 1000
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(watermark_ms // 1000))
    return f"{at} ({_age(behind)} behind)" if 0 <= behind < 86_400 else at  # a replay of old records is not behind


def _age(seconds: float) -> str:
    if seconds < 1:
        return f"{max(0, round(seconds * 1000))} ms"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"
