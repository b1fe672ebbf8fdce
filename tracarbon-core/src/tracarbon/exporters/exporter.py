"""The contracts `MetricGenerator` and `Exporter`, and the metrics that go from the one to the other."""

from __future__ import annotations

import time
from abc import ABC
from collections.abc import AsyncGenerator
from dataclasses import replace
from threading import Event

from tracarbon._collect import Collector
from tracarbon.locations.location import Location
from tracarbon.metrics import Batch, Metric, MetricKind, Record, Tag, Window
from tracarbon.plugin import Plugin, platform_name
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
    """

    metrics: list[Metric] = []  # noqa: RUF012 - each instance gets a copy
    platform: str = platform_name()
    location: Location | None = None

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
        metric_prefix_name: prefix of the metric names.
    """

    metric_generators: list[MetricGenerator] = []  # noqa: RUF012 - each instance gets a copy
    event: Event | None = None
    stopped: bool = False
    metric_prefix_name: str | None = None
    metric_report: dict[str, MetricReport] = {}  # noqa: RUF012 - each instance gets a copy

    @classmethod
    def get_name(cls) -> str:
        """Return the name of the exporter."""
        return cls.__name__.removesuffix("Exporter")

    async def export(self, batch: Batch) -> None:
        """Deliver a batch; returning means that all of it was delivered.

        Raises:
            RetryableExportError: it, or the part that the exception names, is to be tried again.
            PermanentExportError: trying again is useless.
            DeliveryUnknown: it may have arrived.
            Exception: nothing was delivered, try again.
        """
        if type(self).launch is Exporter.launch:
            raise NotImplementedError(f"{type(self).__qualname__} has to implement export()")
        await self.launch(_Replay(batch))

    async def launch(self, metric_generator: MetricGenerator) -> None:
        """Export the metrics of one generator, once."""
        now, wall = time.monotonic(), time.time()
        collector = Collector(type(metric_generator).__name__)
        await self.export(await collector.collect(metric_generator.generate(), Window(now, now, wall, wall)))

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
        pipeline = getattr(self, "_pipeline", None) or Tracarbon(configuration, self)
        pipeline.start()
        self._pipeline = pipeline
        self.stopped = False

    def stop(self) -> None:
        """Export the last window, end, and fill `metric_report`. Does nothing when it does not run."""
        pipeline = vars(self).pop("_pipeline", None)
        if pipeline is not None:
            pipeline.stop()
            self.metric_report = pipeline.report.metric_report
            self.stopped = True

    async def add_metric_to_report(self, metric: Metric, value: float) -> MetricReport:
        """Add a value to `metric_report`, for exporters that implement `launch`; returns the statistics of its metric.

        A rate without `covered_seconds` holds for the time since its previous value.
        """
        if not hasattr(self, "_recorder"):
            self._recorder, self._added_at = ReportRecorder(), dict[str, float]()
        now, wall = time.monotonic(), time.time()
        start = self._added_at.get(metric.name, now)
        self._added_at[metric.name] = now
        window = Window(start, now, wall - (now - start), wall)
        batch = await Collector(self.get_name()).collect(_one(replace(metric, value=value)), window)
        self._recorder.add(batch)
        self.metric_report = self._recorder.snapshot(self.get_name()).metric_report
        return self.metric_report[metric.name]


async def _one(metric: Metric) -> AsyncGenerator[Metric, None]:
    yield metric


class _Replay(MetricGenerator):
    """A batch for exporters of the old interface, whose values are awaited calls."""

    def __init__(self, batch: Batch) -> None:
        super().__init__(metrics=[_as_documented(record) for record in batch])


def _as_documented(record: Record) -> Metric:
    async def value(number: float = record.value) -> float:
        return number

    return Metric(
        name=record.name,
        value=value,
        tags=list(record.tags),
        unit=record.unit,
        kind=record.kind,
        covered_seconds=record.covered_seconds,
        band=record.band,
    )
