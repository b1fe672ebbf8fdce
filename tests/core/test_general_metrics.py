from __future__ import annotations

import math
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tracarbon.emissions.carbon_emissions import CarbonEmission, CarbonUsage, CarbonUsageUnit
from tracarbon.exceptions import CountryIsMissing, TracarbonException
from tracarbon.exporters.exporter import Metric, MetricKind
from tracarbon.general_metrics import CarbonEmissionGenerator, EnergyConsumptionGenerator
from tracarbon.hardwares.energy import (
    Band,
    EnergyUsage,
    EnergyUsageUnit,
    Fidelity,
    Power,
    Provenance,
    UsageType,
)
from tracarbon.hardwares.sensors import Sensor
from tracarbon.plugin import PluginContext, platform_name

from tests.support.fakes import FakeLocation, Script, raising


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
    assert "sensor" not in dict(metrics["energy_consumption_host"].tags)


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
    assert (await emission.get_co2_usage()).host_carbon_usage == pytest.approx(24.0)


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
    assert Power.watts_to_watt_hours(60.0, datetime.now(UTC) - timedelta(hours=1)) == pytest.approx(60.0, rel=1e-3)


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
    with pytest.raises(CountryIsMissing, match="pass one"):
        await metrics_of(CarbonEmissionGenerator().generate())


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


def test_fidelities_are_ranked() -> None:
    assert sorted(Fidelity, key=lambda fidelity: fidelity.rank) == [
        Fidelity.MEASURED,
        Fidelity.MODELLED,
        Fidelity.ESTIMATED,
    ]


def test_conversions() -> None:
    assert Power.watts_from_microjoules(43_043_000.0) == pytest.approx(43.043)
    assert Power.co2g_from_watts_hour(10.0, 20.3) == pytest.approx(0.203)
