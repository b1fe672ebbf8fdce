"""What records are in Datadog: gauges and counts, with names, tags, and no two that are one series.

A rate is a gauge, and a count of what it integrates to (`_joules`); an amount is a count; a level is a gauge. Datadog
adds counts up, over any stretch of time and over any tags: they are what sums are to be made of.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from tracarbon.metrics import Batch, MetricKind, Record, SeriesKey

from tracarbon_exporter_datadog._naming import metric_name, tag
from tracarbon_exporter_datadog._parcel import Parcel, Point, Progress

_MOST_SERIES = 20_000
_INTEGRALS = {"watts": ("_joules", 1.0), "milliwatts": ("_joules", 1e-3)}


@dataclass(slots=True)
class Delivery:
    """A batch on its way.

    Attributes:
        parcels: what there is to deliver.
        keys: of the records in each parcel.
        second: that its points are of, since the epoch; 0 where the receiver goes by its own clock.
    """

    batch: Batch
    parcels: list[Parcel]
    keys: list[list[SeriesKey]]
    second: int = 0

    def remaining(self, is_left: Callable[[Parcel], bool]) -> Batch:
        """Return the part of the batch whose parcels are left."""
        batch = self.batch
        records = {
            key: batch.records[key]
            for parcel, keys in zip(self.parcels, self.keys, strict=True)
            if is_left(parcel)
            for key in keys
        }
        return Batch(records, batch.windows, batch.window, batch.folded)

    def count(self, is_meant: Callable[[Parcel], bool]) -> int:
        """Return how many records are in certain parcels."""
        return sum(len(keys) for parcel, keys in zip(self.parcels, self.keys, strict=True) if is_meant(parcel))


@dataclass(frozen=True, slots=True)
class _Series:
    gauge: str
    count: str
    per_unit: float
    tags: tuple[str, ...]
    identity: str


@dataclass(slots=True)
class _Sum:
    """The records of one batch that are one series."""

    series: _Series
    keys: list[SeriesKey]
    gauge: float | None = None
    count: float | None = None
    covered_seconds: float = 0.0


class Catalogue:
    """Knows the series.

    Args:
        prefix: of the metric names.
        tags: that every series has, as key and value.
        generators: their names in order: where two have a metric in common, those after the first have it with the tag
            `generator`.
    """

    def __init__(self, prefix: str | None, tags: Iterable[tuple[str, str]], generators: Sequence[str] = ()) -> None:
        self._prefix = prefix
        self._tags = tuple(tags)
        self._ranks = {name: number for number, name in enumerate(generators)}
        self._series: dict[SeriesKey, _Series] = {}
        self._owners: dict[str, tuple[str, str]] = {}

    def delivery(self, batch: Batch) -> Delivery:
        """Return a batch as parcels. A series that is unknown now has no gauge; its count counts in any case."""
        sums: dict[str, _Sum] = {}
        for key, record in self._in_order(batch):
            series = self._series.get(key) or self._made(key, record)
            one = sums.setdefault(series.identity, _Sum(series, []))
            one.keys.append(key)
            _add(one, record, is_current=batch.is_current(record))
        parcels = [_parcel(one, batch.window.seconds) for one in sums.values()]
        return Delivery(batch, parcels, [one.keys for one in sums.values()])

    def _in_order(self, batch: Batch) -> Iterable[tuple[SeriesKey, Record]]:
        last = len(self._ranks)
        return sorted(batch.records.items(), key=lambda item: self._ranks.get(item[1].generator, last))

    def _made(self, key: SeriesKey, record: Record) -> _Series:
        if len(self._series) >= _MOST_SERIES:
            self._series.clear()
        suffix, per_unit = _integral_of(record)
        name = record.format_name(self._prefix)
        gauge, count = metric_name(name), metric_name(name, suffix)
        extra = self._told_apart(record, {gauge, count} if record.kind is MetricKind.RATE else {gauge})
        own = dict(record.tags)
        pairs = [*record.tags, *(pair for pair in self._tags if pair[0] not in own), *extra]
        # Datadog lowers the case of tags and has no order of them.
        lowered = {item.lower(): item for item in (tag(*pair) for pair in reversed(pairs))}
        tags, identity = tuple(reversed(lowered.values())), f"{gauge} {','.join(sorted(lowered))}"
        series = self._series[key] = _Series(gauge, count, per_unit, tags, identity)
        return series

    def _told_apart(self, record: Record, names: Iterable[str]) -> list[tuple[str, str]]:
        """Return tags for a series whose name, in Datadog, is that of another metric or of another generator's too."""
        owners = [self._owners.setdefault(name, (record.generator, record.name)) for name in names]
        tags = []
        if any(generator != record.generator for generator, _ in owners):
            tags.append(("generator", record.generator))
        if any(metric != record.name for _, metric in owners):
            tags.append(("metric", record.name))
        return tags


def _integral_of(record: Record) -> tuple[str, float]:
    if record.kind is not MetricKind.RATE:
        return "", 1.0
    unit = record.unit or ""
    return _INTEGRALS.get(unit) or (f"_{metric_name(unit)}_seconds" if unit else "_seconds", 1.0)


def _add(one: _Sum, record: Record, *, is_current: bool) -> None:
    value = float(record.value)
    if record.kind is MetricKind.LEVEL:
        one.gauge = value if is_current else one.gauge
        return
    if record.kind is MetricKind.RATE and is_current:
        one.gauge = (one.gauge or 0.0) + value
    one.count = (one.count or 0.0) + float(record.total) * one.series.per_unit
    one.covered_seconds = max(one.covered_seconds, float(record.covered_seconds))


def _parcel(one: _Sum, window_seconds: float) -> Parcel:
    series, points = one.series, []
    if one.gauge is not None:
        points.append(Point(series.gauge, "gauge", one.gauge, series.tags))
    if one.count is not None:
        seconds = one.covered_seconds or window_seconds
        interval = max(1, round(seconds)) if math.isfinite(seconds) else 1
        points.append(Point(series.count, "count", one.count, series.tags, interval))
    parcel = Parcel(tuple(points), progress=Progress.WAITING if points else Progress.DONE)
    if not all(math.isfinite(point.value) for point in points):
        parcel.drop("its value is no finite number")
    return parcel
