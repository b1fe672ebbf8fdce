"""Parts of a pipeline that do as a test tells them: sensors over a known power, exporters and locations with faults."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import field
from itertools import pairwise
from typing import Any, Self, TypeAlias

import anyio
from anyio.lowlevel import checkpoint
from tracarbon._listener import Listener
from tracarbon._meter import MeterView
from tracarbon._pipeline import Pipeline
from tracarbon._states import Component
from tracarbon.emissions.carbon_emissions import CarbonEmission
from tracarbon.exporters.exporter import Batch, Exporter, Metric, MetricGenerator, MetricKind, Record
from tracarbon.general_metrics import CarbonEmissionGenerator, EnergyConsumptionGenerator
from tracarbon.hardwares.energy import Device, DeviceUsage, EnergyUsage, Fidelity, Scope, UsageType
from tracarbon.hardwares.sensors import Sensor
from tracarbon.locations.location import Location
from tracarbon.metrics import Window
from tracarbon.testing import ManualClock


class Panic(BaseException):
    """What some libraries raise that are not written in Python: no `Exception`."""


Fault: TypeAlias = Callable[[], Awaitable[object]]
"""What a call does before anything else: wait, hang or raise."""

CPU = Device("cpu", UsageType.CPU)
MEMORY = Device("memory", UsageType.MEMORY)
GRAPHICS_CARD = Device("card", UsageType.GPU, Scope.EXTRA)


async def hang() -> None:
    await anyio.sleep_forever()


def raising(error: BaseException) -> Fault:
    async def fault() -> None:
        raise error

    return fault


async def leak_cancellation() -> None:
    """Let a cancellation slip out that is nobody's business outside."""
    leaked: BaseException | None = None
    with anyio.CancelScope() as scope:
        scope.cancel()
        try:
            await checkpoint()
        except anyio.get_cancelled_exc_class() as error:
            leaked = error
            raise
    assert leaked is not None
    raise leaked


class Script:
    """The faults of one call after another, and then one for good, or none."""

    def __init__(self, faults: Iterable[Fault | None] = (), then: Fault | None = None) -> None:
        self.faults = list(faults)
        self.then = then

    async def play(self) -> None:
        fault = self.faults.pop(0) if self.faults else self.then
        if fault is not None:
            await fault()


class Load:
    """A power over time: pieces of straight lines between points of seconds and watts, constant outside."""

    def __init__(self, *points: tuple[float, float]) -> None:
        self.points = points

    def watts(self, at: float) -> float:
        if at <= self.points[0][0]:
            return self.points[0][1]
        for (start, before), (end, after) in pairwise(self.points):
            if at <= end:
                part = (at - start) / (end - start)
                return before * (1 - part) + after * part
        return self.points[-1][1]

    def joules(self, start: float, end: float) -> float:
        instants = [start, *(at for at, _ in self.points if start < at < end), end]
        return sum((self.watts(one) + self.watts(other)) / 2 * (other - one) for one, other in pairwise(instants))


def constant(watts: float) -> Load:
    return Load((0.0, watts))


class FakeSensor(Sensor):
    """Knows the power of its devices exactly.

    Attributes:
        loads: the power of each device.
        counts: counters (watts since its previous reading), or else instantaneous samples.
        script: what each read does first.
        entering: what each entry does first.
        silent: devices that are left out of the readings.
    """

    fidelity = Fidelity.MEASURED
    sampling_interval_seconds = math.inf  # at the closes, unless the pipeline says otherwise

    clock: ManualClock
    loads: Mapping[Device, Load] = field(default_factory=lambda: {CPU: constant(10.0)})
    counts: bool = True
    script: Script = field(default_factory=Script)
    entering: Script = field(default_factory=Script)
    leaving: Script = field(default_factory=Script)
    silent: set[Device] = field(default_factory=set)
    read_at: list[float] = field(default_factory=list)
    entries: int = 0
    exits: int = 0

    async def __aenter__(self) -> Self:
        self.entries += 1
        self._previous: dict[Device, float] = getattr(self, "_previous", {})
        await self.entering.play()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.exits += 1
        await self.leaving.play()

    async def get_energy_usage(self) -> EnergyUsage:
        await self.script.play()
        now = self.clock.monotonic()
        self.read_at.append(now)
        readings = [
            self._reading(device, load, now) for device, load in self.loads.items() if device not in self.silent
        ]
        return EnergyUsage(devices=[reading for reading in readings if reading is not None])

    def _reading(self, device: Device, load: Load, now: float) -> DeviceUsage | None:
        if not self.counts:
            return DeviceUsage(device, load.watts(now))
        previous, self._previous[device] = self._previous.get(device), now
        if previous is None or previous >= now:
            return None
        return DeviceUsage(device, load.joules(previous, now) / (now - previous), now - previous)


class FakeLocation(Location):
    """An intensity that is known, or not.

    Attributes:
        intensity: such that at 3.6e6 a joule is a gram.
        script: what each question does first.
    """

    name: str = "xx"
    intensity: Any = 3.6e6
    script: Script = field(default_factory=Script)
    entering: Script = field(default_factory=Script)

    async def __aenter__(self) -> Self:
        await self.entering.play()
        return self

    async def get_latest_co2g_kwh(self) -> float:
        await self.script.play()
        intensity: float = self.intensity
        return intensity


class FakeGenerator(MetricGenerator):
    """Counts its windows in amounts of 1 and says what the meter says of the host.

    Attributes:
        script: what each run does before its first metric.
        midway: what each run does after it.
    """

    view: MeterView
    script: Script = field(default_factory=Script)
    midway: Script = field(default_factory=Script)
    entering: Script = field(default_factory=Script)
    runs: int = 0

    async def __aenter__(self) -> Self:
        await self.entering.play()
        return self

    async def generate(self) -> AsyncGenerator[Metric, None]:
        self.runs += 1
        await self.script.play()
        yield Metric(name="windows", value=1.0, kind=MetricKind.AMOUNT)
        await self.midway.play()
        usage = await self.view.get_energy_usage()
        if usage.host_energy_usage is not None:
            yield Metric(
                name="host",
                value=usage.host_energy_usage,
                unit="watts",
                kind=MetricKind.RATE,
                covered_seconds=usage.provenance[UsageType.HOST].covered_seconds,
            )


class RecordingExporter(Exporter):
    """Keeps what it gets.

    Attributes:
        script: what each delivery does first.
        attempts: every batch that it was asked to deliver.
        delivered: those that it took.
        delivered_at: when.
    """

    clock: ManualClock
    script: Script = field(default_factory=Script)
    entering: Script = field(default_factory=Script)
    leaving: Script = field(default_factory=Script)
    attempts: list[Batch] = field(default_factory=list)
    attempted_at: list[float] = field(default_factory=list)
    delivered: list[Batch] = field(default_factory=list)
    delivered_at: list[float] = field(default_factory=list)
    entries: int = 0
    exits: int = 0

    async def __aenter__(self) -> Self:
        self.entries += 1
        await self.entering.play()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.exits += 1
        await self.leaving.play()

    async def export(self, batch: Batch) -> None:
        self.attempts.append(batch)
        self.attempted_at.append(self.clock.monotonic())
        await self.script.play()
        self.delivered.append(batch)
        self.delivered_at.append(self.clock.monotonic())

    def windows(self) -> list[Window]:
        return [batch.window for batch in self.delivered]

    def records(self, name: str) -> list[Record]:
        return [record for batch in self.delivered for record in batch if record.name == name]

    def values(self, name: str) -> list[float]:
        return [record.value for record in self.records(name)]

    def total(self, name: str) -> float:
        return sum(record.total for record in self.records(name))


class RecordingListener(Listener):
    """Keeps the moments that it was told of."""

    def __init__(self) -> None:
        self.moments: list[str] = []

    def started(self) -> None:
        self.moments.append("started")

    def window_closed(self, batch: Batch) -> None:
        self.moments.append(f"window {', '.join(batch.windows)}")

    def exported(self, exporter: str, batch: Batch) -> None:
        self.moments.append(f"exported {exporter}")

    def state_changed(self, component: Component) -> None:
        self.moments.append(f"{component} {component.state.value}")

    def stopped(self) -> None:
        self.moments.append("stopped")


class Rig:
    """A pipeline on a manual clock, and what is in it."""

    def __init__(self, interval_seconds: float = 10.0, **options: Any) -> None:
        self.clock = ManualClock()
        self.start = self.clock.monotonic()
        options.setdefault("first_window_seconds", 0.15)
        self.pipeline = Pipeline(interval_seconds=interval_seconds, clock=self.clock, **options)
        self.listener = RecordingListener()
        self.pipeline.listeners.append(self.listener)
        self.started = False

    def sensor(self, name: str = "sensor", *, interval: float | None = None, optional: bool = False, **how: Any) -> Any:
        sensor = FakeSensor(clock=self.clock, **how)
        self.add_sensor(name, sensor, interval=interval, optional=optional)
        return sensor

    def add_sensor(self, name: str, sensor: Sensor, *, interval: float | None = None, optional: bool = False) -> None:
        component = self.pipeline.components.add("sensor", name)
        self.pipeline.add_sensor(component, sensor, interval_seconds=interval, optional=optional)

    def location(self, *, optional: bool = False, **how: Any) -> FakeLocation:
        location = FakeLocation(**how)
        self.pipeline.set_location(self.pipeline.components.add("location", "location"), location, optional=optional)
        return location

    def energy(self, sensors: Sequence[str] | None = None, name: str = "energy") -> MeterView:
        view = self.pipeline.view(sensors)
        generator = EnergyConsumptionGenerator(location=FakeLocation(), energy_consumption=view)
        self.pipeline.add_generator(self.pipeline.components.add("generator", name), generator, view)
        return view

    def carbon(self, location: Location) -> None:
        view = self.pipeline.view()
        emission = CarbonEmission(location=location, energy_consumption=view)
        generator = CarbonEmissionGenerator(location=location, carbon_emission=emission)
        self.pipeline.add_generator(self.pipeline.components.add("generator", "carbon"), generator, view)

    def generator(self, name: str, *, interval: float | None = None, optional: bool = False, **how: Any) -> Any:
        view = self.pipeline.view()
        generator = FakeGenerator(view=view, **how)
        component = self.pipeline.components.add("generator", name)
        self.pipeline.add_generator(component, generator, view, interval_seconds=interval, optional=optional)
        return generator

    def exporter(
        self,
        name: str = "exporter",
        *,
        inputs: Sequence[str] | None = None,
        interval: float | None = None,
        optional: bool = False,
        **how: Any,
    ) -> RecordingExporter:
        exporter = RecordingExporter(clock=self.clock, **how)
        component = self.pipeline.components.add("exporter", name)
        self.pipeline.add_exporter(component, exporter, inputs=inputs, interval_seconds=interval, optional=optional)
        return exporter

    def component(self, name: str) -> Component:
        return next(component for component in self.pipeline.components if component.name == name)

    def late(self, seconds: float) -> Fault:
        """Answer only after so many seconds."""

        async def fault() -> None:
            await self.clock.sleep_until(self.clock.monotonic() + seconds)

        return fault

    def blocking(self, seconds: float) -> Fault:
        """Hold up everybody for so many seconds."""

        async def fault() -> None:
            self.clock.elapse(seconds)

        return fault

    async def to(self, seconds: float) -> None:
        """Turn the clock to so many seconds after the start."""
        await self.clock.advance(self.start + seconds - self.clock.monotonic())

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the pipeline; at the end of the block, stop it and give it all the time that it may take."""
        self.start = self.clock.monotonic()
        async with anyio.create_task_group() as group:
            group.start_soon(self.run)
            await self.clock.advance(0.0)
            yield
            await self.stop()
            group.cancel_scope.cancel()

    def has_ended(self) -> bool:
        return self.ended_at is not None

    async def run(self) -> None:
        self.ended_at: float | None = None
        try:
            await self.pipeline.run(self._on_started)
        finally:
            self.ended_at = self.clock.monotonic()

    async def stop(self, within_seconds: float = 60.0) -> None:
        """Ask the pipeline to stop, and turn the clock until it has."""
        self.pipeline.stop()
        await self.clock.advance(0.0)
        if self.ended_at is None:
            await self.clock.advance(within_seconds)
        assert self.ended_at is not None, "the pipeline did not come to its end"

    def _on_started(self) -> None:
        self.started = True
