"""CPU of one whole tick: 8 RAPL zones, energy and carbon, a no-op exporter; against a bare `os.pread` loop.

Both in one process and run, by process CPU time, median of many rounds.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Self

import anyio

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tracarbon._clock import SystemClock
from tracarbon._pipeline import Pipeline
from tracarbon.emissions.carbon_emissions import CarbonEmission
from tracarbon.exporters.exporter import Batch, Exporter
from tracarbon.general_metrics import CarbonEmissionGenerator, EnergyConsumptionGenerator
from tracarbon.locations.location import Location
from tracarbon_sensor_rapl import RAPL, LinuxEnergyConsumption

from tests.support.powercap_tree import PowercapTree, two_sockets_eight_zones

ROUNDS, TICKS = 15, 1000


class RushingClock(SystemClock):
    """The next instant comes as soon as the exporter has had its batch, so that a round is nothing but ticks."""

    def __init__(self) -> None:
        self._now = 0.0
        self.ticks_left = TICKS
        self.exported = anyio.Event()
        self.exported.set()
        self.done = anyio.Event()

    def monotonic(self) -> float:
        return self._now

    def time(self) -> float:
        return self._now

    async def sleep_until(self, instant: float) -> None:
        await self.exported.wait()
        if self.ticks_left == 0:
            self.done.set()
            await anyio.sleep_forever()
        self.exported = anyio.Event()
        self.ticks_left -= 1
        self._now = max(self._now, instant)

    def timeout(self, seconds: float) -> AbstractContextManager[anyio.CancelScope]:
        return anyio.move_on_after(seconds)


class FixedLocation(Location):
    async def get_latest_co2g_kwh(self) -> float:
        return 40.0


class NoExporter(Exporter):
    clock: RushingClock
    records: int = 0

    @classmethod
    def over(cls, clock: RushingClock) -> Self:
        return cls(clock=clock)

    async def export(self, batch: Batch) -> None:
        self.records += len(batch)
        self.clock.exported.set()


def pipeline_over(powercap: Path, clock: RushingClock, exporter: Exporter) -> Pipeline:
    pipeline = Pipeline(interval_seconds=1.0, clock=clock)
    add = pipeline.components.add
    location = FixedLocation(name="fr", co2g_kwh_kind="yearly average", co2g_kwh_date="2024")
    pipeline.set_location(add("location", "location"), location)
    rapl = RAPL(path=str(powercap), clock=clock.monotonic)
    pipeline.add_sensor(add("sensor", "rapl"), LinuxEnergyConsumption(rapl=rapl))
    view = pipeline.view()
    pipeline.add_generator(
        add("generator", "energy"), EnergyConsumptionGenerator(location=location, energy_consumption=view), view
    )
    view = pipeline.view()
    emission = CarbonEmission(location=location, energy_consumption=view)
    pipeline.add_generator(
        add("generator", "carbon"), CarbonEmissionGenerator(location=location, carbon_emission=emission), view
    )
    pipeline.add_exporter(add("exporter", "none"), exporter)
    return pipeline


async def seconds_per_tick(powercap: Path, make_exporter: Callable[[RushingClock], Any] = NoExporter.over) -> float:
    clock = RushingClock()
    exporter = make_exporter(clock)
    pipeline = pipeline_over(powercap, clock, exporter)
    async with anyio.create_task_group() as group:
        started = time.process_time()
        group.start_soon(pipeline.run)
        await clock.done.wait()
        elapsed = time.process_time() - started
        pipeline.stop()
    assert exporter.records >= 8 * (TICKS - 1), exporter.records
    return elapsed / TICKS


def seconds_per_bare_loop(files: list[Path]) -> float:
    descriptors = [os.open(file, os.O_RDONLY) for file in files]
    started = time.process_time()
    for _ in range(TICKS):
        for descriptor in descriptors:
            int(os.pread(descriptor, 32, 0))
    elapsed = time.process_time() - started
    for descriptor in descriptors:
        os.close(descriptor)
    return elapsed / TICKS


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        tree = PowercapTree(Path(folder), two_sockets_eight_zones())
        powercap = Path(folder) / "class" / "powercap"
        files = sorted(Path(folder).glob("devices/**/energy_uj"))[:8]
        assert len(files) == 8, tree.keys()
        bare, whole = [], []
        for _ in range(ROUNDS):
            bare.append(seconds_per_bare_loop(files))
            whole.append(anyio.run(seconds_per_tick, powercap))
    bare_us, whole_us = statistics.median(bare) * 1e6, statistics.median(whole) * 1e6
    print(f"bare pread loop over 8 zones: {bare_us:.1f} us")
    print(f"one whole tick: {whole_us:.1f} us, {whole_us / bare_us:.1f} x (asked <= 12)")


if __name__ == "__main__":
    main()
