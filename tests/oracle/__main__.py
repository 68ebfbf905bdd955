"""Runs queries here and in Apache Flink on the same topics of a real Kafka, and compares the rows.

    make oracle                                             every Nexmark query, as SQL and as steps
    python -m tests.oracle --query q5,q8 --events 200000 --seed 7 --out-of-order 0,2500 --parallelism 1,2,4
    python -m tests.oracle --query path/to/mine.sql         any query over bid, auction and person
    python -m tests.oracle --query path/to/mine.sql --steps path/to/mine.yaml
    python -m tests.oracle --query all,extra --events 2000 --rate 50 --out-of-order 3000 --save tests/oracle/data
                                                            keeps the input and Flink's rows for `test_queries.py`

Exit 0 when all rows are equal, 1 when some are not, 2 when it cannot be run.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.broker import Broker, BrokerUnavailable, running
from tests.oracle.kept import save
from tests.oracle.peers import Peers, PeersMissing
from tests.oracle.pipelines import Query, known_queries, pipeline
from tests.oracle.rows import Result, difference, from_csv, from_messages

_ROOT = Path(__file__).parents[2]
_RUN_SECONDS_MAX = 600


def main() -> int:
    """See the module."""
    options = _options()
    try:
        peers = Peers(options.peers, options.cache)
        with tempfile.TemporaryDirectory(prefix="oracle-") as work, running() as broker:
            compared = list(_compare_all(options, peers, broker, Path(work)))
    except (PeersMissing, BrokerUnavailable) as problem:
        print(problem, file=sys.stderr)
        return 2
    failed = sum(map(bool, compared))
    print(f"\n{len(compared)} compared, {f'{failed} differ' if failed else 'all rows are equal'}")
    return 1 if failed or not compared else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--query", default="all", help="all, extra, names of known queries, or SQL files, with commas")
    parser.add_argument(
        "--steps", type=Path, action="append", default=[], help="a YAML of steps for the query alike named"
    )
    parser.add_argument("--form", choices=["sql", "steps", "both"], default="both")
    parser.add_argument("--events", type=int, default=50_000)
    parser.add_argument("--rate", type=int, default=1_000, help="events per second of event time")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out-of-order", default="0,3000", help="ms of disorder; each is a data set of its own")
    parser.add_argument("--parallelism", default="1,3")
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--save", type=Path, help="a folder for the input as Parquet and Flink's results as CSV")
    parser.add_argument("--peers", type=Path, default=Path(os.environ.get("PEERS", _ROOT.parent / "shared/peers")))
    parser.add_argument("--cache", type=Path, default=_ROOT / ".cache/oracle")
    return parser.parse_args()


def _chosen(options: argparse.Namespace) -> list[tuple[Query, list[Query]]]:
    """Each query in Flink's SQL, with the forms in which it runs here."""
    known = {query.name: query for query in known_queries("sql")}
    steps = {query.name: query for query in known_queries("steps")}
    steps |= {path.stem: Query(path.stem, path) for path in options.steps}
    extra = {query.name: query for query in known_queries("extra")}
    groups = {"all": list(known), "extra": list(extra)}
    names = [name for word in options.query.split(",") for name in groups.get(word, [word])]
    known |= extra
    chosen = []
    for name in names:
        sql = known.get(name) or Query(Path(name).stem, Path(name).resolve())
        forms = [sql] if options.form != "steps" else []
        if options.form != "sql" and sql.name in steps:
            forms.append(steps[sql.name])
        chosen.append((sql, forms))
    return chosen


def _compare_all(options: argparse.Namespace, peers: Peers, broker: Broker, work: Path) -> Iterator[str]:
    """Everything asked for; yields what differs, and an empty text for what does not."""
    chosen = _chosen(options)
    for out_of_order in map(int, options.out_of_order.split(",")):
        prefix = f"o{out_of_order}_"
        data = work / f"data-{out_of_order}"
        peers.generate(data, events=options.events, seed=options.seed, rate=options.rate, out_of_order_ms=out_of_order)
        peers.load(data, broker.bootstrap, prefix=prefix, partitions=options.partitions)
        results = work / f"flink-{out_of_order}"
        peers.flink([sql for sql, _ in chosen], broker.bootstrap, prefix=prefix, target=results)
        if options.save is not None:
            save(data, results, options.save)
        for sql, forms in chosen:
            flink = from_csv(results / f"{sql.name}.csv")
            for query in forms:
                for parallelism in map(int, options.parallelism.split(",")):
                    what = (
                        f"{query.name:<6} {query.form:<6} out of order {out_of_order:>5} ms  parallelism {parallelism}"
                    )
                    began = time.monotonic()
                    try:
                        ours = _run(query, broker, work, prefix, parallelism, flink.columns)
                        found = difference(flink, ours)
                    except subprocess.CalledProcessError as failure:
                        found = "it failed: " + failure.stderr.strip().rpartition("\n")[2]
                    taken = time.monotonic() - began
                    rows = flink.rows.total()
                    print(f"{what}  {'DIFFERS' if found else 'equal':<8} {rows:>8} rows {taken:5.1f} s", flush=True)
                    if found:
                        print(found, flush=True)
                    yield f"{what}: {found}" if found else ""


def _run(query: Query, broker: Broker, work: Path, prefix: str, parallelism: int, columns: tuple[str, ...]) -> Result:
    """One run of `streamproc run` to the end of its input."""
    topic = f"{query.name}-{query.form}-{prefix}{parallelism}".lower()
    broker.create_topic(topic, partitions=1)
    folder = work / topic
    folder.mkdir()
    job = {"parallelism": parallelism, "restart": {"strategy": "none"}}
    text = pipeline(query, brokers=broker.bootstrap, prefix=prefix, topic=topic, job=job)
    (folder / "pipeline.yaml").write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "streamproc", "run", "pipeline.yaml", "--checkpoints", "file:checkpoints"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=_RUN_SECONDS_MAX)
    shutil.rmtree(folder)
    return from_messages(broker.read(topic), columns, keyed=bool(query.key))


if __name__ == "__main__":
    sys.exit(main())
