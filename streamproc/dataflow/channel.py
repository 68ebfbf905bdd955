"""A bounded, ordered link from one subtask to another: a full channel stops its writer, nothing is dropped.

Bounds are in rows and bytes. An element larger than the bound is admitted when the channel is empty,
so that nothing can be too large to pass. Watermarks and barriers take no room.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from operators.element import Element, RecordBatch


class Channel:
    """Single writer, single reader, one event loop."""

    __slots__ = ("_bytes", "_bytes_max", "_elements", "_on_arrival", "_room", "_rows", "_rows_max")

    def __init__(self, rows_max: int, bytes_max: int) -> None:
        self._elements: deque[tuple[Element, int, int]] = deque()
        self._rows = 0
        self._bytes = 0
        self._rows_max = rows_max
        self._bytes_max = bytes_max
        self._room = asyncio.Event()
        self._room.set()
        self._on_arrival: Callable[[], None] = lambda: None

    def notify(self, on_arrival: Callable[[], None]) -> None:
        """Have `on_arrival` called at every element that comes in (the gate's wake-up)."""
        self._on_arrival = on_arrival

    @property
    def rows(self) -> int:
        """Rows waiting."""
        return self._rows

    @property
    def has_room(self) -> bool:
        """For another batch."""
        return self._room.is_set()

    async def wait_room(self) -> None:
        """Until there is room for another batch."""
        await self._room.wait()

    def put_nowait(self, element: Element) -> None:
        """Append; the caller has awaited `wait_room` (batches may overshoot the bound by one)."""
        rows = size = 0
        if isinstance(element, RecordBatch):
            rows, size = element.frame.height, int(element.frame.estimated_size())
        self._elements.append((element, rows, size))
        self._rows += rows
        self._bytes += size
        if self._rows >= self._rows_max or self._bytes >= self._bytes_max:
            self._room.clear()
        self._on_arrival()

    def get_nowait(self) -> Element | None:
        """The next element, or None."""
        if not self._elements:
            return None
        element, rows, size = self._elements.popleft()
        self._rows -= rows
        self._bytes -= size
        if self._rows < self._rows_max and self._bytes < self._bytes_max:
            self._room.set()
        return element
