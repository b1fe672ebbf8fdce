"""Finding and loading plugins. Only those that are named get imported."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from typing import Any

from stevedore.driver import DriverManager

from tracarbon._document import nearest
from tracarbon._watch import is_interrupt
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
    def reference(self) -> str:
        """What names this plugin and no other in a file: the distribution, a colon and the name."""
        return f"{self.distribution}:{self.name}"

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
    """Return which of our distributions has a plugin of that name, whether it is installed or not."""
    return _KNOWN_DISTRIBUTIONS.get((kind.word, name.casefold()))


def not_installed(kind: Kind, name: str) -> tuple[str, str]:
    """Say that no plugin of that name is installed, and what would help."""
    message = f"no {kind.word} named '{name}' is installed"
    distribution = distribution_of(kind, name)
    if distribution is not None:
        return message, f"pip install {distribution}"
    names = [plugin.name for plugin in installed_plugins(kind)]
    meant = nearest(name, names)
    if meant is not None:
        return f"{message}; did you mean '{meant}'?", ""
    return message, f"installed: {', '.join(names) or 'none'}"


def unambiguous_names(plugins: Sequence[InstalledPlugin]) -> list[str]:
    """Return what to call each plugin: its name, or its reference where several of its kind have that name."""
    claims = Counter((plugin.kind, plugin.name.casefold()) for plugin in plugins)
    return [it.name if claims[it.kind, it.name.casefold()] == 1 else it.reference for it in plugins]


def find_plugin(kind: Kind, name: str) -> InstalledPlugin | None:
    """Return the installed plugin of that name, in any case, or `None`.

    Args:
        kind: which contract.
        name: its name, or `DISTRIBUTION:NAME` where several distributions have one of that name.

    Raises:
        PluginError: several distributions claim the name, and it does not say which.
    """
    distribution, colon, bare_name = name.rpartition(":")
    matches = _of_name(kind, bare_name)
    if colon:
        matches = [plugin for plugin in matches if is_same_distribution(plugin.distribution, distribution)]
    if len(matches) > 1:
        raise PluginError("; ".join(_ambiguity(matches, bare_name, matches[0])))
    return matches[0] if matches else None


def ambiguity_of(plugin: InstalledPlugin) -> tuple[str, str] | None:
    """Say which distributions claim the name of a plugin, and what to do; `None` where its own alone does."""
    matches = _of_name(plugin.kind, plugin.name)
    return _ambiguity(matches, plugin.name, plugin) if len(matches) > 1 else None


def _of_name(kind: Kind, name: str) -> list[InstalledPlugin]:
    return [plugin for plugin in installed_plugins(kind) if plugin.name.casefold() == name.casefold()]


def _ambiguity(matches: Sequence[InstalledPlugin], name: str, wanted: InstalledPlugin) -> tuple[str, str]:
    claims = " and ".join(f"{plugin.distribution} {plugin.version}" for plugin in matches)
    return (
        f"{claims} both have a {wanted.kind.word} named {name!r}",
        f'uninstall one of them, or say which one: plugin = "{wanted.reference}"',
    )


def is_same_distribution(one: str, other: str) -> bool:
    """Whether two names are of one distribution: case, and the kind of dash, make no difference."""
    from packaging.utils import canonicalize_name

    return canonicalize_name(one) == canonicalize_name(other)


def load_plugin(plugin: InstalledPlugin) -> Any:
    """Import a plugin and return its class.

    Raises:
        PluginError: it was made for another core, cannot be imported, or does not keep to its contract.
    """
    entry_point = _entry_point_of(plugin)
    _refuse_malformed(entry_point)
    _refuse_other_core(plugin)
    failures: list[BaseException] = []
    try:
        driver = _Driver(entry_point, failures).driver
    except BaseException as error:
        if is_interrupt(error):
            raise
        cause = failures[0] if failures else error
        raise PluginError(f"it cannot be imported: {type(cause).__name__}: {cause}") from cause
    if plugin.kind is not HOOK and not (isinstance(driver, type) and issubclass(driver, plugin.kind.contract)):
        contract = plugin.kind.contract.__name__
        raise PluginError(f"its entry point gives {driver!r}, which is no subclass of tracarbon's {contract}")
    return driver


class _Driver(DriverManager[Any]):
    """A driver out of the entry points as they are now.

    stevedore's own list is from a file in the user's cache folder, which misses an entry point that was added to an
    installed distribution within two minutes of its last change: the times in it are single-precision floats.
    """

    def __init__(self, entry_point: metadata.EntryPoint, failures: list[BaseException]) -> None:
        self._entry_point = entry_point
        super().__init__(
            entry_point.group,
            entry_point.name,
            invoke_on_load=False,
            on_load_failure_callback=lambda _manager, _entry_point, error: failures.append(error),
        )

    def list_entry_points(self) -> list[metadata.EntryPoint]:
        return [self._entry_point]


def _entry_point_of(plugin: InstalledPlugin) -> metadata.EntryPoint:
    named = _entry_points().select(group=plugin.kind.group, name=plugin.name)
    entry_point: metadata.EntryPoint = next(it for it in named if it.dist and it.dist.name == plugin.distribution)
    return entry_point


def _refuse_malformed(entry_point: metadata.EntryPoint) -> None:
    if entry_point.pattern.match(entry_point.value) is None:
        raise PluginError(f"its entry point is {entry_point.value!r}, which has to be MODULE:CLASS")


def load_class(plugin: InstalledPlugin) -> type[Plugin]:
    """Import a plugin that is a class of one of the four contracts, as `load_plugin`."""
    loaded: type[Plugin] = load_plugin(plugin)
    return loaded


def _refuse_other_core(plugin: InstalledPlugin) -> None:
    if plugin.distribution == CORE_DISTRIBUTION:
        return
    from packaging.requirements import InvalidRequirement, Requirement

    version = metadata.version(CORE_DISTRIBUTION)
    for text in metadata.requires(plugin.distribution) or ():
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        if is_same_distribution(requirement.name, CORE_DISTRIBUTION) and not requirement.specifier.contains(
            version, prereleases=True
        ):
            raise PluginError(
                f"it was made for {CORE_DISTRIBUTION} {requirement.specifier}, and {version} is installed; "
                f"pip install --upgrade {plugin.distribution}"
            )
