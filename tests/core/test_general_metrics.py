from __future__ import annotations

import math
from collections import Counter
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import pytest
from tracarbon.emissions.carbon_emissions import CarbonEmission, CarbonUsage, CarbonUsageUnit
from tracarbon.exceptions import CountryIsMissing, TracarbonException, UnknownUnit
from tracarbon.exporters.exporter import Metric, MetricKind
from tracarbon.general_metrics import CarbonEmissionGenerator, EnergyConsumptionGenerator
from tracarbon.hardwares.energy import (
    Band,
    Device,
    DeviceUsage,
    EnergyUsage,
    EnergyUsageUnit,
    Fidelity,
    Power,
    Provenance,
    Scope,
    UsageType,
)
from tracarbon.hardwares.sensors import Sensor
from tracarbon.locations.country import Country
from tracarbon.plugin import PluginContext, platform_name

from tests.support.fakes import FakeLocation, Rig, Script, constant, raising


class Saying(Sensor):
    usages: list[EnergyUsage]
    asked: int = 0

    async def get_energy_usage(self) -> EnergyUsage:
        self.asked += 1
        return self.usages.pop(0) if len(self.usages) > 1 else self.usages[0]


def usage(**watts: float) -> EnergyUsage:
    provenance = {
        UsageType(name): Provenance("rapl", Fidelity.MEASURED, 10.0, "counters", Band(value / 2, value * 2))
        for name, value in watts.items()
    }
    fields: dict[str, Any] = {f"{name}_energy_usage": value for name, value in watts.items()}
    return EnergyUsage(**fields, window_seconds=12.0, provenance=provenance)


async def metrics_of(generated: AsyncGenerator[Metric, None]) -> dict[str, Metric]:
    return {metric.name: metric async for metric in generated}


async def test_energy_is_a_rate_that_says_where_it_comes_from() -> None:
    sensor = Saying(usages=[usage(host=30.0, cpu=20.0, memory=0.0)])
    generator = EnergyConsumptionGenerator(FakeLocation(name="fr"), energy_consumption=sensor)
    metrics = await metrics_of(generator.generate())
    assert {name: metric.value for name, metric in metrics.items()} == {
        "energy_consumption_host": 30.0,
        "energy_consumption_cpu": 20.0,
        "energy_consumption_memory": 0.0,
    }
    host = metrics["energy_consumption_host"]
    assert (host.kind, host.unit, host.covered_seconds, host.band) == (MetricKind.RATE, "watts", 10.0, Band(15, 60))
    assert dict(host.tags) == {
        "platform": platform_name(),
        "location": "fr",
        "units": "watts",
        "sensor": "rapl",
        "fidelity": "measured",
        "method": "counters",
    }


async def test_energy_without_provenance_covers_the_window() -> None:
    sensor = Saying(usages=[EnergyUsage(host_energy_usage=3.0, window_seconds=12.0)])
    metrics = await metrics_of(EnergyConsumptionGenerator(energy_consumption=sensor).generate())
    assert metrics["energy_consumption_host"].covered_seconds == 12.0
    tags = dict(metrics["energy_consumption_host"].tags)
    assert (tags["sensor"], tags["fidelity"]) == ("Saying", Saying.fidelity.value)


CARD = Device("gpu-0", UsageType.GPU, Scope.EXTRA, tags=(("index", "0"), ("uuid", "GPU-1")))


@pytest.mark.parametrize(("devices", "named"), [("tagged", ["gpu-0"]), ("all", ["package-0", "gpu-0"]), ("none", [])])
async def test_each_device_may_have_a_series(devices: Literal["tagged", "all", "none"], named: list[str]) -> None:
    origin = Provenance("cards", Fidelity.MEASURED, 9.0, "nvml")
    readings = [
        DeviceUsage(Device("package-0", UsageType.CPU), 20.0, 10.0),
        DeviceUsage(CARD, 60.0, 9.0, Band(50.0, 70.0), origin),
    ]
    said = EnergyUsage(host_energy_usage=80.0, window_seconds=10.0, devices=readings)
    generator = EnergyConsumptionGenerator(energy_consumption=Saying(usages=[said]), devices=devices)
    metrics = [metric async for metric in generator.generate() if metric.name == "energy_consumption_device"]
    assert [dict(metric.tags)["device"] for metric in metrics] == named
    for metric in metrics[-1:]:
        assert (metric.value, metric.kind, metric.unit) == (60.0, MetricKind.RATE, "watts")
        assert (metric.covered_seconds, metric.band) == (9.0, Band(50.0, 70.0))
        tags = {"component": "gpu", "index": "0", "uuid": "GPU-1", "sensor": "cards", "fidelity": "measured"}
        assert tags.items() <= dict(metric.tags).items()


async def test_of_each_card_no_joule_is_lost_while_it_is_away() -> None:
    rig = Rig(interval_seconds=10.0)
    rig.sensor()
    other = Device("gpu-1", UsageType.GPU, Scope.EXTRA, tags=(("index", "1"),))
    cards = rig.sensor("cards", loads={CARD: constant(60.0), other: constant(40.0)})
    rig.energy()
    exporter = rig.exporter()
    async with rig.running():
        await rig.to(15.0)
        cards.silent.add(other)
        await rig.to(45.0)
        cards.silent.clear()
        await rig.to(100.0)
    joules: Counter[str] = Counter()
    for record in (record for batch in exporter.delivered for record in batch):
        if record.name == "energy_consumption_device":
            tags = dict(record.tags)
            assert (tags["sensor"], tags["fidelity"], tags["location"]) == ("cards", "measured", "xx")
            assert record.covered_seconds is not None
            joules[tags["index"]] += record.value * record.covered_seconds
    assert joules == pytest.approx({"0": 6000.0, "1": 4000.0})


async def test_carbon_is_an_amount_of_joules_times_intensity() -> None:
    sensor = Saying(usages=[usage(host=36.0, cpu=0.0)])
    location = FakeLocation(name="fr", intensity=50.0, co2g_kwh_kind="yearly average", co2g_kwh_date="2024")
    emission = CarbonEmission(location=location, energy_consumption=sensor)
    metrics = await metrics_of(CarbonEmissionGenerator(location, carbon_emission=emission).generate())
    host = metrics["carbon_emission_host"]
    assert host.value == pytest.approx(360 / 3.6e6 * 50)
    assert host.band == pytest.approx((180 / 3.6e6 * 50, 720 / 3.6e6 * 50))
    assert (host.kind, host.unit, host.covered_seconds) == (MetricKind.AMOUNT, "co2g", 10.0)
    assert metrics["carbon_emission_cpu"].value == 0.0
    assert "carbon_emission_gpu" not in metrics
    tags = dict(host.tags)
    assert tags["source"] == "file"
    assert (tags["factor_kind"], tags["factor_date"], tags["location_from"]) == ("yearly average", "2024", "setting")


async def test_carbon_of_milliwatts_is_that_of_watts() -> None:
    """T2: 2400 mW became 2 400 000 W."""
    given = EnergyUsage(host_energy_usage=2400.0, window_seconds=10.0, unit=EnergyUsageUnit.MILLIWATT)
    emission = CarbonEmission(location=FakeLocation(), energy_consumption=Saying(usages=[given]))
    usage = await emission.get_co2_usage()
    assert usage.host_carbon_usage == pytest.approx(24.0)
    assert usage.energy_usage is not None
    assert usage.energy_usage.host_energy_usage == pytest.approx(2.4)


def test_conversion_of_energy_units_there_and_back() -> None:
    """T2. T3: 0.0 stays 0.0, and unknown stays unknown."""
    given = EnergyUsage(host_energy_usage=2400.0, cpu_energy_usage=0.0, unit=EnergyUsageUnit.MILLIWATT)
    given.convert_unit(EnergyUsageUnit.MILLIWATT)
    assert given.host_energy_usage == 2400.0
    given.convert_unit(EnergyUsageUnit.WATT)
    assert (given.host_energy_usage, given.cpu_energy_usage, given.gpu_energy_usage) == (2.4, 0.0, None)
    assert given.unit is EnergyUsageUnit.WATT
    given.convert_unit(EnergyUsageUnit.MILLIWATT)
    assert given.host_energy_usage == pytest.approx(2400.0)


def test_conversion_of_carbon_units() -> None:
    """T3: 0.0 g became None mg."""
    carbon = CarbonUsage(host_carbon_usage=1.5, cpu_carbon_usage=0.0)
    carbon.convert_unit(CarbonUsageUnit.CO2_MG)
    assert (carbon.host_carbon_usage, carbon.cpu_carbon_usage, carbon.gpu_carbon_usage) == (1500.0, 0.0, None)
    carbon.convert_unit(CarbonUsageUnit.CO2_G)
    assert carbon.get_carbon_usage_on_type(UsageType.HOST) == pytest.approx(1.5)


async def test_first_sample_without_a_window_is_billed_for_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """T7: it was billed as one second."""
    now = 100.0
    monkeypatch.setattr("tracarbon.emissions.carbon_emissions.time.monotonic", lambda: now)
    emission = CarbonEmission(
        location=FakeLocation(), energy_consumption=Saying(usages=[EnergyUsage(host_energy_usage=60.0)])
    )
    assert (await emission.get_co2_usage()).host_carbon_usage is None
    now += 5.0
    assert (await emission.get_co2_usage()).host_carbon_usage == pytest.approx(300.0)
    assert Power.watts_to_watt_hours(60.0) == 0.0
    assert Power.watts_to_watt_hours(60.0, datetime.now(UTC) + timedelta(hours=1)) == 0.0
    assert Power.watts_to_watt_hours(60.0, datetime.now(UTC) - timedelta(hours=1)) == pytest.approx(60.0, rel=0.02)


async def test_no_energy_is_taken_from_the_sensor_while_the_intensity_is_unknown() -> None:
    """L1: the sensor advanced before the lookup failed, and the interval was lost."""
    sensor = Saying(usages=[usage(host=36.0)])
    location = FakeLocation(script=Script([raising(OSError("no network"))]))
    emission = CarbonEmission(location=location, energy_consumption=sensor)
    with pytest.raises(OSError, match="no network"):
        await emission.get_co2_usage()
    assert sensor.asked == 0
    assert (await emission.get_co2_usage()).host_carbon_usage == pytest.approx(360.0)


@pytest.mark.parametrize("intensity", [-5.0, math.nan, math.inf, None])
async def test_what_is_no_intensity_is_refused_before_energy_is_taken(intensity: float | None) -> None:
    """L14: a negative one was accepted, and none at all raised TypeError."""
    sensor = Saying(usages=[usage(host=36.0)])
    emission = CarbonEmission(location=FakeLocation(intensity=intensity), energy_consumption=sensor)
    with pytest.raises(TracarbonException, match=r"location xx: .* g/kWh is no carbon intensity"):
        await emission.get_co2_usage()
    assert sensor.asked == 0


async def test_an_intensity_of_zero_is_one() -> None:
    """T3."""
    emission = CarbonEmission(location=FakeLocation(intensity=0.0), energy_consumption=Saying(usages=[usage(host=1.0)]))
    assert (await emission.get_co2_usage()).host_carbon_usage == 0.0


async def test_carbon_needs_a_location() -> None:
    with pytest.raises(CountryIsMissing, match="there is none"):
        CarbonEmissionGenerator.from_options(CarbonEmissionGenerator.Options(), PluginContext("carbon"))


async def test_generators_are_made_over_the_meter_and_the_location_of_the_pipeline() -> None:
    sensor, location = Saying(usages=[usage(host=36.0)]), FakeLocation()
    context = PluginContext("it", meter=sensor, location=location, platform="Darwin")
    energy = EnergyConsumptionGenerator.from_options(EnergyConsumptionGenerator.Options(), context)
    carbon = CarbonEmissionGenerator.from_options(CarbonEmissionGenerator.Options(), context)
    assert energy.energy_consumption is sensor
    host = (await metrics_of(carbon.generate()))["carbon_emission_host"]
    assert host.value == pytest.approx(360.0)
    assert dict(host.tags)["platform"] == "Darwin"
    assert sensor.asked == 1


@pytest.mark.parametrize("watts", [-1.0, math.nan, math.inf])
def test_watts_that_cannot_be_are_refused(watts: float) -> None:
    with pytest.raises(ValueError, match="host_energy_usage"):
        EnergyUsage(host_energy_usage=watts)


def test_the_host_is_unknown_unless_given() -> None:
    assert EnergyUsage().host_energy_usage is None
    assert EnergyUsage(cpu_energy_usage=0.0).get_energy_usage_on_type(UsageType.CPU) == 0.0
    with pytest.raises(ValueError, match="no component is called 'CPU'; there are host, cpu, memory, gpu"):
        EnergyUsage().get_energy_usage_on_type("CPU")  # type: ignore[arg-type]


def test_fidelities_are_ranked() -> None:
    assert sorted(Fidelity, key=lambda fidelity: fidelity.rank) == [
        Fidelity.MEASURED,
        Fidelity.MODELLED,
        Fidelity.ESTIMATED,
    ]


def test_conversions() -> None:
    assert Power.watts_from_microjoules(43_043_000.0) == pytest.approx(43.043)
    assert Power.co2g_from_watts_hour(10.0, 20.3) == pytest.approx(0.203)


@pytest.mark.parametrize(
    ("usage", "what"), [(EnergyUsage(host_energy_usage=2.5), "power"), (CarbonUsage(host_carbon_usage=2.5), "carbon")]
)
def test_an_unknown_unit_is_named_with_those_that_there_are(usage: EnergyUsage | CarbonUsage, what: str) -> None:
    unit = type(usage.unit)
    for convert in (usage.convert_unit, unit):
        with pytest.raises(UnknownUnit, match=f"no unit of {what} is called 'kilos'; there are ") as caught:
            convert("kilos")  # type: ignore[arg-type]
        assert all(known.value in str(caught.value) for known in unit)
        assert isinstance(caught.value, TracarbonException | ValueError)
    assert usage.unit is next(iter(unit))
    assert 2.5 in usage.model_dump().values()


async def test_the_time_of_the_previous_measurement_can_be_given() -> None:
    sensor = Saying(usages=[EnergyUsage(host_energy_usage=3600.0)])
    an_hour_ago = datetime.now(UTC) - timedelta(hours=1)
    emission = CarbonEmission(
        location=FakeLocation(intensity=100.0),
        energy_consumption=sensor,
        previous_energy_consumption_time=an_hour_ago,
    )
    assert (await emission.get_co2_usage()).host_carbon_usage == pytest.approx(360.0, rel=0.02)
    assert emission.previous_energy_consumption_time is not None
    assert emission.previous_energy_consumption_time > an_hour_ago


async def test_location_and_sensor_are_found_where_they_are_not_given() -> None:
    energy, carbon = EnergyConsumptionGenerator(), CarbonEmissionGenerator()
    await metrics_of(energy.generate())
    await metrics_of(carbon.generate())
    assert energy.energy_consumption is not None
    assert carbon.carbon_emission is not None
    assert carbon.carbon_emission.energy_consumption is not None
    for location in (energy.location, carbon.location, carbon.carbon_emission.location):
        assert isinstance(location, Country)
        assert location.name


class TestBesideElectricity:
    """Series of their own: nothing of it is folded into energy, or into the other figures of carbon."""

    def generator(self, **options: float) -> CarbonEmissionGenerator:
        emission = CarbonEmission(
            location=FakeLocation(name="fr"),
            energy_consumption=Saying(usages=[usage(host=100.0, cpu=60.0)]),
        )
        return CarbonEmissionGenerator(location=emission.location, carbon_emission=emission, **options)

    async def test_without_options_there_is_none_of_it(self) -> None:
        metrics = await metrics_of(self.generator().generate())
        assert metrics.keys() == {"carbon_emission_host", "carbon_emission_cpu"}

    async def test_overhead_is_what_the_building_draws_beyond_its_machines(self) -> None:
        plain = await metrics_of(self.generator().generate())
        metrics = await metrics_of(self.generator(pue=1.2).generate())
        overhead = metrics.pop("carbon_emission_overhead")
        assert {name: metric.value for name, metric in metrics.items()} == {
            name: metric.value for name, metric in plain.items()
        }
        host = plain["carbon_emission_host"]
        assert overhead.value == pytest.approx(0.2 * host.value)
        assert host.band is not None
        assert overhead.band == pytest.approx((0.2 * host.band.low, 0.2 * host.band.high))
        assert ("pue", "1.2") in overhead.tags
        assert overhead.kind is MetricKind.AMOUNT

    async def test_embodied_carbon_is_spread_evenly_over_the_machines_life(self) -> None:
        """1,200 kg over 4 years are 34.2 g an hour; the window is of 12 s, and half of the machine is meant."""
        metrics = await metrics_of(self.generator(embodied_kg=1200.0, lifetime_years=4.0, share=0.5).generate())
        embodied = metrics["carbon_emission_embodied"]
        assert embodied.value == pytest.approx(1_200_000 / (4 * 365.25 * 24) * 12 / 3600 / 2)
        assert (embodied.unit, embodied.kind) == ("co2g", MetricKind.AMOUNT)

    async def test_a_pue_of_one_is_an_overhead_of_nothing(self) -> None:
        metrics = await metrics_of(self.generator(pue=1.0).generate())
        assert metrics["carbon_emission_overhead"].value == 0.0

    async def test_whatever_the_windows_a_life_is_the_whole_of_it(self) -> None:
        rig = Rig(interval_seconds=86_400.0)
        rig.sensor()
        location, view = rig.location(), rig.pipeline.view()
        emission = CarbonEmission(location=location, energy_consumption=view)
        generator = CarbonEmissionGenerator(
            location=location, carbon_emission=emission, embodied_kg=10.0, lifetime_years=30 / 365.25
        )
        rig.pipeline.add_generator(rig.pipeline.components.add("generator", "carbon"), generator, view)
        exporter = rig.exporter()
        async with rig.running():
            await rig.to(30 * 86_400.0)
        assert exporter.total("carbon_emission_embodied") == pytest.approx(10_000.0)

    @pytest.mark.parametrize(
        ("options", "problem"),
        [
            ({"pue": 0.9}, "greater than or equal to 1"),
            ({"embodied_kg": 10.0}, "go together"),
            ({"lifetime_years": 4.0}, "go together"),
            ({"share": 0.5}, "share is of embodied_kg"),
            ({"embodied_kg": 10.0, "lifetime_years": 4.0, "share": 1.5}, "less than or equal to 1"),
            ({"pue": math.inf}, "finite"),
        ],
    )
    def test_what_makes_no_sense(self, options: dict[str, Any], problem: str) -> None:
        with pytest.raises(ValueError, match=problem):
            CarbonEmissionGenerator.Options(**options)
