"""The documentation is true: commands of the guide run in order, examples are valid, tables are the code's.

A fenced block of the guide that begins with `# file: NAME` is a file. A `sh` block is run by bash; its info
string may say `exit=N`. A `text` or `json` block after it is what it prints, among other lines.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pytest
import typer.main
from typer.core import TyperGroup

import streamproc
from operators.element import Schema
from operators.expression import ExpressionError, compile_scalar
from operators.expression.functions import FUNCTIONS
from operators.expression.functions.registry import REFUSED
from operators.expression.nodes import AGGREGATES
from operators.expression.nodes.conditional import CONDITIONAL_FUNCTIONS
from operators.types import TYPE_NAMES
from streamproc.cli import app
from streamproc.observability.metric_table import metric_table
from streamproc.pipeline.planner import check_pipeline
from streamproc.service.config import ServiceConfig
from streamproc.service.config_file import load_service_config
from tests.broker import Broker

ROOT = Path(streamproc.__file__).parent.parent
DOCS = ROOT / "docs"
GUIDE = DOCS / "getting-started.md"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
ENVIRONMENT = {"BROKERS": "kafka-1:9092,kafka-2:9092", "KAFKA_PASSWORD": "swordfish"}

_FENCE = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_FILE = re.compile(r"# file: (\S+)\n")
_BROKER = "127.0.0.1:9092"
_METRICS_PORT = "9464"
_BLOCK_S = 180.0  # a block; each command of it is a process that has to start


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block: ```` ```language extras ````."""

    language: str
    extras: tuple[str, ...]
    text: str
    place: str  # file:line

    @property
    def file(self) -> str | None:
        """The name of the file it is, if it is one."""
        match = _FILE.match(self.text)
        return match[1] if match else None

    @property
    def exit_code(self) -> int:
        """What the commands end with."""
        return next((int(extra[5:]) for extra in self.extras if extra.startswith("exit=")), 0)


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    return [
        Block(match[1], tuple(match[2].split()), match[3], f"{page.name}:{text.count(chr(10), 0, match.start()) + 1}")
        for match in _FENCE.finditer(text)
    ]


class Shell:
    """Runs blocks in one folder; what they leave running ends with `close`."""

    def __init__(self, folder: Path, replacements: Mapping[str, str], environment: Mapping[str, str]) -> None:
        self._folder = folder
        self._replacements = replacements
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self._environment = {**os.environ, **environment, "PATH": path}
        self._sessions: list[int] = []
        self._printed = ""

    def do(self, block: Block) -> None:
        """Write a file, run commands, or compare with what the last commands printed."""
        text = block.text
        for written, meant in self._replacements.items():
            text = text.replace(written, meant)
        if block.file is not None:
            comments = block.file.endswith((".yaml", ".sh"))
            (self._folder / block.file).write_text(text if comments else text.partition("\n")[2])
        elif block.language == "sh":
            self._run(block, text)
        elif block.language in ("text", "json"):
            for line in text.splitlines():
                assert line in self._printed.splitlines(), f"{block.place}: {line!r} is not in\n{self._printed}"

    def _run(self, block: Block, text: str) -> None:
        output = self._folder / "block.out"
        with output.open("w") as out:  # a file, not a pipe: what runs on in the background would keep a pipe open
            process = subprocess.Popen(
                ["bash", "-euo", "pipefail", "-c", text],
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._sessions.append(process.pid)
            code = process.wait(_BLOCK_S)
        self._printed = output.read_text()
        assert code == block.exit_code, f"{block.place} ended with {code}:\n{self._printed}"

    def close(self) -> None:
        """Kill what still runs."""
        for session in self._sessions:
            with suppress(ProcessLookupError):
                os.killpg(session, signal.SIGKILL)


@contextmanager
def shell(folder: Path, replacements: Mapping[str, str], **environment: str) -> Iterator[Shell]:
    running = Shell(folder, replacements, environment)
    try:
        yield running
    finally:
        running.close()


class Guide(NamedTuple):
    """Its blocks: without Kafka, with it (the first starts the broker), with what compose has started."""

    files: list[Block]
    kafka: list[Block]
    compose: list[Block]


def parts_of_the_guide() -> Guide:
    every = blocks(GUIDE)
    kafka, compose = (
        next(i for i, block in enumerate(every) if word in block.extras) for word in ("broker", "compose")
    )
    return Guide(every[:kafka], every[kafka:compose], [block for block in every[compose:] if block.language != "text"])


@contextmanager
def on_free_ports(folder: Path) -> Iterator[Shell]:
    """A shell in which the service listens on ports that are free, and the command line asks it there."""
    port, metrics_port = str(free_port()), str(free_port())
    replacements = {
        "streamproc serve": f"streamproc serve --port {port} --metrics-port {metrics_port}",
        "http://127.0.0.1:8080": f"http://127.0.0.1:{port}",
        "https://127.0.0.1:8443": f"https://127.0.0.1:{port}",
        f"http://127.0.0.1:{_METRICS_PORT}": f"http://127.0.0.1:{metrics_port}",
    }
    with shell(folder, replacements, STREAMPROC_URL=f"http://127.0.0.1:{port}") as running:
        yield running


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.mark.timeout(600)
def test_the_guide_from_file_to_file(tmp_path: Path) -> None:
    with on_free_ports(tmp_path) as running:
        for block in parts_of_the_guide().files:
            running.do(block)


def test_the_guide_with_kafka(kafka: Broker, tmp_path: Path) -> None:
    broker, *commands = parts_of_the_guide().kafka
    for topic, partitions in re.findall(r"--topic (\S+):(\d+)", broker.text):
        kafka.create_topic(topic, int(partitions))
    with shell(tmp_path, {_BROKER: kafka.bootstrap, _METRICS_PORT: str(free_port())}) as running:
        for block in commands:
            running.do(block)


def pages_with_commands() -> list[Path]:
    """All but the guide, which has parts."""
    return [page for page in DOCS.glob("*.md") if page != GUIDE and any(b.language == "sh" for b in blocks(page))]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", pages_with_commands(), ids=lambda page: page.name)
def test_the_commands_of_a_page(page: Path, tmp_path: Path) -> None:
    with on_free_ports(tmp_path) as running:
        for block in blocks(page):
            running.do(block)


def test_the_configuration_of_the_service_is_valid_and_described(tmp_path: Path) -> None:
    page = DOCS / "service.md"
    (example,) = (block for block in blocks(page) if block.text.startswith("# service\n"))
    (tmp_path / "service.yaml").write_text(example.text)
    environment = {"DEPLOY_TOKEN": "at-least-sixteen-characters"}
    assert load_service_config(tmp_path / "service.yaml", environment=environment).warnings == ()
    for field in ServiceConfig.model_fields:
        assert f"| `{field}" in page.read_text(), field


def example_pipelines() -> Iterator[Block]:
    for page in PAGES:
        for block in blocks(page):
            is_example = block.text.startswith("# pipeline\n") or (block.file or "").endswith(".yaml")
            if block.language == "yaml" and is_example and block.file != "mistakes.yaml":
                yield block


@pytest.mark.parametrize("block", list(example_pipelines()), ids=lambda block: block.place)
def test_every_example_is_valid(block: Block, tmp_path: Path) -> None:
    file = tmp_path / "pipeline.yaml"
    file.write_text(block.text)
    _, faults = check_pipeline(file, environment=ENVIRONMENT)
    assert [str(fault) for fault in faults] == []


def test_every_yaml_block_of_the_reference_is_an_example() -> None:
    plain = [block.place for block in blocks(DOCS / "pipelines.md") if block.language == "yaml"]
    assert plain == [block.place for block in example_pipelines() if block.place.startswith("pipelines.md")]


SCHEMA: Schema = {
    "i": pl.Int64(),
    "small": pl.Int32(),
    "x": pl.Float64(),
    "price": pl.Decimal(10, 2),
    "name": pl.String(),
    "nothing": pl.Int64(),
    "at": pl.Datetime("us", "UTC"),
    "tags": pl.List(pl.String()),
    "place": pl.Struct({"city": pl.String()}),
}
ROW: dict[str, Any] = {
    "i": 7,
    "small": 7,
    "x": 2.5,
    "price": Decimal("1.50"),
    "name": "Ada",
    "nothing": None,
    "at": datetime(2026, 1, 31, 12, 34, 56, 789000, tzinfo=UTC),
    "tags": ["a", "b"],
    "place": {"city": "Paris"},
}


def shown(value: object) -> str:
    """A value as the documentation writes it."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case str():
            return f"'{value}'"
        case datetime():
            return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        case date():
            return value.isoformat()
        case _:
            return str(value)


def value_of(expression: str) -> str:
    """What an expression comes to for `ROW`."""
    try:
        compiled = compile_scalar(expression, SCHEMA)
    except ExpressionError:
        return "refused"
    try:
        return shown(pl.DataFrame([ROW], schema=SCHEMA).select(compiled.expr).item())
    except pl.exceptions.PolarsError:
        return "fails"


def test_expressions_come_to_what_the_reference_says() -> None:
    lines = [
        line
        for block in blocks(DOCS / "pipelines.md")
        if block.language == "sql"
        for line in block.text.splitlines()
        if line.strip()
    ]
    assert len(lines) > 40
    for line in lines:
        expression, _, value = line.rpartition(" -- ")
        assert (expression.strip(), value_of(expression.strip())) == (expression.strip(), value.strip())


def test_the_reference_names_every_function_and_type() -> None:
    named = set(re.findall(r"`([^`\n]+)`", (DOCS / "pipelines.md").read_text()))
    functions = {name.partition("(")[0] for name in named}
    assert {*FUNCTIONS, *CONDITIONAL_FUNCTIONS, *AGGREGATES, "log", "now", "random"} <= functions
    assert {"log", "now", "random"} <= REFUSED.keys()
    assert set(TYPE_NAMES) <= named


def test_the_table_of_metrics_is_the_codes() -> None:
    assert metric_table() in (DOCS / "operations.md").read_text()


def test_every_option_and_command_is_described() -> None:
    text = (DOCS / "operations.md").read_text()
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    for name, command in group.commands.items():
        assert f"`streamproc {name}" in text, name
        for parameter in command.params:
            for option in parameter.opts:
                if option.startswith("--") and option != "--help":
                    assert f"`{option}" in text, f"{name} {option}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text) + re.findall(r'(?:src|srcset)="([^":]+)"', text):
        assert (page.parent / target).exists(), target
