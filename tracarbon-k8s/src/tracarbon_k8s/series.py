"""From the shares of a window to its metrics: names, values and tags."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, TypeAlias

from tracarbon.emissions.carbon_emissions import CarbonUsage
from tracarbon.hardwares.energy import EnergyUsage, Provenance, UsageType
from tracarbon.hardwares.sensors import Sensor
from tracarbon.metrics import Metric, MetricKind, Tag

from tracarbon_k8s._attribution import Amounts, Share
from tracarbon_k8s._usage import Workload

Pairs: TypeAlias = tuple[tuple[str, str | None], ...]
"""Keys and values of tags; those without a value are left out."""

_SUFFIXES = {UsageType.HOST: "total", UsageType.CPU: "cpu", UsageType.MEMORY: "memory", UsageType.GPU: "gpu"}
_FIRST = Share._fields.index("total")
_PLACES = {usage_type: Share._fields.index(suffix) - _FIRST for usage_type, suffix in _SUFFIXES.items()}
_GPU = _PLACES[UsageType.GPU]
_MOST_TAGS = 65_536


class Component(NamedTuple):
    """A component of the node in one window.

    Attributes:
        amount: joules or grams.
        covered_seconds: that it was spent in.
        origin: the sensor, its fidelity and its method, as tags.
    """

    amount: float
    covered_seconds: float
    origin: Pairs


Components: TypeAlias = Mapping[UsageType, Component]


def joules_of(energy: EnergyUsage, sensor: Sensor, seconds: float) -> Components:
    """Return the joules of each component that is known.

    Args:
        energy: in watts.
        sensor: that said so.
        seconds: what the watts hold for where nothing else says so.
    """
    found = {}
    for usage_type in _SUFFIXES:
        watts, origin = energy.get_energy_usage_on_type(usage_type), energy.provenance.get(usage_type)
        covered = (origin and origin.covered_seconds) or energy.window_seconds or seconds
        if watts is not None and covered > 0:
            found[usage_type] = Component(watts * covered, covered, _origin(origin, sensor))
    return found


def grams_of(carbon: CarbonUsage, sensor: Sensor | None, seconds: float) -> Components:
    """Return the grams of each component that is known; the arguments are as for `joules_of`."""
    found = {}
    for usage_type in _SUFFIXES:
        grams, origin = carbon.get_carbon_usage_on_type(usage_type), carbon.provenance.get(usage_type)
        covered = (origin and origin.covered_seconds) or carbon.window_seconds or seconds
        if grams is not None:
            found[usage_type] = Component(grams, covered, _origin(origin, sensor))
    return found


def amounts_of(components: Components, energy: EnergyUsage | None, seconds: float) -> Amounts:
    """Return the amounts of components, with what of it is each graphics card's.

    Args:
        components: in joules or grams.
        energy: the usage that they are of, which knows the cards.
        seconds: as for `joules_of`.
    """
    amounts = {usage_type: component.amount for usage_type, component in components.items()}
    gpu = amounts.get(UsageType.GPU)
    return Amounts(
        host=amounts.get(UsageType.HOST),
        cpu=amounts.get(UsageType.CPU),
        memory=amounts.get(UsageType.MEMORY),
        gpu=gpu,
        gpus=_amounts_by_card(energy, gpu, seconds) if energy is not None and gpu else {},
    )


def _amounts_by_card(energy: EnergyUsage, gpu: float, seconds: float) -> dict[str, float]:
    """Return the amount of each graphics card that is known by itself, by its UUID."""
    joules: dict[str, float] = {}
    for reading in energy.devices:
        uuid = dict(reading.device.tags).get("uuid")
        if uuid is not None and reading.device.component is UsageType.GPU:
            covered = reading.window_seconds or energy.window_seconds or seconds
            joules[uuid] = joules.get(uuid, 0.0) + reading.watts * covered
    origin, watts = energy.provenance.get(UsageType.GPU), energy.gpu_energy_usage
    covered = (origin and origin.covered_seconds) or energy.window_seconds or seconds
    per_joule = gpu / (watts * covered) if watts and covered else 0.0
    return {uuid: amount * per_joule for uuid, amount in joules.items()}


def _origin(provenance: Provenance | None, sensor: Sensor | None) -> Pairs:
    if provenance is not None:
        return ("sensor", provenance.sensor), ("fidelity", provenance.fidelity.value), ("method", provenance.method)
    if sensor is None:
        return ()
    return ("sensor", type(sensor).__name__), ("fidelity", sensor.fidelity.value)


class _Column(NamedTuple):
    name: str
    place: int
    per_amount: float
    covered_seconds: float


class Series:
    """The series of a generator. The tags of each are made once.

    Args:
        prefix: of the names: `energy_consumption` or `carbon_emission`.
        kind: watts are a rate, grams an amount.
        unit: of the values.
    """

    def __init__(self, prefix: str, kind: MetricKind, unit: str) -> None:
        self._names = {usage_type: f"{prefix}_kubernetes_{suffix}" for usage_type, suffix in _SUFFIXES.items()}
        self._kind, self._unit = kind, unit
        self._tags: dict[Pairs, _Tags] = {}

    def metrics(self, shares: Iterable[Share], components: Components, details: Pairs) -> Iterator[Metric]:
        """Yield a metric of each share and component.

        What is unattributed, and graphics cards, are left out where there is nothing of them.

        Args:
            shares: of the window.
            components: the wholes that they are shares of.
            details: tags of all of them.
        """
        columns = self._columns(components, details)
        for share in shares:
            kind, workload, *values = share
            for tags_of, some in columns:
                tags = tags_of.get((kind, workload)) or _made(tags_of, kind, workload)
                for name, place, per_amount, covered_seconds in some:
                    value = values[place]
                    if value or (value is not None and place != _GPU and kind != "unattributed"):
                        yield Metric(
                            name=name,
                            value=value * per_amount,
                            tags=tags,
                            unit=self._unit,
                            kind=self._kind,
                            covered_seconds=covered_seconds,
                        )

    def _columns(self, components: Components, details: Pairs) -> list[tuple[_Tags, list[_Column]]]:
        """Return the components by their tags, which nearly always are the same for all."""
        found: dict[Pairs, list[_Column]] = defaultdict(list)
        for usage_type, (_, covered_seconds, origin) in components.items():
            per_amount = 1.0 / covered_seconds if self._kind is MetricKind.RATE else 1.0
            column = _Column(self._names[usage_type], _PLACES[usage_type], per_amount, covered_seconds)
            found[*details, *origin].append(column)
        if sum(map(len, self._tags.values())) > _MOST_TAGS:
            self._tags.clear()
        return [(self._tags.setdefault(pairs, _Tags(pairs)), columns) for pairs, columns in found.items()]


class _Tags(dict[tuple[str, Workload | None], tuple[Tag, ...]]):
    """The tags of shares that have some in common."""

    def __init__(self, common: Pairs) -> None:
        super().__init__()
        self.common = common


def _made(tags_of: _Tags, kind: str, workload: Workload | None) -> tuple[Tag, ...]:
    identity: Pairs = ()
    if workload is not None:
        identity = (
            ("pod_name", workload.pod),
            ("pod_namespace", workload.namespace),
            ("container_name", workload.container),
            ("pod_owner", workload.owner),
            *((f"pod_label_{name}", value) for name, value in workload.labels),
        )
    pairs = (*identity, ("attribution", kind), ("containers", "kubernetes"), *tags_of.common)
    tags = tags_of[kind, workload] = tuple(Tag(key, value) for key, value in pairs if value)
    return tags
