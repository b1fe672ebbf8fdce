"""A clock that tests turn by hand."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import TracebackType
from typing import Self, TypeAlias

import anyio
from anyio.lowlevel import checkpoint

from tracarbon._clock import Deadline

_ROUNDS = 40
"""Rounds of the event loop after which everything that an alarm set off has come to rest."""

_Alarm: TypeAlias = tuple[float, int, Callable[[], object]]


class ManualClock:
    """A clock that stands still until a test turns it, in a pipeline as everywhere else that takes a clock.

    Args:
        monotonic: what it shows at first.
        wall: the seconds since the epoch that it shows at first.
    """

    def __init__(self, monotonic: float = 1000.0, wall: float = 1_700_000_000.0) -> None:
        self._now = monotonic
        self._wall_offset = wall - monotonic
        self._alarms: list[_Alarm] = []
        self._numbers = itertools.count()

    def monotonic(self) -> float:
        """Seconds that only `advance` moves."""
        return self._now

    def time(self) -> float:
        """Seconds since the epoch."""
        return self._now + self._wall_offset

    def step_wall(self, seconds: float) -> None:
        """Put the wall clock forward or back, as an administrator would."""
        self._wall_offset += seconds

    def elapse(self, seconds: float) -> None:
        """Let time pass without waking anybody: a call that takes long, or blocks."""
        self._now += seconds

    async def sleep_until(self, instant: float) -> None:
        """Sleep until `advance` passes `instant`."""
        if instant <= self._now:
            await checkpoint()
            return
        woken = anyio.Event()
        self._alarm(instant, woken.set)
        await woken.wait()

    @contextmanager
    def timeout(self, seconds: float) -> Generator[anyio.CancelScope, None, None]:
        """Leave the block when `advance` passes its deadline."""
        with anyio.CancelScope() as scope:
            alarm = None
            if seconds <= 0:
                scope.cancel()
            else:
                alarm = self._alarm(self._now + seconds, scope.cancel)
            try:
                yield scope
            finally:
                self._silence(alarm)

    def deadline(self) -> Deadline:
        """Return a scope whose deadline can be set again and again."""
        return _ManualDeadline(self)

    async def advance(self, seconds: float) -> None:
        """Let `seconds` pass: wake everybody in the order of their alarms, one after another."""
        end = self._now + seconds
        await self._rest()
        while self._alarms and self._alarms[0][0] <= end:
            instant, _, wake = heapq.heappop(self._alarms)
            self._now = max(self._now, instant)
            wake()
            await self._rest()
        self._now = max(self._now, end)
        await self._rest()

    def _alarm(self, instant: float, wake: Callable[[], object]) -> _Alarm:
        alarm = (instant, next(self._numbers), wake)
        heapq.heappush(self._alarms, alarm)
        return alarm

    def _silence(self, alarm: _Alarm | None) -> None:
        self._alarms = [entry for entry in self._alarms if entry is not alarm]
        heapq.heapify(self._alarms)

    @staticmethod
    async def _rest() -> None:
        for _ in range(_ROUNDS):
            await checkpoint()


class SleeplessClock(ManualClock):
    """A manual clock on which nobody waits: whoever sleeps turns it to the instant at which it wants to be woken."""

    async def sleep_until(self, instant: float) -> None:
        """Turn the clock to `instant`, and return."""
        self._now = max(self._now, instant)
        await checkpoint()


class _ManualDeadline:
    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self._scope = anyio.CancelScope()
        self._alarm: _Alarm | None = None

    def __enter__(self) -> Self:
        self._scope.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        self.disarm()
        return bool(self._scope.__exit__(kind, error, traceback))

    def arm(self, seconds: float) -> None:
        self.disarm()
        self._alarm = self._clock._alarm(self._clock.monotonic() + seconds, self._scope.cancel)

    def disarm(self) -> None:
        if self._alarm is not None:
            self._clock._silence(self._alarm)
            self._alarm = None
