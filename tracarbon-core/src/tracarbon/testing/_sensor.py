"""What a sensor has to keep to."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from tracarbon._discovery import SENSOR, Kind
from tracarbon.hardwares.energy import EnergyUsage, Fidelity, Scope, UsageType
from tracarbon.hardwares.sensors import Sensor
from tracarbon.testing._clock import ManualClock
from tracarbon.testing._contract import ProbedContract

_READINGS = 4
_STEP_SECONDS = 10.0


class _Reading(NamedTuple):
    usage: EnergyUsage
    elapsed_seconds: float


class SensorContract(ProbedContract):
    """The standard tests of a sensor."""

    _kind: ClassVar[Kind] = SENSOR

    async def elapse(self, folder: Path) -> None:
        """Let something happen between two readings, such as a counter that goes on; ten seconds pass by the clock."""

    def test_figures_are_sound(self) -> None:
        """After a few readings there is a figure, and every figure is a finite number of watts that is not negative."""
        for readings in self._readings():
            figures = [figure for reading in readings for figure in _figures(reading.usage)]
            assert figures, f"no figure in {_READINGS} readings; override elapse() so that there is something to read"
            for name, watts in figures:
                assert math.isfinite(watts), f"{name} is {watts}"
                assert watts >= 0, f"{name} is {watts}: unknown is None, and nothing draws less than 0 W"

    def test_parts_are_within_the_host(self) -> None:
        """Where all are known, what the components draw is not more than the host does."""
        for readings in self._readings():
            for usage, _ in readings:
                parts = [usage.cpu_energy_usage, usage.memory_energy_usage, usage.gpu_energy_usage]
                known = sum(part for part in parts if part is not None)
                host = usage.host_energy_usage
                assert host is None or known <= host * (1 + 1e-6), f"components draw {known} W of the host's {host} W"

    def test_windows_are_the_time_since_the_previous_reading(self) -> None:
        """Mean watts say over which seconds: no more than have passed since the previous reading, and more than 0."""
        for readings in self._readings():
            for usage, elapsed_seconds in readings:
                windows = [usage.window_seconds, *(device.window_seconds for device in usage.devices)]
                for seconds in windows:
                    if seconds is None:
                        continue
                    assert seconds > 0, f"a window of {seconds} s; None is for instantaneous samples"
                    assert seconds <= elapsed_seconds * 1.05 + 0.01, (
                        f"a window of {seconds:.3f} s, when {elapsed_seconds:.3f} s had passed: energy counted twice"
                    )

    def test_provenance_is_stated(self) -> None:
        """The class says its fidelity and scope itself, and what is not measured says its method."""
        cls = self._cls()
        assert issubclass(cls, Sensor)
        stated = [base for base in cls.__mro__ if issubclass(base, Sensor) and base is not Sensor]
        assert any("fidelity" in vars(base) for base in stated), "state the class's fidelity: a Fidelity"
        assert isinstance(cls.fidelity, Fidelity), f"fidelity is {cls.fidelity!r}"
        assert isinstance(cls.scope, Scope), f"scope is {cls.scope!r}"
        if cls.fidelity is Fidelity.MEASURED:
            return
        for readings in self._readings():
            for usage, _ in readings:
                is_said = bool(usage.method and usage.method.strip())
                assert is_said or not [*_figures(usage)], "say how: EnergyUsage(method=...)"

    def test_devices_have_names_of_their_own(self) -> None:
        """The devices of a reading have different names, and one that lies within another names one that there is."""
        for readings in self._readings():
            known = {device.device.name for usage, _ in readings for device in usage.devices}
            for usage, _ in readings:
                names = [device.device.name for device in usage.devices]
                assert len(names) == len(set(names)), f"devices of one name: {sorted(names)}"
                for device in usage.devices:
                    within = device.device.within
                    assert within is None or within in known, f"{device.device.name} lies within {within!r}, unknown"

    async def _use(self, plugin: Any, folder: Path) -> object:
        return await plugin.get_energy_usage()

    def _readings(self) -> Iterator[list[_Reading]]:
        collected: list[list[_Reading]] = []

        async def read(folder: Path) -> None:
            options, context = self._given(folder)
            clock = context.clock
            assert isinstance(clock, ManualClock)
            sensor = self._cls().from_options(options, context)
            assert isinstance(sensor, Sensor)
            since, readings = _instant(clock), []
            try:
                async with sensor:
                    for _ in range(_READINGS):
                        began = _instant(clock)
                        usage = await self._call(sensor.get_energy_usage())
                        readings.append(_Reading(usage, max(_differences(since, _instant(clock)))))
                        since = began
                        clock.elapse(_STEP_SECONDS)
                        await self.elapse(folder)
            finally:
                context.close()
            collected.append(readings)

        self._on_each_loop(read)
        yield from collected


def _instant(clock: ManualClock) -> tuple[float, float]:
    """Return the time by either clock: a sensor may go by its own."""
    return clock.monotonic(), time.monotonic()


def _differences(before: tuple[float, float], after: tuple[float, float]) -> tuple[float, float]:
    return after[0] - before[0], after[1] - before[1]


def _figures(usage: EnergyUsage) -> Iterator[tuple[str, float]]:
    for usage_type in UsageType:
        watts = usage.get_energy_usage_on_type(usage_type)
        if watts is not None:
            yield usage_type.value, watts
    for device in usage.devices:
        yield device.device.name, device.watts
