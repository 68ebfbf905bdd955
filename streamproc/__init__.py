"""Stream processing in Python: YAML pipelines, event-time windows, RocksDB state, exactly-once on Kafka.

What is named here is what user code of `python` and `process` steps imports; the rest is no public API. It is
imported when first used: the command line's help needs none of it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from streamproc.functions.process import Context, ProcessFunction
    from streamproc.functions.state import ListState, MapState, ValueState

__version__ = "0.1.0"

__all__ = ["Context", "ListState", "MapState", "ProcessFunction", "ValueState", "__version__"]

_HOMES: Final = {
    "Context": "streamproc.functions.process",
    "ListState": "streamproc.functions.state",
    "MapState": "streamproc.functions.state",
    "ProcessFunction": "streamproc.functions.process",
    "ValueState": "streamproc.functions.state",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'streamproc' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
