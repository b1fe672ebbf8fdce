"""The one clock of a pipeline: everything that waits or dates asks it, so that tests can turn it by hand."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from typing import Protocol

import anyio


class Clock(Protocol):
    """A monotonic clock, the wall clock beside it, and the two ways of waiting."""

    def monotonic(self) -> float:
        """Seconds that never go back and stand still while the machine is suspended."""

    def time(self) -> float:
        """Seconds since the epoch, for labels only: it may jump."""

    async def sleep_until(self, instant: float) -> None:
        """Sleep until the monotonic `instant`; a checkpoint if it has passed."""

    def timeout(self, seconds: float) -> AbstractContextManager[anyio.CancelScope]:
        """Leave the block when `seconds` have passed; `cancelled_caught` of the scope tells."""


class SystemClock:
    """The machine's clocks. CLOCK_MONOTONIC of Linux does not count suspended time, so suspend is a gap, not energy."""

    monotonic = staticmethod(time.monotonic)
    time = staticmethod(time.time)

    async def sleep_until(self, instant: float) -> None:
        """Sleep until the monotonic `instant`."""
        await anyio.sleep(max(0.0, instant - time.monotonic()))

    def timeout(self, seconds: float) -> AbstractContextManager[anyio.CancelScope]:
        """Leave the block when `seconds` have passed."""
        return anyio.move_on_after(seconds)
