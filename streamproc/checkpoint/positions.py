"""Whether what connectors wrote into a checkpoint means anything to a source or a sink as it is now: pure.

A position is known by its shape and its split's name, which the connectors write: offsets of one topic say nothing
about another, bytes of a file of lines nothing about row groups. A file is known by its name below the folder: what
has been read of it stays read, wherever the folder is now.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Final

from operators.connector import Committable
from streamproc.pipeline.format_spec import ParquetFormat
from streamproc.pipeline.logical import LogicalSink, LogicalSource
from streamproc.pipeline.spec import DatagenSourceSpec, FileSinkSpec, FileSourceSpec, KafkaSinkSpec, KafkaSourceSpec

_MAGIC: Final = re.compile(r"[*?\[]")


def sample_splits(source: LogicalSource) -> Mapping[str, Any]:
    """Positions such as a checkpoint of this source holds them, where the real ones are not known yet."""
    match source.config:
        case KafkaSourceSpec(topic=topic):
            split, position = f"{topic}-0", {"offset": 0, "stop": None}
        case FileSourceSpec(format=ParquetFormat()):
            split, position = "file", {"row_group": 0, "row": 0}
        case FileSourceSpec():
            split, position = "file", {"offset": 0, "line": 0}
        case _:
            split, position = "generator-0", {"row": 0}
    return {split: {"position": position, "max_time": None, "finished": False}}


def misfit(source: LogicalSource, splits: Mapping[str, Any]) -> str | None:
    """Why `source` cannot go on from the positions of `splits`; None: it can."""
    for split, known in splits.items():
        position = known["position"]
        match source.config:
            case KafkaSourceSpec(topic=topic):
                if "stop" not in position:
                    return "they are not of a Kafka topic"
                if split.rpartition("-")[0] != topic:
                    return f"they are offsets of topic {split.rpartition('-')[0]}"
            case FileSourceSpec(path=path, format=form):
                lines = not isinstance(form, ParquetFormat)
                if position and not ({"offset", "line"} if lines else {"row_group", "row"}) <= position.keys():
                    return f"they are not of files of {'lines' if lines else 'row groups'}"
                if any(position.values()) and not position.get("done") and not _names(path, split):
                    return f"{split} has been read in part, and {path} does not name it"
            case DatagenSourceSpec():
                if not split.startswith("generator-") or "row" not in position:
                    return "they are not of generated rows"
    return None


def unfinishable(sink: LogicalSink, prepared: Sequence[Committable]) -> str | None:
    """Why `sink` cannot commit what was prepared; None: it can, or nobody knows. A prepared result is known by its
    shape. Another topic or folder changes nothing: it is committed where it was written. Whether other brokers are
    another cluster only they can tell."""
    for each in prepared:
        if "transactional_id" in each:
            if not isinstance(sink.config, KafkaSinkSpec):
                return "they are transactions of a Kafka cluster"
        elif "pending" in each and not isinstance(sink.config, FileSinkSpec):
            return "they are files that wait for their names"
    return None


def _names(path: str, split: str) -> bool:
    """Whether a file, known by its name below the folder, is one that `path` names."""
    steps = path.split("/")
    plain = next((at for at, step in enumerate(steps) if _MAGIC.search(step)), len(steps) - 1)
    pattern = steps[plain:]
    if "**" in pattern:
        return True  # folders without end: whether it is there is seen when it is looked for
    names = split.split("/")
    return len(names) == len(pattern) and all(map(fnmatchcase, names, pattern))
