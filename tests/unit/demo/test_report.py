"""The demo's picture, drawn from files as the file sink writes them."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from inline_snapshot import snapshot
from rich.console import Console

from state.failure import Failure
from streamproc.commands.demo import prepare
from streamproc.demo.report import read_hourly, read_weekly, report, sparkline

WEEKLY = """airline,origin,window_start,window_end,flights,mean_delay,worst_delay
JetBlue Airways,JFK,2012-12-31T00:00:00.000Z,2013-01-07T00:00:00.000Z,100,10.0,60
JetBlue Airways,LGA,2012-12-31T00:00:00.000Z,2013-01-07T00:00:00.000Z,300,20.0,90
JetBlue Airways,JFK,2013-01-28T00:00:00.000Z,2013-02-04T00:00:00.000Z,100,40.0,600
Alaska Airlines Inc.,EWR,2013-01-14T00:00:00.000Z,2013-01-21T00:00:00.000Z,7,-3.5,0
"""
HOURLY = """{"origin":"JFK","window_start":"2013-02-08T17:00:00.000Z","window_end":"","departed":40,"cancelled":10}
{"origin":"JFK","window_start":"2013-02-09T02:00:00.000Z","window_end":"","departed":20,"cancelled":25}
{"origin":"EWR","window_start":"2013-02-09T17:00:00.000Z","window_end":"","departed":80,"cancelled":1}
"""


@pytest.mark.parametrize(
    ("values", "picture"),
    [([0.0, 20.0, 40.0], "▁▅█"), ([-5.0, 99.0], "▁█"), ([None, 1.0, None], " ▁ "), ([], "")],
)
def test_a_sparkline_has_one_character_a_value(values: list[float | None], picture: str) -> None:
    assert sparkline(values, top=40.0) == picture


def test_means_are_weighted_and_hours_are_those_of_new_york(tmp_path: Path) -> None:
    (tmp_path / "part-0.csv").write_text(WEEKLY)
    (tmp_path / "part-0.jsonl").write_text(HOURLY)
    console = Console(file=io.StringIO(), width=100, color_system=None)
    console.print(report(read_weekly(tmp_path), read_hourly(tmp_path)))
    assert isinstance(console.file, io.StringIO)
    assert "\n".join(line.rstrip() for line in console.file.getvalue().splitlines()) == snapshot("""\
Departure delay by airline: mean in minutes, worst in hours

 airline           flights   mean   worst   January → December
 ─────────────────────────────────────────────────────────────
 JetBlue Airways       500   22.0    10.0   ▄ █
 Alaska Airlines         7   -3.5     0.0    ▁

Departures by hour of the day

 airport           departed   cancelled   0h    6h    12h   18h
 ─────────────────────────────────────────────────────────────────
 Newark                  80           1               █
 John F. Kennedy         60          35               ▅        ▃

  The worst day was 8 February: 35 of 95 flights were cancelled.
""")


def test_the_demo_clears_only_what_it_made_itself(tmp_path: Path) -> None:
    prepare(tmp_path / "new")
    (tmp_path / "new" / "results").mkdir()
    prepare(tmp_path / "new")
    assert not (tmp_path / "new" / "results").exists()

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(Failure, match="not made by the demo"):
        prepare(tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").exists()
