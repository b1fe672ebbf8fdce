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
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

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

_running: set[Tracarbon] = set()


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
    """

    def __init__(
        self,
        configuration: TracarbonConfiguration,
        exporter: Exporter | None = None,
        location: Location | None = None,
    ) -> None:
        self.configuration = configuration
        self.exporter = exporter
        self.location = location
        self._recording = _Recording()
        self._background: BackgroundPipeline | None = None
        self._pid = os.getpid()

    @property
    def report(self) -> TracarbonReport:
        """The statistics of the run as they stand."""
        return self._recording.recorder.snapshot(self.exporter.get_name() if self.exporter else "Stdout")

    def start(self) -> None:
        """Start measuring; returns once the first window is open.

        Raises:
            StartupError: a sensor or the exporter does not work.
            TracarbonException: it runs already.
        """
        if self._background is not None and self._pid == os.getpid():
            raise TracarbonException("this Tracarbon runs already; stop() it first")
        environment = self.configuration.environment
        logger.setLevel(self.configuration.log_level)
        self._recording = _Recording()
        lifting = Lifting(
            self._exporter(),
            self.location or Country(name=environment.get("TRACARBON_COUNTRY", "")),
            interval_seconds=self.configuration.interval_in_seconds,
            metric_prefix_name=self.configuration.metric_prefix_name,
            host_root=Path(environment.get("TRACARBON_HOST_ROOT", "/")),
        )
        lifting.pipeline.listeners.append(self._recording)
        background = BackgroundPipeline(lifting.pipeline)
        background.start()
        self._background = background
        self._pid = os.getpid()
        _running.add(self)

    def stop(self) -> None:
        """Read the last window, flush the exporter and fill the report. Does nothing when it does not run."""
        background, self._background = self._background, None
        _running.discard(self)
        if background is not None and self._pid == os.getpid():
            background.stop()

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

    def _exporter(self) -> Exporter:
        if self.exporter is not None:
            return self.exporter
        from tracarbon.exporters.stdout import StdoutExporter

        return StdoutExporter()


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
        self.configuration = configuration

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
        return Tracarbon(self.configuration or TracarbonConfiguration(), self.exporter, self.location)
