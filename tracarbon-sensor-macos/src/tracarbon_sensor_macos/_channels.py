"""Which channels of the group "Energy Model" make up which component, and what they count in.

There are hundreds: cores inside clusters inside the sums, each in its own unit. Only the sums are wanted, and of
several ways to sum one thing the broadest: `CPU Energy`, else `DIE_0_CPU Energy` and `DIE_1_CPU Energy` of an Ultra;
`ANE`, else `ANE0`, else `ANE0_0` and `ANE0_1`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

_COUNTS_PER_JOULE = {"J": 1.0, "mJ": 1e3, "uJ": 1e6, "µJ": 1e6, "μJ": 1e6, "nJ": 1e9, "pJ": 1e12}
"""Micro is written with the sign U+00B5 or the Greek letter U+03BC."""
_COMPONENTS = {"CPU": "cpu", "GPU": "gpu", "ANE": "ane", "DRAM": "memory"}
_NAME = re.compile(
    r"(?:DIE_(?P<die>\d+)_)?(?P<base>CPU|GPU|ANE|DRAM)(?P<numbers>\d+(?:_\d+)*)?(?P<energy> Energy)?", re.ASCII
)


class Count(NamedTuple):
    """What one counter stands at.

    Attributes:
        key: which counter it is. One that has begun anew has another key.
        label: for humans, such as `cpu` or `cpu-1`.
        component: `cpu`, `gpu`, `ane` or `memory`.
        counts: what it stands at.
        counts_per_joule: its unit, 1e3 for millijoules.
    """

    key: str
    label: str
    component: str
    counts: int
    counts_per_joule: float


@dataclass(frozen=True, slots=True)
class Selected:
    """A channel that makes up a component, or a part of one.

    Attributes:
        index: its place in a sample.
        name: as IOReport has it.
        unit: likewise.
        label: for humans.
    """

    index: int
    name: str
    unit: str
    label: str
    component: str

    def at(self, counts: int) -> Count:
        """Return what it stands at."""
        return Count(f"{self.label} {self.unit}", self.label, self.component, counts, _COUNTS_PER_JOULE[self.unit])


class _Candidate(NamedTuple):
    breadth: tuple[bool, int]
    channel: Selected


def select(channels: Iterable[tuple[str, str]]) -> list[Selected]:
    """Choose the channels, given by name and unit, that make up the components; none counts what another one counts.

    A channel in a unit that is none of energy is passed over.
    """
    candidates = [
        candidate
        for index, (name, unit) in enumerate(channels)
        if (candidate := _candidate(index, name, unit)) is not None
    ]
    chosen: list[Selected] = []
    for component in _COMPONENTS.values():
        of_component = [one for one in candidates if one.channel.component == component]
        broadest = min((one.breadth for one in of_component), default=None)
        chosen += _distinct([one.channel for one in of_component if one.breadth == broadest])
    return chosen


def _candidate(index: int, name: str, unit: str) -> _Candidate | None:
    match = _NAME.fullmatch(name)
    if match is None or unit not in _COUNTS_PER_JOULE:
        return None
    base, is_energy = match["base"], match["energy"] is not None
    if base == "CPU" and not is_energy:
        return None
    numbers = [*([match["die"]] if match["die"] else []), *(match["numbers"] or "").split("_")]
    numbers = [number for number in numbers if number]
    label = "-".join([_COMPONENTS[base], *numbers])
    return _Candidate((not is_energy, len(numbers)), Selected(index, name, unit, label, _COMPONENTS[base]))


def _distinct(channels: Sequence[Selected]) -> list[Selected]:
    """Tell channels of one name apart.

    In one unit they are of several dies, and add up. In several units they are an old counter, which a newer macOS no
    longer moves, and its finer successor.
    """
    distinct: list[Selected] = []
    for label in dict.fromkeys(channel.label for channel in channels):
        same = [channel for channel in channels if channel.label == label]
        finest = max(_COUNTS_PER_JOULE[channel.unit] for channel in same)
        same = [channel for channel in same if _COUNTS_PER_JOULE[channel.unit] == finest]
        distinct.append(same[0])
        distinct += [replace(channel, label=f"{label}.{number}") for number, channel in enumerate(same[1:], 2)]
    return distinct
