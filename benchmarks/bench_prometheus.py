"""The exporter for Prometheus: a whole tick with it, a scrape of 10,000 series, and what hostile clients cost others.

Ratios within this one run: CPU of a tick against a bare `os.pread` loop over the same 8 zones; CPU of a scrape against
a join of the same lines from kept prefixes and fresh values, and against the official renderer; how long a scrape takes
and how regular the ticks are with ten clients that send nothing, against the same without them.
"""

from __future__ import annotations

import gzip
import http.client
import socket
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import field
from itertools import pairwise
from pathlib import Path

import anyio
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.parser import text_string_to_metric_families

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tracarbon.exporters.exporter import Batch, Metric, MetricGenerator, MetricKind, Record, Tag
from tracarbon.metrics import Window
from tracarbon_exporter_prometheus import PrometheusExporter

from benchmarks.bench_tick import RushingClock, seconds_per_bare_loop, seconds_per_tick
from tests.support.powercap_tree import PowercapTree, two_sockets_eight_zones

SERIES = 10_000
ROUNDS = 15
SCRAPES = 10
CLIENT = """
import http.client, sys
connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]))
for _ in range(int(sys.argv[2])):
    connection.request("GET", "/metrics", headers=dict([sys.argv[3].split(": ")]) if sys.argv[3] else {})
    connection.getresponse().read()
"""


class Ticking(PrometheusExporter):
    """Lets the next tick come once it has its batch."""

    clock: RushingClock
    records: int = 0

    async def export(self, batch: Batch) -> None:
        await super().export(batch)
        self.records += len(batch)
        self.clock.exported.set()


def tick(folder: Path) -> None:
    PowercapTree(folder, two_sockets_eight_zones())
    powercap = folder / "class" / "powercap"
    files = sorted(folder.glob("devices/**/energy_uj"))[:8]
    bare, whole = [], []
    for _ in range(ROUNDS):
        bare.append(seconds_per_bare_loop(files))
        whole.append(anyio.run(seconds_per_tick, powercap, lambda clock: Ticking(clock=clock, port=0)))
    bare_us, whole_us = statistics.median(bare) * 1e6, statistics.median(whole) * 1e6
    print(f"bare pread loop over 8 zones: {bare_us:.1f} us")
    print(f"one whole tick, exported to Prometheus: {whole_us:.1f} us, {whole_us / bare_us:.1f} x (asked <= 20)")


def batch(number: int) -> Batch:
    """5,000 pods with a rate: as many gauges, and as many totals."""
    start = time.monotonic() + number
    window = Window(start, start + 1.0, start, start + 1.0)
    records = [
        Record(
            "energy_consumption_kubernetes_cpu",
            0.1 + pod * 1.7e-3 + number * 0.137,
            (Tag("platform", "Linux"), Tag("pod_name", f"pod-{pod}"), Tag("pod_namespace", f"ns-{pod % 50}"),
             Tag("sensor", "rapl"), Tag("units", "watts")),
            "watts", MetricKind.RATE, 1.0, "kubernetes", window.end,
        )
        for pod in range(SERIES // 2)
    ]  # fmt: skip
    return Batch.of_window("kubernetes", window, records)


def cpu_seconds(function: object, rounds: int = ROUNDS) -> float:
    assert callable(function)
    times = []
    for _ in range(rounds):
        started = time.process_time()
        function()
        times.append(time.process_time() - started)
    return statistics.median(times)


def joined(prefixes: list[str], values: list[float]) -> bytes:
    return "".join([f"{prefix}{value!r}\n" for prefix, value in zip(prefixes, values, strict=True)]).encode()


def official_registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    names = ["platform", "pod_name", "pod_namespace", "units"]
    gauge = Gauge("tracarbon_energy_consumption_kubernetes_cpu", "Power.", names, registry=registry)
    counter = Counter("tracarbon_energy_consumption_kubernetes_cpu_joules", "Energy.", names[1:3], registry=registry)
    for pod in range(SERIES // 2):
        gauge.labels("Linux", f"pod-{pod}", f"ns-{pod % 50}", "watts").set(0.1 + pod * 1.7e-3)
        counter.labels(f"pod-{pod}", f"ns-{pod % 50}").inc(0.1 + pod * 1.7e-3)
    return registry


async def scrape() -> None:
    exporter = PrometheusExporter(port=0)
    async with exporter:
        for number in range(3):
            await exporter.export(batch(number))
        text = exporter._rendered(False).decode()
        lines = [line for line in text.splitlines() if line.startswith(("tracarbon_", "energy_"))]
        assert len(lines) >= SERIES
        assert sum(len(family.samples) for family in text_string_to_metric_families(text)) >= SERIES
        prefixes = [line.rpartition(" ")[0] + " " for line in lines]
        values = [float(line.rpartition(" ")[2]) for line in lines]
        join = cpu_seconds(lambda: joined(prefixes, values))
        render = cpu_seconds(lambda: exporter._rendered(False))
        registry = official_registry()
        official = cpu_seconds(lambda: generate_latest(registry), 5)
        served = await served_cpu_seconds(exporter, "")
        zipped = await served_cpu_seconds(exporter, "Accept-Encoding: gzip")
        squeeze = cpu_seconds(lambda: gzip.compress(text.encode(), 1, mtime=0))
        export = [await export_cpu_seconds(exporter, number) for number in range(3, 3 + ROUNDS)]
    print(f"join of {len(lines)} lines: {join * 1e3:.2f} ms; generate_latest: {official * 1e3:.0f} ms")
    print(f"text of {SERIES} series: {render * 1e3:.2f} ms, {render / join:.2f} x the join (asked <= 2)")
    print(
        f"whole scrape over HTTP: {served * 1e3:.2f} ms, {served / join:.2f} x the join (asked <= 2), "
        f"{official / served:.0f} x less than generate_latest (asked about 30)"
    )
    print(f"the same with gzip: {zipped * 1e3:.2f} ms, of which gzip itself takes {squeeze * 1e3:.2f} ms")
    print(f"export of {SERIES // 2} records: {statistics.median(export) * 1e3:.2f} ms")


async def served_cpu_seconds(exporter: PrometheusExporter, header: str) -> float:
    """CPU of this process while another one scrapes it."""
    command = [sys.executable, "-c", CLIENT, str(exporter.port), str(SCRAPES), header]
    times = []
    for _ in range(5):
        started = time.process_time()
        await anyio.run_process(command)
        times.append((time.process_time() - started) / SCRAPES)
    return statistics.median(times)


async def export_cpu_seconds(exporter: PrometheusExporter, number: int) -> float:
    fresh = batch(number)
    started = time.process_time()
    await exporter.export(fresh)
    return time.process_time() - started


class Figures(MetricGenerator):
    """Eight metrics, and when they were asked for."""

    asked_at: list[float] = field(default_factory=list)
    metrics: list[Metric] = field(default_factory=lambda: [Metric(name=f"m{n}", value=float(n)) for n in range(8)])

    async def generate(self):  # type: ignore[no-untyped-def]
        self.asked_at.append(time.monotonic())
        for metric in self.metrics:
            yield metric


def hostile() -> None:
    rounds = [(siege(0), siege(10)) for _ in range(5)]
    for number, what in enumerate(("scrape", "deviation of the ticks' period")):
        calm, besieged = (statistics.median(pair[side][number] for pair in rounds) for side in (0, 1))
        print(
            f"{what} with 10 hostile clients: {besieged * 1e3:.2f} ms, {besieged / calm:.2f} x without "
            f"({calm * 1e3:.2f} ms; asked 1)"
        )


def siege(clients: int) -> tuple[float, float]:
    """Median seconds of a scrape, and of how much a period differs, beside clients that connect and send nothing."""
    generator = Figures()
    exporter = PrometheusExporter(port=0, metric_generators=[generator])
    exporter.start(0.05)
    with ExitStack() as stack:
        assert exporter.port is not None
        for _ in range(clients):
            stack.enter_context(socket.create_connection(("127.0.0.1", exporter.port)))
        connection = http.client.HTTPConnection("127.0.0.1", exporter.port)
        times = []
        for _ in range(100):
            started = time.perf_counter()
            connection.request("GET", "/metrics")
            connection.getresponse().read()
            times.append(time.perf_counter() - started)
            time.sleep(0.02)
        connection.close()
    exporter.stop()
    return statistics.median(times), statistics.median(abs(b - a - 0.05) for a, b in pairwise(generator.asked_at[3:]))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        tick(Path(folder))
    anyio.run(scrape)
    hostile()


if __name__ == "__main__":
    main()
