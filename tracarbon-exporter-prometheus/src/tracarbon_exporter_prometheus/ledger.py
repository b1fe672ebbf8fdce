"""What a scrape shows of the records that were exported: their latest values, and totals that only grow.

A `Ledger` turns each batch into a new `Snapshot`, which never changes: a scrape takes the latest and neither waits for
an export nor sees half of one. A series is known by the text in front of its value, so that no line comes twice.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeAlias

from tracarbon.metrics import OVERFLOW_TAG, Batch, MetricKind, Record, SeriesKey, as_overflow

from tracarbon_exporter_prometheus._exposition import Family, Kind, format_labels, metric_name
from tracarbon_exporter_prometheus.descriptions import describe_gauge, describe_total

logger = logging.getLogger("tracarbon")

_PROVENANCE_TAGS = frozenset({"sensor", "fidelity", "method", "location_from", "factor_kind", "factor_date"})
_DESCRIBING_TAGS = frozenset({"platform", "location", "source", "units"})
_STALE_WINDOWS = 3
_MOST_OVERFLOWING = 100
"""How many metrics have a series of their own for what finds no room; and as many units for the metrics beyond."""
_BY_UNIT = "overflow_"
_BASE_UNITS = {
    (MetricKind.RATE, "watts"): ("joules", 1.0),
    (MetricKind.RATE, "milliwatts"): ("joules", 1e-3),
    (MetricKind.AMOUNT, "co2g"): ("grams", 1.0),
    (MetricKind.AMOUNT, "co2mg"): ("grams", 1e-3),
    (MetricKind.AMOUNT, "millijoules"): ("joules", 1e-3),
}

PROVENANCE = Family(
    "tracarbon_provenance",
    Kind.INFO,
    "Where the figures of a metric come from: sensor, fidelity, and for carbon the intensity's kind and date.",
)

_Lines: TypeAlias = dict[str, float]


@dataclass(frozen=True, slots=True)
class Shown:
    """The gauges of one generator: those of its newest window.

    Attributes:
        samples: values by family and line.
        window_end: in monotonic seconds.
    """

    samples: Mapping[Family, Mapping[str, float]]
    window_end: float
    window_seconds: float

    def is_new(self, now: float, interval_seconds: float) -> bool:
        """Whether they are less than three windows old."""
        return now - self.window_end <= _STALE_WINDOWS * max(self.window_seconds, interval_seconds)


class Held(NamedTuple):
    """What a new total has counted and does not show yet."""

    family: Family
    line: str
    amount: float


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What can be scraped; never changed once it is made.

    Attributes:
        gauges: by generator.
        totals: by family and line.
        held: by generator, what totals are new and shown as 0 until its next window.
        refused: how many records found no room, so far.
        series: how many series are known.
        names: every name that is in use or reserved.
    """

    gauges: Mapping[str, Shown] = field(default_factory=dict)
    totals: Mapping[Family, Mapping[str, float]] = field(default_factory=dict)
    held: Mapping[str, Sequence[Held]] = field(default_factory=dict)
    refused: int = 0
    series: int = 0
    names: frozenset[str] = frozenset()

    def has_figures(self, now: float, interval_seconds: float) -> bool:
        """Whether any generator's figures are new enough to be shown."""
        return any(shown.is_new(now, interval_seconds) for shown in self.gauges.values())

    def families(self, now: float, interval_seconds: float) -> Iterator[tuple[Family, Mapping[str, float]]]:
        """Return what is to be shown at an instant: not the gauges of a generator that has been silent for windows."""
        by_family: dict[Family, Mapping[str, float]] = {}
        for shown in self.gauges.values():
            if not shown.is_new(now, interval_seconds):
                continue
            for family, lines in shown.samples.items():
                by_family[family] = {**by_family[family], **lines} if family in by_family else lines
        for family in sorted((*by_family, *self.totals), key=lambda family: family.name):
            yield family, by_family[family] if family in by_family else self.totals[family]


@dataclass(slots=True)
class _Series:
    """Where the records of one series go."""

    generator: str
    gauge: Family | None
    gauge_line: str
    total: Family | None
    total_line: str
    base_units: float
    provenance_line: str
    identity: str
    last_seen: float = 0.0


class Ledger:
    """Counts batches.

    Args:
        prefix: of the metric names.
        max_series: how many series there may be; the records of more are folded into one by metric, with the label
            `overflow`, and those of more than 100 such metrics into one by unit.
        linger_seconds: how long the total of a series that is silent is still served.
        begins_at_zero: whether a new total is shown as 0 until its generator's next window, so that whoever takes
            differences sees all that it counts.
        reserved: names that belong to others.
        generators: their names in order: of two with one metric, the first has it without the label `generator`.
    """

    def __init__(
        self,
        prefix: str | None,
        *,
        max_series: int,
        linger_seconds: float,
        begins_at_zero: bool = True,
        reserved: frozenset[str] = frozenset(),
        generators: Sequence[str] = (),
    ) -> None:
        self._prefix = prefix
        self._max_series = max_series
        self._linger_seconds = linger_seconds
        self._begins_at_zero = begins_at_zero
        self._series: dict[SeriesKey, _Series] = {}
        self._ranks = {name: number for number, name in enumerate(generators)}
        self._overflowing = 0
        self._owners: dict[str, str] = {}
        self._families: dict[tuple[str, Kind], Family] = {}
        self._gone: dict[str, Family] = {}
        self._taken = {*reserved, *PROVENANCE.names}
        self._next_sweep = 0.0
        self._warned: set[str] = set()
        self.snapshot = Snapshot(names=frozenset(self._taken))

    def counted(self, batch: Batch) -> Snapshot:
        """Return the snapshot with a batch counted; `publish` makes it the ledger's own."""
        before = self.snapshot
        entry = _Entry(before.totals, begins_at_zero=self._begins_at_zero)
        for generator in batch.windows:
            entry.release(before.held.get(generator, ()))
        refused = before.refused
        for key, record in self._in_order(batch):
            series = self._series.get(key)
            if series is None:
                refused += not self._has_room(record)
                series = self._open(record)
            if series is not None:
                entry.add(series, record, is_current=batch.is_current(record))
        shown = {
            generator: Shown(entry.gauges.get(generator, {}), window.end, window.seconds)
            for generator, window in batch.windows.items()
        }
        held = {**before.held, **{generator: entry.held.get(generator, []) for generator in batch.windows}}
        names = before.names if len(before.names) == len(self._taken) else frozenset(self._taken)
        return Snapshot({**before.gauges, **shown}, entry.totals, held, refused, len(self._series), names)

    def publish(self, snapshot: Snapshot) -> None:
        """Let scrapes see a snapshot, without the series that have been gone for long."""
        now = max((shown.window_end for shown in snapshot.gauges.values()), default=0.0)
        if now >= self._next_sweep:
            self._next_sweep = now + self._linger_seconds / 10
            snapshot = self._swept(snapshot, now)
        self.snapshot = snapshot

    def _in_order(self, batch: Batch) -> Iterable[tuple[SeriesKey, Record]]:
        """Return the records by their generators' order; which of those was quicker is nobody's business."""
        if len(batch.windows) < 2:
            return batch.records.items()
        last = len(self._ranks)
        return sorted(batch.records.items(), key=lambda item: self._ranks.get(item[1].generator, last))

    def _has_room(self, record: Record) -> bool:
        if record.key in self._series:
            return True
        if OVERFLOW_TAG not in record.tags:
            return len(self._series) - self._overflowing < self._max_series
        return self._overflowing < _MOST_OVERFLOWING * (2 if record.name.startswith(_BY_UNIT) else 1)

    def _open(self, record: Record) -> _Series | None:
        """Return the series of a record not seen before; without room, one of many such records."""
        fitting = self._fitted(record)
        if fitting is None:
            return None
        key = fitting.key
        if key not in self._series:
            self._series[key] = self._made(fitting)
            self._overflowing += OVERFLOW_TAG in fitting.tags
        return self._series[key]

    def _fitted(self, record: Record) -> Record | None:
        """Return a record as one for which there is room: itself, or all such of its metric, or of its unit.

        Levels do not add up: those without room are left out.
        """
        if self._has_room(record):
            return record
        self._warn_once(
            "overflow",
            "there are more than %d series (max_series): the others are added up by metric, labelled overflow",
            self._max_series,
        )
        if record.kind is MetricKind.LEVEL:
            return None
        of_metric = as_overflow(record)
        if self._has_room(of_metric):
            return of_metric
        self._warn_once(
            "metrics",
            "there are more than %d metrics without room (max_series): the others are added up by unit",
            _MOST_OVERFLOWING,
        )
        of_unit = replace(of_metric, name="_".join(filter(None, (_BY_UNIT + record.kind.value, record.unit))))
        if self._has_room(of_unit):
            return of_unit
        self._warn_once("units", "there are too many units without room (max_series): the others are left out")
        return None

    def _made(self, record: Record) -> _Series:
        tags = dict(record.tags)
        describing = {key: tags.pop(key) for key in _DESCRIBING_TAGS & tags.keys()}
        provenance = {key: tags.pop(key) for key in _PROVENANCE_TAGS & tags.keys()}
        name = metric_name(record.format_name(self._prefix, "_"))
        identity = f"{name} {format_labels(tags)}"
        if self._owners.setdefault(identity, record.generator) != record.generator:
            tags["generator"] = record.generator
        gauge = self._family(name, Kind.GAUGE, describe_gauge(record))
        total, base_units = self._total_family(name, record)
        return _Series(
            generator=record.generator,
            gauge=gauge,
            gauge_line=gauge.line({**tags, **describing}) if gauge else "",
            total=total,
            total_line=total.line(tags) if total else "",
            base_units=base_units,
            provenance_line=PROVENANCE.line({"metric": name, **provenance}) if provenance else "",
            identity=identity,
        )

    def _total_family(self, name: str, record: Record) -> tuple[Family | None, float]:
        if record.kind is MetricKind.LEVEL:
            return None, 1.0
        unit, base_units = _BASE_UNITS.get((record.kind, record.unit or ""), (record.unit or "", 1.0))
        if record.kind is MetricKind.RATE and unit != "joules":
            unit = f"{unit}_seconds" if unit else "seconds"
        unit = metric_name(unit) if unit else ""
        total_name = f"{name}_{unit or 'cumulative'}"
        return self._family(total_name, Kind.COUNTER, describe_total(record, unit), unit), base_units

    def _family(self, name: str, kind: Kind, description: str, unit: str = "") -> Family | None:
        """Return the family of a name; `None` where the name belongs to another one."""
        known = self._families.get((name, kind))
        if known is not None:
            return known
        family = Family(name, kind, description, unit)
        if not self._taken.isdisjoint(family.names):
            self._warn_once(name, "the name %s is taken: a %s of that name is not served", name, kind.value)
            return None
        self._taken |= family.names
        self._families[name, kind] = family
        return family

    def _swept(self, snapshot: Snapshot, now: float) -> Snapshot:
        """Let go of series that were not there for long; what they counted goes to the sums of the gone.

        Those stay that are shown as 0 until the next window: nobody has seen what they counted.
        """
        held = {item.line for of_generator in snapshot.held.values() for item in of_generator}
        for key, series in [*self._series.items()]:
            shown = snapshot.gauges.get(series.generator)
            if shown is None or series.total_line in held:
                continue
            if series.last_seen < min(shown.window_end, now - self._linger_seconds):
                del self._series[key]
        alive = {series.total_line for series in self._series.values()}
        entry, sums = _Entry(snapshot.totals, begins_at_zero=False), self._gone.values()
        for family in [family for family in snapshot.totals if family not in sums]:
            for line in [line for line in snapshot.totals[family] if line not in alive]:
                entry.retire(family, line, self._gone_family(family.unit))
        self._forget_unused()
        return replace(snapshot, totals=entry.totals, series=len(self._series), names=frozenset(self._taken))

    def _forget_unused(self) -> None:
        series = self._series.values()
        self._overflowing = sum(OVERFLOW_TAG in tags for _, tags, _ in self._series)
        identities = {item.identity for item in series}
        self._owners = {identity: owner for identity, owner in self._owners.items() if identity in identities}
        families = {family for item in series for family in (item.gauge, item.total)}
        for key in [key for key, family in self._families.items() if family not in families]:
            self._taken -= self._families.pop(key).names

    def _gone_family(self, unit: str) -> Family:
        if unit not in self._gone:
            name = f"tracarbon_gone_{unit}" if unit else "tracarbon_gone"
            description = "What series had counted that are not served any more, by metric."
            self._gone[unit] = Family(name, Kind.COUNTER, description, unit)
        return self._gone[unit]

    def _warn_once(self, about: str, message: str, *arguments: object) -> None:
        if about not in self._warned:
            self._warned.add(about)
            logger.warning(f"exporter prometheus: {message}", *arguments)


class _Entry:
    """What one batch changes; families that it does not touch are shared with the snapshot before."""

    def __init__(self, totals: Mapping[Family, Mapping[str, float]], *, begins_at_zero: bool) -> None:
        self._begins_at_zero = begins_at_zero
        self.held: dict[str, list[Held]] = {}
        self.totals: dict[Family, Mapping[str, float]] = dict(totals)
        self.gauges: dict[str, dict[Family, _Lines]] = {}
        self._own: dict[Family, _Lines] = {}

    def add(self, series: _Series, record: Record, *, is_current: bool) -> None:
        series.last_seen = max(series.last_seen, record.last_seen)
        if series.total is not None:
            self._count(series, series.total, max(0.0, float(record.total) * series.base_units))
        if is_current and series.gauge is not None:
            shown = self.gauges.get(series.generator)
            if shown is None:
                shown = self.gauges[series.generator] = {}
            self._show(shown, series, record)

    def release(self, held: Iterable[Held]) -> None:
        for family, line, amount in held:
            self._lines_of(family)[line] += amount

    def _count(self, series: _Series, family: Family, amount: float) -> None:
        lines, line = self._own.get(family) or self._lines_of(family), series.total_line
        if self._begins_at_zero and line not in lines:
            lines[line] = 0.0
            self.held.setdefault(series.generator, []).append(Held(family, line, amount))
        else:
            lines[line] = lines.get(line, 0.0) + amount

    def _show(self, shown: dict[Family, _Lines], series: _Series, record: Record) -> None:
        assert series.gauge is not None
        values = shown.get(series.gauge)
        if values is None:
            values = shown[series.gauge] = {}
        line, value = series.gauge_line, float(record.value)
        adds_up = line in values and record.kind is not MetricKind.LEVEL
        values[line] = values[line] + value if adds_up else value
        if series.provenance_line:
            shown.setdefault(PROVENANCE, {})[series.provenance_line] = 1.0

    def retire(self, family: Family, line: str, gone: Family) -> None:
        lines = self._lines_of(family)
        total = lines.pop(line)
        if not lines:
            del self.totals[family], self._own[family]
        sums, metric = self._lines_of(gone), gone.line({"metric": family.sample_name})
        sums[metric] = sums.get(metric, 0.0) + total

    def _lines_of(self, family: Family) -> _Lines:
        if family not in self._own:
            self._own[family] = self.totals[family] = dict(self.totals.get(family, {}))
        return self._own[family]
