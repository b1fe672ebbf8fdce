"""The engine: sampling tasks, the meter, generators, mailboxes and exporter tasks, from start to stop."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import anyio
from anyio.lowlevel import checkpoint

from tracarbon._clock import Clock, SystemClock
from tracarbon._collect import Collector
from tracarbon._exporter_runner import ExporterRunner
from tracarbon._generator_runner import GeneratorRunner
from tracarbon._listener import Listener
from tracarbon._mailbox import Mailbox
from tracarbon._meter import Meter, MeterView
from tracarbon._pulse import Pulse
from tracarbon._runner import LocationRunner, Runner, Terms, describe
from tracarbon._sampler import Sampler
from tracarbon._states import Component, Components, ComponentState
from tracarbon.exceptions import StartupError
from tracarbon.exporters.exporter import Exporter, MetricGenerator
from tracarbon.hardwares.sensors import Sensor
from tracarbon.locations.location import Location
from tracarbon.metrics import Batch, Tag

logger = logging.getLogger("tracarbon")

P = TypeVar("P")

FIRST_WINDOW_SECONDS = 0.1
START_SECONDS = 10.0
OPTIONAL_START_SECONDS = 0.5
FLUSH_SECONDS = 10.0
_CLOSE_SECONDS = 0.5
_LAST_CLOSE_SECONDS = 2.0
_RELEASE_SECONDS = 0.5
_READ_SECONDS = 5.0
_CALL_SECONDS = 30.0


@dataclass(slots=True, kw_only=True)
class _Entry(Generic[P]):
    component: Component
    plugin: P
    optional: bool
    interval_seconds: float | None


@dataclass(slots=True, kw_only=True)
class _GeneratorEntry(_Entry[MetricGenerator]):
    view: MeterView


@dataclass(slots=True, kw_only=True)
class _ExporterEntry(_Entry[Exporter]):
    inputs: Collection[str] | None


class Pipeline:
    """Runs the plugins that are added to it.

    Args:
        interval_seconds: how often a window is closed: tick n is due at start + n x interval, whatever happens.
        tags: tags for every metric.
        clock: the clock of everything.
        flush_seconds: how long a stop may take to deliver what was measured.
        first_window_seconds: the length of the first window, short so that there are figures at once.
    """

    def __init__(
        self,
        *,
        interval_seconds: float,
        tags: Sequence[Tag] = (),
        clock: Clock | None = None,
        flush_seconds: float = FLUSH_SECONDS,
        first_window_seconds: float = FIRST_WINDOW_SECONDS,
    ) -> None:
        self.interval_seconds = interval_seconds
        self.clock = clock or SystemClock()
        self.components = Components()
        self.pulse = Pulse(interval_seconds)
        self.meter = Meter(self.clock)
        self.listeners: list[Listener] = []
        self.at_stop: list[Callable[[], None]] = []
        self.all_sensors_failed = False
        self._tags = tuple(tags)
        self._flush_seconds = flush_seconds
        self.first_window_seconds = first_window_seconds
        self._location: _Entry[Location] | None = None
        self._sensors: list[_Entry[Sensor]] = []
        self._generators: list[_GeneratorEntry] = []
        self._exporters: list[_ExporterEntry] = []
        self._views: list[MeterView] = []
        self._stopping = False
        self._waiting: anyio.CancelScope | None = None
        self.components.observe(self._state_changed)

    def set_location(self, component: Component, location: Location, *, optional: bool = False) -> None:
        """Set where the machine is."""
        self._location = _Entry(component=component, plugin=location, optional=optional, interval_seconds=None)

    @property
    def location(self) -> Location | None:
        """Where the machine is."""
        return self._location.plugin if self._location is not None else None

    def add_sensor(
        self, component: Component, sensor: Sensor, *, optional: bool = False, interval_seconds: float | None = None
    ) -> None:
        """Add a sensor; without an interval it is read as often as it wants to be."""
        interval = interval_seconds or sensor.sampling_interval_seconds
        self.meter.add_sensor(component.name, sensor, 2 * min(interval, self.interval_seconds))
        self._sensors.append(
            _Entry(component=component, plugin=sensor, optional=optional, interval_seconds=interval_seconds)
        )

    def add_generator(
        self,
        component: Component,
        generator: MetricGenerator,
        view: MeterView,
        *,
        optional: bool = False,
        interval_seconds: float | None = None,
    ) -> None:
        """Add a generator that reads the meter through `view`."""
        self._generators.append(
            _GeneratorEntry(
                component=component, plugin=generator, optional=optional, interval_seconds=interval_seconds, view=view
            )
        )

    def add_exporter(
        self,
        component: Component,
        exporter: Exporter,
        *,
        inputs: Collection[str] | None = None,
        optional: bool = False,
        interval_seconds: float | None = None,
    ) -> None:
        """Add an exporter of the generators named in `inputs`, or of all of them."""
        self._exporters.append(
            _ExporterEntry(
                component=component,
                plugin=exporter,
                optional=optional,
                interval_seconds=interval_seconds,
                inputs=inputs,
            )
        )

    def view(self, sensors: Collection[str] | None = None, *, follows: bool = False) -> MeterView:
        """Return a view of the meter over the sensors of those names, or over all of them.

        One that `follows` always shows the window that was closed last; a generator's moves on as the generator does.
        """
        view = MeterView(self.meter, sensors, follows=follows)
        self._views.append(view)
        return view

    def stop(self) -> None:
        """Ask a running pipeline to come to its end; to be called in its event loop."""
        self._stopping = True
        if self._waiting is not None:
            self._waiting.cancel()

    def release(self) -> None:
        """Let go of what the pipeline has borrowed: for one that was not run, since a run does so in the end."""
        for release in self.at_stop:
            release()

    @property
    def _patience_seconds(self) -> float:
        """How long a close waits for the sensors."""
        return min(_CLOSE_SECONDS, self.interval_seconds / 4)

    def _is_stopping(self) -> bool:
        return self._stopping

    async def run(self, on_started: Callable[[], None] | None = None) -> None:
        """Run until `stop`, then read the last window and flush every exporter.

        Args:
            on_started: called once everything has started.

        Raises:
            StartupError: components that are not optional did not start; nothing was measured.
        """
        self.all_sensors_failed = False
        self._make_runners()
        errors: list[str] = []
        try:
            async with anyio.create_task_group() as group:
                for runner in self._runners:
                    group.start_soon(runner.run, name=f"tracarbon {runner.component}")
                errors = await self._settle()
                if not errors and not self._is_stopping():
                    await self._live(on_started)
                await self._flush(_RELEASE_SECONDS if errors else self._flush_seconds)
                await self._finish(self._runners, _RELEASE_SECONDS)
                group.cancel_scope.cancel()
        finally:
            self._stopping = False
            for listener in self.listeners:
                listener.stopped()
            self.release()
        if errors:
            raise StartupError("\n".join(errors)) from next(self._start_causes(), None)

    def _start_causes(self) -> Iterator[Exception]:
        return (runner.start_error for runner in self._runners if runner.start_error is not None)

    def _make_runners(self) -> None:
        self._exporter_runners = [self._exporter_runner(entry) for entry in self._exporters]
        self._samplers = [self._sampler(entry) for entry in self._sensors]
        self._generator_runners = [self._generator_runner(entry) for entry in self._generators]
        self._runners: list[Runner] = [*self._samplers, *self._generator_runners, *self._exporter_runners]
        if (entry := self._location) is not None:
            self._runners.insert(0, LocationRunner(entry.component, entry.plugin, self._terms(entry)))

    def _terms(self, entry: _Entry[Any], *, timeout_seconds: float = _CALL_SECONDS) -> Terms:
        return Terms(self.clock, entry.optional, entry.interval_seconds or 0.0, timeout_seconds)

    def _sampler(self, entry: _Entry[Sensor]) -> Sampler:
        interval = entry.interval_seconds or entry.plugin.sampling_interval_seconds
        timeout = max(_READ_SECONDS, min(self.interval_seconds, interval, _CALL_SECONDS))
        return Sampler(
            entry.component,
            entry.plugin,
            self.meter,
            self._terms(entry, timeout_seconds=timeout),
            tick_seconds=self.interval_seconds,
            patience_seconds=self._patience_seconds,
        )

    def _generator_runner(self, entry: _GeneratorEntry) -> GeneratorRunner:
        name = entry.component.name
        routes = [
            runner
            for exporter, runner in zip(self._exporters, self._exporter_runners, strict=True)
            if exporter.inputs is None or name in exporter.inputs
        ]
        return GeneratorRunner(
            entry.component,
            entry.plugin,
            entry.view,
            self._terms(entry),
            collector=Collector(name, self._tags),
            deliver=lambda batch: self._deliver(batch, routes),
        )

    def _exporter_runner(self, entry: _ExporterEntry) -> ExporterRunner:
        return ExporterRunner(
            entry.component,
            entry.plugin,
            Mailbox(),
            self._terms(entry),
            on_exported=self._exported,
            on_gone=self._receiver_gone,
        )

    def _deliver(self, batch: Batch, exporters: Iterable[ExporterRunner]) -> None:
        for listener in self.listeners:
            listener.window_closed(batch)
        for exporter in exporters:
            exporter.put(batch)

    def _exported(self, exporter: str, batch: Batch) -> None:
        for listener in self.listeners:
            listener.exported(exporter, batch)

    def _receiver_gone(self) -> None:
        if all(runner.is_gone for runner in self._exporter_runners):
            logger.info("nobody reads what is exported any more")
            self.stop()

    def _state_changed(self, component: Component) -> None:
        for listener in self.listeners:
            listener.state_changed(component)

    async def _settle(self) -> list[str]:
        """Wait until every component has started and return what keeps the pipeline from running."""
        required = [runner for runner in self._runners if not runner.optional]
        with anyio.CancelScope() as self._waiting:
            if self._stopping:
                return []
            with self.clock.timeout(START_SECONDS):
                for runner in required:
                    await runner.settled.wait()
            with self.clock.timeout(OPTIONAL_START_SECONDS):
                for runner in self._runners:
                    await runner.settled.wait()
        return [] if self._is_stopping() else [error for runner in required if (error := _start_error(runner))]

    async def _live(self, on_started: Callable[[], None] | None) -> None:
        await self._open()
        if on_started is not None:
            on_started()
        for listener in self.listeners:
            listener.started()
        await self._tick_until_stopped()
        stopped_at = self.clock.monotonic()
        await self._tick(is_last=True)
        self.all_sensors_failed = bool(self._samplers) and all(
            sampler.component.state in (ComponentState.FAILED, ComponentState.STARTING) for sampler in self._samplers
        )
        for sampler in self._samplers:
            sampler.note_unread(stopped_at)
        await self._finish(self._generator_runners, self._flush_seconds)
        for runner in self._generator_runners:
            if runner.pending_seconds > 0:
                logger.error(
                    "%s: the figures of its last %.3g s were not generated and are lost",
                    runner.component,
                    runner.pending_seconds,
                )

    async def _open(self) -> None:
        self.meter.open()
        await self._read_sensors()
        for view in self._views:
            view.reset()

    async def _tick_until_stopped(self) -> None:
        start, interval = self.meter.opened_at, self.interval_seconds
        due, tick = start + min(self.first_window_seconds, interval / 2), 0
        with anyio.CancelScope() as self._waiting:
            while not self._is_stopping():
                await self.clock.sleep_until(due)
                await self._tick()
                # Rounding must not make a close at the very instant of a tick come before it.
                due_tick = math.floor((self.clock.monotonic() - start) / interval + 1e-6) + 1
                self.pulse.skipped_ticks += max(0, due_tick - (tick + 1))
                tick = max(tick + 1, due_tick)
                due = start + tick * interval

    async def _tick(self, *, is_last: bool = False) -> None:
        begun_at = self.clock.monotonic()
        await self._read_sensors(is_last=is_last)
        closing = self.meter.close()
        self._beat(begun_at)
        for runner in self._generator_runners:
            runner.tick(closing.at - self.meter.opened_at, last=is_last)

    def _beat(self, begun_at: float) -> None:
        pulse, now = self.pulse, self.clock.monotonic()
        pulse.ticks += 1
        pulse.last_tick_at = now
        pulse.tick_seconds += now - begun_at

    async def _read_sensors(self, *, is_last: bool = False) -> None:
        """Ask every sensor for a fresh reading; one that does not answer soon brings its joules in the next window."""
        asked = [(sampler, sampler.ask(is_last=is_last)) for sampler in self._samplers]
        waited_for = [(sampler, number) for sampler, number in asked if number is not None]
        await checkpoint()  # those that answer at once cost no timer
        if all(sampler.answers >= number for sampler, number in waited_for):
            return
        with self.clock.timeout(_LAST_CLOSE_SECONDS if is_last else self._patience_seconds):
            for sampler, number in waited_for:
                await sampler.wait_for_answer(number)
        for sampler, number in waited_for:
            if sampler.answers < number:
                sampler.note_missed_close()

    def undelivered(self) -> list[str]:
        """Say, for humans, what has not arrived yet."""
        words = [(runner.component, runner.undelivered()) for runner in self._exporter_runners]
        return [f"{component}: {said} had not arrived" for component, said in words if said]

    async def _finish(self, runners: Sequence[Runner], seconds: float) -> None:
        for runner in runners:
            runner.finish()
        with self.clock.timeout(seconds):
            for runner in runners:
                await runner.finished.wait()

    async def _flush(self, seconds: float) -> None:
        await self._finish(self._exporter_runners, seconds)
        for exporter in self._exporter_runners:
            if lost := exporter.give_up():
                logger.error("%s: %s were not delivered within %g s and are lost", exporter.component, lost, seconds)


def _start_error(runner: Runner) -> str | None:
    if runner.start_error is not None:
        return f"{runner.component}: {describe(runner.start_error)}"
    if not runner.settled.is_set():
        return f"{runner.component}: did not start within {START_SECONDS:g} s"
    return None
