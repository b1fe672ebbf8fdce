"""The contracts `MetricGenerator` and `Exporter`, and the metrics that go from the one to the other."""

from __future__ import annotations

import time
from abc import ABC
from collections.abc import AsyncGenerator
from threading import Event

from tracarbon._collect import Collector
from tracarbon.locations.location import Location
from tracarbon.metrics import Batch, Metric, MetricKind, Record, Tag, Window
from tracarbon.plugin import Plugin, platform_name
from tracarbon.report import MetricReport

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


class _Replay(MetricGenerator):
    """A batch for exporters of the old interface, whose values are awaited calls."""

    def __init__(self, batch: Batch) -> None:
        super().__init__(metrics=[_as_documented(record) for record in batch])


def _as_documented(record: Record) -> Metric:
    async def value(number: float = record.value) -> float:
        return number

    return Metric(name=record.name, value=value, tags=list(record.tags), unit=record.unit, kind=record.kind)
