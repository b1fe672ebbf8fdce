"""What travels from generators to exporters: metrics, and batches of them that merge without losing a gram.

A `Metric` is what a generator yields. The pipeline resolves it to a `Record` (a number, with the seconds that it holds
for) and puts the records of a window into a `Batch`. An exporter that is behind gets its batches merged: amounts add
up, rates are averaged over the time that they cover, levels are the latest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, NamedTuple, TypeAlias

from tracarbon.hardwares.energy import Band


class Tag(NamedTuple):
    """Tag for a metric."""

    key: str
    value: str


class MetricKind(Enum):
    """How a metric adds up."""

    RATE = "rate"
    """Holds per second (watts): integrates over the seconds that it covers."""
    AMOUNT = "amount"
    """Belongs to this window (grams, joules): adds up."""
    LEVEL = "level"
    """A state (a number of pods): only the latest counts."""


class Number(float):
    """A number that may also be called and awaited, as the documented API has the value of every metric."""

    async def __call__(self) -> float:
        """Return the number."""
        return self


SeriesKey: TypeAlias = tuple[str, tuple[Tag, ...], str]
"""Name, tags and generator: two generators of one metric may measure one thing in two ways, which does not add up."""


def format_name(name: str, metric_prefix_name: str | None = None, separator: str = ".") -> str:
    """Return `name` behind the prefix and the separator, or alone where there is no prefix."""
    return f"{metric_prefix_name}{separator}{name}" if metric_prefix_name else name


def format_tags(tags: Iterable[Tag], separator: str = ":") -> list[str]:
    """Return each tag as key, separator and value."""
    return [f"{key}{separator}{value}" for key, value in tags]


@dataclass(slots=True, kw_only=True)
class Metric:
    """A figure that a generator yields.

    Attributes:
        name: such as `energy_consumption_host`.
        value: a number, or an async callable that gives one; `None` is unknown and is not exported. A number becomes a
            `Number`, so that whoever reads the metric may call it either way.
        tags: where it belongs and where it comes from.
        unit: such as `watts` or `co2g`.
        kind: how it adds up; its name will do as well, such as `rate`.
        covered_seconds: the seconds that a rate holds for, where they differ from the window's.
        band: the range in which the true value is believed to lie, in the same unit.

    Raises:
        ValueError: the name is empty, there is no such kind, tags are no `Tag`, or the value is neither a number nor to
            be called.
    """

    name: str
    value: Any  # one type of what may be given would allow neither of the two ways to read it
    tags: Sequence[Tag] = field(default_factory=list)
    unit: str | None = None
    kind: MetricKind = MetricKind.LEVEL
    covered_seconds: float | None = None
    band: Band | None = None

    def __post_init__(self) -> None:
        if not self.name or not isinstance(self.name, str):
            raise ValueError(f"a metric's name is a text, not {self.name!r}")
        if self.kind.__class__ is not MetricKind:
            self.kind = MetricKind(self.kind)
        try:
            if not isinstance(self.tags, list | tuple):
                self.tags = [*self.tags]
            for tag in self.tags:
                if tag.__class__ is not Tag and not isinstance(tag, Tag):
                    raise TypeError
        except TypeError:
            raise ValueError(f"the tags of metric {self.name} are a list of Tag, not {self.tags!r}") from None
        value = self.value
        if value is not None and not callable(value):
            self.value = Number(value)

    def format_name(self, metric_prefix_name: str | None = None, separator: str = ".") -> str:
        """Format the name of the metric with a prefix and separator."""
        return format_name(self.name, metric_prefix_name, separator)

    def format_tags(self, separator: str = ":") -> list[str]:
        """Format the tags with a separator between key and value."""
        return format_tags(self.tags, separator)


class Window(NamedTuple):
    """A stretch of time: monotonic seconds to reckon with, seconds since the epoch to label with."""

    start: float
    end: float
    started_at: float
    ended_at: float

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.end - self.start


@dataclass(slots=True)
class Record:
    """A metric with its number, ready to be exported. Shared between exporters: never change one.

    Attributes:
        covered_seconds: the seconds that a rate holds for; value x covered seconds is its integral.
        generator: name of the generator that it comes from.
        last_seen: monotonic end of the newest window in which it was known.
    """

    name: str
    value: float
    tags: tuple[Tag, ...]
    unit: str | None
    kind: MetricKind
    covered_seconds: float
    generator: str
    last_seen: float
    band: Band | None = None

    @property
    def key(self) -> SeriesKey:
        """The series that it belongs to."""
        return self.name, self.tags, self.generator

    @property
    def total(self) -> float:
        """What it adds to a total: joules for watts, the value itself for an amount."""
        return self.value * self.covered_seconds if self.kind is MetricKind.RATE else self.value

    def format_name(self, metric_prefix_name: str | None = None, separator: str = ".") -> str:
        """Format the name of the metric with a prefix and separator."""
        return format_name(self.name, metric_prefix_name, separator)

    def format_tags(self, separator: str = ":") -> list[str]:
        """Format the tags with a separator between key and value."""
        return format_tags(self.tags, separator)


def merge_in_time(older: Record, newer: Record) -> Record:
    """Merge two records of one series, from windows that follow one another."""
    if newer.kind is MetricKind.LEVEL:
        return newer
    seconds = older.covered_seconds + newer.covered_seconds
    if newer.kind is MetricKind.AMOUNT:
        return _combine(older, newer, older.value + newer.value, seconds, (1.0, 1.0))
    if seconds <= 0:
        return newer
    weights = (older.covered_seconds / seconds, newer.covered_seconds / seconds)
    return _combine(older, newer, older.value * weights[0] + newer.value * weights[1], seconds, weights)


def merge_side_by_side(one: Record, other: Record) -> Record:
    """Merge records of two series of one window into one; both totals are kept."""
    seconds = max(one.covered_seconds, other.covered_seconds)
    if one.kind is MetricKind.AMOUNT or seconds <= 0:
        return _combine(one, other, one.value + other.value, seconds, (1.0, 1.0))
    weights = (one.covered_seconds / seconds, other.covered_seconds / seconds)
    return _combine(one, other, one.value * weights[0] + other.value * weights[1], seconds, weights)


def _combine(one: Record, other: Record, value: float, seconds: float, weights: tuple[float, float]) -> Record:
    band = None
    if one.band or other.band:
        low_one, high_one = one.band or (one.value, one.value)
        low_other, high_other = other.band or (other.value, other.value)
        band = Band(low_one * weights[0] + low_other * weights[1], high_one * weights[0] + high_other * weights[1])
    newest = max(one.last_seen, other.last_seen)
    return Record(other.name, value, other.tags, other.unit, other.kind, seconds, other.generator, newest, band)


OVERFLOW_TAG = Tag("overflow", "true")


class Batch:
    """The records of one window, or of several windows merged, for one exporter.

    Attributes:
        records: one for each series.
        windows: the newest window of each generator that is in the batch.
        window: the stretch of time from the first to the last of all windows in it.
        folded: how many records were folded into `overflow` series because there were too many series.
    """

    __slots__ = ("folded", "records", "window", "windows")

    def __init__(
        self, records: Mapping[SeriesKey, Record], windows: Mapping[str, Window], window: Window, folded: int = 0
    ) -> None:
        self.records = records
        self.windows = windows
        self.window = window
        self.folded = folded

    @classmethod
    def of_window(cls, generator: str, window: Window, records: Iterable[Record]) -> Batch:
        """Make the batch of one generator's window; of two records of one series both totals are kept."""
        by_series: dict[SeriesKey, Record] = {}
        for record in records:
            key = (record.name, record.tags, record.generator)
            twin = by_series.get(key)
            by_series[key] = (
                record if twin is None or record.kind is MetricKind.LEVEL else merge_side_by_side(twin, record)
            )
        return cls(by_series, {generator: window}, window)

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records.values())

    def __len__(self) -> int:
        return len(self.records)

    def is_current(self, record: Record) -> bool:
        """Whether the series was known in the newest window of its generator; its total counts in any case."""
        window = self.windows.get(record.generator)
        return window is None or record.last_seen >= window.end

    def merged_with(self, newer: Batch, max_series: int) -> Batch:
        """Return one batch of both: every amount and every joule of either, in at most about `max_series` series."""
        older = self if len(self) <= max_series else self.folded_to(max_series, ())
        fitting = newer.folded_to(max_series, older.records)
        records = dict(older.records)
        for key, record in fitting.records.items():
            known = records.get(key)
            records[key] = record if known is None else merge_in_time(known, record)
        span = Window(
            min(older.window.start, newer.window.start),
            max(older.window.end, newer.window.end),
            min(older.window.started_at, newer.window.started_at),
            max(older.window.ended_at, newer.window.ended_at),
        )
        return Batch(records, {**older.windows, **newer.windows}, span, older.folded + fitting.folded)

    def folded_to(self, max_series: int, known: Iterable[SeriesKey]) -> Batch:
        """Return this batch with the series that neither are `known` nor find room folded, by name, into one each.

        Levels do not add up: those without room are left out.
        """
        kept_keys = set(known)
        if len(self.records.keys() | kept_keys) <= max_series:
            return self
        kept: dict[SeriesKey, Record] = {}
        folded = 0
        for key, record in self.records.items():
            if OVERFLOW_TAG in key[1]:
                _fold_into(kept, record)
                continue
            if key in kept_keys or len(kept_keys) < max_series:
                kept_keys.add(key)
                kept[key] = record
                continue
            folded += 1
            if record.kind is not MetricKind.LEVEL:
                _fold_into(kept, record)
        return Batch(kept, self.windows, self.window, self.folded + folded)


def as_overflow(record: Record) -> Record:
    """Return a record for which there is no room as one of the series that stands for all such, by name and unit."""
    return replace(record, tags=(OVERFLOW_TAG, Tag("units", record.unit or "")))


def _fold_into(records: dict[SeriesKey, Record], record: Record) -> None:
    moved = as_overflow(record)
    twin = records.get(moved.key)
    records[moved.key] = moved if twin is None else merge_side_by_side(twin, moved)
