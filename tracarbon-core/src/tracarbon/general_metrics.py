"""The generators `energy` and `carbon`: the documented metrics of the host and its components."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import field
from functools import lru_cache
from typing import Any, Self

from tracarbon.emissions.carbon_emissions import CarbonEmission
from tracarbon.exceptions import CountryIsMissing
from tracarbon.exporters.exporter import Metric, MetricGenerator, MetricKind, Tag
from tracarbon.hardwares.energy import Fidelity, Provenance, UsageType
from tracarbon.hardwares.sensors import EnergyConsumption, Sensor
from tracarbon.locations.location import Location
from tracarbon.plugin import PluginContext

_ENERGY_NAMES = {usage_type: f"energy_consumption_{usage_type.value}" for usage_type in UsageType}
_CARBON_NAMES = {usage_type: f"carbon_emission_{usage_type.value}" for usage_type in UsageType}


_UNKNOWN_ORIGIN = (None, None, None)


@lru_cache(maxsize=1024)
def _tags(
    details: tuple[tuple[str, str | None], ...], sensor: str | None, fidelity: Fidelity | None, method: str | None
) -> tuple[Tag, ...]:
    origin = (("sensor", sensor), ("fidelity", fidelity and fidelity.value), ("method", method))
    return tuple(Tag(key, value) for key, value in (*details, *origin) if value)


def _origin(provenance: Provenance | None) -> tuple[str | None, Fidelity | None, str | None]:
    return (provenance.sensor, provenance.fidelity, provenance.method) if provenance is not None else _UNKNOWN_ORIGIN


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
        details = self._details(units)
        for usage_type, name in _ENERGY_NAMES.items():
            value = usage.get_energy_usage_on_type(usage_type)
            if value is None:
                continue
            origin = usage.provenance.get(usage_type)
            yield Metric(
                name=name,
                value=value,
                tags=_tags(details, *_origin(origin)),
                unit=units,
                kind=MetricKind.RATE,
                covered_seconds=origin.covered_seconds if origin else usage.window_seconds,
                band=origin.band if origin else None,
            )

    def _details(self, units: str) -> tuple[tuple[str, str | None], ...]:
        location = self.location.name if self.location is not None else None
        return ("platform", self.platform), ("location", location), ("units", units)


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
        units = usage.unit.value
        details = self._details(emission.location, units)
        for usage_type, name in _CARBON_NAMES.items():
            value = usage.get_carbon_usage_on_type(usage_type)
            if value is None:
                continue
            origin = usage.provenance.get(usage_type)
            yield Metric(
                name=name,
                value=value,
                tags=_tags(details, *_origin(origin)),
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

    def _details(self, location: Location, units: str) -> tuple[tuple[str, str | None], ...]:
        return (
            ("platform", self.platform),
            ("location", location.name),
            ("location_from", location.detected_by),
            ("source", location.co2g_kwh_source.value),
            ("factor_kind", location.co2g_kwh_kind),
            ("factor_date", location.co2g_kwh_date),
            ("units", units),
        )
