"""Running statistics of every metric: what the report at the end says."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict

from tracarbon.hardwares.energy import JOULES_PER_WH, Band
from tracarbon.metrics import Batch, Metric, MetricKind, Record, SeriesKey, Tag, Window


class MetricReport(BaseModel):
    """Statistics of one metric over a run.

    Attributes:
        exporter_name: the exporters it went to.
        metric: the metric, as last seen; the other figures are of all series of its name.
        average_interval_in_seconds: mean time between two values of one series.
        last_report_time: the end of its newest window.
        total: watt-hours for a metric in watts, the sum for an amount, the latest value for a level, in `total_unit`.
        total_unit: the unit of `total`.
        average: of an amount the mean per window; of others the mean value, weighted by the seconds that each holds for
            where that is known of all.
        minimum: lowest value seen.
        maximum: highest value seen.
        call_count: how many values were seen.
        covered_seconds: of a metric in watts, the seconds that its values hold for, of all its series.
        total_band: the range in which the true total is believed to lie; `None` for measured figures.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    exporter_name: str
    metric: Metric
    average_interval_in_seconds: float | None = None
    last_report_time: datetime | None = None
    total: float = 0.0
    total_unit: str | None = None
    average: float = 0.0
    minimum: float = sys.float_info.max
    maximum: float = 0.0
    call_count: int = 0
    covered_seconds: float | None = None
    total_band: Band | None = None


class TracarbonReport(BaseModel):
    """What a run measured. As text it is the table that the command prints.

    Attributes:
        start_time: when the first window was opened.
        end_time: when the last window was closed.
        metric_report: a `MetricReport` for each metric name.
        co2g_per_kwh: the carbon intensity that was used last, in grams of CO2e per kWh.
        seconds_by_intensity: how long each carbon intensity was used, by its `source`.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    start_time: datetime | None = None
    end_time: datetime | None = None
    metric_report: dict[str, MetricReport] = {}
    co2g_per_kwh: float | None = None
    seconds_by_intensity: dict[str, float] = {}

    def __str__(self) -> str:
        from tracarbon._report_text import render_report

        return render_report(self)


_MOST_SERIES = 20_000
_WITH_INTENSITY = "carbon_emission_host"


@dataclass(slots=True)
class _Statistics:
    latest: Record
    reported_at: float
    opened_at: float
    ends: dict[SeriesKey, float] = field(default_factory=dict)
    span_seconds: float = 0.0
    intervals: int = 0
    interval_seconds: float = 0.0
    count: int = 0
    plain: float = 0.0
    unweighted: int = 0
    total: float = 0.0
    low: float = 0.0
    high: float = 0.0
    weighted: float = 0.0
    seconds: float = 0.0
    minimum: float = sys.float_info.max
    maximum: float = -sys.float_info.max
    banded: bool = False

    def add(self, record: Record, window: Window) -> None:
        self._add_interval(record.key, window)
        self.reported_at = window.ended_at
        value = record.value
        self.latest = record
        self.count += 1
        self.minimum = min(self.minimum, value)
        self.maximum = max(self.maximum, value)
        self._add_total(record)

    def _add_interval(self, key: SeriesKey, window: Window) -> None:
        """Count the time since the series' previous value; of more series than can be kept, the oldest is forgotten."""
        end, previous = window.end, self.ends.pop(key, None)
        self.span_seconds += max(0.0, end - (self.opened_at if previous is None else previous))
        if previous is not None and end > previous:
            self.intervals += 1
            self.interval_seconds += end - previous
        elif previous is None and len(self.ends) >= _MOST_SERIES:
            del self.ends[next(iter(self.ends))]
        self.ends[key] = end

    @property
    def average(self) -> float:
        is_weighted = self.known_seconds > 0 and not self.unweighted and self.latest.kind is not MetricKind.AMOUNT
        return self.weighted / self.known_seconds if is_weighted else self.plain / self.count

    @property
    def known_seconds(self) -> float:
        """How long its series were known: a part that comes back covers time that others had covered before it."""
        return min(self.seconds, self.span_seconds) if self.latest.kind is MetricKind.RATE else self.seconds

    def _add_total(self, record: Record) -> None:
        seconds = record.covered_seconds
        self.plain += record.value
        self.unweighted += seconds <= 0
        self.seconds += seconds
        self.weighted += record.value * seconds
        scale = seconds if record.kind is MetricKind.RATE else 1.0
        self.total += record.value * scale
        if record.band is not None:
            self.banded = True
            self.low += record.band.low * scale
            self.high += record.band.high * scale
        else:
            self.low += record.value * scale
            self.high += record.value * scale


class ReportRecorder:
    """Keeps the statistics of a run: fed once per window and series, losslessly, whatever the exporters do.

    Args:
        has_windows: whether windows follow one another, so that no series is known for longer than they are.
    """

    def __init__(self, *, has_windows: bool = True) -> None:
        self._has_windows = has_windows
        self.started_at: float | None = None
        self.ended_at: float | None = None
        self.measured_until: float | None = None
        self._opened_at = math.inf
        self._statistics: dict[str, _Statistics] = {}
        self._seconds_by_intensity: dict[str, float] = {}
        self._owners: dict[tuple[str, tuple[Tag, ...]], str] = {}

    def add(self, batch: Batch) -> None:
        """Take the records of one generator's window; a series that another generator has too counts once."""
        window = batch.window
        self._opened_at = min(self._opened_at, window.start)
        self.measured_until = window.ended_at
        for record in batch:
            if self._owner_of(record) != record.generator:
                continue
            statistics = self._statistics.get(record.name)
            if statistics is None:
                opened_at = self._opened_at if self._has_windows else -math.inf
                statistics = _Statistics(record, window.ended_at, opened_at)
                self._statistics[record.name] = statistics
            statistics.add(record, window)
            if record.name == _WITH_INTENSITY:
                self._add_intensity(record)

    def _owner_of(self, record: Record) -> str:
        if len(self._owners) >= _MOST_SERIES:
            del self._owners[next(iter(self._owners))]
        return self._owners.setdefault((record.name, record.tags), record.generator)

    def _add_intensity(self, record: Record) -> None:
        source = next((tag.value for tag in record.tags if tag.key == "source"), None)
        if source is not None:
            seconds = self._seconds_by_intensity.get(source, 0.0)
            self._seconds_by_intensity[source] = seconds + record.covered_seconds

    def previous_end(self, key: SeriesKey) -> float | None:
        """Return the monotonic time of the newest value of a series, or `None` where there is none."""
        statistics = self._statistics.get(key[0])
        return None if statistics is None else statistics.ends.get(key)

    def snapshot(self, exporter_name: str = "", co2g_per_kwh: float | None = None) -> TracarbonReport:
        """Return the report as it stands."""
        return TracarbonReport(
            start_time=_instant(self.started_at),
            end_time=_instant(self.ended_at),
            metric_report={name: _report(item, exporter_name) for name, item in self._statistics.items()},
            co2g_per_kwh=co2g_per_kwh,
            seconds_by_intensity=dict(self._seconds_by_intensity),
        )


def _instant(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _report(item: _Statistics, exporter_name: str) -> MetricReport:
    latest, is_rate = item.latest, item.latest.kind is MetricKind.RATE
    scale = JOULES_PER_WH if is_rate and latest.unit == "watts" else 1.0
    return MetricReport(
        exporter_name=exporter_name,
        metric=Metric(name=latest.name, value=latest.value, tags=latest.tags, unit=latest.unit, kind=latest.kind),
        average_interval_in_seconds=item.interval_seconds / item.intervals if item.intervals else None,
        last_report_time=_instant(item.reported_at),
        total=latest.value if latest.kind is MetricKind.LEVEL else item.total / scale,
        total_unit=_total_unit(latest),
        average=item.average,
        minimum=item.minimum,
        maximum=item.maximum,
        call_count=item.count,
        covered_seconds=item.known_seconds if is_rate else None,
        total_band=Band(item.low / scale, item.high / scale) if item.banded else None,
    )


def _total_unit(record: Record) -> str | None:
    if record.kind is not MetricKind.RATE or record.unit is None:
        return record.unit
    return "Wh" if record.unit == "watts" else f"{record.unit} s"
