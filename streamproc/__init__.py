"""Stream processing in Python: YAML pipelines, event-time windows, RocksDB state, exactly-once on Kafka.

What is named here is what user code of `python` and `process` steps imports; the rest is no public API.
"""

__version__ = "0.1.0"

from streamproc.functions.process import Context, ProcessFunction
from streamproc.functions.state import ListState, MapState, ValueState

__all__ = ["Context", "ListState", "MapState", "ProcessFunction", "ValueState", "__version__"]
