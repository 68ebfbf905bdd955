"""The pipeline that runs one query here: Nexmark's three topics as sources, the query as SQL or as steps, a Kafka sink.

A query is a file of Flink SQL (`queries/qN.sql`, `extra/*.sql`, or one from elsewhere) or a YAML mapping of steps
(`steps/qN.yaml`). A line `-- key: a,b` (`# key: a,b` in YAML) says that the result is updated, and by which columns.
A file of steps may hold `sources:` beside its `steps:`; what the sink reads is the step called `result`, else the last.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

FOLDER: Final = Path(__file__).parent
_KEY: Final = re.compile(r"^(?:--|#)\s*key:\s*(.+)$", re.MULTILINE)
OUT_OF_ORDER: Final = "4s"  # as the watermarks of the peers' tables

_TABLES: Final[dict[str, dict[str, str]]] = {
    "bid": {
        "auction": "int64",
        "bidder": "int64",
        "price": "int64",
        "channel": "string",
        "url": "string",
        "dateTime": "timestamp_ms",
        "extra": "string",
    },
    "auction": {
        "id": "int64",
        "itemName": "string",
        "description": "string",
        "initialBid": "int64",
        "reserve": "int64",
        "dateTime": "timestamp_ms",
        "expires": "timestamp_ms",
        "seller": "int64",
        "category": "int64",
        "extra": "string",
    },
    "person": {
        "id": "int64",
        "name": "string",
        "emailAddress": "string",
        "creditCard": "string",
        "city": "string",
        "state": "string",
        "dateTime": "timestamp_ms",
        "extra": "string",
    },
}


@dataclass(frozen=True, slots=True)
class Query:
    """One query in one form."""

    name: str
    path: Path

    @property
    def form(self) -> str:
        """`sql` or `steps`."""
        return "sql" if self.path.suffix == ".sql" else "steps"

    @property
    def text(self) -> str:
        """The file's text."""
        return self.path.read_text(encoding="utf-8")

    @property
    def through_kafka(self) -> bool:
        """Whether Flink's result has to be read from an upsert sink."""
        return "\n-- sink: kafka\n" in self.text

    @property
    def key(self) -> tuple[str, ...]:
        """Columns by which the result is updated; none when it is append-only."""
        found = _KEY.search(self.text)
        return tuple(name.strip() for name in found[1].split(",")) if found else ()


def known_queries(form: str) -> list[Query]:
    """Nexmark's queries in one form, in the order of their numbers; `extra` are queries beside Nexmark's."""
    folder, ending = {"sql": ("queries", "sql"), "steps": ("steps", "yaml"), "extra": ("extra", "sql")}[form]
    paths = (FOLDER / folder).glob(f"*.{ending}")
    return [Query(path.stem, path) for path in sorted(paths, key=lambda path: (_number(path.stem), path.stem))]


def _number(name: str) -> int:
    return int("".join(filter(str.isdigit, name)) or 0)


def pipeline(query: Query, *, brokers: str, prefix: str, topic: str | None, job: dict[str, Any]) -> str:
    """The whole pipeline file from Kafka to Kafka, as YAML text; without a `topic` the result goes nowhere."""
    sources = {name: _topic(brokers, f"{prefix}{name}") for name in _TABLES}
    sink: dict[str, Any] = {"type": "blackhole"}
    if topic is not None:
        sink = {"type": "kafka", "brokers": [brokers], "topic": topic}
        if query.key:
            sink["key"] = list(query.key)
    return _document(query, sources, sink, job)


def file_pipeline(query: Query, *, data: Path, job: dict[str, Any]) -> str:
    """The same from files, `<data>/bid-*.parquet` and so on, to the terminal."""
    sources = {name: {"type": "file", "path": str(data / f"{name}-*.parquet"), "format": "parquet"} for name in _TABLES}
    return _document(query, sources, {"type": "print"}, job)


def _document(query: Query, sources: dict[str, dict[str, Any]], sink: dict[str, Any], job: dict[str, Any]) -> str:
    steps, more = _steps(query)
    sink = {**sink, "input": "result" if "result" in steps else list(steps)[-1]}
    document = {
        "version": 1,
        "pipeline": f"oracle-{query.name}".lower().replace("_", "-"),
        "job": job,
        "sources": {name: _table(name) | source for name, source in sources.items()} | more,
        "steps": steps,
        "sinks": {"out": sink},
    }
    return yaml.safe_dump(document, sort_keys=False, width=10_000)


def _topic(brokers: str, topic: str) -> dict[str, Any]:
    return {"type": "kafka", "brokers": [brokers], "topic": topic, "stop": "latest"}


def _table(name: str) -> dict[str, Any]:
    return {"schema": _TABLES[name], "event_time": {"column": "dateTime", "out_of_order": OUT_OF_ORDER}}


def _steps(query: Query) -> tuple[dict[str, Any], dict[str, Any]]:
    if query.form == "sql":
        text = "\n".join(line for line in query.text.splitlines() if not line.startswith("--")).strip().rstrip(";")
        return {"result": {"sql": text}}, {}
    written = yaml.safe_load(query.text)
    return written["steps"], written.get("sources", {})
