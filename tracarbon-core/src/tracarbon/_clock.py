"""The one clock of a pipeline: everything that waits or dates asks it, so that tests can turn it by hand."""

from __future__ import annotations

import math
import time
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Protocol, Self

import anyio


class Clock(Protocol):
    """A monotonic clock, the wall clock beside it, and the two ways of waiting."""

    def monotonic(self) -> float:
        """Seconds that never go back and stand still while the machine is suspended."""

    def time(self) -> float:
        """Seconds since the epoch, for labels and for dates that others give; no energy goes by it: it may jump."""

    async def sleep_until(self, instant: float) -> None:
        """Sleep until the monotonic `instant`; a checkpoint if it has passed."""

    def timeout(self, seconds: float) -> AbstractContextManager[anyio.CancelScope]:
        """Leave the block when `seconds` have passed; `cancelled_caught` of the scope tells."""

    def deadline(self) -> Deadline:
        """Return a scope whose deadline can be set again and again."""


class Deadline(Protocol):
    """A scope that is left when its deadline passes; set anew for each call, it is cheaper than many scopes."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool: ...

    def arm(self, seconds: float) -> None:
        """Leave the scope in so many seconds."""

    def disarm(self) -> None:
        """Do not leave it after all."""


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

    def deadline(self) -> Deadline:
        """Return a scope whose deadline can be set again and again."""
        return _SystemDeadline()


class _SystemDeadline:
    def __init__(self) -> None:
        self._scope = anyio.CancelScope()

    def __enter__(self) -> Self:
        self._scope.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        return bool(self._scope.__exit__(kind, error, traceback))

    def arm(self, seconds: float) -> None:
        self._scope.deadline = anyio.current_time() + seconds

    def disarm(self) -> None:
        self._scope.deadline = math.inf
