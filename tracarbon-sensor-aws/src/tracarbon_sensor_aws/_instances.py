"""What EC2 instances draw by load: the table, and what stands in for a type that it has not.

The table is the EC2 data set of Teads Engineering, as Cloud Carbon Footprint publishes it. It is read when it is
needed, and only the row that is needed is kept.
"""

from __future__ import annotations

import csv
import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import TypeAlias

Curve: TypeAlias = tuple[float, float, float, float]
"""Watts at idle, 10, 50 and 100 % load."""

# Averages of AWS by Cloud Carbon Footprint.
_IDLE_WATTS_PER_VCPU = 0.74
_FULL_WATTS_PER_VCPU = 3.5
_MEMORY_WATTS_PER_GB = 0.392

_FAMILY = re.compile(r"[a-z][a-z0-9-]*", re.ASCII)
_SIZE = re.compile(r"nano|micro|small|medium|large|(\d{0,3})xlarge|metal(?:-(\d{1,3})xl)?", re.ASCII)
_SIZES = ("nano", "micro", "small", "medium", "large", "xlarge", "2xlarge", "4xlarge", "8xlarge", "16xlarge", "metal")
_WITH_CARDS = re.compile(r"[gp]\d", re.ASCII)
_BURSTABLE = re.compile(r"(?:[a-z]+\.)?t\d", re.ASCII)
_VCPUS = {"medium": 1, "large": 2}
_VCPUS_OF_BURSTABLE = {**_VCPUS, "medium": 2}
_VCPUS_PER_XLARGE = 4


def checked_type(instance_type: str) -> str:
    """Return a type as EC2 writes it.

    Raises:
        ValueError: it is none; says what may have been meant.
    """
    wanted = instance_type.strip().lower()
    family, size = _split(wanted)
    if size and all(_FAMILY.fullmatch(part) for part in family.split(".")):
        return wanted
    first, _, last = wanted.partition(".")
    near = difflib.get_close_matches(last, _SIZES, n=1) if _FAMILY.fullmatch(first) else []
    hint = f"did you mean {first}.{near[0]}?" if near else "it is like m5.large"
    raise ValueError(f"{instance_type!r} is no EC2 instance type; {hint}")


@dataclass(frozen=True, slots=True)
class InstancePower:
    """The power of an instance by its loads.

    Attributes:
        method: how the figures came about, in a few words.
        is_average: whether they are no more than an average per virtual CPU.
        vcpus: virtual processors.
        cpu: watts by processor load.
        memory: watts by memory load.
        gpu: watts of all graphics processors by their load; `None` where there are none.
        delta_full_machine: its share of what the machine draws besides, whatever the load.
    """

    method: str
    is_average: bool
    vcpus: int
    cpu: Curve
    memory: Curve
    gpu: Curve | None
    delta_full_machine: float


def find_power(instance_type: str, vcpus: int, memory_gb: float, *, is_here: bool = False) -> InstancePower:
    """Return the power of a type: its own, in proportion to the nearest size of its family, or the average.

    Args:
        instance_type: such as `m5.large`.
        vcpus: of this machine, where the type's name does not tell them.
        memory_gb: of this machine, for the average.
        is_here: whether it is this machine's own type: then the average is that of `vcpus`, whatever the name tells.
            Not every family keeps to it: a core of `hpc6a` is one virtual CPU.
    """
    family, size = _split(instance_type)
    own_vcpus, vcpus = vcpus, _vcpus_of(family, size) or vcpus
    nearest: dict[str, str] | None = None
    with files(__package__).joinpath("instance_power.csv").open("r", encoding="utf-8") as table:
        for row in csv.DictReader(table):
            if row["instance_type"] == instance_type:
                return _power(row)
            if family and _split(row["instance_type"])[0] == family and _is_nearer(row, nearest, vcpus):
                nearest = row
    if nearest is None:
        return average_power(instance_type, own_vcpus if is_here else vcpus, memory_gb)
    return _scaled(_power(nearest), vcpus, f"ec2:{instance_type} as {nearest['instance_type']}")


def average_power(instance_type: str, vcpus: int, memory_gb: float) -> InstancePower:
    """Return what so many virtual CPUs, and so much memory, draw on the average of AWS.

    Between idle and full load it is in proportion to the load; memory draws the same whatever its use. Source: Cloud
    Carbon Footprint.
    """
    cards = ", without its graphics cards" if _WITH_CARDS.match(instance_type) else ""
    idle, full = _IDLE_WATTS_PER_VCPU, _FULL_WATTS_PER_VCPU
    cpu = tuple(vcpus * (idle + (full - idle) * load) for load in (0.0, 0.1, 0.5, 1.0))
    memory = _MEMORY_WATTS_PER_GB * memory_gb
    return InstancePower(
        method=f"ec2:{instance_type} by average per vcpu{cards}",
        is_average=True,
        vcpus=vcpus,
        cpu=_curve(cpu),
        memory=(memory,) * 4,
        gpu=None,
        delta_full_machine=0.0,
    )


def _split(instance_type: str) -> tuple[str, str]:
    """Return family and size: `m5` and `large`; of `m5.large.elasticsearch` the family is `m5.elasticsearch`."""
    parts = instance_type.split(".")
    sizes = [part for part in parts[1:] if _SIZE.fullmatch(part)]
    size = sizes[0] if sizes else ""
    return ".".join(part for part in parts if part != size) if size else "", size


def _vcpus_of(family: str, size: str) -> int | None:
    """Return the virtual processors that a size stands for in most families; `None` where it does not tell."""
    match = _SIZE.fullmatch(size)
    number = match and (match[2] or match[1])
    if size.endswith("xlarge") or number:
        return _VCPUS_PER_XLARGE * int(number or 1)
    return (_VCPUS_OF_BURSTABLE if _BURSTABLE.match(family) else _VCPUS).get(size)


def _is_nearer(row: dict[str, str], other: dict[str, str] | None, vcpus: int) -> bool:
    return other is None or abs(int(row["vcpus"]) - vcpus) < abs(int(other["vcpus"]) - vcpus)


def _power(row: dict[str, str]) -> InstancePower:
    gpu = _curve_of(row, "gpu")
    return InstancePower(
        method=f"ec2:{row['instance_type']}",
        is_average=False,
        vcpus=int(row["vcpus"]),
        cpu=_curve_of(row, "cpu"),
        memory=_curve_of(row, "memory"),
        gpu=gpu if any(gpu) else None,
        delta_full_machine=float(row["delta_full_machine_watts"]),
    )


def _scaled(power: InstancePower, vcpus: int, method: str) -> InstancePower:
    """Return the power of another size: within a family all but the graphics processors goes by the vCPUs."""
    factor = vcpus / power.vcpus
    return replace(
        power,
        method=method if factor == 1 else f"{method} x{factor:g}",
        vcpus=vcpus,
        cpu=_curve(factor * watts for watts in power.cpu),
        memory=_curve(factor * watts for watts in power.memory),
        delta_full_machine=factor * power.delta_full_machine,
    )


def _curve_of(row: dict[str, str], component: str) -> Curve:
    return _curve(float(row[f"{component}_watts_{load}"]) for load in ("idle", "10", "50", "100"))


def _curve(watts: Iterable[float]) -> Curve:
    idle, at_10, at_50, at_100 = watts
    return idle, at_10, at_50, at_100
