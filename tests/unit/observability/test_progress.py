"""What a job's progress line says."""

from __future__ import annotations

import io

from inline_snapshot import snapshot
from rich.console import Console

from operators.element import WATERMARK_MAX
from streamproc.observability.progress import Rate, progress_line, progress_shown
from streamproc.observability.status import JobStatus
from tests.eventually import eventually

NOW = 1_700_000_000.0


def test_a_job_that_starts() -> None:
    assert progress_line(JobStatus("p"), 0, NOW) == snapshot("p starting · 0 in (0/s) · 0 out")


def test_a_running_job() -> None:
    status = JobStatus(
        "p",
        state="running",
        records_in=1_200_000,
        records_out=120,
        late_records=3,
        watermark_ms=int((NOW - 12) * 1000),
        checkpoint=4,
        checkpoint_at=NOW - 7,
        checkpoint_duration_s=0.123,
    )
    assert progress_line(status, 40_000, NOW) == snapshot(
        "p running · 1,200,000 in (40,000/s) · 120 out · 3 late · watermark 2023-11-14 22:13:08 (12 s behind) "
        "· checkpoint 4 in 0.12 s, 7 s ago"
    )


def test_old_records_are_not_called_behind_and_the_end_is_said() -> None:
    assert "2013-01-01 00:00:00 ·" in progress_line(JobStatus("p", watermark_ms=1_356_998_400_000), 0, NOW) + " ·"
    assert "watermark at the end" in progress_line(JobStatus("p", watermark_ms=WATERMARK_MAX), 0, NOW)


def test_a_job_that_waits_says_for_what() -> None:
    line = progress_line(JobStatus("p", state="waiting", message="the broker does not answer"), 0, NOW)
    assert line.endswith("the broker does not answer")


def test_the_rate_is_of_the_last_seconds() -> None:
    rate = Rate(since=0.0)
    assert rate.update(0.5, 500) == 1000
    assert rate.update(2.0, 2000) == 1000
    assert rate.update(3.0, 9000) == 1000  # too soon to say
    assert rate.update(4.0, 12_000) == 5000


async def test_plain_lines_off_a_terminal_and_the_last_state_at_the_end() -> None:
    out = io.StringIO()
    status = JobStatus("p", state="running", records_in=5)
    async with progress_shown(status, Console(file=out), interval_s=0.01):
        await eventually(out.getvalue)
        status.state, status.records_in = "finished", 10
    shown = out.getvalue().splitlines()
    assert shown[0].startswith("p running · 5 in")
    assert shown[-1].startswith("p finished · 10 in")
    assert "\x1b" not in out.getvalue()


async def test_a_live_line_on_a_terminal() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100)
    async with progress_shown(JobStatus("p", state="running"), console, interval_s=0.01):
        await eventually(lambda: "p running" in out.getvalue())
    assert "\x1b[" in out.getvalue()
    assert out.getvalue().endswith("p running · 0 in (0/s) · 0 out\n")
