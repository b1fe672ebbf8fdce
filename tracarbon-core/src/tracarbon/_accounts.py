"""What each device has used: joules, and the seconds that they cover, since the meter was opened."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from tracarbon.hardwares.energy import Band, Device, DeviceUsage, Fidelity, Scope

_ROUNDING_SECONDS = 1e-3


@dataclass(slots=True, eq=False)
class Source:
    """A sensor as the meter knows it.

    Attributes:
        order: its place in the file; of equals, the first wins.
        has_host: whether it has given a figure of the whole host besides those of the components.
        max_gap_seconds: the trapezoidal rule bridges no more than this between two instantaneous samples, but for what
            it takes to read them.
    """

    name: str
    order: int
    scope: Scope
    fidelity: Fidelity
    max_gap_seconds: float
    method: str | None = None
    has_host: bool = False


@dataclass(slots=True, eq=False)
class Account:
    """The energy of one device of one sensor.

    Attributes:
        missed: how many windows in a row closed without a reading.
        closed_seconds: what `seconds` was when a window was closed.
    """

    source: Source
    device: Device
    joules: float = 0.0
    seconds: float = 0.0
    low_joules: float = 0.0
    high_joules: float = 0.0
    missed: int = 0
    closed_seconds: float = 0.0
    sample: tuple[float, DeviceUsage] | None = None

    @property
    def fidelity(self) -> Fidelity:
        """How good its figures are."""
        return self.device.fidelity or self.source.fidelity

    @property
    def method(self) -> str | None:
        """How its figures are obtained."""
        return self.device.method or self.source.method

    def add(self, reading: DeviceUsage, at: float, opened_at: float, took_seconds: float = 0.0) -> bool:
        """Add a reading taken at the monotonic second `at`; what it covers from before `opened_at` is not ours.

        A sensor that takes long to answer cannot be read as often as it ought to: more is bridged.

        Returns whether its figures can be true: one that is negative or no number would spoil all that come after.
        """
        seconds = reading.window_seconds
        if not 0.0 <= reading.watts < math.inf or (seconds is not None and not 0.0 < seconds < math.inf):
            return False
        if seconds is None:
            self._integrate(reading, at, opened_at, self.source.max_gap_seconds + 2 * took_seconds)
        elif at - seconds >= opened_at - _ROUNDING_SECONDS:
            self._book(reading.watts, seconds, reading.band)
        return True

    def close(self) -> None:
        """Note that a window was closed."""
        self.missed = 0 if self.seconds > self.closed_seconds else self.missed + 1
        self.closed_seconds = self.seconds

    def _integrate(self, reading: DeviceUsage, at: float, opened_at: float, max_gap_seconds: float) -> None:
        previous, self.sample = self.sample, (at, reading)
        if previous is None or previous[0] < opened_at:
            return
        earlier_at, earlier = previous
        seconds = at - earlier_at
        if 0 < seconds <= max_gap_seconds:
            self._book((earlier.watts + reading.watts) / 2, seconds, _mean_band(earlier.band, reading.band))

    def _book(self, watts: float, seconds: float, band: Band | None) -> None:
        joules = watts * seconds
        self.joules += joules
        self.seconds += seconds
        self.low_joules += joules if band is None else band.low * seconds
        self.high_joules += joules if band is None else band.high * seconds


def _mean_band(one: Band | None, other: Band | None) -> Band | None:
    if one is None or other is None:
        return None
    return Band((one.low + other.low) / 2, (one.high + other.high) / 2)


Balance: TypeAlias = tuple[float, float, float, float]
"""Joules, seconds, low joules and high joules: what an account stood at when a window was closed, or what it gained
between two closings. A plain tuple, since one is made for each device, window and generator."""


@dataclass(frozen=True, slots=True, eq=False)
class Closing:
    """Where every account stood when a window was closed, by the account's index."""

    at: float
    wall_time: float
    balances: Sequence[Balance] = ()

    @classmethod
    def of(cls, accounts: Iterable[Account], at: float, wall_time: float) -> Closing:
        """Note where the accounts stand."""
        balances = [(account.joules, account.seconds, account.low_joules, account.high_joules) for account in accounts]
        return cls(at, wall_time, balances)

    def gains_since(self, start: Closing) -> list[Balance]:
        """Return what each account gained since `start`; an account that was opened later began with nothing."""
        gains = [
            (joules - joules_before, seconds - seconds_before, low - low_before, high - high_before)
            for (joules_before, seconds_before, low_before, high_before), (joules, seconds, low, high) in zip(
                start.balances, self.balances, strict=False
            )
        ]
        return [*gains, *self.balances[len(gains) :]]
