"""Running exporters that were constructed in code, with their generators, on the one engine.

The generators of `Exporter(metric_generators=[...])` are lifted out of their exporter: each reads a view of the
pipeline's meter in place of its own sensor while the pipeline runs, equal sensors are read once, and all is put back at
the end.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tracarbon._clock import Clock
from tracarbon._discovery import LOCATION
from tracarbon._pipeline import Pipeline
from tracarbon._probing import default_context, working_sensors
from tracarbon.emissions.carbon_emissions import CarbonEmission
from tracarbon.exceptions import TracarbonException
from tracarbon.exporters.exporter import Exporter, MetricGenerator
from tracarbon.general_metrics import CarbonEmissionGenerator, EnergyConsumptionGenerator
from tracarbon.hardwares.sensors import Sensor
from tracarbon.locations.country import Country
from tracarbon.locations.location import Location


def default_location(country: str | None = None) -> Location:
    """Return the location of a country, or the one that is worked out without leaving the machine."""
    options = Country.Options(country=country)
    return Country.from_options(options, default_context(LOCATION, "location", Path("/")))


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
    """

    def __init__(
        self,
        exporter: Exporter,
        location: Location,
        *,
        interval_seconds: float,
        metric_prefix_name: str | None,
        clock: Clock | None = None,
    ) -> None:
        self.pipeline = Pipeline(interval_seconds=interval_seconds, clock=clock)
        self._location = location
        self._sensors: list[tuple[Sensor, list[str]]] = []
        self._default_names: list[str] | None = None
        self._restore: list[Callable[[], None]] = []
        self.pipeline.at_stop.append(self._put_back)
        self._enter(location)
        for generator in exporter.metric_generators or default_generators(location):
            self._lift(generator)
        if exporter.metric_prefix_name is None:
            self._set(exporter, "metric_prefix_name", metric_prefix_name)
        self.pipeline.add_exporter(self.pipeline.components.add("exporter", exporter.get_name()), exporter)

    def _enter(self, location: Location) -> None:
        self.pipeline.set_location(self.pipeline.components.add("location", "location"), location)

    def _lift(self, generator: MetricGenerator) -> None:
        if generator.location is None:
            self._set(generator, "location", self._location)
        holder = self._sensor_holder(generator)
        view = self.pipeline.view(self._names_of(getattr(holder, "energy_consumption", None)) if holder else None)
        if holder is not None:
            self._set(holder, "energy_consumption", view)
        self.pipeline.add_generator(
            self.pipeline.components.add("generator", self._unused_name(type(generator).__name__)), generator, view
        )

    def _sensor_holder(self, generator: MetricGenerator) -> Any:
        """Return the object whose `energy_consumption` the generator reads, if it reads any."""
        if hasattr(generator, "carbon_emission"):
            if generator.carbon_emission is None:
                location = generator.location or self._location
                self._set(generator, "carbon_emission", CarbonEmission(location=location))
            return generator.carbon_emission
        return generator if hasattr(generator, "energy_consumption") else None

    def _names_of(self, sensor: Sensor | None) -> Sequence[str]:
        if sensor is None:
            return self._default_sensors()
        for known, names in self._sensors:
            if known is sensor or (type(known) is type(sensor) and vars(known) == vars(sensor)):
                return names
        return self._add_sensor(sensor, self._unused_name(type(sensor).__name__))

    def _default_sensors(self) -> list[str]:
        if self._default_names is None:
            found, probed = working_sensors(Path("/"))
            if not found:
                from tracarbon._assembly import no_sensor_works

                raise TracarbonException(no_sensor_works(probed))
            self._default_names = []
            for item in found:
                assert item.loaded is not None
                context = default_context(item.plugin.kind, item.plugin.name, Path("/"))
                sensor = item.loaded.from_options(item.loaded.Options(), context)
                assert isinstance(sensor, Sensor)
                self._default_names += self._add_sensor(sensor, item.plugin.name)
        return self._default_names

    def _add_sensor(self, sensor: Sensor, name: str) -> list[str]:
        self.pipeline.add_sensor(self.pipeline.components.add("sensor", name), sensor)
        self._sensors.append((sensor, [name]))
        return [name]

    def _unused_name(self, name: str) -> str:
        used = {component.name for component in self.pipeline.components}
        candidates = itertools.chain((name,), (f"{name}{number}" for number in itertools.count(2)))
        return next(candidate for candidate in candidates if candidate not in used)

    def _set(self, owner: Any, name: str, value: object) -> None:
        before = getattr(owner, name)
        self._restore.append(lambda: setattr(owner, name, before))
        setattr(owner, name, value)

    def _put_back(self) -> None:
        for restore in reversed(self._restore):
            restore()
        self._restore.clear()
