"""A real Prometheus in a folder of its own, told at run time what to scrape, with alerts as shipped or quickened."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

ALERTS = Path(__file__).parent.parent / "deploy" / "prometheus" / "alerts.yml"
SCRAPE_S = 1
_START_TIMEOUT_S = 30.0
_DURATION = re.compile(r"^(\d+)(ms|s|m|h)$")
_SPAN = re.compile(r"(\[|\boffset )(\d+(?:ms|s|m|h))")  # of a range, or back in time
_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}


class NoPrometheus(RuntimeError):
    """None can be had here; the message says why."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One series of an answer, without the metric's name, and its newest value."""

    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class Alert:
    """An alert that is pending or firing."""

    name: str
    state: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str] = field(default_factory=dict)


class Prometheus:
    """The process's HTTP API."""

    def __init__(self, url: str, directory: Path) -> None:
        self.url = url
        self._directory = directory

    def scrape(self, job: str, *targets: str) -> None:
        """From now on these (`host:port`) are what is scraped, as this job. Prometheus sees the file change."""
        told = self._directory / "targets.json"
        fresh = told.with_suffix(".fresh")
        fresh.write_text(json.dumps([{"targets": targets, "labels": {"job": job}}]))
        fresh.replace(told)

    def query(self, expression: str) -> list[Sample]:
        """What the expression gives now. An expression that Prometheus refuses is an AssertionError with its words."""
        answer = self._get("query", query=expression)
        if answer["resultType"] == "scalar":
            return [Sample({}, float(answer["result"][1]))]
        return [
            Sample({k: v for k, v in one["metric"].items() if k != "__name__"}, float(one["value"][1]))
            for one in answer["result"]
        ]

    def range(self, expression: str, seconds: float, step_s: float = 1.0) -> list[Sample]:
        """As a graph asks: every series within the last `seconds`, each with its last value that is a number."""
        now = time.time()
        answer = self._get("query_range", query=expression, start=now - seconds, end=now, step=step_s)
        found = []
        for one in answer["result"]:
            values = [number for _, text in one["values"] if not math.isnan(number := float(text))]
            if values:
                found.append(Sample({k: v for k, v in one["metric"].items() if k != "__name__"}, values[-1]))
        return found

    def alerts(self, state: str = "firing") -> list[Alert]:
        """Those in this state."""
        return [
            Alert(one["labels"]["alertname"], one["state"], one["labels"], one["annotations"])
            for one in self._get("alerts")["alerts"]
            if one["state"] == state
        ]

    def rules(self) -> list[dict[str, Any]]:
        """Groups of rules, with their health."""
        groups: list[dict[str, Any]] = self._get("rules")["groups"]
        return groups

    def until(self, condition: Callable[[Prometheus], object], timeout_s: float = 60.0, *, what: str) -> None:
        """Wait for it; AssertionError after `timeout_s`, saying `what` was waited for and what alerts."""
        deadline = time.monotonic() + timeout_s
        while not condition(self):
            alerts = [(alert.name, alert.state) for alert in (*self.alerts("pending"), *self.alerts())]
            assert time.monotonic() < deadline, f"{what}: not within {timeout_s:.0f} s; alerts: {alerts}"
            time.sleep(0.2)

    def _get(self, what: str, **parameters: object) -> dict[str, Any]:
        query = urllib.parse.urlencode(parameters)
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{what}?{query}", timeout=30) as answer:
                found: dict[str, Any] = json.load(answer)["data"]
                return found
        except urllib.error.HTTPError as refused:
            with refused:
                raise AssertionError(f"{parameters}: {json.load(refused).get('error')}") from None


def rules(faster: float = 1.0) -> dict[str, Any]:
    """The alerts that we ship; `faster`: each `for` and each range so many times shorter, and looked at every second.
    Limits stay as they are, those in seconds too."""
    shipped: dict[str, Any] = yaml.safe_load(ALERTS.read_text())
    if faster != 1.0:

        def shortened(match: re.Match[str]) -> str:
            return f"{match[1]}{max(1, round(_milliseconds(match[2]) / faster))}ms"

        for group in shipped["groups"]:
            group["interval"] = "1s"
            for rule in group["rules"]:
                rule["expr"] = _SPAN.sub(shortened, rule["expr"])
                if "for" in rule:
                    rule["for"] = f"{max(1, round(_milliseconds(rule['for']) / faster))}ms"
    return shipped


def _milliseconds(duration: str) -> int:
    match = _DURATION.match(duration)
    assert match, duration
    return int(match[1]) * _MS[match[2]]


@contextmanager
def running(alerts: Mapping[str, Any] | None = None, scrape_s: int = SCRAPE_S) -> Iterator[Prometheus]:
    """A Prometheus that is ready, with these rules. Raises NoPrometheus."""
    binary = shutil.which("prometheus")
    if binary is None:
        raise NoPrometheus("prometheus is not on the path")
    with tempfile.TemporaryDirectory(prefix="streamproc-prometheus-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        (directory / "targets.json").write_text("[]")
        if alerts is not None:
            (directory / "alerts.yml").write_text(yaml.safe_dump(dict(alerts)))
        (directory / "prometheus.yml").write_text(yaml.safe_dump(_config(scrape_s, alerts is not None)))
        port = _free_port()
        log = directory / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [
                    binary,
                    f"--config.file={directory / 'prometheus.yml'}",
                    f"--storage.tsdb.path={directory / 'tsdb'}",
                    f"--web.listen-address=127.0.0.1:{port}",
                    "--log.level=warn",
                ],
                cwd=directory,
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        try:
            _wait_ready(process, f"http://127.0.0.1:{port}", log)
            yield Prometheus(f"http://127.0.0.1:{port}", directory)
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _config(scrape_s: int, with_alerts: bool) -> dict[str, Any]:
    scrape: dict[str, Any] = {"job_name": "streamproc", "file_sd_configs": [{"files": ["targets.json"]}]}
    interval = f"{scrape_s}s"
    config: dict[str, Any] = {
        "global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval},
        "scrape_configs": [scrape],
    }
    return config | ({"rule_files": ["alerts.yml"]} if with_alerts else {})


def _wait_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while True:
        if process.poll() is not None:
            raise NoPrometheus(f"prometheus ended with {process.returncode}: {log.read_text()[-2000:]}")
        with suppress(OSError), urllib.request.urlopen(f"{url}/-/ready", timeout=2) as answer:
            if answer.status == 200:
                return
        if time.monotonic() > deadline:
            process.kill()
            raise NoPrometheus(f"prometheus was not ready within {_START_TIMEOUT_S:.0f} s")
        time.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run promtool. Without it the test is skipped; on CI it fails."""
    binary = shutil.which("promtool")
    if binary is None:
        _skip_or_fail(NoPrometheus("promtool is not on the path"))
    return subprocess.run([str(binary), *arguments], capture_output=True, text=True, check=False, timeout=120)


def _skip_or_fail(missing: NoPrometheus) -> None:
    if os.environ.get("CI") == "true":
        raise missing
    pytest.skip(f"no Prometheus: {missing}")


@contextmanager
def running_or_skipped(alerts: Mapping[str, Any] | None = None) -> Iterator[Prometheus]:
    """For fixtures: `running`; without Prometheus the test is skipped, on CI it fails."""
    try:
        with running(alerts) as prometheus:
            yield prometheus
    except NoPrometheus as missing:
        _skip_or_fail(missing)


def labelled(samples: Sequence[Sample], label: str) -> set[str]:
    """The values of a label."""
    return {sample.labels[label] for sample in samples if label in sample.labels}
