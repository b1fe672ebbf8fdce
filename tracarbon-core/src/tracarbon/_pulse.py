"""When a pipeline ticked, for whoever watches over it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Pulse:
    """The ticks of one pipeline, which alone writes it.

    Attributes:
        interval_seconds: how often a tick is due.
        ticks: how many there were.
        skipped_ticks: how many were skipped because the one before them took too long.
        last_tick_at: monotonic seconds of the last one, by the pipeline's clock; `None` before the first.
        tick_seconds: how long all ticks together took: asking every sensor, and closing the window.
    """

    interval_seconds: float = 60.0
    ticks: int = 0
    skipped_ticks: int = 0
    last_tick_at: float | None = None
    tick_seconds: float = 0.0
