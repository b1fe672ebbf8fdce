"""Asking installed plugins whether they would work on this machine, without letting one that hangs hold up the rest."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from tracarbon._discovery import (
    CORE_DISTRIBUTION,
    LOCATION,
    SENSOR,
    InstalledPlugin,
    Kind,
    ambiguity_of,
    installed_plugins,
    load_class,
)
from tracarbon._states import Components
from tracarbon.exceptions import PluginError
from tracarbon.hardwares.energy import Fidelity, Scope
from tracarbon.hardwares.sensors import Sensor
from tracarbon.plugin import Plugin, PluginContext, Probe

PROBE_SECONDS = 3.0

T = TypeVar("T")


@dataclass(slots=True)
class Probed:
    """An installed plugin and what it said of itself.

    Attributes:
        plugin: its declaration.
        loaded: its class; `None` where it could not be imported.
        probe: what it said.
    """

    plugin: InstalledPlugin
    loaded: type[Plugin] | None
    probe: Probe

    def make_sensor(self, context: PluginContext) -> Sensor:
        """Construct the sensor, which has to be one that works, with its default options."""
        assert self.loaded is not None
        sensor = self.loaded.from_options(self.loaded.Options(), context)
        assert isinstance(sensor, Sensor)
        return sensor


def probe_plugins(kind: Kind, host_root: Path) -> list[Probed]:
    """Probe every installed sensor or location; the best first, those that would not work last.

    Of a name that several distributions claim, none works: they may well read the same hardware.
    """
    return _probe(installed_plugins(kind), host_root)


def _probe(plugins: Sequence[InstalledPlugin], host_root: Path) -> list[Probed]:
    probed = call_within(PROBE_SECONDS, [partial(_probed, plugin, host_root) for plugin in plugins])
    late = Probe(works=False, reason=f"it did not say within {PROBE_SECONDS:g} s whether it works here")
    said = [item or Probed(plugin, None, late) for plugin, item in zip(plugins, probed, strict=True)]
    return sorted(said, key=_order)


def call_within(seconds: float, functions: Sequence[Callable[[], T]]) -> list[T | None]:
    """Call functions at the same time, in daemon threads; `None` stands for one that has not returned by then.

    They have to see to their own exceptions. Imports take a lock each: one after another they would be no faster.
    """
    results: list[T | None] = [None] * len(functions)

    def call(index: int) -> None:
        results[index] = functions[index]()

    threads = [
        threading.Thread(target=call, args=(index,), name=f"tracarbon-attempt-{index}", daemon=True)
        for index in range(len(functions))
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return results[:]


def working_sensors(host_root: Path) -> tuple[list[Probed], list[Probed]]:
    """Return the sensors that a pipeline without `[sensors]` runs, and every sensor that was probed.

    These are the best sensor for the host and every extra device's: measured before modelled before estimated.
    """
    probed = probe_plugins(SENSOR, host_root)
    working = [item for item in probed if item.probe.works]
    of_host = [item for item in working if _scope(item) is not Scope.EXTRA]
    return of_host[:1] + [item for item in working if _scope(item) is Scope.EXTRA], probed


def working_location(host_root: Path) -> tuple[Probed | None, list[Probed]]:
    """Return a location of another distribution that works here, and every one that was probed.

    It knows more of this machine than the time zone.
    """
    others = [plugin for plugin in installed_plugins(LOCATION) if plugin.distribution != CORE_DISTRIBUTION]
    probed = _probe(others, host_root)
    return next((item for item in probed if item.probe.works), None), probed


def no_sensor_works(probed: Iterable[Probed]) -> str:
    """Say why no sensor works."""
    reasons = [f"{item.plugin.name}: {item.probe.reason}. {item.probe.remedy}".rstrip(". ") for item in probed]
    return "no installed sensor works here: " + ("; ".join(reasons) or "none is installed")


def default_context(kind: Kind, name: str, host_root: Path) -> PluginContext:
    """Return the context that a plugin is probed in."""
    return PluginContext(name, component=Components().add(kind.word, name), host_root=host_root)


def _scope(item: Probed) -> Scope:
    return item.loaded.scope if item.loaded is not None and issubclass(item.loaded, Sensor) else Scope.HOST


def _order(item: Probed) -> tuple[bool, int, bool, bool, str]:
    fidelity = item.probe.fidelity or Fidelity.ESTIMATED
    is_whole_machine = _scope(item) is Scope.WHOLE_MACHINE
    # Of equals, who was installed on purpose comes before what is always there.
    is_of_core = item.plugin.distribution == CORE_DISTRIBUTION
    return not item.probe.works, fidelity.rank, not is_whole_machine, is_of_core, item.plugin.name


def _probed(plugin: InstalledPlugin, host_root: Path) -> Probed:
    if (ambiguity := ambiguity_of(plugin)) is not None:
        return Probed(plugin, None, Probe(False, *ambiguity))
    loaded: type[Plugin] | None = None
    try:
        loaded = load_class(plugin)
        missing = [name for name, option in loaded.Options.model_fields.items() if option.is_required()]
        if missing:
            return Probed(plugin, loaded, Probe(works=False, reason=f"it has to be told its {', '.join(missing)}"))
        probe: Callable[[Any], Probe] = loaded.probe  # type: ignore[attr-defined]
        return Probed(plugin, loaded, probe(default_context(plugin.kind, plugin.name, host_root)))
    except PluginError as error:
        return Probed(plugin, loaded, Probe(works=False, reason=str(error)))
    except BaseException as error:  # in a thread of its own, where nobody else would see it
        return Probed(plugin, loaded, Probe(works=False, reason=f"{type(error).__name__}: {error}"))
