"""tracarbon from code.

```python
from tracarbon.builder import TracarbonBuilder

with TracarbonBuilder().build() as tracarbon:
    ...  # the work to be measured
print(tracarbon.report)
```
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import anyio

from tracarbon._background import BackgroundPipeline
from tracarbon._lifting import Lifting
from tracarbon._listener import Listener
from tracarbon._worker import Worker
from tracarbon.conf import TracarbonConfiguration
from tracarbon.exceptions import TracarbonException
from tracarbon.exporters.exporter import Exporter
from tracarbon.locations.country import Country
from tracarbon.locations.location import Location
from tracarbon.metrics import Batch
from tracarbon.report import ReportRecorder, TracarbonReport

__all__ = ["Tracarbon", "TracarbonBuilder", "TracarbonReport"]


class _Recording(Listener):
    def __init__(self) -> None:
        self.recorder = ReportRecorder()

    def started(self) -> None:
        self.recorder.started_at = time.time()

    def window_closed(self, batch: Batch) -> None:
        self.recorder.add(batch)

    def stopped(self) -> None:
        self.recorder.ended_at = self.recorder.measured_until or time.time()


logger = logging.getLogger("tracarbon")

T = TypeVar("T")

_running: set[Tracarbon] = set()
_level_set_here = logging.NOTSET


def _set_log_level(level: str) -> None:
    """Set the level of tracarbon's log; one that somebody else has set is left alone."""
    global _level_set_here
    if logger.level == _level_set_here:
        logger.setLevel(level)
        _level_set_here = logger.level


@atexit.register
def _stop_those_left_running() -> None:
    for tracarbon in list(_running):
        try:
            tracarbon.stop()
        except TracarbonException as error:
            logger.error("%s", error)


class Tracarbon:
    """Measures from `start` to `stop`, in the background; also as a context manager, `with` and `async with` alike.

    What is not stopped is stopped, and flushed, when the interpreter leaves. In a forked child it does nothing.

    Inside a running event loop use `async with`, or `astart` and `astop`: they do not block it.

    Args:
        configuration: the settings.
        exporter: where the metrics go, with the generators that it exports; by default standard output.
        location: where the machine is; by default worked out, without leaving the machine.

    Raises:
        TypeError: `configuration`, `exporter` or `location` is something else.
    """

    def __init__(
        self,
        configuration: TracarbonConfiguration,
        exporter: Exporter | None = None,
        location: Location | None = None,
    ) -> None:
        self.configuration = _checked(configuration, TracarbonConfiguration)
        self.exporter = _standard_output() if exporter is None else _checked(exporter, Exporter)
        self.location = _location_of(configuration) if location is None else _checked(location, Location)
        self._recording = _Recording()
        self._used_location: Location | None = None
        self._background: BackgroundPipeline | None = None
        self._lock = threading.Lock()
        self._pid = os.getpid()

    @property
    def report(self) -> TracarbonReport:
        """The statistics of the run as they stand."""
        used = self._used_location
        return self._recording.recorder.snapshot(self.exporter.get_name(), used.known_co2g_kwh if used else None)

    def start(self) -> None:
        """Start measuring; returns once the first window is open.

        Raises:
            StartupError: a sensor or the exporter does not work.
            CO2SignalAPIKeyIsMissing: a location should be live, and neither it nor the configuration has a key.
            TracarbonException: it, or another one with its exporter, runs already.
        """
        if self._pid != os.getpid():  # a forked child measures for itself
            self._background, self._lock, self._pid = None, threading.Lock(), os.getpid()
        if not self._lock.acquire(blocking=False):
            raise TracarbonException("this Tracarbon is being started or stopped already")
        try:
            if self._background is not None:
                raise TracarbonException("this Tracarbon runs already; stop() it first")
            self._start()
        finally:
            self._lock.release()

    def _start(self) -> None:
        _set_log_level(self.configuration.log_level)
        recording = self._recording = _Recording()
        lifting = Lifting(
            self.exporter,
            self.location,
            interval_seconds=self.configuration.interval_in_seconds,
            metric_prefix_name=self.configuration.metric_prefix_name,
            co2signal_api_key=self.configuration.co2signal_api_key,
            co2signal_url=self.configuration.co2signal_url,
            host_root=Path(self.configuration.environment.get("TRACARBON_HOST_ROOT", "/")),
        )
        lifting.pipeline.listeners.append(recording)
        self._used_location = lifting.pipeline.location
        self.exporter.event = self.exporter.event or threading.Event()
        self.exporter.event.clear()
        self.exporter.stopped = False
        background = BackgroundPipeline(lifting.pipeline, self._note_end)
        try:
            background.start()
        except BaseException:
            if not background.wait(0):  # interrupted, or blocked by a plugin: `stop` and `wait` wait for its end
                self._background = background
            raise
        self._background = background
        _running.add(self)

    def _note_end(self) -> None:
        self.exporter.metric_report = self.report.metric_report
        self.exporter.stopped = True
        if self.exporter.event is not None:
            self.exporter.event.set()

    def stop(self) -> None:
        """Read the last window, flush the exporter and fill the report. Does nothing when it does not run.

        Called by the exporter or a generator itself, it only asks for that.

        Raises:
            TracarbonException: it did not come to its end in time, since a plugin blocks it; says where.
        """
        if self._pid != os.getpid():
            return
        background, self._background = self._background, None
        _running.discard(self)
        if background is not None:
            background.stop()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until it has come to its end by itself, since nobody reads what it exports any more.

        Args:
            seconds: how long to wait at most; without it, for as long as it takes.

        Returns:
            Whether it has come to its end; also `True` where it does not run.
        """
        background = self._background
        return background is None or background.wait(seconds)

    async def astart(self) -> None:
        """Start measuring, without blocking the event loop; as bounded in time as `start`, and not cancelled midway."""
        with anyio.CancelScope(shield=True):
            await _in_thread(self.start)

    async def astop(self) -> None:
        """Stop as `stop`, without blocking the event loop."""
        await _in_thread(self.stop)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        await self.astart()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with anyio.CancelScope(shield=True):
            await self.astop()


def _checked(given: T, contract: Any) -> T:
    if not isinstance(given, contract):
        raise TypeError(f"{given!r} is no {contract.__name__} of tracarbon, but {type(given).__name__}")
    return given


def _standard_output() -> Exporter:
    from tracarbon.exporters.stdout import StdoutExporter

    return StdoutExporter()


def _location_of(configuration: TracarbonConfiguration) -> Location:
    """Return the country that the settings name; without one it is worked out on entry, not here."""
    country, key = configuration.environment.get("TRACARBON_COUNTRY", ""), configuration.co2signal_api_key
    return Country.live(country, key, configuration.co2signal_url) if key else Country(name=country)


async def _in_thread(function: Callable[[], None]) -> None:
    worker = Worker("tracarbon-control")
    try:
        await worker.run(function)
    finally:
        worker.close()


class TracarbonBuilder:
    """Builds a `Tracarbon`.

    Args:
        exporter: where the metrics go.
        location: where the machine is.
        configuration: the settings; by default those of the environment.
    """

    def __init__(
        self,
        *,
        exporter: Exporter | None = None,
        location: Location | None = None,
        configuration: TracarbonConfiguration | None = None,
    ) -> None:
        self.exporter = exporter
        self.location = location
        self.configuration = configuration or TracarbonConfiguration()

    def with_exporter(self, exporter: Exporter) -> TracarbonBuilder:
        """Add an exporter to the builder."""
        self.exporter = exporter
        return self

    def with_location(self, location: Location) -> TracarbonBuilder:
        """Add a location to the builder."""
        self.location = location
        return self

    def build(self) -> Tracarbon:
        """Build `Tracarbon` with its configuration."""
        return Tracarbon(self.configuration, self.exporter, self.location)
