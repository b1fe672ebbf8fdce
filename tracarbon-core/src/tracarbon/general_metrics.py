"""The generators `energy` and `carbon`: the documented metrics of the host and its components."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias

from pydantic import Field, model_validator

from tracarbon._forwarding import forward
from tracarbon.emissions.carbon_emissions import CarbonEmission, CarbonUsageUnit
from tracarbon.exporters.exporter import Metric, MetricGenerator, MetricKind, Tag
from tracarbon.hardwares.energy import (
    Band,
    DeviceUsage,
    EnergyUsage,
    EnergyUsageUnit,
    Fidelity,
    Provenance,
    UsageType,
)
from tracarbon.hardwares.sensors import EnergyConsumption, Sensor
from tracarbon.locations.country import Country
from tracarbon.locations.location import Location
from tracarbon.plugin import PluginContext, PluginOptions

if TYPE_CHECKING:
    from tracarbon_k8s import CarbonEmissionKubernetesGenerator as CarbonEmissionKubernetesGenerator
    from tracarbon_k8s import EnergyConsumptionKubernetesGenerator as EnergyConsumptionKubernetesGenerator

__getattr__ = forward(
    __name__,
    {
        "CarbonEmissionKubernetesGenerator": "tracarbon-k8s",
        "EnergyConsumptionKubernetesGenerator": "tracarbon-k8s",
    },
)

DeviceSeries: TypeAlias = Literal["tagged", "all", "none"]

_SECONDS_PER_YEAR = 365.25 * 86_400.0
_ENERGY_NAMES = {usage_type: f"energy_consumption_{usage_type.value}" for usage_type in UsageType}
_CARBON_NAMES = {usage_type: f"carbon_emission_{usage_type.value}" for usage_type in UsageType}


@lru_cache(maxsize=1024)
def _tags(
    details: tuple[tuple[str, str | None], ...], sensor: str | None, fidelity: Fidelity | None, method: str | None
) -> tuple[Tag, ...]:
    origin = (("sensor", sensor), ("fidelity", fidelity and fidelity.value), ("method", method))
    return tuple(Tag(key, value) for key, value in (*details, *origin) if value)


def _origin(provenance: Provenance | None, sensor: Sensor | None) -> tuple[str | None, Fidelity | None, str | None]:
    """Return sensor, fidelity and method: of the meter's word, or of the sensor that was read without a meter."""
    if provenance is not None:
        return provenance.sensor, provenance.fidelity, provenance.method
    return (type(sensor).__name__, sensor.fidelity, None) if sensor is not None else (None, None, None)


class EnergyConsumptionGenerator(MetricGenerator):
    """Generates `energy_consumption_{host,cpu,memory,gpu}` and `energy_consumption_device`: mean watts over the window.

    Used alone, it reads its sensor at each call of `generate`. A sensor of counters has nothing to say at the first.

    Attributes:
        location: for the `location` tag; by default where the system's time zone says.
        energy_consumption: the pipeline's meter, or a sensor; by default the best sensor of this machine.
        devices: of which devices there is a series each.
    """

    class Options(PluginOptions):
        """Options of `[generators.energy]`."""

        devices: DeviceSeries = Field(
            default="tagged",
            description="of which devices there is a series energy_consumption_device each: those with tags of their "
            "own, such as graphics cards (tagged), all, or none",
        )

    location: Location | None = field(default=None, kw_only=False)
    energy_consumption: Sensor | None = None
    devices: DeviceSeries = "tagged"

    async def generate(self) -> AsyncGenerator[Metric, None]:
        """Yield the watts of each component that is known.

        Raises:
            Exception: the sensor's.
        """
        self.energy_consumption = self.energy_consumption or EnergyConsumption.from_platform()
        self.location = self.location or Country.get_location()
        usage = await self.energy_consumption.get_energy_usage()
        units = usage.unit.value
        details = self._details(units)
        for usage_type, name in _ENERGY_NAMES.items():
            value = usage.get_energy_usage_on_type(usage_type)
            if value is None:
                continue
            origin = usage.provenance.get(usage_type)
            yield Metric(
                name=name,
                value=value,
                tags=_tags(details, *_origin(origin, self.energy_consumption)),
                unit=units,
                kind=MetricKind.RATE,
                covered_seconds=origin.covered_seconds if origin else usage.window_seconds,
                band=origin.band if origin else None,
            )
        for reading in usage.devices if self.devices != "none" else ():
            if reading.device.tags or self.devices == "all":
                yield self._device(reading, usage)

    def _device(self, reading: DeviceUsage, usage: EnergyUsage) -> Metric:
        device, origin = reading.device, reading.provenance
        units = EnergyUsageUnit.WATT.value
        identity = ("device", device.name), ("component", device.component.value), *device.tags
        return Metric(
            name="energy_consumption_device",
            value=reading.watts,
            tags=_tags((*self._details(units), *identity), *_origin(origin, self.energy_consumption)),
            unit=units,
            kind=MetricKind.RATE,
            covered_seconds=reading.window_seconds or usage.window_seconds,
            band=reading.band,
        )

    def _details(self, units: str) -> tuple[tuple[str, str | None], ...]:
        location = self.location.name if self.location is not None else None
        return ("platform", self.platform), ("location", location), ("units", units)


class CarbonEmissionGenerator(MetricGenerator):
    """Generates `carbon_emission_{host,cpu,memory,gpu}`: grams of CO2e of the window.

    Used alone, it reads its sensor at each call of `generate`. A sensor of counters has nothing to say at the first.

    Attributes:
        location: where the machine is; by default where the system's time zone says.
        carbon_emission: works the carbon out; by default over the best sensor of this machine.
        co2signal_api_key: key of a live service, for a location that is found by default.
        pue: power usage effectiveness of the building, at least 1: what it draws for each unit that its machines draw.
        embodied_kg: kilograms of CO2e that making the machine has emitted, its end included.
        lifetime_years: over which they are spread.
        share: of the machine that is meant, from 0 to 1; by default all of it.
    """

    class Options(PluginOptions):
        """Options of `[generators.carbon]`; each adds a series of its own, and changes no other."""

        pue: float | None = Field(
            default=None,
            ge=1,
            allow_inf_nan=False,
            description="power usage effectiveness of the building: adds carbon_emission_overhead, host x (pue - 1)",
        )
        embodied_kg: float | None = Field(
            default=None,
            gt=0,
            allow_inf_nan=False,
            description="kg of CO2e of making the machine: adds carbon_emission_embodied (needs lifetime_years)",
        )
        lifetime_years: float | None = Field(
            default=None, ge=0.1, allow_inf_nan=False, description="years over which embodied_kg is spread"
        )
        share: float | None = Field(
            default=None, gt=0, le=1, description="share of the machine that embodied_kg counts for; default: all of it"
        )

        @model_validator(mode="after")
        def _check_what_goes_together(self) -> Self:
            if (self.embodied_kg is None) != (self.lifetime_years is None):
                raise ValueError("embodied_kg and lifetime_years go together")
            if self.embodied_kg is None and self.share is not None:
                raise ValueError("share is of embodied_kg, which is missing")
            return self

    location: Location | None = field(default=None, kw_only=False)
    carbon_emission: CarbonEmission | None = None
    co2signal_api_key: str | None = None
    pue: float | None = None
    embodied_kg: float | None = None
    lifetime_years: float | None = None
    share: float | None = None

    @classmethod
    def from_options(cls, options: Any, context: PluginContext) -> Self:
        """Construct it over the pipeline's meter and location."""
        emission = CarbonEmission.in_pipeline(context)
        return cls(location=emission.location, carbon_emission=emission, platform=context.platform, **dict(options))

    async def generate(self) -> AsyncGenerator[Metric, None]:
        """Yield the grams of each component whose energy is known.

        Raises:
            Exception: the location's or the sensor's.
        """
        emission = self._emission()
        usage = await emission.get_co2_usage()
        units = usage.unit.value
        details = self._details(emission.place, units)
        for usage_type, name in _CARBON_NAMES.items():
            value = usage.get_carbon_usage_on_type(usage_type)
            if value is None:
                continue
            origin = usage.provenance.get(usage_type)
            yield Metric(
                name=name,
                value=value,
                tags=_tags(details, *_origin(origin, emission.energy_consumption)),
                unit=units,
                kind=MetricKind.AMOUNT,
                covered_seconds=origin.covered_seconds if origin else None,
                band=origin.band if origin else None,
            )
            if usage_type is UsageType.HOST and self.pue is not None:
                yield self._overhead(value, details, origin, emission.energy_consumption)
        if self.embodied_kg and self.lifetime_years and usage.window_seconds:
            yield self._embodied(self.embodied_kg, self.lifetime_years, usage.window_seconds)

    def _overhead(
        self,
        host_grams: float,
        details: tuple[tuple[str, str | None], ...],
        origin: Provenance | None,
        sensor: Sensor | None,
    ) -> Metric:
        """What the building emits for the machine beside it, for cooling and the like: host x (PUE - 1)."""
        assert self.pue is not None
        factor = self.pue - 1.0
        band = origin.band if origin else None
        return Metric(
            name="carbon_emission_overhead",
            value=host_grams * factor,
            tags=_tags((*details, ("pue", f"{self.pue:g}")), *_origin(origin, sensor)),
            unit=CarbonUsageUnit.CO2_G.value,
            kind=MetricKind.AMOUNT,
            covered_seconds=origin.covered_seconds if origin else None,
            band=band and Band(band.low * factor, band.high * factor),
        )

    def _embodied(self, embodied_kg: float, lifetime_years: float, window_seconds: float) -> Metric:
        """The window's part of what making the machine has emitted: M of ISO/IEC 21031, spread evenly over its life."""
        share = 1.0 if self.share is None else self.share
        grams = embodied_kg * 1000.0 * share * window_seconds / (lifetime_years * _SECONDS_PER_YEAR)
        units = CarbonUsageUnit.CO2_G.value
        return Metric(
            name="carbon_emission_embodied",
            value=grams,
            tags=[
                Tag("platform", self.platform),
                Tag("embodied_kg", f"{embodied_kg:g}"),
                Tag("lifetime_years", f"{lifetime_years:g}"),
                Tag("share", f"{share:g}"),
                Tag("units", units),
            ],
            unit=units,
            kind=MetricKind.AMOUNT,
        )

    def _emission(self) -> CarbonEmission:
        if self.carbon_emission is None:
            location = self.location or Country.get_location(co2signal_api_key=self.co2signal_api_key)
            self.carbon_emission = CarbonEmission(location=location)
        self.location = self.location or self.carbon_emission.place
        return self.carbon_emission

    def _details(self, location: Location, units: str) -> tuple[tuple[str, str | None], ...]:
        return ("platform", self.platform), *location.tags(), ("units", units)
