"""Running statistics of every metric: what the report at the end says."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict

from tracarbon.hardwares.energy import JOULES_PER_WH, Band
from tracarbon.metrics import Batch, Metric, MetricKind, Record, Window


class MetricReport(BaseModel):
    """Statistics of one metric over a run.

    Attributes:
        exporter_name: the exporters it went to.
        metric: the metric, as last seen.
        average_interval_in_seconds: mean time between its values.
        last_report_time: the end of its newest window.
        total: watt-hours for a metric in watts, the sum for an amount, the latest value for a level, in `total_unit`.
        total_unit: the unit of `total`.
        average: mean value, weighted by the seconds that each holds for.
        minimum: lowest value seen.
        maximum: highest value seen.
        call_count: how many values were seen.
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
    total_band: Band | None = None


class TracarbonReport(BaseModel):
    """What a run measured: one `MetricReport` for each metric name."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    start_time: datetime | None = None
    end_time: datetime | None = None
    metric_report: dict[str, MetricReport] = {}


@dataclass(slots=True)
class _Statistics:
    latest: Record
    first_end: float
    last_end: float
    reported_at: float
    times: int = 0
    count: int = 0
    total: float = 0.0
    low: float = 0.0
    high: float = 0.0
    weighted: float = 0.0
    seconds: float = 0.0
    minimum: float = sys.float_info.max
    maximum: float = -sys.float_info.max
    banded: bool = False

    def add(self, record: Record, window: Window) -> None:
        if window.end != self.last_end or not self.times:
            self.times += 1
            self.last_end = window.end
        self.reported_at = window.ended_at
        value = record.value
        self.latest = record
        self.count += 1
        self.minimum = min(self.minimum, value)
        self.maximum = max(self.maximum, value)
        self._add_total(record)

    def _add_total(self, record: Record) -> None:
        seconds = record.covered_seconds
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
    """Keeps the statistics of a run: fed once per window and series, losslessly, whatever the exporters do."""

    def __init__(self) -> None:
        self.started_at: float | None = None
        self.ended_at: float | None = None
        self.measured_until: float | None = None
        self._statistics: dict[str, _Statistics] = {}

    def add(self, batch: Batch) -> None:
        """Take the records of one generator's window."""
        window = batch.window
        self.measured_until = window.ended_at
        for record in batch:
            statistics = self._statistics.get(record.name)
            if statistics is None:
                statistics = _Statistics(record, window.end, window.end, window.ended_at)
                self._statistics[record.name] = statistics
            statistics.add(record, window)

    def snapshot(self, exporter_name: str = "") -> TracarbonReport:
        """Return the report as it stands."""
        return TracarbonReport(
            start_time=_instant(self.started_at),
            end_time=_instant(self.ended_at),
            metric_report={name: _report(item, exporter_name) for name, item in self._statistics.items()},
        )


def _instant(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _report(item: _Statistics, exporter_name: str) -> MetricReport:
    latest, is_rate = item.latest, item.latest.kind is MetricKind.RATE
    scale = JOULES_PER_WH if is_rate and latest.unit == "watts" else 1.0
    return MetricReport(
        exporter_name=exporter_name,
        metric=Metric(name=latest.name, value=latest.value, tags=latest.tags, unit=latest.unit, kind=latest.kind),
        average_interval_in_seconds=(item.last_end - item.first_end) / (item.times - 1) if item.times > 1 else None,
        last_report_time=_instant(item.reported_at),
        total=latest.value if latest.kind is MetricKind.LEVEL else item.total / scale,
        total_unit=_total_unit(latest),
        average=item.weighted / item.seconds if item.seconds > 0 else latest.value,
        minimum=item.minimum,
        maximum=item.maximum,
        call_count=item.count,
        total_band=Band(item.low / scale, item.high / scale) if item.banded else None,
    )


def _total_unit(record: Record) -> str | None:
    if record.kind is not MetricKind.RATE or record.unit is None:
        return record.unit
    return "Wh" if record.unit == "watts" else f"{record.unit} s"
