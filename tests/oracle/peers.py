"""Apache Flink as the oracle: the peers' folder copied, built once, and run on the topics of a real broker."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.oracle.pipelines import Query

_BUILT: Final = "flink/runner.jar"


class PeersMissing(RuntimeError):
    """Flink cannot be had here; the message says why."""


class Peers:
    """A working copy of the peers' folder."""

    def __init__(self, original: Path, cache: Path) -> None:
        """`original`: the folder as given, left as it is. `cache`: where the copy is kept between runs."""
        if not (original / "flink_run.py").exists():
            raise PeersMissing(f"there is no flink_run.py in {original}: name the peers' folder with --peers")
        self._folder = cache / "peers"
        if not self._folder.exists():
            shutil.copytree(original, self._folder)
        if not (self._folder / _BUILT).exists():
            if shutil.which("mvn") is None or shutil.which("javac") is None:
                raise PeersMissing("building Flink's runner needs a JDK and Maven")
            subprocess.run([self._folder / "flink/build.sh"], check=True, stdout=subprocess.DEVNULL)

    def generate(self, target: Path, *, events: int, seed: int, rate: int, out_of_order_ms: int) -> None:
        """Nexmark events as JSON lines in `target`."""
        options = ["--events", events, "--seed", seed, "--rate", rate, "--out", target]
        if out_of_order_ms:
            options += ["--ooo-ms", out_of_order_ms]
        self._run("gen.py", options)

    def load(self, source: Path, brokers: str, *, prefix: str, partitions: int) -> None:
        """Into topics `<prefix>bid`, `…auction`, `…person`. Bids are keyed by auction: where two tie in time or
        price the earlier arrival counts, and only within a partition is that the same for everybody."""
        common = ["--bootstrap", brokers, "--dir", source, "--partitions", partitions, "--prefix", prefix]
        self._run("load.py", [*common, "--topics", "bid", "--key", "auction"])
        self._run("load.py", [*common, "--topics", "auction,person"])

    def flink(self, queries: Sequence[Query], brokers: str, *, prefix: str, target: Path) -> None:
        """Run queries in Flink; each result goes to `target`/NAME.csv.

        One that says so goes through an upsert sink: what Flink collects of a top 1 without its rank (q9) lacks
        the rows it takes back.
        """
        target.mkdir(parents=True, exist_ok=True)
        for through_kafka in (False, True):
            paths = [query.path for query in queries if query.through_kafka == through_kafka]
            if not paths:
                continue
            files = ",".join(map(str, paths))
            dump = target if len(paths) > 1 else target / f"{paths[0].stem}.csv"
            options = ["--query", files, "--bootstrap", brokers, "--prefix", prefix, "--dump", dump]
            self._run("flink_run.py", [*options, "--sink", "kafka"] if through_kafka else options)

    def _run(self, script: str, options: Sequence[object]) -> None:
        command = [sys.executable, str(self._folder / script), *map(str, options)]
        done = subprocess.run(
            command, capture_output=True, text=True, env=os.environ | {"PYTHONWARNINGS": "ignore"}, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{script} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
