"""Asking installed plugins whether they would work on this machine, without letting one that hangs hold up the rest."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tracarbon._discovery import SENSOR, InstalledPlugin, Kind, installed_plugins, load_class
from tracarbon._states import Components
from tracarbon.exceptions import PluginError
from tracarbon.hardwares.energy import Fidelity, Scope
from tracarbon.hardwares.sensors import Sensor
from tracarbon.plugin import Plugin, PluginContext, Probe

PROBE_SECONDS = 3.0


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
    """Probe every installed sensor or location; the best first, those that would not work last."""
    attempts = [_Attempt(plugin, host_root) for plugin in installed_plugins(kind)]
    for attempt in attempts:
        attempt.start()
    deadline = time.monotonic() + PROBE_SECONDS
    return sorted((attempt.result(deadline - time.monotonic()) for attempt in attempts), key=_order)


def working_sensors(host_root: Path) -> tuple[list[Probed], list[Probed]]:
    """Return the sensors that a pipeline without `[sensors]` runs, and every sensor that was probed.

    These are the best sensor for the host and every extra device's: measured before modelled before estimated.
    """
    probed = probe_plugins(SENSOR, host_root)
    working = [item for item in probed if item.probe.works]
    of_host = [item for item in working if _scope(item) is not Scope.EXTRA]
    return of_host[:1] + [item for item in working if _scope(item) is Scope.EXTRA], probed


def no_sensor_works(probed: Iterable[Probed]) -> str:
    """Say why no sensor works."""
    reasons = [f"{item.plugin.name}: {item.probe.reason}. {item.probe.remedy}".rstrip(". ") for item in probed]
    return "no installed sensor works here: " + ("; ".join(reasons) or "none is installed")


def default_context(kind: Kind, name: str, host_root: Path) -> PluginContext:
    """Return the context that a plugin is probed in."""
    return PluginContext(name, component=Components().add(kind.word, name), host_root=host_root)


def _scope(item: Probed) -> Scope:
    return item.loaded.scope if item.loaded is not None and issubclass(item.loaded, Sensor) else Scope.HOST


def _order(item: Probed) -> tuple[bool, int, bool, str]:
    fidelity = item.probe.fidelity or Fidelity.ESTIMATED
    is_whole_machine = _scope(item) is Scope.WHOLE_MACHINE
    return not item.probe.works, fidelity.rank, not is_whole_machine, item.plugin.name


class _Attempt:
    def __init__(self, plugin: InstalledPlugin, host_root: Path) -> None:
        self._plugin = plugin
        self._host_root = host_root
        self._loaded: type[Plugin] | None = None
        self._probe: Probe | None = None
        self._thread = threading.Thread(target=self._run, name=f"tracarbon-probe-{plugin.name}", daemon=True)

    def start(self) -> None:
        # Imports take a lock each: one after another they cost no more, and a probe only hangs by itself.
        self._thread.start()

    def _run(self) -> None:
        try:
            self._loaded = load_class(self._plugin)
            missing = [name for name, option in self._loaded.Options.model_fields.items() if option.is_required()]
            if missing:
                self._probe = Probe(works=False, reason=f"it has to be told its {', '.join(missing)}")
                return
            probe: Callable[[Any], Probe] = self._loaded.probe  # type: ignore[attr-defined]
            self._probe = probe(default_context(self._plugin.kind, self._plugin.name, self._host_root))
        except PluginError as error:
            self._probe = Probe(works=False, reason=str(error))
        except (Exception, SystemExit) as error:
            self._probe = Probe(works=False, reason=f"{type(error).__name__}: {error}")

    def result(self, seconds: float) -> Probed:
        self._thread.join(max(0.0, seconds))
        late = Probe(works=False, reason=f"it did not say within {PROBE_SECONDS:g} s whether it works here")
        return Probed(self._plugin, self._loaded, self._probe or late)
