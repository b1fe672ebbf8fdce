"""How the pipeline itself fares, as metrics."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version

from tracarbon.plugin import Component, ComponentState, PluginContext

from tracarbon_exporter_prometheus._exposition import Exposition, Family, Kind, Samples
from tracarbon_exporter_prometheus.ledger import Snapshot

UP = Family("tracarbon_up", Kind.GAUGE, "Whether a component of the pipeline works: 1, or 0.")
DEGRADED = Family("tracarbon_degraded", Kind.GAUGE, "Whether a component works, but not wholly: 1, or 0.")
FAILURES = Family("tracarbon_failures", Kind.COUNTER, "Calls into a component that failed, such as exports.")
MERGED = Family(
    "tracarbon_merged_batches",
    Kind.COUNTER,
    "Windows that were merged into one that an exporter had not taken yet: it is slower than the pipeline.",
)
DROPPED = Family("tracarbon_dropped_records", Kind.COUNTER, "Records that an exporter's receiver refused for good.")
LAST_TICK = Family(
    "tracarbon_last_tick_age_seconds", Kind.GAUGE, "Time since the pipeline closed its last window.", "seconds"
)
INTERVAL = Family("tracarbon_tick_interval_seconds", Kind.GAUGE, "How often a window is to be closed.", "seconds")
DURATION = Family(
    "tracarbon_tick_duration_seconds",
    Kind.SUMMARY,
    "How long it took to ask every sensor and to close the window.",
    "seconds",
)
SKIPPED = Family("tracarbon_skipped_ticks", Kind.COUNTER, "Ticks that were skipped since the one before was late.")
SERIES = Family("tracarbon_series", Kind.GAUGE, "Series that this exporter keeps.")
REFUSED = Family(
    "tracarbon_refused_records",
    Kind.COUNTER,
    "Records for whose series there was no room (max_series); they are in the sums labelled overflow.",
)
BUILD = Family("tracarbon_build", Kind.INFO, "What runs here.")

_OF_COMPONENTS = (UP, DEGRADED, FAILURES)
_OF_EXPORTERS = (MERGED, DROPPED)
_ALL = (*_OF_COMPONENTS, *_OF_EXPORTERS, LAST_TICK, INTERVAL, DURATION, SKIPPED, SERIES, REFUSED, BUILD)

NAMES = frozenset().union(*(family.names for family in _ALL))
"""The names that no metric of a generator may take."""

_BUILD_LINE = BUILD.line({"version": version("tracarbon-exporter-prometheus"), "python": platform.python_version()})


def health_of(context: PluginContext, snapshot: Snapshot, *, at_scrape: bool) -> Exposition:
    """Return what there is to say of the pipeline at this moment.

    What is only true at this moment is left out for who will keep it, as a Pushgateway does.
    """
    yield BUILD, {_BUILD_LINE: 1.0}
    yield SERIES, {SERIES.line({}): float(snapshot.series)}
    yield REFUSED, {REFUSED.line({}): float(snapshot.refused)}
    yield from _of_components(context)
    yield from _of_ticks(context, at_scrape=at_scrape)


def last_tick_age_seconds(context: PluginContext) -> float | None:
    """Return how long ago the pipeline closed a window; `None` before the first."""
    last = context.pulse.last_tick_at
    return None if last is None else max(0.0, context.clock.monotonic() - last)


def _of_components(context: PluginContext) -> Iterator[tuple[Family, Samples]]:
    components = list(context.components)
    exporters = [component for component in components if component.kind == "exporter"]
    works = (ComponentState.OK, ComponentState.DEGRADED, ComponentState.STOPPED)  # stopped is as it should be
    for family, among, value in (
        (UP, components, lambda component: component.state in works),
        (DEGRADED, components, lambda component: component.state is ComponentState.DEGRADED),
        (FAILURES, components, lambda component: component.failures),
        (MERGED, exporters, lambda component: component.merged_batches),
        (DROPPED, exporters, lambda component: component.dropped_records),
    ):
        if among:
            yield family, _by_component(family, among, value)


def _by_component(family: Family, components: Iterable[Component], value: Callable[[Component], float]) -> Samples:
    return {
        family.line({"kind": component.kind, "component": component.name}): float(value(component))
        for component in components
    }


def _of_ticks(context: PluginContext, *, at_scrape: bool) -> Iterator[tuple[Family, Samples]]:
    age = last_tick_age_seconds(context)
    if age is None:
        return
    pulse = context.pulse
    if at_scrape:
        yield LAST_TICK, {LAST_TICK.line({}): age}
    yield INTERVAL, {INTERVAL.line({}): float(pulse.interval_seconds)}
    yield (
        DURATION,
        {DURATION.line({}, "_sum"): float(pulse.tick_seconds), DURATION.line({}, "_count"): float(pulse.ticks)},
    )
    yield SKIPPED, {SKIPPED.line({}): float(pulse.skipped_ticks)}
