"""How busy the processors were, from the kernel's counters: differences give means, and no snapshot."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import psutil


def cpu_seconds() -> tuple[float, float]:
    """Return the seconds that all processors were busy, and the seconds that there were.

    Waiting for a disk is idle; what a hypervisor took away (steal) was spent by others.
    """
    times = psutil.cpu_times()._asdict()
    for part in ("guest", "guest_nice"):  # contained in user and nice
        times.pop(part, None)
    total = sum(times.values())
    return total - sum(times.get(name, 0.0) for name in ("idle", "iowait", "steal")), total


def utilisation(before: tuple[float, float], after: tuple[float, float]) -> float | None:
    """Return the mean load between two readings of `cpu_seconds`, from 0 to 1; `None` where no time has passed."""
    capacity = after[1] - before[1]
    if capacity <= 0:
        return None
    return min(1.0, max(0.0, (after[0] - before[0]) / capacity))


class MeanLoad(NamedTuple):
    """The mean load of all processors over a time.

    Attributes:
        load: from 0 to 1.
        seconds: of the time.
    """

    load: float
    seconds: float


class CpuLoad:
    """The mean load of all processors from one reading to the next.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._previous: tuple[tuple[float, float], float] | None = None
        self._load = 0.0

    def read(self) -> MeanLoad | None:
        """Return the mean load since the previous call; the first call opens the time and returns `None`.

        Counters move in steps of some milliseconds: where they have not moved, the load is still what it was.
        """
        counted, at = cpu_seconds(), self._clock()
        previous, self._previous = self._previous, (counted, at)
        if previous is None or at <= previous[1]:
            return None
        load = utilisation(previous[0], counted)
        if load is not None:
            self._load = load
        return MeanLoad(self._load, at - previous[1])
