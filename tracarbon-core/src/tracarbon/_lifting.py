"""Running exporters that were constructed in code, with their generators, on the one engine.

The generators of `Exporter(metric_generators=[...])` are lifted out of their exporter: each reads a view of the
pipeline's meter in place of its own sensor while the pipeline runs, equal sensors are read once, and all is given back
at the end. What another pipeline is using meanwhile is copied.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tracarbon._clock import Clock
from tracarbon._lending import Loans, value_of_field
from tracarbon._pipeline import Pipeline
from tracarbon._probing import no_sensor_works, working_sensors
from tracarbon.emissions.carbon_emissions import CarbonEmission
from tracarbon.exceptions import TracarbonException
from tracarbon.exporters.exporter import Exporter, MetricGenerator
from tracarbon.general_metrics import CarbonEmissionGenerator, EnergyConsumptionGenerator
from tracarbon.hardwares.sensors import Sensor
from tracarbon.locations.country import Country
from tracarbon.locations.location import CarbonIntensitySource, Location
from tracarbon.plugin import PluginContext, is_made_from_fields


def default_generators(location: Location) -> list[MetricGenerator]:
    """Return the generators `energy` and `carbon`."""
    return [EnergyConsumptionGenerator(location=location), CarbonEmissionGenerator(location=location)]


class Lifting:
    """Builds the pipeline of one exporter.

    Args:
        exporter: the exporter, with its generators; without any, it gets energy and carbon.
        location: for generators that have none of their own.
        interval_seconds: how often a window is closed.
        metric_prefix_name: for an exporter that has none of its own.
        co2signal_api_key: for locations that should be live and have no key of their own.
        co2signal_url: the address that goes with it, for those that have none.
        host_root: where the host's `/sys` and `/proc` are.

    Raises:
        CO2SignalAPIKeyIsMissing: a location should be live, and there is no key.
        TracarbonException: another pipeline runs the exporter, or a generator has no sensor of its own, and none works
            here.
    """

    def __init__(
        self,
        exporter: Exporter,
        location: Location,
        *,
        interval_seconds: float,
        metric_prefix_name: str | None,
        co2signal_api_key: str = "",
        co2signal_url: str | None = None,
        host_root: Path = Path("/"),
        clock: Clock | None = None,
    ) -> None:
        self.pipeline = Pipeline(interval_seconds=interval_seconds, clock=clock)
        self._location = location
        self._live_service = co2signal_api_key, co2signal_url
        self._host_root = host_root
        self._sensors: list[tuple[Sensor, list[str]]] = []
        self._default_names: list[str] | None = None
        self._loans = Loans()
        self.pipeline.at_stop.append(self._loans.give_back)
        try:
            if not self._loans.take(exporter):
                raise TracarbonException(
                    f"the exporter {exporter.get_name()} runs already, elsewhere; stop it there first"
                )
            self._lift_all(exporter.metric_generators or default_generators(location))
            if exporter.metric_prefix_name is None:
                self._loans.change(exporter, "metric_prefix_name", metric_prefix_name)
            self._add_exporter(exporter)
        except BaseException:
            self._loans.give_back()
            raise

    def _lift_all(self, given: Sequence[MetricGenerator]) -> None:
        generators = [self._borrowed(generator) for generator in {id(it): it for it in given}.values()]
        self._add_locations(generators)
        for generator in generators:
            self._lift(generator)

    def _borrowed(self, generator: MetricGenerator) -> MetricGenerator:
        """Return the generator, or where it is in use a copy, with an emission and a location that it may change."""
        if not isinstance(generator, MetricGenerator):
            raise TypeError(f"metric_generators has {generator!r}, which is no MetricGenerator")
        generator = self._loans.take_or_copy(generator)
        emission = getattr(generator, "carbon_emission", None)
        if emission is not None and (own := self._loans.take_or_copy(emission)) is not emission:
            self._loans.change(generator, "carbon_emission", own)
        self._settle_location(generator)
        return generator

    def _add_exporter(self, exporter: Exporter) -> None:
        pipeline = self.pipeline
        component = pipeline.components.add("exporter", exporter.get_name())
        context = PluginContext(
            component.name,
            meter=pipeline.view(follows=True),
            location=self._location,
            component=component,
            components=pipeline.components,
            clock=pipeline.clock,
            host_root=self._host_root,
            pulse=pipeline.pulse,
            metric_prefix_name=exporter.metric_prefix_name or "",
        )
        pipeline.at_stop.append(context.close)
        exporter.attach(context)
        pipeline.add_exporter(component, exporter)

    def _settle_location(self, generator: MetricGenerator) -> None:
        emission = getattr(generator, "carbon_emission", None)
        if generator.location is None and type(generator) is not MetricGenerator:
            self._loans.change(
                generator, "location", getattr(emission, "location", None) or self._default_location(generator)
            )
        if isinstance(emission, CarbonEmission) and emission.location is None:
            self._loans.change(emission, "location", generator.location)

    def _default_location(self, generator: MetricGenerator) -> Location:
        key, default = getattr(generator, "co2signal_api_key", None), self._location
        if not key or type(default) is not Country or default.co2signal_api_key:
            return default
        return Country.live(default.name, key, default.co2signal_url)

    def _add_locations(self, generators: Sequence[MetricGenerator]) -> None:
        used = {id(location): location for generator in generators for location in _locations_of(generator)}
        if not used:
            return
        for location in used.values():
            self._settle_key(location)
        first, *others = used.values()
        component = self.pipeline.components.add("location", "location")
        self.pipeline.set_location(component, _Locations([first, *others]) if others else first)

    def _settle_key(self, location: Location) -> None:
        if location.co2g_kwh_source is not CarbonIntensitySource.CO2SignalAPI:
            return
        key, url = self._live_service
        is_of_that_service = location.co2signal_url in (None, "", url)  # no other one is to get the key
        if key and not location.co2signal_api_key and is_of_that_service:
            # For good, as all that a location works out: another run may be asking it as well.
            location.co2signal_api_key, location.co2signal_url = key, url
        if isinstance(location, Country):
            location.require_key()

    def _lift(self, generator: MetricGenerator) -> None:
        holder = self._sensor_holder(generator)
        view = self.pipeline.view(self._names_of(getattr(holder, "energy_consumption", None)) if holder else None)
        if holder is not None:
            self._loans.change(holder, "energy_consumption", view)
        self.pipeline.add_generator(
            self.pipeline.components.add("generator", self._unused_name(type(generator).__name__)), generator, view
        )

    def _sensor_holder(self, generator: MetricGenerator) -> Any:
        """Return the object whose `energy_consumption` the generator reads, if it reads any."""
        if hasattr(generator, "carbon_emission"):
            if generator.carbon_emission is None:
                self._loans.change(generator, "carbon_emission", CarbonEmission(location=generator.location))
            return generator.carbon_emission
        return generator if hasattr(generator, "energy_consumption") else None

    def _names_of(self, sensor: Sensor | None) -> Sequence[str]:
        if sensor is None:
            return self._default_sensors()
        for known, names in self._sensors:
            if known is sensor or _is_same(known, sensor):
                return names
        return self._add_sensor(sensor, self._unused_name(type(sensor).__name__))

    def _default_sensors(self) -> list[str]:
        if self._default_names is None:
            found, probed = working_sensors(self._host_root)
            if not found:
                raise TracarbonException(no_sensor_works(probed))
            self._default_names = []
            for item in found:
                name = self._unused_name(item.plugin.name)
                context = PluginContext(name, clock=self.pipeline.clock, host_root=self._host_root)
                self.pipeline.at_stop.append(context.close)
                self._default_names += self._add_sensor(item.make_sensor(context), name)
        return self._default_names

    def _add_sensor(self, sensor: Sensor, name: str) -> list[str]:
        self.pipeline.add_sensor(self.pipeline.components.add("sensor", name), self._loans.take_or_copy(sensor))
        self._sensors.append((sensor, [name]))
        return [name]

    def _unused_name(self, name: str) -> str:
        used = {component.name for component in self.pipeline.components}
        candidates = itertools.chain((name,), (f"{name}{number}" for number in itertools.count(2)))
        return next(candidate for candidate in candidates if candidate not in used)


def _locations_of(generator: MetricGenerator) -> Iterator[Location]:
    emission = getattr(generator, "carbon_emission", None)
    for location in (generator.location, getattr(emission, "location", None)):
        if location is not None:
            yield location


def _is_same(one: Sensor, other: Sensor) -> bool:
    """Whether two sensors were constructed alike: one reading serves both."""
    if type(one) is not type(other):
        return False
    if not is_made_from_fields(type(one)):
        return vars(one) == vars(other)
    fields = [item.name for item in dataclasses.fields(one)]
    return all(value_of_field(one, name) == value_of_field(other, name) for name in fields)


class _Locations(Location):
    """Several locations, for generators that each have their own, entered as one."""

    def __init__(self, locations: Sequence[Location]) -> None:
        super().__init__(name="+".join(location.name for location in locations))
        self._locations = locations

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            for location in self._locations:
                await stack.enter_async_context(location)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return await self._stack.__aexit__(kind, error, traceback)

    async def get_latest_co2g_kwh(self) -> float:
        raise NotImplementedError("each generator asks its own location")
