"""From what the counters of a chip stand at, to watts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from tracarbon.hardwares.counter import EnergyCounter
from tracarbon.hardwares.energy import Device, DeviceUsage, EnergyUsage, Fidelity, Scope, UsageType

from tracarbon_sensor_macos._channels import Count

__all__ = ["Counters"]

_STANDSTILL_SECONDS = 60.0

_ALWAYS_AT_WORK = ("cpu", "memory")
"""While this program runs, they draw power: a counter of theirs that stands still is not up to date."""

_USAGE_TYPES = {
    "cpu": UsageType.CPU,
    "gpu": UsageType.GPU,
    "memory": UsageType.MEMORY,
    # the neural engine is no processor of the four components: it counts for the host alone
    "ane": UsageType.HOST,
}


class _Slot:
    """One counter, and the device that it stands for.

    Attributes:
        counts: what it stood at when its energy was last taken.
        at: the second when that was.
        has_moved: whether it was ever seen to count.
        stood_still: whether a reading found it as the one before had, while it had never been seen to move.
    """

    def __init__(self, count: Count, fidelity: Fidelity) -> None:
        usage_type = _USAGE_TYPES[count.component]
        self.key, self.label, self.component = count.key, count.label, count.component
        self.device = Device(count.label, usage_type, Scope.HOST, fidelity=fidelity)
        self.detail = Device(count.label, usage_type, Scope.DETAIL, fidelity=fidelity)
        self._counts_per_joule = count.counts_per_joule
        self.counter = EnergyCounter(counts_per_joule=count.counts_per_joule)
        self.counts, self.at = count.counts, -math.inf
        self.has_moved = self.stood_still = False
        self._seen: int | None = None
        self._was_seen_moving = False

    def look(self, counts: int) -> bool:
        """Look at what it stands at; returns whether it moves for the first time, after it has stood still."""
        seen, self._seen = self._seen, counts
        if self._was_seen_moving or seen is None:
            return False
        self._was_seen_moving = counts != seen
        self.stood_still = self.stood_still or counts == seen
        return self._was_seen_moving and self.stood_still

    def begin(self, counts: int, at: float) -> None:
        """Count from here on, whatever was before."""
        self.counter = EnergyCounter(counts_per_joule=self._counts_per_joule)
        self.counter.update(counts, at)
        self.counts, self.at = counts, at
        self.has_moved = self.has_moved or self._was_seen_moving

    def seconds_still(self, counts: int, at: float) -> float:
        """For how long it has stood still; 0 if it has moved, or was not read before."""
        return at - self.at if counts == self.counts and self.at > -math.inf else 0.0

    def take(self, counts: int, at: float, *, is_detail: bool) -> DeviceUsage | None:
        """Take the energy since it was last taken; `None` where there is none yet, or where it is lost."""
        if at <= self.at:
            return None
        self.has_moved = self.has_moved or counts != self.counts
        delta = self.counter.update(counts, at)
        self.counts, self.at = counts, at
        if delta is None:
            return None
        return DeviceUsage(self.detail if is_detail else self.device, delta.watts, delta.seconds)


class Counters:
    """Follows the counters of a chip: from what they stand at, to watts.

    A counter that stands still says nothing by itself: of an A18 Pro the processors' stands at 0 for ever, of an M5
    Ultra all those in millijoules move once in half an hour, and a neural engine that nobody uses has none to count.
    The processors' tell these apart. Processors that run this code do draw power, so:

    - Where the processors' counter stands still, none is being brought up to date: nothing is taken, and the reading
      in which it moves has the energy of all the time since. No figure is 0 meanwhile; they are unknown.
    - Where it has never moved for a minute, it will not: the others are taken as detail, and the host is unknown.
    - Where it moves, the graphics and the neural engine draw nothing if their counter stands still, provided that it
      was seen to count before; else they are unknown. Memory always draws something.

    What a counter stands at first may be of long before, and its first move then has energy of that time in it. Of one
    that moves between the first two readings it is not. One of the processors or of memory that stands still first, and
    moves later, is counted from that move on; of the processors, all the others are, too.

    Args:
        fidelity: of its devices.

    Attributes:
        lacks_host: whether the processors' counter does not count at all, as far as is known.
    """

    def __init__(self, fidelity: Fidelity) -> None:
        self._fidelity = fidelity
        self._slots: dict[str, _Slot] = {}
        self.lacks_host = False

    def read(self, counts: Sequence[Count], at: float) -> EnergyUsage:
        """Return the mean watts since the previous reading; what is not known is named in `problems`."""
        pairs = [(self._slot(count), count.counts) for count in counts]
        if beginning := self._begin(pairs, at):
            return EnergyUsage(problems=beginning)
        still = [slot for slot, count in pairs if slot.component == "cpu" and slot.seconds_still(count, at) > 0]
        if not still:
            self.lacks_host = False
            return self._taken(pairs, at, is_detail=False, problems=[])
        problems = _standing_still(still, at)
        self.lacks_host = bool(problems) and not any(slot.has_moved for slot in still)
        if self.lacks_host:
            pairs = [(slot, count) for slot, count in pairs if slot.component != "cpu"]
            return self._taken(pairs, at, is_detail=True, problems=problems)
        return EnergyUsage(problems=problems)

    def _begin(self, pairs: Sequence[tuple[_Slot, int]], at: float) -> list[str]:
        """Begin at the first move of those that stood still before; where the processors are of these, names them."""
        moving = [(slot, counts) for slot, counts in pairs if slot.look(counts) and slot.component in _ALWAYS_AT_WORK]
        names = [slot.label for slot, _ in moving if slot.component == "cpu"]
        if names:
            self.lacks_host = False
            moving += [(slot, counts) for slot, counts in pairs if slot.component != "cpu"]
        for slot, counts in moving:
            slot.begin(counts, at)
        return [f"{name}: its energy counter moves seldom; it is counted from its first move on" for name in names]

    def _slot(self, count: Count) -> _Slot:
        """Return the slot of a counter; a counter that has begun anew has a new one."""
        slot = self._slots.get(count.label)
        if slot is None or slot.key != count.key:
            slot = self._slots[count.label] = _Slot(count, self._fidelity)
        return slot

    def _taken(
        self, pairs: Sequence[tuple[_Slot, int]], at: float, *, is_detail: bool, problems: list[str]
    ) -> EnergyUsage:
        devices: list[DeviceUsage] = []
        quiet: list[_Slot] = []
        for slot, counts in pairs:
            if slot.seconds_still(counts, at) > 0 and (slot.component == "memory" or not slot.has_moved):
                quiet.append(slot)
                continue
            usage = slot.take(counts, at, is_detail=is_detail)
            if usage is not None:
                devices.append(usage)
            elif slot.counter.lost is not None:
                problems.append(f"{slot.label}: {slot.counter.lost}; the energy of its window is lost")
        problems += _standing_still([slot for slot in quiet if slot.component == "memory"], at)
        return _usage(devices, [slot for slot, _ in pairs if slot not in quiet], problems)


def _standing_still(slots: Iterable[_Slot], at: float) -> list[str]:
    return [
        f"{slot.label}: its energy counter stands still for a minute or more; unknown until it counts"
        for slot in slots
        if at - slot.at >= _STANDSTILL_SECONDS
    ]


def _usage(devices: list[DeviceUsage], slots: Iterable[_Slot], problems: list[str]) -> EnergyUsage:
    """Add up the devices, for whoever reads without a meter: a component of which a part is missing is unknown."""
    watts = {reading.device.name: reading.watts for reading in devices}
    sums: dict[str, float | None] = {}
    for slot in slots:
        so_far, part = sums.get(slot.component, 0.0), watts.get(slot.label)
        sums[slot.component] = None if so_far is None or part is None else so_far + part
    known = [value for value in sums.values() if value is not None]
    is_host_known = sums.get("cpu") is not None and len(known) == len(sums)
    return EnergyUsage(
        host_energy_usage=sum(known) if is_host_known else None,
        cpu_energy_usage=sums.get("cpu"),
        memory_energy_usage=sums.get("memory"),
        gpu_energy_usage=sums.get("gpu"),
        window_seconds=devices[0].window_seconds if devices else None,
        devices=devices,
        problems=problems,
    )
