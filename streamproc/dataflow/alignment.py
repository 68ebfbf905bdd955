"""What several input channels together mean: the watermark they agree on, the barrier all have reached.

Both are pure: elements in, a decision out.
"""

from __future__ import annotations

from dataclasses import dataclass

from operators.element import WATERMARK_MAX, WATERMARK_MIN, CheckpointId, EventTimeMs, Watermark


class WatermarkValve:
    """The minimum over live channels; it never goes back. Idle while every channel is idle: then the maximum."""

    def __init__(self, channels: int) -> None:
        self._times = [WATERMARK_MIN] * channels
        self._idle = [False] * channels
        self.current = Watermark(WATERMARK_MIN)

    def advance(self, channel: int, watermark: Watermark) -> Watermark | None:
        """Take a channel's watermark; the combined one if it changed."""
        self._times[channel] = EventTimeMs(max(self._times[channel], watermark.time))
        self._idle[channel] = watermark.idle
        live = [time for time, idle in zip(self._times, self._idle, strict=True) if not idle]
        # Where all are idle none holds another back; the order in which they became so must not matter.
        time = max(self.current.time, min(live) if live else max(self._times))
        combined = Watermark(EventTimeMs(time), idle=not live)
        if combined == self.current:
            return None
        self.current = combined
        return combined

    def channels(self) -> list[Watermark]:
        """What each channel has brought."""
        return [Watermark(time, idle) for time, idle in zip(self._times, self._idle, strict=True)]

    def others(self, channel: int) -> EventTimeMs:
        """The minimum over the other live channels: what they allow a row of `channel` at most."""
        return min(
            (t for i, t in enumerate(self._times) if i != channel and not self._idle[i]),
            default=WATERMARK_MAX,
        )


@dataclass(frozen=True, slots=True)
class Aligned:
    """Every channel has delivered the barrier of this checkpoint."""

    checkpoint: CheckpointId


class BarrierAligner:
    """Holds back channels that have delivered a barrier until all have.

    Barriers come in the same order on every channel (sources emit each exactly once), so a channel that
    is held back can only be ahead, never on another checkpoint.
    """

    def __init__(self, channels: int) -> None:
        self._channels = channels
        self._arrived: set[int] = set()
        self._checkpoint: CheckpointId | None = None

    @property
    def held_back(self) -> frozenset[int]:
        """Channels not to be read now."""
        return frozenset(self._arrived)

    def on_barrier(self, channel: int, checkpoint: CheckpointId) -> Aligned | None:
        """A barrier came on `channel`."""
        if self._checkpoint is None:
            self._checkpoint = checkpoint
        if checkpoint != self._checkpoint or channel in self._arrived:
            raise AssertionError(
                f"barrier {checkpoint} on channel {channel} while aligning {self._checkpoint}: one overtook the other"
            )
        self._arrived.add(channel)
        if len(self._arrived) < self._channels:
            return None
        self._arrived.clear()
        self._checkpoint = None
        return Aligned(checkpoint)
