"""Power of a machine that cannot be measured, from its load: models with a band, and the choice among them."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple, Protocol

from tracarbon.hardwares._machine import cpu_model_name, is_virtual_machine, socket_count
from tracarbon.hardwares.power_curve import watts_at

BYTES_PER_GB = 2**30
"""Modules are made and sold in powers of two, and the watts per GB below are those of modules."""

# Fractions of the thermal design power at the knots of a power curve: the curve that Teads Engineering measured on
# cloud machines, as Boavizta uses it. The band holds the spread of that data set's six two-socket machines whose
# processors have a published design power: c5.metal (Xeon Platinum 8275CL, 240 W), c5n.metal (8124M, 240 W), m5.metal
# (8175M, 240 W), m5n.metal (8259CL, 210 W), z1d.metal (8151, 240 W) and i3.metal (E5-2686 v4, 145 W). Watts / (2 x
# design power) have the means 0.116, 0.322, 0.742 and 1.022, the 5th percentiles 0.101, 0.287, 0.635 and 0.892, and the
# 95th percentiles 0.128, 0.360, 0.889 and 1.244. The other types are scaled from these and would add nothing to the
# spread.
_TDP_CURVE = (0.12, 0.32, 0.75, 1.02)
# Low: the 5th percentiles at both ends, and between them no more than power in proportion to the load, as Cloud Carbon
# Footprint assumes it.
_TDP_LOW = (0.1, 0.21, 0.57, 0.89)
# High: the 95th percentiles, but never below half of the thermal design power, which CodeCarbon assumes of a processor
# of unknown load; at full load it is also the 1.25 fold of Intel's default short-term limit (PL2).
_TDP_HIGH = (0.5, 0.5, 0.89, 1.25)

# Watts per virtual CPU, idle and at full load, of AWS, Google Cloud and Azure, by Cloud Carbon Footprint.
_VCPU_WATTS = ((0.74, 3.5), (0.71, 4.26), (0.78, 3.76))

# Watts per gigabyte, by Cloud Carbon Footprint: the mean of two manufacturers' figures (Crucial 0.375, Micron 0.4083).
_MEMORY_WATTS_PER_GB = (0.392, 0.375, 0.4083)


class PowerBand(NamedTuple):
    """Watts, and the low and high watts between which the true figure is believed to lie."""

    watts: float
    low: float
    high: float


class CpuPowerModel(Protocol):
    """Watts of all processors by their load."""

    def watts(self, utilisation: float) -> PowerBand:
        """Return the watts at a mean utilisation of all processors, from 0 to 1."""


@dataclass(frozen=True, slots=True)
class ThermalDesignPowerModel:
    """A processor of known thermal design power, on bare metal.

    Attributes:
        tdp_watts: of one socket.
        sockets: how many there are.
    """

    tdp_watts: float
    sockets: int = 1

    def watts(self, utilisation: float) -> PowerBand:
        """Return sockets x thermal design power x the fraction at this load."""
        full = self.tdp_watts * self.sockets
        return PowerBand(*(full * watts_at(curve, utilisation) for curve in (_TDP_CURVE, _TDP_LOW, _TDP_HIGH)))


@dataclass(frozen=True, slots=True)
class VirtualCpuModel:
    """Virtual processors: a share of a machine that nobody here can see.

    Attributes:
        vcpus: how many there are.
    """

    vcpus: int

    def watts(self, utilisation: float) -> PowerBand:
        """Return the mean of the three clouds' averages at this load, and their lowest and highest."""
        load = _clamp(utilisation)
        each = [self.vcpus * (idle + (full - idle) * load) for idle, full in _VCPU_WATTS]
        return PowerBand(sum(each) / len(each), min(each), max(each))


def memory_watts(gigabytes: float) -> PowerBand:
    """Return the watts of so many gigabytes (`BYTES_PER_GB`) of memory; it draws them whatever its use."""
    return PowerBand(*(gigabytes * watts for watts in _MEMORY_WATTS_PER_GB))


def choose_model(host_root: Path = Path("/")) -> tuple[CpuPowerModel, str]:
    """Return the model for this machine's processors, and the method in a few words."""
    name = None if is_virtual_machine(host_root) else cpu_model_name(host_root)
    known = tdp_watts(name) if name else None
    if known is None:
        return VirtualCpuModel(os.cpu_count() or 1), "vcpu-average"
    model, watts = known
    sockets = socket_count(host_root)
    return ThermalDesignPowerModel(watts, sockets), f"tdp:{f'{sockets}x' if sockets > 1 else ''}{model}"


def tdp_watts(model_name: str) -> tuple[str, float] | None:
    """Look a processor up: the matched model and its thermal design power in watts, or `None`.

    The names have to agree word for word, but for trade marks, clock rates and the like: a model that differs in a
    version or a suffix may differ twice in power.
    """
    words = _words(model_name)
    if not words:
        return None
    with files("tracarbon").joinpath("data/cpu_tdp.csv").open("r", encoding="utf-8") as table:
        for row in table:
            model, _, watts = row.rpartition(",")
            # The last word tells most models apart, and looking for it is cheap.
            if words[-1] in model.lower() and _words(model) == words:
                return model.strip('"'), float(watts)
    return None


_NOISE = re.compile(
    r"\((?:r|tm|c)\)|[®™]|-(?=\w)|@.*$|\bcpu\b|\bprocessor\b|\bapu\b|\b\w+-cores?\b|\b\d+th gen\b|\b\d+\.\d+ghz\b"
    r"|\bwith\b.*$|\bw/.*$|\bradeon\b.*$|\br\d,.*$"  # integrated graphics
    r"|(?<=\s)0(?=\s|$)",  # "E5-2680 0" is the one before the v2
    re.IGNORECASE,
)


def _words(name: str) -> list[str]:
    return _NOISE.sub(" ", name).lower().replace('"', " ").split()


def _clamp(utilisation: float) -> float:
    return min(1.0, max(0.0, utilisation))
