"""A pipeline run as users run it: the command line in a process of its own, which tests may kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from confluent_kafka import Consumer, TopicPartition

from tests.broker import Broker


class Job:
    """One process running `streamproc run FILE`."""

    def __init__(
        self,
        directory: Path,
        file: Path,
        *options: str,
        crash: tuple[str, int] | None = None,
        crash_signal: signal.Signals = signal.SIGKILL,
    ) -> None:
        program = (
            ["-m", "streamproc"] if crash is None else ["-m", "tests.integration.crashing", crash[0], str(crash[1])]
        )
        self._log = directory / f"run-{time.monotonic_ns()}.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, *program, "run", str(file), "--json", *options],
                cwd=directory,
                env={
                    **os.environ,
                    "PYTHONPATH": str(Path(__file__).parents[2]),
                    "CRASH_SIGNAL": str(int(crash_signal)),
                },
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def kill(self) -> None:
        """kill -9; harmless when it has ended."""
        self._process.kill()
        if self._process.stdout is not None and not self._process.stdout.closed:
            self._process.communicate()

    def stop(self, timeout_s: float = 40) -> int:
        """SIGTERM; the exit code."""
        self._process.send_signal(signal.SIGTERM)
        self._process.communicate(timeout=timeout_s)
        return self._process.returncode

    def wait(self, timeout_s: float = 60) -> dict[str, object]:
        """Until it ends by itself with exit code 0; what `--json` printed."""
        code, printed = self.wait_any(timeout_s)
        assert code == 0, f"exit code {code}:\n{self.log()}"
        result: dict[str, object] = json.loads(printed.strip().splitlines()[-1])
        return result

    def wait_any(self, timeout_s: float = 60) -> tuple[int, str]:
        """Until it ends by itself; exit code and standard output."""
        try:
            printed, _ = self._process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            raise AssertionError(f"still running after {timeout_s} s:\n{self.log()}") from None
        return self._process.returncode, printed

    def until(self, condition: Callable[[], object], timeout_s: float = 60) -> None:
        """Until `condition` holds, while the process runs."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert self.alive(), f"exit code {self._process.returncode}:\n{self.log()}"
            assert time.monotonic() < deadline, f"not within {timeout_s} s:\n{self.log()}"
            time.sleep(0.02)

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    @property
    def paused(self) -> bool:
        """Whether it is stopped now."""
        return os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT) is not None

    def pause(self) -> None:
        """SIGSTOP."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self._process.send_signal(signal.SIGCONT)

    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def log(self) -> str:
        """What it logged."""
        return self._log.read_text()[-6000:]


class Reader:
    """A read_committed consumer of some topics that runs all along, as a downstream service would."""

    def __init__(self, broker: Broker, take: Callable[[str, bytes], None], *topics: str) -> None:
        """`take` is called with the topic and the value of every record, on the reader's thread."""
        self._take = take
        self._consumer = Consumer(
            {
                "bootstrap.servers": broker.bootstrap,
                "group.id": f"reader-{time.monotonic_ns()}",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                "fetch.wait.max.ms": 20,
                "reconnect.backoff.max.ms": 1_000,
                "log_level": 0,
            }
        )
        partitions = [
            TopicPartition(topic, partition, 0)
            for topic in topics
            for partition in self._consumer.list_topics(topic, timeout=10).topics[topic].partitions
        ]
        self._consumer.assign(partitions)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopping.is_set():
            for message in self._consumer.consume(2000, 0.1):
                if message.error() is None:
                    topic, value = message.topic(), message.value()
                    assert topic is not None
                    assert value is not None
                    self._take(topic, value)

    def close(self) -> None:
        """Stop reading."""
        self._stopping.set()
        self._thread.join()
        self._consumer.close()
