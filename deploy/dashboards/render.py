"""Dashboards → files. The same code gives the same bytes: a difference in review is one in a dashboard."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard

from deploy.dashboards import checkpoints, kafka, overview, pipeline

DIRECTORY: Final = Path(__file__).parent.parent / "grafana" / "dashboards"
DASHBOARDS: Final[Mapping[str, Callable[[], dashboard.Dashboard]]] = {
    "overview.json": overview.build,
    "pipeline.json": pipeline.build,
    "checkpoints.json": checkpoints.build,
    "kafka.json": kafka.build,
}


def rendered() -> dict[str, str]:
    """File name → JSON."""
    return {
        name: json.dumps(build(), cls=JSONEncoder, indent=2, ensure_ascii=False, sort_keys=True) + "\n"
        for name, build in DASHBOARDS.items()
    }


def write_all() -> list[Path]:
    """Write every file; what else is in the folder and is JSON goes."""
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    texts = rendered()
    for stale in DIRECTORY.glob("*.json"):
        if stale.name not in texts:
            stale.unlink()
    for name, text in texts.items():
        (DIRECTORY / name).write_text(text, encoding="utf-8")
    return [DIRECTORY / name for name in texts]
