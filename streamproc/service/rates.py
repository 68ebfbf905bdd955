"""Rows a second over the last ten seconds or so, and how long each checkpoint took: what one look cannot tell."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from typing import Final

from streamproc.observability.facts import JobFacts
from streamproc.observability.rates import RateWindow
from streamproc.observability.status import JobStatus
from streamproc.service.views import CheckpointView

SAMPLE_EVERY_S: Final = 2.0  # a look at the facts of a pipeline costs a quarter of a millisecond
_SAMPLES: Final = 6
_CHECKPOINTS_REMEMBERED: Final = 200


class Samples:
    """Fed with a look every `SAMPLE_EVERY_S`."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int, int]] = deque(maxlen=_SAMPLES)  # time, rows in, rows out
        self.nodes = RateWindow()  # the same for each node and edge
        self._took: OrderedDict[int, tuple[float | None, float | None]] = OrderedDict()

    def look(self, now_s: float, status: JobStatus, facts: JobFacts | None) -> None:
        """Take a sample; `now_s` of a steady clock."""
        self.nodes.sample(facts)
        self._samples.append((now_s, status.records_in, status.records_out))
        if status.checkpoint is not None and status.checkpoint_duration_s is not None:
            self._took[status.checkpoint] = (status.checkpoint_duration_s, status.checkpoint_alignment_s)
            while len(self._took) > _CHECKPOINTS_REMEMBERED:
                self._took.popitem(last=False)

    def per_second(self) -> tuple[float, float]:
        """Rows in and out."""
        if len(self._samples) < 2:
            return 0.0, 0.0
        (began, rows_in, rows_out), (ended, more_in, more_out) = self._samples[0], self._samples[-1]
        seconds = ended - began
        return max(0.0, (more_in - rows_in) / seconds), max(0.0, (more_out - rows_out) / seconds)

    def with_durations(self, views: Iterable[CheckpointView]) -> Iterator[CheckpointView]:
        """The same checkpoints, with how long they took where that was seen."""
        for view in views:
            duration, alignment = self._took.get(view.id, (None, None))
            yield view.model_copy(update={"duration_seconds": duration, "alignment_seconds": alignment})
