"""Finding and loading plugins. Only those that are named get imported."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import metadata
from typing import Any

from stevedore.driver import DriverManager

from tracarbon.exceptions import PluginError
from tracarbon.exporters.exporter import Exporter, MetricGenerator
from tracarbon.hardwares.sensors import Sensor
from tracarbon.locations.location import Location
from tracarbon.plugin import Plugin

CORE_DISTRIBUTION = "tracarbon-core"


@dataclass(frozen=True, slots=True)
class Kind:
    """One of the contracts: the word for it, its entry-point group, and its base class."""

    word: str
    group: str
    contract: type[Any]


SENSOR = Kind("sensor", "tracarbon.sensors", Sensor)
LOCATION = Kind("location", "tracarbon.locations", Location)
GENERATOR = Kind("generator", "tracarbon.generators", MetricGenerator)
EXPORTER = Kind("exporter", "tracarbon.exporters", Exporter)
HOOK = Kind("hook", "tracarbon.hooks", object)
KINDS = (SENSOR, LOCATION, GENERATOR, EXPORTER, HOOK)

_KNOWN_DISTRIBUTIONS = {
    ("sensor", "rapl"): "tracarbon-sensor-rapl",
    ("sensor", "macos"): "tracarbon-sensor-macos",
    ("sensor", "aws"): "tracarbon-sensor-aws",
    ("location", "aws"): "tracarbon-sensor-aws",
    ("sensor", "nvidia"): "tracarbon-sensor-nvidia",
    ("exporter", "prometheus"): "tracarbon-exporter-prometheus",
    ("exporter", "datadog"): "tracarbon-exporter-datadog",
    ("generator", "energy_kubernetes"): "tracarbon-k8s",
    ("generator", "carbon_kubernetes"): "tracarbon-k8s",
}


@dataclass(frozen=True, slots=True)
class InstalledPlugin:
    """A plugin as its distribution declares it; nothing of it is imported yet."""

    kind: Kind
    name: str
    distribution: str
    version: str

    @property
    def origin(self) -> str:
        """The plugin and where it is from, for messages."""
        return f"{self.name}, from {self.distribution} {self.version}"


@cache
def installed_plugins(kind: Kind) -> tuple[InstalledPlugin, ...]:
    """Return the installed plugins of a kind, by name."""
    plugins = {
        InstalledPlugin(kind, entry_point.name, *_name_and_version(entry_point.dist))
        for entry_point in _entry_points().select(group=kind.group)
        if entry_point.dist is not None
    }
    return tuple(sorted(plugins, key=lambda plugin: (plugin.name.casefold(), plugin.distribution)))


@cache
def _entry_points() -> Any:
    # All groups at once: a look through every installed distribution is what costs.
    return metadata.entry_points()


@cache
def _name_and_version(distribution: metadata.Distribution) -> tuple[str, str]:
    return distribution.name, distribution.version


def distribution_of(kind: Kind, name: str) -> str | None:
    """Return which of our distributions has a plugin of that name, to tell what to install."""
    return _KNOWN_DISTRIBUTIONS.get((kind.word, name.casefold()))


def find_plugin(kind: Kind, name: str) -> InstalledPlugin | None:
    """Return the installed plugin of that name, in any case, or `None`.

    Raises:
        PluginError: several distributions claim the name.
    """
    matches = [plugin for plugin in installed_plugins(kind) if plugin.name.casefold() == name.casefold()]
    if len(matches) > 1:
        claims = " and ".join(f"{plugin.distribution} {plugin.version}" for plugin in matches)
        raise PluginError(f"{claims} both have a {kind.word} named {name!r}; uninstall one of them")
    return matches[0] if matches else None


def load_plugin(plugin: InstalledPlugin) -> Any:
    """Import a plugin and return its class.

    Raises:
        PluginError: it was made for another core, cannot be imported, or does not keep to its contract.
    """
    _refuse_other_core(plugin)
    failures: list[BaseException] = []
    try:
        driver: Any = DriverManager(
            plugin.kind.group,
            plugin.name,
            invoke_on_load=False,
            on_load_failure_callback=lambda _manager, _entry_point, error: failures.append(error),
        ).driver
    except (Exception, SystemExit) as error:
        cause = failures[0] if failures else error
        raise PluginError(f"it cannot be imported: {type(cause).__name__}: {cause}") from cause
    if plugin.kind is not HOOK and not (isinstance(driver, type) and issubclass(driver, plugin.kind.contract)):
        contract = plugin.kind.contract.__name__
        raise PluginError(f"its entry point gives {driver!r}, which is no subclass of tracarbon's {contract}")
    return driver


def load_class(plugin: InstalledPlugin) -> type[Plugin]:
    """Import a plugin that is a class of one of the four contracts, as `load_plugin`."""
    loaded: type[Plugin] = load_plugin(plugin)
    return loaded


def _refuse_other_core(plugin: InstalledPlugin) -> None:
    if plugin.distribution == CORE_DISTRIBUTION:
        return
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name

    version = metadata.version(CORE_DISTRIBUTION)
    for text in metadata.requires(plugin.distribution) or ():
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        if canonicalize_name(requirement.name) == CORE_DISTRIBUTION and not requirement.specifier.contains(
            version, prereleases=True
        ):
            raise PluginError(
                f"it was made for {CORE_DISTRIBUTION} {requirement.specifier}, and {version} is installed; "
                f"pip install --upgrade {plugin.distribution}"
            )
