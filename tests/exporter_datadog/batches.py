"""Batches to be exported, and exporters that are told where to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from tracarbon.metrics import Batch, MetricKind, Record, Tag, Window
from tracarbon.plugin import PluginContext
from tracarbon.testing import ManualClock, SleeplessClock
from tracarbon_exporter_datadog import DatadogExporter

TICK_SECONDS = 10.0
WALL = 1_700_000_000.0
HOST = "tracarbon.energy_consumption_host"
JOULES = f"{HOST}_joules"
GRAMS = "tracarbon.carbon_emission_host"
KINDS = {"watts": MetricKind.RATE, "milliwatts": MetricKind.RATE, "co2g": MetricKind.AMOUNT, "": MetricKind.LEVEL}


def window(number: int = 0) -> Window:
    start = 1000.0 + number * TICK_SECONDS
    offset = WALL - 1000.0 - TICK_SECONDS
    return Window(start, start + TICK_SECONDS, offset + start, offset + start + TICK_SECONDS)


def record(
    value: float = 40.0,
    name: str = "energy_consumption_host",
    unit: str = "watts",
    *,
    number: int = 0,
    generator: str = "energy",
    seconds: float = TICK_SECONDS,
    tags: Mapping[str, str] | None = None,
) -> Record:
    pairs = tuple(Tag(*pair) for pair in (tags if tags is not None else {"platform": "Linux"}).items())
    return Record(name, value, pairs, unit or None, KINDS[unit], seconds, generator, window(number).end)


def batch(*records: Record, number: int = 0, generator: str = "energy") -> Batch:
    return Batch.of_window(generator, window(number), records)


def usual(number: int = 0, watts: float = 40.0, grams: float = 0.25) -> Batch:
    """A rate, an amount and a level."""
    return batch(
        record(watts, number=number),
        record(grams, "carbon_emission_host", "co2g", number=number),
        record(3.0, "pods", "", number=number),
        number=number,
    )


def pods(count: int, number: int = 0, **tags: str) -> Batch:
    """A rate for each of so many pods."""
    return batch(
        *(record(1.0 + pod, number=number, tags={"pod_name": f"pod-{pod}", **tags}) for pod in range(count)),
        number=number,
    )


@asynccontextmanager
async def exporter(clock: ManualClock | None = None, **options: Any) -> AsyncIterator[DatadogExporter]:
    """Enter an exporter in a pipeline that has this clock."""
    context = PluginContext("datadog", clock=clock or SleeplessClock(wall=WALL))
    try:
        async with DatadogExporter.from_options(DatadogExporter.Options(**options), context) as sender:
            yield sender
    finally:
        context.close()


def joules(batches: Iterable[Batch]) -> float:
    return sum(item.total for one in batches for item in one if item.name == "energy_consumption_host")
