"""`make chaos`: a job and its broker are killed, stopped and resumed at random for as long as is asked for.

    python -m tests.chaos [--minutes 10] [--seed N] [--rate 2000] [--operators | --service]

Orders are produced and read (read_committed) all along. Every order must be copied once, in its place, and
every window must be right: the reader checks each record when it comes, the rest is checked at the end.
After a while every fault is followed by a wait until the job has caught up; before that they may overlap.
With `--operators` it is instead a pipeline with every stateful operator, whose results are all compared at the end;
with `--service` a service, killed while it upgrades, rescales, stops and drains pipelines (tests.service_chaos).
Prints the seed, each fault and how far things are. On failure the folder with the job's logs is kept.
"""

from __future__ import annotations

import argparse
import random
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.broker import Broker, running
from tests.integration.job import Job
from tests.integration.operators_job import Operators
from tests.integration.orders import Orders
from tests.service_chaos import ServiceUnderFire

_CATCH_UP_S: Final = 120
_PARALLELISM_MAX: Final = 4


class Chaos:
    """One broker, one job at a time (and now and then its zombie), a steady producer."""

    def __init__(self, broker: Broker, directory: Path, seed: int, rate: int) -> None:
        self._random = random.Random(seed)
        self._broker = broker
        self._directory = directory
        self._rate = rate
        self._began_s = time.monotonic()
        self._parallelism = self._random.randint(1, _PARALLELISM_MAX)
        self._orders = Orders(
            broker,
            directory,
            f"chaos-{seed}",
            self._parallelism,
            restart="{strategy: backoff, initial: 100ms, max: 2s}",
        )
        self._job = Job(directory, self._orders.file)
        self._stopping = threading.Event()
        self._producing = threading.Thread(target=self._produce, daemon=True)
        self.faults: Counter[str] = Counter()

    def run(self, minutes: float) -> None:
        """Faults until the time is over, then the check of everything."""
        self._producing.start()
        faults: list[Callable[[], str]] = [
            self._kill_job,
            self._kill_job,
            self._stop_job,
            self._pause_job,
            self._leave_a_zombie,
            self._kill_broker,
            self._pause_broker,
        ]
        try:
            while time.monotonic() < self._began_s + 60 * minutes:
                time.sleep(self._random.uniform(0.2, 4.0))
                fault = self._random.choice(faults)
                told = fault()
                self.faults[fault.__name__.strip("_").replace("_", " ")] += 1
                self._say(told)
                self._look()
                if self._random.random() < 0.5:
                    self._catch_up()
            self._finish()
        finally:
            self._stopping.set()
            self._producing.join()
            self._orders.close()
            if self._job.alive():
                self._job.kill()

    # -- faults

    def _kill_job(self) -> str:
        self._job.kill()
        return f"job killed; {self._start()}"

    def _stop_job(self) -> str:
        began_s = time.monotonic()
        code = self._job.stop(60)
        assert code == 0, f"SIGTERM ended with {code}:\n{self._job.log()}"
        return f"job stopped within {time.monotonic() - began_s:.1f} s; {self._start()}"

    def _pause_job(self) -> str:
        pause_s = self._random.uniform(0.5, 8)
        self._job.pause()
        time.sleep(pause_s)
        self._job.resume()
        return f"job paused for {pause_s:.1f} s"

    def _leave_a_zombie(self) -> str:
        """The job hangs, another takes its place, then it wakes up: it must find out, and commit nothing."""
        self._catch_up()  # it has begun: one that hangs before would only come second, and win
        zombie = self._job
        zombie.pause()
        told = self._start()
        time.sleep(self._random.uniform(0.5, 6))
        zombie.resume()
        code, _ = zombie.wait_any(_CATCH_UP_S)
        assert code == 1, f"the zombie ended with {code}:\n{zombie.log()}"
        return f"job replaced while it hung; {told}"

    def _kill_broker(self) -> str:
        down_s = self._random.uniform(0, 6)
        self._broker.kill()
        time.sleep(down_s)
        self._broker.start()
        return f"broker killed, down for {down_s:.1f} s and its start"

    def _pause_broker(self) -> str:
        pause_s = self._random.uniform(0.5, 12)
        self._broker.pause()
        time.sleep(pause_s)
        self._broker.resume()
        return f"broker paused for {pause_s:.1f} s"

    # -- the rest

    def _start(self) -> str:
        if self._random.random() < 0.5:
            self._parallelism = self._random.randint(1, _PARALLELISM_MAX)
            self._orders.write(self._parallelism)
        self._job = Job(self._directory, self._orders.file)
        return f"started with parallelism {self._parallelism}"

    def _produce(self) -> None:
        while not self._stopping.is_set():
            self._orders.produce(self._rate // 20)
            time.sleep(0.05)

    def _look(self) -> None:
        if not self._job.alive():
            code, printed = self._job.wait_any()
            raise AssertionError(f"the job ended by itself with {code}: {printed}\n{self._job.log()}")
        self._orders.check_so_far()

    def _catch_up(self) -> None:
        """Liveness: what has been produced until now comes out."""
        count, began_s = self._orders.count, time.monotonic()
        while self._orders.ledger.copied < count:
            self._look()
            assert time.monotonic() - began_s < _CATCH_UP_S, (
                f"{self._orders.ledger.copied} of {count} orders came out in {_CATCH_UP_S} s:\n{self._job.log()}"
            )
            time.sleep(0.05)
        self._say(f"caught up within {time.monotonic() - began_s:.1f} s")

    def _finish(self) -> None:
        self._stopping.set()
        self._producing.join()
        self._orders.close_windows()
        self._job.stop()
        Job(self._directory, self._orders.file, "--until-idle").wait(_CATCH_UP_S)
        self._orders.check(_CATCH_UP_S)
        left = list((self._directory / ".streamproc" / "state").glob("*/run-*"))
        assert not left, f"local state was left behind: {left}"

    def _say(self, text: str) -> None:
        ledger = self._orders.ledger
        print(
            f"{time.monotonic() - self._began_s:7.1f} s  {self._orders.count:,} orders, {ledger.copied:,} copied, "
            f"{len(ledger.totals):,} windows  {text}",
            flush=True,
        )


class OperatorsUnderFire:
    """A pipeline with every stateful operator is killed or stopped, and goes on at another parallelism."""

    def __init__(self, broker: Broker, directory: Path, seed: int, rate: int) -> None:
        self._random = random.Random(seed)
        self._directory = directory
        self._rate = rate
        self._operators = Operators(broker, directory, f"chaos-operators-{seed}")
        self._stopping = threading.Event()
        self.faults: Counter[str] = Counter()

    def run(self, minutes: float) -> None:
        """Faults until the time is over, then the comparison."""
        until_s = time.monotonic() + 60 * minutes
        producing = threading.Thread(target=self._produce, daemon=True)
        producing.start()
        try:
            while time.monotonic() < until_s:
                self._once()
        finally:
            self._stopping.set()
            producing.join()
        self._operators.close_windows()
        self._write()
        Job(self._directory, self._operators.file, "--until-idle").wait(300 + 60 * minutes)
        self._operators.check()

    def _once(self) -> None:
        self._write()
        job = Job(self._directory, self._operators.file)
        try:
            time.sleep(self._random.uniform(1, 12))
            assert job.alive(), job.log()
            fault = self._random.choice(["kill", "stop"])
            if fault == "stop":
                assert job.stop(60) == 0, job.log()
        finally:
            job.kill()
        self.faults[fault] += 1
        print(f"{self._operators.count:,} orders and payments  {fault}", flush=True)

    def _write(self) -> None:
        max_rows = self._random.choice([500, 2_000, 16_384])
        self._operators.write(self._random.randint(1, _PARALLELISM_MAX), max_rows=max_rows)

    def _produce(self) -> None:
        while not self._stopping.wait(0.5):
            self._operators.produce(self._rate // 4)


def main() -> None:
    """Run; exit code 0 when everything came out once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument("--rate", type=int, default=2_000, help="orders a second")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--operators", action="store_true", help="the pipeline with every stateful operator")
    instead.add_argument("--service", action="store_true", help="a service, in the midst of its operations")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    directory = Path(tempfile.mkdtemp(prefix="streamproc-chaos-"))
    try:
        with running() as broker:
            scenario = ServiceUnderFire if options.service else OperatorsUnderFire if options.operators else Chaos
            chaos = scenario(broker, directory, options.seed, options.rate)
            chaos.run(options.minutes)
    except BaseException:
        print(f"the job's logs are in {directory}; again with --seed {options.seed}", flush=True)
        raise
    shutil.rmtree(directory)
    told = ", ".join(f"{count} × {fault}" for fault, count in chaos.faults.most_common())
    print(f"everything came out exactly once, over {told}")


if __name__ == "__main__":
    main()
