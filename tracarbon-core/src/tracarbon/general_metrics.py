"""The generators `energy` and `carbon`: the documented metrics of the host and its components."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import field
from typing import Any, Self

from tracarbon.emissions.carbon_emissions import CarbonEmission
from tracarbon.exceptions import CountryIsMissing
from tracarbon.exporters.exporter import Metric, MetricGenerator, MetricKind, Tag
from tracarbon.hardwares.energy import Provenance, UsageType
from tracarbon.hardwares.sensors import EnergyConsumption, Sensor
from tracarbon.locations.location import Location
from tracarbon.plugin import PluginContext

_ENERGY_NAMES = {usage_type: f"energy_consumption_{usage_type.value}" for usage_type in UsageType}
_CARBON_NAMES = {usage_type: f"carbon_emission_{usage_type.value}" for usage_type in UsageType}


def _origin_tags(origin: Provenance | None) -> tuple[Tag, ...]:
    if origin is None:
        return ()
    method = (Tag("method", origin.method),) if origin.method else ()
    return (Tag("sensor", origin.sensor), Tag("fidelity", origin.fidelity.value), *method)


class EnergyConsumptionGenerator(MetricGenerator):
    """Generates `energy_consumption_{host,cpu,memory,gpu}`: mean watts over the window.

    Attributes:
        location: for the `location` tag.
        energy_consumption: the pipeline's meter, or a sensor; by default the best sensor of this machine.
    """

    location: Location | None = field(default=None, kw_only=False)
    energy_consumption: Sensor | None = None

    @classmethod
    def from_options(cls, options: Any, context: PluginContext) -> Self:
        """Construct it over the pipeline's meter."""
        return cls(location=context.location, energy_consumption=context.meter, platform=context.platform)

    async def generate(self) -> AsyncGenerator[Metric, None]:
        """Yield the watts of each component that is known."""
        if self.energy_consumption is None:
            self.energy_consumption = EnergyConsumption.from_platform()
        usage = await self.energy_consumption.get_energy_usage()
        units = usage.unit.value
        for usage_type, name in _ENERGY_NAMES.items():
            value = usage.get_energy_usage_on_type(usage_type)
            if value is None:
                continue
            origin = usage.provenance.get(usage_type)
            yield Metric(
                name=name,
                value=value,
                tags=self._tags(units, origin),
                unit=units,
                kind=MetricKind.RATE,
                covered_seconds=origin.covered_seconds if origin else usage.window_seconds,
                band=origin.band if origin else None,
            )

    def _tags(self, units: str, origin: Provenance | None) -> tuple[Tag, ...]:
        location = (Tag("location", self.location.name),) if self.location is not None else ()
        return (Tag("platform", self.platform), *location, Tag("units", units), *_origin_tags(origin))


class CarbonEmissionGenerator(MetricGenerator):
    """Generates `carbon_emission_{host,cpu,memory,gpu}`: grams of CO2e of the window.

    Attributes:
        location: where the machine is.
        carbon_emission: works the carbon out; by default over the best sensor of this machine.
        co2signal_api_key: key of a live service, for the location.
    """

    location: Location | None = field(default=None, kw_only=False)
    carbon_emission: CarbonEmission | None = None
    co2signal_api_key: str | None = None

    @classmethod
    def from_options(cls, options: Any, context: PluginContext) -> Self:
        """Construct it over the pipeline's meter and location."""
        location = context.location
        if location is None:
            raise CountryIsMissing("carbon needs a location, and there is none")
        emission = CarbonEmission(location=location, energy_consumption=context.meter)
        return cls(location=location, carbon_emission=emission, platform=context.platform)

    async def generate(self) -> AsyncGenerator[Metric, None]:
        """Yield the grams of each component whose energy is known.

        Raises:
            CountryIsMissing: there is no location.
        """
        emission = self._emission()
        usage = await emission.get_co2_usage()
        location, units = emission.location, usage.unit.value
        for usage_type, name in _CARBON_NAMES.items():
            value = usage.get_carbon_usage_on_type(usage_type)
            if value is None:
                continue
            origin = usage.provenance.get(usage_type)
            yield Metric(
                name=name,
                value=value,
                tags=self._tags(location, units, origin),
                unit=units,
                kind=MetricKind.AMOUNT,
                covered_seconds=origin.covered_seconds if origin else None,
                band=origin.band if origin else None,
            )

    def _emission(self) -> CarbonEmission:
        if self.carbon_emission is None:
            if self.location is None:
                raise CountryIsMissing("carbon needs a location: pass one, such as Country.from_eu_file('fr')")
            self.carbon_emission = CarbonEmission(location=self.location)
        return self.carbon_emission

    def _tags(self, location: Location, units: str, origin: Provenance | None) -> tuple[Tag, ...]:
        details = (
            ("platform", self.platform),
            ("location", location.name),
            ("location_from", location.detected_by),
            ("source", location.co2g_kwh_source.value),
            ("factor_kind", location.co2g_kwh_kind),
            ("factor_date", location.co2g_kwh_date),
            ("units", units),
        )
        return (*(Tag(key, value) for key, value in details if value), *_origin_tags(origin))
