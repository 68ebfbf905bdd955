"""`make endless`: joins, sessions, deduplication and top at full rate; what grows after the first windows is a leak.

    python -m tests.endless [--minutes 10] [--parallelism 1]

The input is generated as fast as the job takes it. Memory, open files, local state and checkpoints are sampled as
in `tests.soak`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Final

from tests.integration.job import Job
from tests.soak import LIMITS, Sample, growth, sample

_SAMPLE_S: Final = 2.0
_SHOW_S: Final = 30.0
_PIPELINE: Final = """
version: 1
pipeline: endless
job: {{parallelism: {parallelism}, checkpoint: {{every: 5s, storage: "file:checkpoints"}}}}
sources:
  bid: {{type: datagen, table: bid, event_time: {{column: dateTime, out_of_order: 2s}}}}
  auction: {{type: datagen, table: auction, event_time: {{column: dateTime, out_of_order: 2s}}}}
steps:
  interval:
    join: {{left: auction, right: bid, kind: left, match: left.id = right.auction, within: [0s, 10s]}}
    select: {{id: left.id, category: left.category, price: right.price}}
  windowed:
    join: {{left: auction, right: bid, match: left.id = right.auction, window: {{tumble: 5s}}}}
    select: {{id: left.id, bidder: right.bidder}}
  regular:
    join: {{left: bid, right: auction, kind: left, match: left.auction = right.id, ttl: 10s}}
    select: {{auction: left.auction, bidder: left.bidder, seller: right.seller}}
  sessions: {{input: bid, key: [bidder], window: {{session: 5s}}, aggregate: {{bids: count(*), dearest: max(price)}}}}
  latest: {{input: bid, deduplicate: {{key: [bidder, auction], keep: last, ttl: 10s}}}}
  once: {{input: bid, deduplicate: {{key: [bidder, auction], keep: first, ttl: 10s}}}}
  best: {{input: bid, top: {{n: 3, by: [price desc], key: [auction], window: {{tumble: 5s}}, rank: place}}}}
  dearest: {{input: bid, top: {{n: 3, by: [price desc], key: [auction], ttl: 10s}}}}
  spent: {{input: bid, key: [bidder], aggregate: {{bids: count(*), most: max(price)}}, ttl: 10s}}
sinks:
  interval_out: {{type: blackhole, input: interval}}
  windowed_out: {{type: blackhole, input: windowed}}
  regular_out: {{type: blackhole, input: regular}}
  sessions_out: {{type: blackhole, input: sessions}}
  latest_out: {{type: blackhole, input: latest}}
  once_out: {{type: blackhole, input: once}}
  best_out: {{type: blackhole, input: best}}
  dearest_out: {{type: blackhole, input: dearest}}
  spent_out: {{type: blackhole, input: spent}}
"""


def run(directory: Path, minutes: float, parallelism: int) -> list[Sample]:
    """The job for so long; what it took now and then."""
    file = directory / "pipeline.yaml"
    file.write_text(_PIPELINE.format(parallelism=parallelism))
    job = Job(directory, file)
    samples: list[Sample] = []
    began_s = time.monotonic()
    shown_s = 0.0
    try:
        while (passed_s := time.monotonic() - began_s) < 60 * minutes:
            time.sleep(_SAMPLE_S)
            assert job.alive(), job.log()
            samples.append(sample(job, directory))
            if passed_s - shown_s >= _SHOW_S:
                shown_s = passed_s
                told = (f"{name} {samples[-1][name]:.0f} {limit.unit}".strip() for name, limit in LIMITS.items())
                print(f"{passed_s:7.0f} s  {', '.join(told)}", flush=True)
        assert job.stop() == 0, job.log()
        return samples
    finally:
        if job.alive():
            job.kill()


def main() -> None:
    """Run; exit code 1 when something grows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--parallelism", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="streamproc-endless-") as name:
        samples = run(Path(name), options.minutes, options.parallelism)
    found = growth(samples)
    for figure, (before, after, too_much) in found.items():
        verdict = "GROWS" if too_much else "steady"
        print(f"{figure:<22} {before:8.1f} → {after:8.1f} {LIMITS[figure].unit:<3} {verdict}")
    raise SystemExit(any(too_much for _, _, too_much in found.values()))


if __name__ == "__main__":
    main()
