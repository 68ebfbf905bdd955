"""A `streamproc serve` process of its own under a folder, and its command line; a killed one can be started again."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

_START_S = 60.0
_STOP_S = 60.0
_COMMAND_S = 120.0


class Service:
    """`options` are those of `serve`, whose last may name a configuration file in `folder`; ports are free ones. The
    token in the environment, where there is one, is shown."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._folder = folder
        self._options = options
        self._port, self._metrics_port = _free_ports(2)
        self._log = folder / "service.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def folder(self) -> Path:
        """Where it works: its own directory is below, and paths in its files are relative to this."""
        return self._folder

    @property
    def url(self) -> str:
        """Of the API."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def metrics_address(self) -> str:
        """`host:port` of metrics and health."""
        return f"127.0.0.1:{self._metrics_port}"

    @property
    def pid(self) -> int:
        """Of the process."""
        assert self._process is not None, "not started"
        return self._process.pid

    def start(self, *, crash: str | None = None) -> None:
        """Start it (again) and wait until it answers. `crash`: it kills itself the first time it comes by this point
        (of tests.integration.crashing)."""
        program = ["-m", "streamproc"] if crash is None else ["-m", "tests.integration.crashing", crash, "1"]
        command = [sys.executable, *program, "serve", *self._options]
        command += ["--port", str(self._port), "--metrics-port", str(self._metrics_port)]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, cwd=self._folder, env=environment, stdout=log, stderr=log)
        self.until(self._answers, _START_S)

    def kill(self) -> None:
        """kill -9; does nothing where it does not run."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    close = kill

    def died(self) -> None:
        """Wait until it has killed itself."""
        assert self._process is not None, "not started"
        assert self._process.wait(_STOP_S) == -signal.SIGKILL, self.log()
        self._process = None

    def stop(self) -> int:
        """SIGTERM; gives the exit code."""
        assert self._process is not None, "not started"
        self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(_STOP_S)
        self._process = None
        return code

    def do(self, *arguments: object) -> str:
        """A command of the command line, from the folder; gives what it printed, fails where it does."""
        command = [sys.executable, "-m", "streamproc", *map(str, arguments)]
        environment = {**os.environ, "STREAMPROC_URL": self.url}
        done = subprocess.run(
            command, cwd=self._folder, env=environment, capture_output=True, text=True, timeout=_COMMAND_S, check=False
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}\n{self.log()}"
        return done.stdout

    def get(self, path: str) -> Any:
        """What the API answers."""
        return json.loads(self._read(f"{self.url}{path}"))

    def metrics(self) -> str:
        """What Prometheus reads."""
        return self._read(f"http://127.0.0.1:{self._metrics_port}/metrics")

    def log(self) -> str:
        """All it has said."""
        return self._log.read_text(errors="replace")

    def until(self, condition: Callable[[], object], timeout_s: float = 90.0) -> None:
        """Until `condition` holds; fails when the service ends before that."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert self._process is not None, "not started"
            assert self._process.poll() is None, f"it ended with {self._process.returncode}:\n{self.log()}"
            assert time.monotonic() < deadline, f"not in time:\n{self.log()[-8000:]}"
            time.sleep(0.1)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            self._read(f"http://127.0.0.1:{self._metrics_port}/healthz")
            return True
        return False

    def _read(self, url: str) -> str:
        request = urllib.request.Request(url)
        if token := os.environ.get("STREAMPROC_TOKEN"):
            request.add_header("Authorization", f"Bearer {token}")
        with urllib.request.urlopen(request, timeout=30) as answer:
            text: str = answer.read().decode()
        return text


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
