"""Reading one sensor: one reading at a time, whoever wants it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
from tracarbon._meter import Meter
from tracarbon._runner import Terms
from tracarbon._sampler import Sampler
from tracarbon._states import Components
from tracarbon.hardwares.energy import EnergyUsage
from tracarbon.hardwares.sensors import Sensor
from tracarbon.testing import ManualClock


class SlowSensor(Sensor):
    """Counts how often it is asked, and answers once it may."""

    def __post_init__(self) -> None:
        self.reads = 0
        self.may_answer = anyio.Event()

    async def get_energy_usage(self) -> EnergyUsage:
        self.reads += 1
        await self.may_answer.wait()
        return EnergyUsage()


class ScopedClock(ManualClock):
    """Hands its time-outs to the test."""

    latest: anyio.CancelScope

    def timeout(self, seconds: float) -> anyio.CancelScope:  # type: ignore[override]
        self.latest = anyio.CancelScope()
        return self.latest


@asynccontextmanager
async def sampling(clock: ManualClock, sensor: Sensor) -> AsyncGenerator[Sampler, None]:
    """A sampler that reads every 5 s by itself, with closes each minute."""
    meter = Meter(clock)
    meter.add_sensor("slow", sensor, 10.0)
    meter.open()
    component = Components().add("sensor", "slow")
    sampler = Sampler(component, sensor, meter, Terms(clock, False, 5.0, 30.0), tick_seconds=60.0, patience_seconds=0.5)
    async with anyio.create_task_group() as group:
        group.start_soon(sampler.run)
        await anyio.wait_all_tasks_blocked()
        yield sampler
        group.cancel_scope.cancel()


async def test_a_close_takes_the_answer_of_a_reading_that_is_under_way() -> None:
    clock, sensor = ManualClock(), SlowSensor()
    async with sampling(clock, sensor) as sampler:
        await clock.advance(5.0)
        assert sensor.reads == 1
        number = sampler.ask()
        assert number is not None
        assert sampler.answers < number
        sensor.may_answer.set()
        await sampler.wait_for_answer(number)
        await anyio.wait_all_tasks_blocked()
        assert (sensor.reads, sampler.answers) == (1, number)


async def test_asked_at_the_instant_of_its_own_schedule_it_reads_once() -> None:
    clock, sensor = ScopedClock(), SlowSensor()
    sensor.may_answer.set()
    async with sampling(clock, sensor) as sampler:
        clock.latest.cancel()
        number = sampler.ask()
        assert number is not None
        await sampler.wait_for_answer(number)
        await anyio.wait_all_tasks_blocked()
        assert (sensor.reads, sampler.answers) == (1, number)


async def test_an_end_of_serving_is_an_answer_too() -> None:
    clock, sensor = ManualClock(), SlowSensor()
    async with sampling(clock, sensor) as sampler:
        sensor.may_answer.set()
        sampler.finish()
        number = sampler.ask()
        assert number is not None
        await sampler.wait_for_answer(number)
        await sampler.finished.wait()
        assert sampler.ask() is None
