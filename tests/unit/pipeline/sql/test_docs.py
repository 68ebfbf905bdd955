"""The example of the documentation is a pipeline."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from streamproc.pipeline.planner import load_pipeline

_PAGE = Path(__file__).parents[4] / "docs/sql.md"


def test_the_example_is_planned(tmp_path: Path) -> None:
    found = re.search(r"```yaml\n(.*?)```", _PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    document: dict[str, Any] = {
        "version": 1,
        "pipeline": "example",
        "sources": {"bid": {"type": "datagen", "table": "bid", "event_time": {"column": "dateTime"}}},
        **yaml.safe_load(found[1]),
        "sinks": {
            "hot_out": {"type": "blackhole", "input": "hot"},
            "last_out": {"type": "blackhole", "input": "last_bid"},
        },
    }
    path = tmp_path / "example.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")

    graph = load_pipeline(path)

    assert set(graph.steps) == {"hot", "last_bid"}
