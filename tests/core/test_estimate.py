"""The sensor `estimate`, on the real processors of this machine and on made-up CPU times."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import psutil
import pytest
from tracarbon.hardwares.energy import Fidelity, UsageType
from tracarbon.hardwares.estimate import EstimatedEnergyConsumption
from tracarbon.plugin import PluginContext
from tracarbon.testing import ManualClock

pytestmark = pytest.mark.anyio

Times = namedtuple("Times", "user nice system idle iowait irq softirq steal guest guest_nice")


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    counted = dict.fromkeys(Times._fields, 0.0)
    monkeypatch.setattr(psutil, "cpu_times", lambda: Times(**counted))
    return counted


def sensor(clock: ManualClock, **options: Any) -> EstimatedEnergyConsumption:
    context = PluginContext("estimate", clock=clock)
    return EstimatedEnergyConsumption.from_options(EstimatedEnergyConsumption.Options(**options), context)


async def test_the_load_is_the_mean_since_the_previous_reading(times: dict[str, float]) -> None:
    clock = ManualClock()
    async with sensor(clock, tdp_watts=100) as estimate:
        first = await estimate.get_energy_usage()
        assert first.host_energy_usage is None
        assert first.devices == ()
        for name, seconds in {"user": 3, "system": 1, "irq": 1, "idle": 2, "iowait": 2, "steal": 1, "guest": 3}.items():
            times[name] += seconds
        clock.elapse(5)
        usage = await estimate.get_energy_usage()
    sockets = usage.devices[0].watts / 75
    assert sockets == round(sockets) >= 1  # 5 of 10 seconds busy: 0.75 of 100 W, for each socket
    assert usage.window_seconds == 5
    assert usage.cpu_energy_usage == usage.devices[0].watts
    assert usage.host_energy_usage == pytest.approx(sum(device.watts for device in usage.devices))
    assert usage.gpu_energy_usage is None
    assert usage.method is not None and usage.method.startswith("tdp:")
    for device in usage.devices:
        assert device.band is not None
        assert device.band.low <= device.watts <= device.band.high
    assert {device.device.component for device in usage.devices} == {UsageType.CPU, UsageType.MEMORY}


async def test_counters_that_stand_still_or_go_back_are_an_idle_machine(times: dict[str, float]) -> None:
    clock = ManualClock()
    async with sensor(clock, tdp_watts=100) as estimate:
        times["user"] = 10.0
        await estimate.get_energy_usage()
        for user in (10.0, 5.0):
            times["user"] = user
            clock.elapse(1)
            usage = await estimate.get_energy_usage()
            assert usage.cpu_energy_usage is not None
            assert usage.cpu_energy_usage % 12 == 0


async def test_counters_that_have_not_moved_yet_leave_the_load_what_it_was(times: dict[str, float]) -> None:
    clock = ManualClock()
    async with sensor(clock, tdp_watts=100) as estimate:
        await estimate.get_energy_usage()
        times["user"], times["idle"] = 5.0, 5.0
        clock.elapse(10)
        loaded = await estimate.get_energy_usage()
        clock.elapse(0.003)
        still = await estimate.get_energy_usage()
    assert still.cpu_energy_usage == loaded.cpu_energy_usage
    assert still.window_seconds == pytest.approx(0.003)


async def test_two_readings_of_one_instant_are_one(times: dict[str, float]) -> None:
    clock = ManualClock()
    async with sensor(clock) as estimate:
        await estimate.get_energy_usage()
        assert (await estimate.get_energy_usage()).devices == ()


async def test_it_works_everywhere_and_says_how() -> None:
    probe = EstimatedEnergyConsumption.probe(PluginContext("estimate"))
    assert probe.works
    assert probe.fidelity is Fidelity.ESTIMATED
    assert probe.reason.startswith(("tdp:", "vcpu-average"))


async def test_it_works_without_being_entered(times: dict[str, float]) -> None:
    estimate = EstimatedEnergyConsumption(clock=ManualClock().monotonic)
    assert (await estimate.get_energy_usage()).host_energy_usage is None
