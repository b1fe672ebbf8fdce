"""The generators `energy_kubernetes` and `carbon_kubernetes`: what each container of this node is answerable for."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from dataclasses import field
from typing import Any, ClassVar, Self

from tracarbon.emissions.carbon_emissions import CarbonEmission, CarbonUsageUnit
from tracarbon.exporters.exporter import Metric, MetricGenerator, MetricKind
from tracarbon.hardwares.energy import EnergyUsage, EnergyUsageUnit
from tracarbon.hardwares.sensors import EnergyConsumption, Sensor
from tracarbon.locations.country import Country
from tracarbon.locations.location import Location
from tracarbon.plugin import PluginContext

from tracarbon_k8s._attribution import IdlePolicy, attribute
from tracarbon_k8s._ledger import Ledger
from tracarbon_k8s._usage import NodeUsage
from tracarbon_k8s.containers import Kubernetes
from tracarbon_k8s.node import Node, Reading, node_of
from tracarbon_k8s.options import KubernetesOptions, options_beside
from tracarbon_k8s.series import Components, Pairs, Series, amounts_of, grams_of, joules_of


class _KubernetesGenerator(MetricGenerator):
    """What both generators have in common: a node, and a ledger of their own.

    Attributes:
        kubernetes: a cluster whose metrics API says what is used; by default what the options say.
        options: as a `pipeline.toml` has them. Beside `kubernetes`, what both say has to be the same.

    Raises:
        TypeError: one of them is something else.
        TracarbonException: they contradict each other.
    """

    Options = KubernetesOptions
    _prefix: ClassVar[str]
    _kind: ClassVar[MetricKind]
    _unit: ClassVar[str]

    kubernetes: Kubernetes | None = None
    options: KubernetesOptions | None = None

    def __post_init__(self) -> None:
        for name, kind in (("kubernetes", Kubernetes), ("options", KubernetesOptions)):
            given = getattr(self, name)
            if not isinstance(given, kind | None):
                raise TypeError(f"{name}= is of type {type(given).__name__}: it has to be {kind.__name__}(...)")
        options = self.options or KubernetesOptions()
        if self.kubernetes is not None:
            options = options_beside(self.kubernetes, options)
        self._idle = IdlePolicy(options.idle)
        self._settings = options
        self._node: Node | None = None
        self._ledger = Ledger()
        self._series = Series(self._prefix, self._kind, self._unit)
        self._opened_at = 0.0
        self._is_entered = False

    def attach(self, context: PluginContext) -> None:
        """Read the node with the other generators of a pipeline."""
        self._node = node_of(self._settings, context)

    async def __aenter__(self) -> Self:
        """Open the node, and count from here.

        Raises:
            TracarbonException: it cannot be read, nobody says which it is, or nothing is said of a cluster.
        """
        if self._node is None:
            self._node = Node(self._settings, PluginContext("kubernetes"), self.kubernetes)
        reading = await self._node.enter()
        self._is_entered = True
        if not self._ledger.is_open:
            self._ledger.open(reading.counters, reading.cgroups)
            self._opened_at = reading.at
        return self

    async def __aexit__(self, *_: object) -> None:
        """Leave the node."""
        self._is_entered = False
        if self._node is not None:
            await self._node.leave()

    async def _usage(self, *, with_cards: bool) -> tuple[NodeUsage, float]:
        """Return what was used since the window that was completed last, and how long that is in seconds."""
        if not self._is_entered:
            await self.__aenter__()
        assert self._node is not None
        reading = await self._node.read(with_cards=with_cards)
        self.problems = reading.problems
        self._read_at = reading.at
        seconds = reading.at - self._opened_at
        return self._used(reading, self._node, seconds), seconds

    def _used(self, reading: Reading, node: Node, seconds: float) -> NodeUsage:
        if reading.cgroups is not None:
            return self._ledger.usage(reading.cgroups, reading.counters, node.resolve)
        return self._ledger.usage_of_rates(reading.rates, seconds, reading.counters, are_all=reading.has_all_rates)

    def _metrics(
        self, components: Components, energy: EnergyUsage | None, usage: NodeUsage, seconds: float, details: Pairs
    ) -> Iterator[Metric]:
        """Yield the metrics of a window; with the last one, it is completed.

        What is not known in this window comes with the next one, and so counts from the same reading.
        """
        if components:
            shares = attribute(amounts_of(components, energy, seconds), usage, self._idle)
            yield from self._series.metrics(shares, components, details)
            self._ledger.consume()
            self._opened_at = self._read_at


class EnergyConsumptionKubernetesGenerator(_KubernetesGenerator):
    """Generates `energy_consumption_kubernetes_{total,cpu,memory,gpu}`: mean watts of each container over the window.

    In each window the series of one name add up to `energy_consumption_{host,cpu,memory,gpu}`.

    Attributes:
        location: for the `location` tag; by default where the system's time zone says.
        energy_consumption: the pipeline's meter, or a sensor; by default the best sensor of this machine.
    """

    _prefix, _kind, _unit = "energy_consumption", MetricKind.RATE, "watts"

    location: Location | None = None
    energy_consumption: Sensor | None = None

    @classmethod
    def from_options(cls, options: Any, context: PluginContext) -> Self:
        """Construct it over the pipeline's meter."""
        generator = cls(
            options=options,
            location=context.location,
            platform=context.platform,
            energy_consumption=context.meter,
        )
        generator.attach(context)
        return generator

    async def generate(self) -> AsyncGenerator[Metric, None]:
        """Yield the watts of each container, and of what is nobody's.

        Raises:
            Exception: the sensor's, or a TracarbonException where the node cannot be read.
        """
        self.energy_consumption = self.energy_consumption or EnergyConsumption.from_platform()
        self.location = self.location or Country.get_location()
        energy = await self.energy_consumption.get_energy_usage()
        energy.convert_unit(EnergyUsageUnit.WATT)
        usage, seconds = await self._usage(with_cards=energy.gpu_energy_usage is not None)
        components = joules_of(energy, self.energy_consumption, seconds)
        details = ("platform", self.platform), ("location", self.location.name), ("units", self._unit)
        for metric in self._metrics(components, energy, usage, seconds, details):
            yield metric


class CarbonEmissionKubernetesGenerator(_KubernetesGenerator):
    """Generates `carbon_emission_kubernetes_{total,cpu,memory,gpu}`: grams of CO2e of each container in the window.

    Attributes:
        location: where the machine is; by default where the system's time zone says.
        carbon_emission: works the carbon out; by default over the best sensor of this machine.
        co2signal_api_key: key of a live service, for a location that is found by default.
    """

    _prefix, _kind, _unit = "carbon_emission", MetricKind.AMOUNT, "co2g"

    location: Location | None = field(default=None, kw_only=False)
    carbon_emission: CarbonEmission | None = None
    co2signal_api_key: str | None = None

    @classmethod
    def from_options(cls, options: Any, context: PluginContext) -> Self:
        """Construct it over the pipeline's meter and location."""
        emission = CarbonEmission.in_pipeline(context)
        generator = cls(
            options=options, location=emission.location, carbon_emission=emission, platform=context.platform
        )
        generator.attach(context)
        return generator

    async def generate(self) -> AsyncGenerator[Metric, None]:
        """Yield the grams of each container, and of what is nobody's.

        Raises:
            Exception: the location's or the sensor's, or a TracarbonException where the node cannot be read.
        """
        emission = self._emission()
        carbon = await emission.get_co2_usage()
        carbon.convert_unit(CarbonUsageUnit.CO2_G)
        usage, seconds = await self._usage(with_cards=carbon.gpu_carbon_usage is not None)
        components = grams_of(carbon, emission.energy_consumption, seconds)
        details = ("platform", self.platform), *emission.place.tags(), ("units", self._unit)
        for metric in self._metrics(components, carbon.energy_usage, usage, seconds, details):
            yield metric

    def _emission(self) -> CarbonEmission:
        if self.carbon_emission is None:
            location = self.location or Country.get_location(co2signal_api_key=self.co2signal_api_key)
            self.carbon_emission = CarbonEmission(location=location)
        self.location = self.location or self.carbon_emission.place
        return self.carbon_emission
