"""Metrics that prometheus_client knows how to collect: of this process, and gauges of an application's own."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator

from prometheus_client import CollectorRegistry, Gauge, Metric, ProcessCollector, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_latest_openmetrics
from prometheus_client.registry import Collector

from tracarbon_exporter_prometheus._exposition import OPENMETRICS_END

_PROCESS = ProcessCollector(registry=None)


def render_others(
    gauges: Iterable[Gauge], taken: Collection[str], *, openmetrics: bool, tell_of_twin: Callable[[str], None]
) -> str:
    """Return the metrics of this process and the gauges whose names are not taken, as text without an end mark.

    Of several gauges of one name, which a page cannot have, the first is there; `tell_of_twin` gets the name.
    """
    registry = CollectorRegistry()
    registry.register(_PROCESS)
    registry.register(_Gauges(gauges, taken, tell_of_twin))
    generate = generate_latest_openmetrics if openmetrics else generate_latest
    return generate(registry).decode("utf-8").removesuffix(OPENMETRICS_END)


class _Gauges(Collector):
    def __init__(self, gauges: Iterable[Gauge], taken: Collection[str], tell_of_twin: Callable[[str], None]) -> None:
        self._gauges = gauges
        self._taken = taken
        self._tell_of_twin = tell_of_twin

    def collect(self) -> Iterator[Metric]:
        given: set[str] = set()
        for gauge in dict.fromkeys(list(self._gauges)):
            for family in gauge.collect():
                if family.name in self._taken or family.name.startswith("process_"):
                    continue
                if family.name in given:
                    self._tell_of_twin(family.name)
                    continue
                given.add(family.name)
                yield family
