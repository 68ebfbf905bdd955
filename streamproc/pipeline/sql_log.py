"""Faults of the steps that a query became, told where the query says it."""

from __future__ import annotations

from collections.abc import Mapping

from streamproc.pipeline.document import FieldPath
from streamproc.pipeline.faults import Fault, FaultLog


class SqlFaultLog(FaultLog):
    """Stands before the log of a file: what is at a path of a translated step is recorded at its place in the
    query, once for each place."""

    def __init__(self, log: FaultLog, query: FieldPath) -> None:
        """`query`: the path of the query's text in the file."""
        self.document = log.document
        self._log = log
        self._query = query
        self._places: dict[FieldPath, int] = {}

    def add_step(self, path: FieldPath, places: Mapping[tuple[str, ...], int]) -> None:
        """`places`: offsets in the query of what stands in the step at `path`."""
        self._places |= {(*path, *inside): offset for inside, offset in places.items()}

    def error(
        self, path: FieldPath, message: str, hint: str | None = None, *, at_key: bool = False, offset: int | None = None
    ) -> None:
        """See `FaultLog.error`; `offset` counts in a text that the query does not have."""
        self._log.error(self._query, message, hint, offset=self._offset_of(path))

    def warning(self, path: FieldPath, message: str, hint: str | None = None, *, at_key: bool = True) -> None:
        """See `FaultLog.warning`."""
        self._log.warning(self._query, message, hint)

    @property
    def failed(self) -> bool:
        """See `FaultLog.failed`."""
        return self._log.failed

    def faults(self) -> list[Fault]:
        """See `FaultLog.faults`."""
        return self._log.faults()

    def _offset_of(self, path: FieldPath) -> int:
        """Of the nearest thing around `path` that has a place."""
        while path:
            if path in self._places:
                return self._places[path]
            path = path[:-1]
        return 0
