"""From energy to carbon: joules x intensity / 3.6e6, never watts x a guess of the time since."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import Enum
from typing import Any, NoReturn, Self

from pydantic import BaseModel, Field, SkipValidation

from tracarbon.exceptions import CountryIsMissing, TracarbonException, UnknownUnit
from tracarbon.hardwares.energy import (
    JOULES_PER_KWH,
    Band,
    EnergyUsage,
    EnergyUsageUnit,
    Provenance,
    UsageType,
)
from tracarbon.hardwares.sensors import EnergyConsumption, Sensor
from tracarbon.locations.country import Country
from tracarbon.locations.location import Location
from tracarbon.plugin import PluginContext


class CarbonUsageUnit(Enum):
    """Carbon usage unit."""

    CO2_G = "co2g"
    CO2_MG = "co2mg"

    @classmethod
    def _missing_(cls, value: object) -> NoReturn:
        raise UnknownUnit("carbon", value, [unit.value for unit in cls])


class CarbonUsage(BaseModel):
    """Carbon emitted in one window, in grams of CO2e. `None` is unknown.

    Attributes:
        host_carbon_usage: of the whole host, in `unit`.
        cpu_carbon_usage: of the processors.
        memory_carbon_usage: of the memory.
        gpu_carbon_usage: of the graphics processors.
        unit: the unit of these four.
        provenance: where the energy of each came from, with the band in grams.
        window_seconds: how long the window is.
        energy_usage: the energy that it was worked out from, in watts, with its devices.
    """

    host_carbon_usage: float | None = None
    cpu_carbon_usage: float | None = None
    memory_carbon_usage: float | None = None
    gpu_carbon_usage: float | None = None
    unit: CarbonUsageUnit = CarbonUsageUnit.CO2_G
    provenance: SkipValidation[Mapping[UsageType, Provenance]] = Field(default_factory=dict, repr=False)
    window_seconds: float | None = None
    energy_usage: SkipValidation[EnergyUsage] | None = Field(default=None, repr=False)

    def get_carbon_usage_on_type(self, usage_type: UsageType) -> float | None:
        """Return the carbon of one component in `unit`, or `None` where it is unknown."""
        value: float | None = getattr(self, _FIELDS.get(usage_type) or _FIELDS[UsageType(usage_type)])
        return value

    def convert_unit(self, unit: CarbonUsageUnit) -> None:
        """Convert the four figures to `unit`, in place; what is unknown stays so.

        Raises:
            UnknownUnit: there is no such unit.
        """
        unit = CarbonUsageUnit(unit)
        if unit is self.unit:
            return
        factor = 1000.0 if unit is CarbonUsageUnit.CO2_MG else 0.001
        for name in _FIELDS.values():
            value = getattr(self, name)
            if value is not None:
                setattr(self, name, value * factor)
        self.unit = unit


_FIELDS = {usage_type: f"{usage_type.value}_carbon_usage" for usage_type in UsageType}


class CarbonEmission(Sensor):
    """Works out the carbon of the energy that a sensor reports.

    Attributes:
        location: where the machine is; by default where the system's time zone says.
        energy_consumption: the sensor, or the pipeline's meter; by default the best sensor of this machine.
        previous_energy_consumption_time: when it was last asked. Given at the start, it says since when the first watts
            of a sensor hold that does not say so itself.
    """

    location: Location | None = None
    energy_consumption: Sensor | None = None
    previous_energy_consumption_time: datetime | None = None

    @classmethod
    def in_pipeline(cls, context: PluginContext) -> Self:
        """Construct it over a pipeline's location and meter.

        Raises:
            CountryIsMissing: the pipeline has no location.
        """
        if context.location is None:
            raise CountryIsMissing("carbon needs a location, and there is none")
        return cls(location=context.location, energy_consumption=context.meter)

    def __post_init__(self) -> None:
        self._asked_at: float | None = None

    @property
    def place(self) -> Location:
        """The location, which is worked out where none was given."""
        self.location = self.location or Country.get_location()
        return self.location

    async def get_energy_usage(self) -> EnergyUsage:
        """Return the energy usage of the sensor."""
        self.energy_consumption = self.energy_consumption or EnergyConsumption.from_platform()
        return await self.energy_consumption.get_energy_usage()

    async def get_co2_usage(self) -> CarbonUsage:
        """Return the carbon of the window that the sensor reports, in grams of CO2e.

        The intensity comes first: when it is not to be had, no energy has been consumed from the sensor yet.

        Raises:
            TracarbonException: what the location says is no intensity.
            Exception: the location's or the sensor's.
        """
        co2g_per_kwh = await self._intensity()
        usage = await self.get_energy_usage()
        usage.convert_unit(EnergyUsageUnit.WATT)
        elapsed_seconds = self._elapsed_seconds()
        grams: dict[str, Any] = {}
        provenance: dict[UsageType, Provenance] = {}
        for usage_type, field in _FIELDS.items():
            watts = usage.get_energy_usage_on_type(usage_type)
            origin = usage.provenance.get(usage_type)
            seconds = (origin.covered_seconds if origin else None) or usage.window_seconds or elapsed_seconds
            if watts is None or seconds is None:
                continue
            grams_per_watt = seconds / JOULES_PER_KWH * co2g_per_kwh
            grams[field] = watts * grams_per_watt
            if origin is not None:
                provenance[usage_type] = _in_grams(origin, grams_per_watt)
        return CarbonUsage(
            **grams,
            provenance=provenance,
            window_seconds=usage.window_seconds or elapsed_seconds,
            energy_usage=usage,
        )

    async def _intensity(self) -> float:
        co2g_per_kwh: float | None = await self.place.get_latest_co2g_kwh()
        if co2g_per_kwh is None or not 0.0 <= co2g_per_kwh < math.inf:
            raise TracarbonException(f"location {self.place.name}: {co2g_per_kwh!r} g/kWh is no carbon intensity")
        return co2g_per_kwh

    def _elapsed_seconds(self) -> float | None:
        """Seconds since the previous call, for sensors that do not say what their watts hold for."""
        now, said = time.monotonic(), self.previous_energy_consumption_time
        previous, self._asked_at = self._asked_at, now
        self.previous_energy_consumption_time = datetime.now(UTC)
        if previous is not None:
            return now - previous
        return None if said is None else max(0.0, (datetime.now(said.tzinfo) - said).total_seconds())


def _in_grams(origin: Provenance, grams_per_watt: float) -> Provenance:
    band = origin.band
    if band is None:
        return origin
    return origin._replace(band=Band(band.low * grams_per_watt, band.high * grams_per_watt))
