"""The contracts `MetricGenerator` and `Exporter`, and the metrics that go from the one to the other."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Sequence
from dataclasses import field, replace
from threading import Event
from typing import TYPE_CHECKING, Any, Self
from weakref import WeakKeyDictionary

from tracarbon._collect import Collector
from tracarbon.locations.location import Location
from tracarbon.metrics import Batch, Metric, MetricKind, Record, Tag, Window
from tracarbon.plugin import Plugin, PluginContext, platform_name, takes_argument
from tracarbon.report import MetricReport, ReportRecorder

__all__ = [
    "Batch",
    "Exporter",
    "Metric",
    "MetricGenerator",
    "MetricKind",
    "MetricReport",
    "Record",
    "Tag",
    "Window",
]


class MetricGenerator(Plugin):
    """Generates metrics, once for each window.

    Attributes:
        metrics: what the default `generate` yields.
        platform: the `platform` tag.
        location: where the machine is.
        problems: what was not wholly right in the last `generate`, for humans; set there by those that go on in spite
            of it. The generator is `degraded` for as long as there are any.
    """

    metrics: list[Metric] = []  # noqa: RUF012 - each instance gets a copy
    platform: str = platform_name()
    location: Location | None = None
    problems: Sequence[str] = field(default=(), init=False)

    @classmethod
    def from_options(cls, options: Any, context: PluginContext) -> Self:
        """Construct it over what the pipeline offers to its fields.

        Those are `location`, `platform`, and `energy_consumption`: the pipeline's meter, in place of a sensor of its
        own. Options of the same names win.
        """
        offered = {
            "location": context.location,
            "platform": context.platform,
            "energy_consumption": context.meter,
        }
        arguments = {name: value for name, value in offered.items() if takes_argument(cls, name)}
        return cls(**{**arguments, **dict(options)})

    async def generate(self) -> AsyncGenerator[Metric, None]:
        """Yield the metrics of the window that was closed last.

        Raises:
            Exception: when they could not be generated; the window then waits and the next one is longer.
        """
        for metric in self.metrics:
            yield metric


class Exporter(Plugin, ABC):
    """Delivers batches of metrics somewhere.

    A subclass implements `export`. One that was written for the old interface, and overrides `launch` alone, goes on
    working: it gets the batch replayed as a generator.

    Attributes:
        metric_generators: what to export when the exporter is used by itself, without a `pipeline.toml`.
        event: is set once the exporter, started from code, has stopped: for threads that wait for it.
        stopped: whether it has been stopped.
        metric_prefix_name: prefix of the metric names.
        metric_report: statistics by metric name, of `launch` and `add_metric_to_report`, or, after a stop, of the run.
    """

    metric_generators: list[MetricGenerator] = []  # noqa: RUF012 - each instance gets a copy
    event: Event | None = None
    stopped: bool = False
    metric_prefix_name: str | None = None
    metric_report: dict[str, MetricReport] = {}  # noqa: RUF012 - each instance gets a copy

    def __init_subclass__(cls, **kwargs: Any) -> None:
        if cls.launch is not Exporter.launch and cls.export is Exporter.export:
            cls.export = Exporter._export_by_launch  # type: ignore[method-assign]
        super().__init_subclass__(**kwargs)

    @classmethod
    def get_name(cls) -> str:
        """Return the name of the exporter."""
        return cls.__name__.removesuffix("Exporter")

    def attach(self, context: PluginContext) -> None:
        """Take what the pipeline offers that the exporter is put into; called before it is entered.

        One that was constructed in code is told of its pipeline only here.
        """

    async def export(self, batch: Batch) -> None:
        """Deliver a batch; returning means that all of it was delivered.

        Raises:
            RetryableExportError: it, or the part that the exception names, is to be tried again.
            PermanentExportError: trying again is useless.
            DeliveryUnknown: it may have arrived.
            Exception: nothing was delivered, try again.
        """
        raise NotImplementedError

    if not TYPE_CHECKING:  # a subclass that implements `launch`, as of old, is no less concrete
        export = abstractmethod(export)

    async def _export_by_launch(self, batch: Batch) -> None:
        await self.launch(_Replay(batch))

    async def launch(self, metric_generator: MetricGenerator) -> None:
        """Export the metrics of one generator, once, and add them to `metric_report`.

        Its window goes back to the previous launch of the same generator.
        """
        now, launched = time.monotonic(), vars(self).setdefault("_launched", WeakKeyDictionary())
        window = _window(launched.get(metric_generator, now), now)
        launched[metric_generator] = now
        batch = await Collector(type(metric_generator).__name__).collect(metric_generator.generate(), window)
        await self.export(batch)
        self._add_to_report(batch)

    def start(self, interval_in_seconds: float) -> None:
        """Export the metrics of `metric_generators` from now on, in the background, until `stop`.

        It is a pipeline of this one exporter; without generators, of energy and carbon.

        Raises:
            StartupError: a sensor or the exporter does not work.
            TracarbonException: it runs already.
        """
        from tracarbon.builder import Tracarbon
        from tracarbon.conf import TracarbonConfiguration

        configuration = TracarbonConfiguration(interval_in_seconds=interval_in_seconds)
        pipeline = vars(self).setdefault("_pipeline", Tracarbon(configuration, self))
        pipeline.configuration = configuration
        pipeline.start()

    def stop(self) -> None:
        """Export the last window, end, and fill `metric_report`. Does nothing when it does not run."""
        pipeline = vars(self).get("_pipeline")
        if pipeline is not None:
            pipeline.stop()

    async def add_metric_to_report(self, metric: Metric, value: float) -> MetricReport:
        """Add a value to `metric_report`, for exporters that implement `launch`; returns the statistics of its metric.

        A rate without `covered_seconds` holds for the time since the previous value of its series.
        """
        now = time.monotonic()
        collector = Collector(self.get_name(), kind="exporter")
        batch = await collector.collect(_one(replace(metric, value=value)), _window(now, now))
        for record in batch:
            previous = self._own_recorder().previous_end(record.key)
            if metric.covered_seconds is None and previous is not None:
                record.covered_seconds = now - previous
        self._add_to_report(batch)
        return self.metric_report.get(metric.name) or MetricReport(exporter_name=self.get_name(), metric=metric)

    def _own_recorder(self) -> ReportRecorder:
        # A subclass may have an `__init__` that does not call ours.
        recorder: ReportRecorder = vars(self).setdefault("_recorder", ReportRecorder(has_windows=False))
        return recorder

    def _add_to_report(self, batch: Batch) -> None:
        self._own_recorder().add(batch)
        self.metric_report = self._own_recorder().snapshot(self.get_name()).metric_report


def _window(start: float, end: float) -> Window:
    wall = time.time()
    return Window(start, end, wall - (end - start), wall)


async def _one(metric: Metric) -> AsyncGenerator[Metric, None]:
    yield metric


class _Replay(MetricGenerator):
    """A batch for exporters of the old interface."""

    def __init__(self, batch: Batch) -> None:
        super().__init__(metrics=[_as_documented(record) for record in batch])


def _as_documented(record: Record) -> Metric:
    return Metric(
        name=record.name,
        value=record.value,
        tags=list(record.tags),
        unit=record.unit,
        kind=record.kind,
        covered_seconds=record.covered_seconds,
        band=record.band,
    )
