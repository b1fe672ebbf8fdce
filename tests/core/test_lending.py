"""Objects constructed in code that several runs share, one after another or at once: each run is whole."""

from __future__ import annotations

import math
import os
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import anyio
import pytest
from tracarbon._lending import Loans
from tracarbon._lifting import Lifting
from tracarbon._pipeline import Pipeline
from tracarbon.emissions.carbon_emissions import CarbonEmission
from tracarbon.exceptions import TracarbonException
from tracarbon.exporters.exporter import MetricGenerator
from tracarbon.general_metrics import CarbonEmissionGenerator, EnergyConsumptionGenerator
from tracarbon.hardwares.energy import EnergyUsage, Fidelity
from tracarbon.hardwares.sensors import Sensor
from tracarbon.metrics import Metric, MetricKind
from tracarbon.testing import ManualClock

from tests.support.fakes import FakeLocation, FakeSensor, RecordingExporter

HOST, GRAMS = "energy_consumption_host", "carbon_emission_host"
WATTS = 10.0


class OldSensor(Sensor):
    """Has an `__init__` of its own, and counts since its previous reading."""

    fidelity = Fidelity.MEASURED
    sampling_interval_seconds = math.inf

    def __init__(self, clock: ManualClock) -> None:
        super().__init__()
        self.clock = clock
        self.previous: float | None = None

    async def get_energy_usage(self) -> EnergyUsage:
        now = self.clock.monotonic()
        previous, self.previous = self.previous, now
        if previous is None or previous == now:
            return EnergyUsage()
        return EnergyUsage(host_energy_usage=WATTS, window_seconds=now - previous)


class Shared:
    """Generators, and the pipelines that run them, on one manual clock."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.location = FakeLocation()

    def generators(self, sensor: Sensor) -> list[MetricGenerator]:
        emission = CarbonEmission(location=self.location, energy_consumption=sensor)
        return [
            EnergyConsumptionGenerator(location=self.location, energy_consumption=sensor),
            CarbonEmissionGenerator(location=self.location, carbon_emission=emission),
        ]

    def exporter(self, generators: Sequence[MetricGenerator]) -> RecordingExporter:
        return RecordingExporter(clock=self.clock, metric_generators=list(generators))

    def lift(self, exporter: RecordingExporter) -> Pipeline:
        return Lifting(
            exporter, self.location, interval_seconds=10.0, metric_prefix_name="p", clock=self.clock
        ).pipeline

    @asynccontextmanager
    async def running(self, exporter: RecordingExporter) -> AsyncIterator[None]:
        pipeline, started, ended = self.lift(exporter), anyio.Event(), anyio.Event()

        async def run() -> None:
            await pipeline.run(started.set)
            ended.set()

        async with anyio.create_task_group() as group:
            group.start_soon(run)
            while not started.is_set():
                await self.clock.advance(0.0)
            yield
            pipeline.stop()
            while not ended.is_set():
                await self.clock.advance(0.0)


@pytest.fixture
def shared() -> Shared:
    return Shared()


def assert_whole(exporter: RecordingExporter, seconds: float) -> None:
    assert exporter.total(HOST) == pytest.approx(WATTS * seconds)
    assert exporter.total(GRAMS) == pytest.approx(WATTS * seconds)


@pytest.mark.parametrize("sensor_class", [FakeSensor, OldSensor])
async def test_runs_at_once_take_nothing_of_each_other(shared: Shared, sensor_class: type[Any]) -> None:
    sensor = sensor_class(clock=shared.clock)
    generators = shared.generators(sensor)
    energy, carbon = cast("list[Any]", generators)
    emission = carbon.carbon_emission
    one, other, after = (shared.exporter(generators) for _ in range(3))
    async with shared.running(one):
        async with shared.running(other):
            await shared.clock.advance(35.0)
        await shared.clock.advance(20.0)
    async with shared.running(after):
        await shared.clock.advance(210.0)
    assert_whole(one, 55.0)
    assert_whole(other, 35.0)
    assert_whole(after, 210.0)
    assert energy.energy_consumption is sensor
    assert carbon.carbon_emission is emission
    assert emission.energy_consumption is sensor


async def test_the_first_to_start_may_be_the_first_to_stop(shared: Shared) -> None:
    generators = shared.generators(FakeSensor(clock=shared.clock))
    one, other, after = (shared.exporter(generators) for _ in range(3))
    async with anyio.create_task_group() as group:
        stop_one = anyio.Event()

        async def run_one() -> None:
            async with shared.running(one):
                await stop_one.wait()

        group.start_soon(run_one)
        await shared.clock.advance(15.0)
        async with shared.running(other):
            await shared.clock.advance(15.0)
            stop_one.set()
            await shared.clock.advance(15.0)
    async with shared.running(after):
        await shared.clock.advance(15.0)
    assert_whole(one, 30.0)
    assert_whole(other, 30.0)
    assert_whole(after, 15.0)


async def test_a_generator_listed_twice_counts_once(shared: Shared) -> None:
    generators = shared.generators(FakeSensor(clock=shared.clock))
    exporter = shared.exporter([*generators, *generators])
    async with shared.running(exporter):
        await shared.clock.advance(35.0)
    assert_whole(exporter, 35.0)


async def test_an_emission_of_two_generators(shared: Shared) -> None:
    emission = CarbonEmission(location=shared.location, energy_consumption=FakeSensor(clock=shared.clock))
    plain, with_pue = (
        CarbonEmissionGenerator(carbon_emission=emission),
        CarbonEmissionGenerator(carbon_emission=emission, pue=2.0),
    )
    exporter = shared.exporter([plain, with_pue])
    async with shared.running(exporter):
        await shared.clock.advance(35.0)
    assert exporter.total(GRAMS) == pytest.approx(2 * WATTS * 35.0)
    assert exporter.total("carbon_emission_overhead") == pytest.approx(WATTS * 35.0)
    assert plain.carbon_emission is with_pue.carbon_emission is emission


async def test_an_emission_that_cannot_be_replaced(shared: Shared) -> None:
    emission = CarbonEmission(location=shared.location, energy_consumption=FakeSensor(clock=shared.clock))

    class Fixed(MetricGenerator):
        @property
        def carbon_emission(self) -> CarbonEmission:
            return emission

        async def generate(self) -> AsyncGenerator[Metric, None]:
            usage = await self.carbon_emission.get_co2_usage()
            yield Metric(name=GRAMS, value=usage.host_carbon_usage, kind=MetricKind.AMOUNT)

    exporter = shared.exporter([Fixed()])
    async with shared.running(exporter):
        await shared.clock.advance(35.0)
    assert exporter.total(GRAMS) == pytest.approx(WATTS * 35.0)


def test_an_exporter_runs_in_one_pipeline(shared: Shared) -> None:
    exporter = shared.exporter(shared.generators(FakeSensor(clock=shared.clock)))
    shared.lift(exporter)
    with pytest.raises(TracarbonException, match="the exporter Recording runs already, elsewhere"):
        shared.lift(exporter)
    assert exporter.metric_prefix_name == "p"


def test_nothing_stays_lent_where_the_exporter_cannot_be_attached(shared: Shared) -> None:
    class Unwilling(RecordingExporter):
        def attach(self, context: Any) -> None:
            raise LookupError("not today")

    sensor = FakeSensor(clock=shared.clock)
    generators = shared.generators(sensor)
    exporter = Unwilling(clock=shared.clock, metric_generators=generators)
    for _ in range(2):
        with pytest.raises(LookupError):
            shared.lift(exporter)
    assert cast("Any", generators[0]).energy_consumption is sensor


class TestLoans:
    def test_state_of_a_generator_stays_its_users(self) -> None:
        class Counting(MetricGenerator):
            price: float = 0.5
            counted = 0

        generator = Counting(price=0.25)
        generator.counted = 5
        first, second = Loans(), Loans()
        assert first.take_or_copy(generator) is generator
        copied = second.take_or_copy(generator)
        assert copied is not generator
        assert (copied.price, copied.counted) == (0.25, 0)
        first.give_back()
        assert second.take_or_copy(generator) is generator
        second.give_back()
        assert generator.counted == 5

    def test_a_copy_is_of_what_the_owner_knows(self) -> None:
        generator, place = EnergyConsumptionGenerator(), FakeLocation()
        first, second = Loans(), Loans()
        first.take(generator)
        first.change(generator, "location", place)
        copied = second.take_or_copy(generator)
        assert copied.location is None
        second.change(copied, "location", place)
        second.give_back()
        assert generator.location is place
        first.give_back()
        assert generator.location is None

    def test_who_knows_how_to_copy_itself_does(self) -> None:
        class Own(MetricGenerator):
            copies: int = 0

            def __copy__(self) -> Own:
                return Own(copies=self.copies + 1)

        generator, loans = Own(), Loans()
        loans.take(generator)
        assert Loans().take_or_copy(generator).copies == 1
        loans.give_back()

    def test_a_copy_is_of_what_a_field_was_given_and_not_of_what_it_shows(self) -> None:
        class Doubled:
            def __set_name__(self, owner: type, name: str) -> None:
                self.name = name

            def __get__(self, owner: Any, kind: type) -> Any:
                return None if owner is None else 2 * vars(owner)[self.name]

            def __set__(self, owner: Any, value: Any) -> None:
                vars(owner)[self.name] = value

        class Showing(MetricGenerator):
            price: Doubled = Doubled()

        generator = Showing(price=3)  # type: ignore[arg-type]
        Loans().take(generator)
        assert Loans().take_or_copy(generator).price == generator.price == 6

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
    def test_a_forked_child_has_all_back(self) -> None:
        generator, loans = EnergyConsumptionGenerator(), Loans()
        loans.take(generator)
        loans.change(generator, "location", FakeLocation())
        child = os.fork()
        if child == 0:
            os._exit(0 if generator.location is None and Loans().take(generator) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert generator.location is not None
        loans.give_back()
