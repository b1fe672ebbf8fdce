"""The generators `energy_kubernetes` and `carbon_kubernetes`: what each container of this node is answerable for."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from dataclasses import field
from functools import lru_cache
from typing import Any, NamedTuple, Self

from tracarbon.emissions.carbon_emissions import CarbonEmission, CarbonUsage, CarbonUsageUnit
from tracarbon.exceptions import CountryIsMissing
from tracarbon.exporters.exporter import Metric, MetricGenerator, MetricKind, Tag
from tracarbon.hardwares.energy import EnergyUsage, EnergyUsageUnit, Provenance, UsageType
from tracarbon.hardwares.sensors import EnergyConsumption, Sensor
from tracarbon.locations.country import Country
from tracarbon.locations.location import Location
from tracarbon.plugin import PluginContext

from tracarbon_k8s._attribution import Amounts, IdlePolicy, Share, attribute
from tracarbon_k8s._ledger import Ledger
from tracarbon_k8s._usage import NodeUsage, Workload
from tracarbon_k8s.containers import Kubernetes
from tracarbon_k8s.node import Node, Reading, node_of
from tracarbon_k8s.options import KubernetesOptions

_COMPONENTS: Mapping[UsageType, Callable[[Share], float | None]] = {
    UsageType.HOST: lambda share: share.total,
    UsageType.CPU: lambda share: share.cpu,
    UsageType.MEMORY: lambda share: share.memory,
    UsageType.GPU: lambda share: share.gpu,
}
_SUFFIXES = {UsageType.HOST: "total", UsageType.CPU: "cpu", UsageType.MEMORY: "memory", UsageType.GPU: "gpu"}
_ENERGY = {usage_type: f"energy_consumption_kubernetes_{suffix}" for usage_type, suffix in _SUFFIXES.items()}
_CARBON = {usage_type: f"carbon_emission_kubernetes_{suffix}" for usage_type, suffix in _SUFFIXES.items()}

_Pairs = tuple[tuple[str, str | None], ...]


@lru_cache(maxsize=65_536)
def _tags(share: tuple[str, Workload | None], details: _Pairs) -> tuple[Tag, ...]:
    kind, workload = share
    identity: _Pairs = ()
    if workload is not None:
        identity = (
            ("pod_name", workload.pod),
            ("pod_namespace", workload.namespace),
            ("container_name", workload.container),
            ("pod_owner", workload.owner),
            *((f"pod_label_{name}", value) for name, value in workload.labels),
        )
    pairs = (*identity, ("attribution", kind), ("containers", "kubernetes"), *details)
    return tuple(Tag(key, value) for key, value in pairs if value)


class _Component(NamedTuple):
    """A component in one window.

    Attributes:
        amount: joules or grams.
        covered_seconds: that it was spent in.
        origin: the sensor, its fidelity and its method, as tags.
    """

    amount: float
    covered_seconds: float
    origin: _Pairs


class _KubernetesGenerator(MetricGenerator):
    """What both generators have in common: a node, and a ledger of their own.

    Attributes:
        kubernetes: a cluster whose metrics API says what is used; by default what the options say.
        options: as a `pipeline.toml` has them.
    """

    Options = KubernetesOptions

    kubernetes: Kubernetes | None = None
    options: KubernetesOptions | None = None

    def __post_init__(self) -> None:
        options = self.options or KubernetesOptions(usage="cgroup" if self.kubernetes is None else "metrics-api")
        self._idle: IdlePolicy = options.idle
        self._settings = options
        self._context: PluginContext | None = None
        self._node: Node | None = None
        self._ledger = Ledger()
        self._opened_at = 0.0
        self._is_entered = False

    def attach(self, context: PluginContext) -> None:
        """Read the node with the other generators of a pipeline."""
        self._context = context
        self._node = node_of(self._settings, context)

    async def __aenter__(self) -> Self:
        """Open the node, and count from here.

        Raises:
            TracarbonException: it cannot be read, nobody says which it is, or nothing is said of a cluster.
        """
        if self._node is None:
            self._node = Node(self._settings, self._context or PluginContext("kubernetes"), self.kubernetes)
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
        return self._ledger.usage_of_rates(reading.rates, seconds, reading.counters)

    def _split(
        self, components: Mapping[UsageType, _Component], cards: Mapping[str, float], usage: NodeUsage
    ) -> Iterator[tuple[UsageType, _Component, Share, float]]:
        if not components:
            return  # what is not known in this window comes with the next one: it counts from the same reading
        amount = {usage_type: component.amount for usage_type, component in components.items()}.get
        amounts = Amounts(
            host=amount(UsageType.HOST),
            cpu=amount(UsageType.CPU),
            memory=amount(UsageType.MEMORY),
            gpu=amount(UsageType.GPU),
            gpus=cards,
        )
        for share in attribute(amounts, usage, self._idle):
            for usage_type, component in components.items():
                value = _COMPONENTS[usage_type](share)
                if value is not None and (value or share.kind != "unattributed"):
                    yield usage_type, component, share, value
        self._ledger.consume()
        self._opened_at = self._read_at


class EnergyConsumptionKubernetesGenerator(_KubernetesGenerator):
    """Generates `energy_consumption_kubernetes_{total,cpu,memory,gpu}`: mean watts of each container over the window.

    In each window the series of one name add up to `energy_consumption_{host,cpu,memory,gpu}`.

    Attributes:
        location: for the `location` tag; by default where the system's time zone says.
        energy_consumption: the pipeline's meter, or a sensor; by default the best sensor of this machine.
    """

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
        components = _joules(energy, self.energy_consumption, seconds)
        details = ("platform", self.platform), ("location", self.location.name), ("units", "watts")
        for usage_type, component, share, joules in self._split(components, _joules_by_card(energy, seconds), usage):
            yield Metric(
                name=_ENERGY[usage_type],
                value=joules / component.covered_seconds,
                tags=_tags((share.kind, share.workload), (*details, *component.origin)),
                unit="watts",
                kind=MetricKind.RATE,
                covered_seconds=component.covered_seconds,
            )


class CarbonEmissionKubernetesGenerator(_KubernetesGenerator):
    """Generates `carbon_emission_kubernetes_{total,cpu,memory,gpu}`: grams of CO2e of each container in the window.

    Attributes:
        location: where the machine is; by default where the system's time zone says.
        carbon_emission: works the carbon out; by default over the best sensor of this machine.
        co2signal_api_key: key of a live service, for a location that is found by default.
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
        generator = cls(options=options, location=location, carbon_emission=emission, platform=context.platform)
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
        components = _grams(carbon, emission.energy_consumption, seconds)
        details = ("platform", self.platform), *emission.place.tags(), ("units", "co2g")
        for usage_type, component, share, grams in self._split(components, _grams_by_card(carbon, seconds), usage):
            yield Metric(
                name=_CARBON[usage_type],
                value=grams,
                tags=_tags((share.kind, share.workload), (*details, *component.origin)),
                unit="co2g",
                kind=MetricKind.AMOUNT,
                covered_seconds=component.covered_seconds,
            )

    def _emission(self) -> CarbonEmission:
        if self.carbon_emission is None:
            location = self.location or Country.get_location(co2signal_api_key=self.co2signal_api_key)
            self.carbon_emission = CarbonEmission(location=location)
        self.location = self.location or self.carbon_emission.place
        return self.carbon_emission


def _joules(energy: EnergyUsage, sensor: Sensor, seconds: float) -> dict[UsageType, _Component]:
    found = {}
    for usage_type in _COMPONENTS:
        watts, origin = energy.get_energy_usage_on_type(usage_type), energy.provenance.get(usage_type)
        covered = (origin and origin.covered_seconds) or energy.window_seconds or seconds
        if watts is not None and covered > 0:
            found[usage_type] = _Component(watts * covered, covered, _origin(origin, sensor))
    return found


def _grams(carbon: CarbonUsage, sensor: Sensor | None, seconds: float) -> dict[UsageType, _Component]:
    found = {}
    for usage_type in _COMPONENTS:
        grams, origin = carbon.get_carbon_usage_on_type(usage_type), carbon.provenance.get(usage_type)
        covered = (origin and origin.covered_seconds) or carbon.window_seconds or seconds
        if grams is not None:
            found[usage_type] = _Component(grams, covered, _origin(origin, sensor))
    return found


def _joules_by_card(energy: EnergyUsage, seconds: float) -> dict[str, float]:
    """Return the joules of each graphics card that is known by itself, by its UUID."""
    found: dict[str, float] = {}
    for reading in energy.devices:
        uuid = dict(reading.device.tags).get("uuid")
        if uuid is not None and reading.device.component is UsageType.GPU:
            covered = reading.window_seconds or energy.window_seconds or seconds
            found[uuid] = found.get(uuid, 0.0) + reading.watts * covered
    return found


def _grams_by_card(carbon: CarbonUsage, seconds: float) -> dict[str, float]:
    energy, grams = carbon.energy_usage, carbon.gpu_carbon_usage
    if energy is None or not grams or not energy.gpu_energy_usage:
        return {}
    origin = energy.provenance.get(UsageType.GPU)
    covered = (origin and origin.covered_seconds) or energy.window_seconds or seconds
    per_joule = grams / (energy.gpu_energy_usage * covered)
    return {uuid: joules * per_joule for uuid, joules in _joules_by_card(energy, seconds).items()}


def _origin(provenance: Provenance | None, sensor: Sensor | None) -> _Pairs:
    if provenance is not None:
        return ("sensor", provenance.sensor), ("fidelity", provenance.fidelity.value), ("method", provenance.method)
    if sensor is None:
        return ()
    return ("sensor", type(sensor).__name__), ("fidelity", sensor.fidelity.value)
