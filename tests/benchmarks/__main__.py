"""`make bench`: records a second and CPU µs per record, per pipeline and per stage.

    python -m tests.benchmarks [--rows 2000000] [--repeat 3] [--only q12] [--stages-only | --queries-only]

CPU per record is the process's CPU time less that of a run with nothing to do (both are shown), so that
it can be set beside the peers' "warm" figures. Run it on a quiet machine; compare within one run.
"""

from __future__ import annotations

import argparse

from tests.benchmarks import pipelines, queries, stages
from tests.broker import Broker, running


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", default="")
    parser.add_argument("--stages-only", action="store_true")
    parser.add_argument("--queries-only", action="store_true")
    options = parser.parse_args()

    if not options.queries_only:
        print("Stages, one thread, batches of 16,384 Nexmark bids:")
        for name, microseconds in stages.measure():
            print(f"  {name:<52} {microseconds:7.3f} µs CPU/record", flush=True)
    if options.stages_only:
        return

    with running() as kafka:
        if not options.queries_only:
            _measure_pipelines(kafka, options)
        _measure_queries(kafka, options)


def _measure_pipelines(kafka: Broker, options: argparse.Namespace) -> None:
    loaded = pipelines.load(kafka, options.rows)
    base = min((pipelines.start_up(kafka) for _ in range(2)), key=lambda m: m.cpu_s)
    print(f"\nPipelines, {options.rows:,} bids in 4 partitions of a real Kafka, best of {options.repeat}:")
    print(f"  start and end of a run with one record: {base.cpu_s:.2f} s CPU, {base.rss_mb} MB")
    print(f"  generating and producing the bids: {options.rows / loaded.wall_s:,.0f} records/s")
    for benchmark in pipelines.BENCHMARKS:
        if options.only not in benchmark.name:
            continue
        best = min((pipelines.measure(kafka, benchmark) for _ in range(options.repeat)), key=lambda m: m.cpu_s)
        assert best.records_in == options.rows, f"{best.records_in} records read"
        per_record = (best.cpu_s - base.cpu_s) / options.rows * 1e6
        print(
            f"  {benchmark.name:<42} {options.rows / best.wall_s:10,.0f} records/s"
            f" {per_record:7.2f} µs CPU/record  ({best.cpu_s:.2f} s CPU in all, {best.rss_mb} MB)",
            flush=True,
        )


def _measure_queries(kafka: Broker, options: argparse.Namespace) -> None:
    queries.load(kafka, options.rows)
    base = min((pipelines.start_up(kafka) for _ in range(2)), key=lambda m: m.cpu_s)
    print(f"\nNexmark queries as steps, {options.rows:,} events, to nowhere, best of {options.repeat}:")
    for query in queries.queries():
        if options.only not in query.name:
            continue
        best = min((queries.measure(kafka, query) for _ in range(options.repeat)), key=lambda m: m.cpu_s)
        per_record = (best.cpu_s - base.cpu_s) / best.records_in * 1e6
        flink = queries.FLINK_US.get(query.name)
        beside = f", Flink {flink}" if flink else ""
        print(
            f"  {query.name:<5} {best.records_in:>10,} records {best.records_in / best.wall_s:10,.0f} records/s"
            f" {per_record:7.2f} µs CPU/record{beside}  ({best.rss_mb} MB)",
            flush=True,
        )


if __name__ == "__main__":
    main()
