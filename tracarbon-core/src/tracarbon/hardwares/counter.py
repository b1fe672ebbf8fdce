"""From the readings of an energy counter to joules: wraps, resets and gaps."""

from __future__ import annotations

import math
from typing import NamedTuple

_PLAUSIBLE_FACTOR = 2.0
"""Bursts of twice the published or the highest seen power are believed."""
_CEILING_WATTS = 10_000.0
"""No single counted device draws more; beyond it a jump forward is garbage, not energy."""
_UPDATE_SECONDS = 0.1
"""Counters stand still between updates, of RAPL for a millisecond, of a graphics card for up to this long: two readings
may have the energy of so much more time between them, and what lies closer together says nothing of the power."""


class EnergyDelta(NamedTuple):
    """Energy between two readings of a counter."""

    joules: float
    seconds: float

    @property
    def watts(self) -> float:
        """The mean power in between."""
        return self.joules / self.seconds


class EnergyCounter:
    """Follows one cumulative energy counter.

    The first reading opens a window. A reading that fails is simply not passed in: the next one covers the gap. A
    counter that went back has wrapped only if the power this implies is plausible (the device's published maximum, or
    what its own history allows), else it was reset, and the window up to this reading is lost.

    Args:
        counts_per_joule: the counter's unit, 1e6 for microjoules.
        range_counts: where the counter wraps; `None` where it does not, or where that is unknown.
        max_watts: the published maximum power of the device, if there is one.
    """

    __slots__ = (
        "_at",
        "_believable_watts",
        "_counts",
        "_counts_per_joule",
        "_forward_watts",
        "_highest_watts",
        "_max_watts",
        "_range_counts",
        "_unambiguous_seconds",
        "lost",
    )

    def __init__(
        self, *, counts_per_joule: float, range_counts: int | None = None, max_watts: float | None = None
    ) -> None:
        self._counts_per_joule = counts_per_joule
        self._range_counts = range_counts
        self._max_watts = max_watts or 0.0
        self._counts = 0
        self._at: float | None = None
        self.lost: str | None = None
        self._learn(0.0)

    def update(self, counts: int, at: float) -> EnergyDelta | None:
        """Take a reading of `counts` at the monotonic second `at` and return the energy since the previous one.

        Returns `None` for the first reading, and where the window is lost; `lost` then says why.
        """
        previous, previous_at = self._counts, self._at
        self.lost = None
        if previous_at is not None and at <= previous_at:
            return None
        self._counts, self._at = counts, at
        if previous_at is None:
            return None
        seconds = at - previous_at
        if counts >= previous:
            return self._forward((counts - previous) / self._counts_per_joule, seconds)
        return self._backward(previous, counts, seconds)

    def _forward(self, joules: float, seconds: float) -> EnergyDelta | None:
        if joules > self._forward_watts * (seconds + _UPDATE_SECONDS):
            self.lost = f"the counter jumped by {joules:.0f} J in {seconds:.3g} s"
            return None
        if seconds > self._unambiguous_seconds:
            self.lost = f"not read for {seconds:.0f} s, in which it may have wrapped unseen"
            return None
        watts = joules / seconds
        if watts > self._highest_watts and seconds >= _UPDATE_SECONDS:
            self._learn(watts)
        return EnergyDelta(joules, seconds)

    def _backward(self, previous: int, counts: int, seconds: float) -> EnergyDelta | None:
        if self._range_counts is not None and 0 <= counts <= previous <= self._range_counts:
            joules = (self._range_counts - previous + counts) / self._counts_per_joule
            limit = self._believable_watts * (seconds + _UPDATE_SECONDS)
            if joules <= limit and seconds <= self._unambiguous_seconds:
                # Nothing is learnt from it: a reset taken for a wrap would have the next one taken for a wrap too.
                return EnergyDelta(joules, seconds)
        self.lost = "the counter was reset"
        return None

    def _learn(self, highest_watts: float) -> None:
        """Note the highest power seen, and what follows from it."""
        self._highest_watts = highest_watts
        known_watts = max(self._max_watts, highest_watts)
        self._believable_watts = min(_CEILING_WATTS, _PLAUSIBLE_FACTOR * known_watts)
        # Without a published limit, a jump forward may be the first load that this device has ever seen.
        self._forward_watts = self._believable_watts if self._max_watts else _CEILING_WATTS
        self._unambiguous_seconds = math.inf
        if self._range_counts is not None and known_watts > 0:
            self._unambiguous_seconds = self._range_counts / self._counts_per_joule / known_watts
