"""From the readings of an energy counter to joules: wraps, resets and gaps."""

from __future__ import annotations

from typing import NamedTuple

_PLAUSIBLE_FACTOR = 2.0
"""Bursts of twice the published or the highest seen power are believed."""
_CEILING_WATTS = 10_000.0
"""No single counted device draws more; beyond it a jump forward is garbage, not energy."""


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

    __slots__ = ("_at", "_counts", "_counts_per_joule", "_highest_watts", "_max_watts", "_range_counts", "lost")

    def __init__(
        self, *, counts_per_joule: float, range_counts: int | None = None, max_watts: float | None = None
    ) -> None:
        self._counts_per_joule = counts_per_joule
        self._range_counts = range_counts
        self._max_watts = max_watts or 0.0
        self._highest_watts = 0.0
        self._counts = 0
        self._at: float | None = None
        self.lost: str | None = None

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
        watts = joules / seconds
        if watts > _CEILING_WATTS or (self._max_watts and watts > self._believable_watts):
            self.lost = f"the counter jumped by {joules:.0f} J in {seconds:.3g} s"
            return None
        if self._may_have_wrapped(seconds):
            self.lost = f"not read for {seconds:.0f} s, in which it may have wrapped unseen"
            return None
        self._highest_watts = max(self._highest_watts, watts)
        return EnergyDelta(joules, seconds)

    def _backward(self, previous: int, counts: int, seconds: float) -> EnergyDelta | None:
        if self._range_counts is None or not counts <= previous <= self._range_counts:
            self.lost = "the counter was reset"
            return None
        joules = (self._range_counts - previous + counts) / self._counts_per_joule
        watts = joules / seconds
        if watts > self._believable_watts or self._may_have_wrapped(seconds):
            self.lost = "the counter was reset"
            return None
        self._highest_watts = max(self._highest_watts, watts)
        return EnergyDelta(joules, seconds)

    @property
    def _believable_watts(self) -> float:
        return min(_CEILING_WATTS, _PLAUSIBLE_FACTOR * max(self._max_watts, self._highest_watts))

    def _may_have_wrapped(self, seconds: float) -> bool:
        if self._range_counts is None:
            return False
        return seconds * max(self._max_watts, self._highest_watts) > self._range_counts / self._counts_per_joule
