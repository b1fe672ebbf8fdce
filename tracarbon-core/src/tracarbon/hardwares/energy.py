"""What a sensor says: watts per component, over which seconds, from which devices, and how it came to know.

Units inside are watts, joules and seconds. `None` means unknown; it is never 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Annotated, NamedTuple, NoReturn

from pydantic import BaseModel, ConfigDict, Field, SkipValidation

from tracarbon.exceptions import UnknownUnit

JOULES_PER_KWH = 3.6e6
JOULES_PER_WH = 3600.0


class UsageType(Enum):
    """Which component of the machine a figure is of."""

    __hash__ = object.__hash__  # members are single: their identity is a hash, and a cheaper one than that of Enum

    HOST = "host"
    CPU = "cpu"
    MEMORY = "memory"
    GPU = "gpu"

    @classmethod
    def _missing_(cls, value: object) -> NoReturn:
        raise ValueError(f"no component is called {value!r}; there are {', '.join(item.value for item in cls)}")


class EnergyUsageUnit(Enum):
    """Unit of an `EnergyUsage`."""

    WATT = "watts"
    MILLIWATT = "milliwatts"

    @classmethod
    def _missing_(cls, value: object) -> NoReturn:
        raise UnknownUnit("power", value, [unit.value for unit in cls])


class Fidelity(Enum):
    """How a figure was obtained, the best first: `measured` > `modelled` > `estimated`."""

    __hash__ = object.__hash__  # as above

    MEASURED = "measured"
    MODELLED = "modelled"
    ESTIMATED = "estimated"

    @property
    def rank(self) -> int:
        """0 for the best."""
        return _FIDELITY_RANKS[self]


_FIDELITY_RANKS = {fidelity: rank for rank, fidelity in enumerate(Fidelity)}


class Scope(Enum):
    """What a device's energy contains, and so how it adds up to the host's."""

    WHOLE_MACHINE = "whole machine"
    """Everything, accelerators too (a wall meter, psys): where it is plausible, it is the host's figure."""
    HOST = "host components"
    """A part of the host that lies in no other part (a processor package, the memory): such parts add up."""
    EXTRA = "extra device"
    """A device that no host part contains (a graphics card): it adds to the sum of the host parts."""
    DETAIL = "detail"
    """Lies inside another device (the cores of a package): never added to the host."""


class Band(NamedTuple):
    """The range in which the true figure is believed to lie, in the unit of the figure."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Device:
    """Something whose energy is known by itself. Sensors make each of theirs once and refer to it in every reading.

    Attributes:
        name: unique within the sensor, such as `package-0`.
        component: the component that its energy counts for.
        scope: how it adds up to the host.
        within: name of the device that contains it. Where the two count for different components, its energy is taken
            out of the containing device's: the graphics part of a package is not CPU.
        fidelity: where it differs from the sensor's.
        tags: identity beyond the name, such as a UUID.
        method: how its figures are obtained, where that is not what the sensor's `EnergyUsage.method` says.
    """

    name: str
    component: UsageType = UsageType.HOST
    scope: Scope = Scope.HOST
    within: str | None = None
    fidelity: Fidelity | None = None
    tags: tuple[tuple[str, str], ...] = ()
    method: str | None = None


@dataclass(slots=True)
class DeviceUsage:
    """One reading of one device.

    Attributes:
        device: which.
        watts: power, averaged over `window_seconds`.
        window_seconds: seconds since the device's previous reading; `None` for an instantaneous sample, which the meter
            integrates by the trapezoidal rule.
        band: low and high watts, where the figure is not measured.
        provenance: for a reading that a meter put together, where it comes from.
    """

    device: Device
    watts: float
    window_seconds: float | None = None
    band: Band | None = None
    provenance: Provenance | None = None


class Provenance(NamedTuple):
    """Where the figure of one component comes from.

    Attributes:
        sensor: the sensor's name; several are joined by `+`.
        fidelity: the worst fidelity of the parts.
        covered_seconds: the seconds that the watts hold for: watts x covered seconds = joules.
        method: how it was obtained, in a few words.
        band: low and high watts.
    """

    sensor: str
    fidelity: Fidelity
    covered_seconds: float | None = None
    method: str | None = None
    band: Band | None = None


Watts = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class EnergyUsage(BaseModel):
    """Energy usage of the machine over one window, in watts.

    Unlike the documented default of 0.0, a host figure that was not given is `None`: unknown.

    Attributes:
        host_energy_usage: the whole host, in `unit`.
        cpu_energy_usage: the processors.
        memory_energy_usage: the memory.
        gpu_energy_usage: the graphics processors.
        unit: the unit of these four.
        window_seconds: the seconds that they were averaged over; `None` for an instantaneous sample.
        devices: the detail, always in watts.
        method: how the figures were obtained, in a few words.
        problems: what could not be read this time, for humans.
        provenance: for a usage that a meter put together, where each component comes from.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    host_energy_usage: Watts | None = None
    cpu_energy_usage: Watts | None = None
    memory_energy_usage: Watts | None = None
    gpu_energy_usage: Watts | None = None
    unit: EnergyUsageUnit = EnergyUsageUnit.WATT
    window_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    devices: Annotated[SkipValidation[Sequence[DeviceUsage]], Field(repr=False)] = ()
    method: str | None = None
    problems: Annotated[SkipValidation[Sequence[str]], Field(repr=False)] = ()
    provenance: SkipValidation[Mapping[UsageType, Provenance]] = Field(default_factory=dict, repr=False)

    def get_energy_usage_on_type(self, usage_type: UsageType) -> float | None:
        """Return the usage of one component in `unit`, or `None` where it is unknown."""
        value: float | None = getattr(self, _FIELDS.get(usage_type) or _FIELDS[UsageType(usage_type)])
        return value

    def convert_unit(self, unit: EnergyUsageUnit) -> None:
        """Convert the four figures to `unit`, in place; what is unknown stays so.

        Raises:
            UnknownUnit: there is no such unit.
        """
        unit = EnergyUsageUnit(unit)
        if unit is self.unit:
            return
        factor = 1000.0 if unit is EnergyUsageUnit.MILLIWATT else 0.001
        for name in _FIELDS.values():
            value = getattr(self, name)
            if value is not None:
                setattr(self, name, value * factor)
        self.unit = unit


_FIELDS = {usage_type: f"{usage_type.value}_energy_usage" for usage_type in UsageType}


class Power:
    """Conversions of power and energy."""

    @staticmethod
    def watts_from_microjoules(uj: float) -> float:
        """Return the watts of `uj` microjoules spent in one second."""
        return uj / 1e6

    @staticmethod
    def watts_to_watt_hours(watts: float, previous_energy_measurement_time: datetime | None = None) -> float:
        """Return the watt-hours of `watts` since the previous measurement; 0 without one, or where it is to come."""
        if previous_energy_measurement_time is None:
            return 0.0
        elapsed = datetime.now(previous_energy_measurement_time.tzinfo) - previous_energy_measurement_time
        return watts * max(0.0, elapsed.total_seconds()) / 3600

    @staticmethod
    def co2g_from_watts_hour(watts_hour: float, co2g_per_kwh: float) -> float:
        """Return the grams of CO2e of `watts_hour` at an intensity of `co2g_per_kwh`."""
        return watts_hour / 1000 * co2g_per_kwh


def usage_of_components(
    watts: Mapping[UsageType, float],
    window_seconds: float | None,
    provenance: Mapping[UsageType, Provenance],
    devices: Sequence[DeviceUsage] = (),
) -> EnergyUsage:
    """Put an `EnergyUsage` together from the watts of its components."""
    return EnergyUsage(
        host_energy_usage=watts.get(UsageType.HOST),
        cpu_energy_usage=watts.get(UsageType.CPU),
        memory_energy_usage=watts.get(UsageType.MEMORY),
        gpu_energy_usage=watts.get(UsageType.GPU),
        window_seconds=window_seconds,
        provenance=provenance,
        devices=devices,
    )
