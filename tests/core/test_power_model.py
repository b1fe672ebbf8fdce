"""The power models: hand-computed at the knots, between them and at the ends."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tracarbon.hardwares._power_model import (
    BYTES_PER_GB,
    CpuPowerModel,
    PowerBand,
    ThermalDesignPowerModel,
    VirtualCpuModel,
    choose_model,
    memory_watts,
    tdp_watts,
)

from tests.core.test_machine import BARE_METAL, machine


@pytest.mark.parametrize(
    ("utilisation", "watts", "low", "high"),
    [
        (0.0, 24, 20, 100),
        (0.05, 44, 31, 100),
        (0.1, 64, 42, 100),
        (0.3, 107, 78, 139),
        (0.5, 150, 114, 178),
        (0.75, 177, 146, 214),
        (1.0, 204, 178, 250),
        (1.7, 204, 178, 250),
        (-0.2, 24, 20, 100),
    ],
)
def test_thermal_design_power(utilisation: float, watts: float, low: float, high: float) -> None:
    assert ThermalDesignPowerModel(100.0, 2).watts(utilisation) == pytest.approx((watts, low, high))


@pytest.mark.parametrize(
    ("utilisation", "watts", "low", "high"),
    [
        (0.0, 4 * (0.74 + 0.71 + 0.78) / 3, 4 * 0.71, 4 * 0.78),
        (0.5, 4 * (2.12 + 2.485 + 2.27) / 3, 4 * 2.12, 4 * 2.485),
        (1.0, 4 * (3.5 + 4.26 + 3.76) / 3, 4 * 3.5, 4 * 4.26),
        (1.5, 4 * (3.5 + 4.26 + 3.76) / 3, 4 * 3.5, 4 * 4.26),
        (-0.5, 4 * (0.74 + 0.71 + 0.78) / 3, 4 * 0.71, 4 * 0.78),
    ],
)
def test_virtual_cpus(utilisation: float, watts: float, low: float, high: float) -> None:
    assert VirtualCpuModel(4).watts(utilisation) == pytest.approx((watts, low, high))


@pytest.mark.parametrize(
    ("tdp_watts", "measured"),
    [
        (240, (57.93, 175.53, 448.31, 626.76)),
        (240, (50.66, 134.85, 293.21, 423.68)),
        (240, (57.88, 146.63, 343.7, 477.98)),
        (210, (54.71, 137.92, 306.93, 445.38)),
        (240, (48.0, 148.0, 361.0, 441.0)),
        (145, (34.98, 99.86, 205.39, 281.13)),
    ],
    ids=["c5.metal", "c5n.metal", "m5.metal", "m5n.metal", "z1d.metal", "i3.metal"],
)
def test_the_band_holds_the_machines_that_were_measured(tdp_watts: float, measured: tuple[float, ...]) -> None:
    # 5 % more room, since the band is of percentiles
    model = ThermalDesignPowerModel(tdp_watts, 2)
    for utilisation, watts in zip((0.0, 0.1, 0.5, 1.0), measured, strict=True):
        band = model.watts(utilisation)
        assert band.low * 0.95 <= watts <= band.high * 1.05


def test_memory() -> None:
    assert BYTES_PER_GB == 1024**3
    assert memory_watts(16) == pytest.approx((6.272, 6.0, 6.5328))


@given(
    st.floats(0, 1),
    st.floats(0, 1),
    st.sampled_from([ThermalDesignPowerModel(65.0), ThermalDesignPowerModel(205.0, 4), VirtualCpuModel(96)]),
)
def test_more_load_never_takes_less_and_the_figure_lies_in_its_band(
    one: float, other: float, model: CpuPowerModel
) -> None:
    less, more = model.watts(min(one, other)), model.watts(max(one, other))
    for band in (less, more):
        assert 0 < band.low <= band.watts <= band.high
    assert all(a <= b for a, b in zip(less, more, strict=True))
    assert isinstance(less, PowerBand)


@pytest.mark.parametrize(
    ("name", "model", "watts"),
    [
        ("Intel(R) Core(TM) i7-8650U CPU @ 1.90GHz", "Intel Core i7-8650U", 15),
        ("AMD EPYC 7R13 Processor", "AMD EPYC 7R13", 225),
        ("AMD Ryzen 9 5950X 16-Core Processor", "AMD Ryzen 9 5950X", 105),
        ("AMD Ryzen 7 5800U with Radeon Graphics", "AMD Ryzen 7 5800U", 15),
        ("Intel(R) Xeon(R) CPU E5-2680 v4 @ 2.40GHz", "Intel Xeon E5-2680 v4", 120),
        ("Intel(R) Xeon(R) CPU E5-2680 0 @ 2.70GHz", "Intel Xeon E5-2680", 130),
        ("Intel(R) Xeon(R) CPU E5-2680 v9 @ 2.40GHz", None, None),
        ("Intel(R) Core(TM) i7-8650 CPU @ 1.90GHz", None, None),
        ("AMD Ryzen 5 7640U w/ Radeon 760M Graphics", "AMD Ryzen 5 7640U", 28),
        ("AMD Ryzen 9 6900HS with Radeon Graphics", "AMD Ryzen 9 6900HS", 35),
        ("AMD Ryzen Threadripper PRO 5995WX 64-Cores", "AMD Ryzen Threadripper PRO 5995WX", 280),
        ("AMD A10-7850K Radeon R7, 12 Compute Cores 4C+8G", "AMD A10-7850K", 95),
        ("AMD PRO A10-8770E R7, 10 COMPUTE CORES 4C+6G", "AMD PRO A10-8770E APU", 35),
        ("Intel(R) Xeon(R) CPU E5-2680 @ 2.70GHz", "Intel Xeon E5-2680", 130),
        ("13th Gen Intel(R) Core(TM) i9-13900K", "Intel Core i9-13900K", 125),
        ("Intel(R) Core(TM) i7 CPU 920 @ 2.67GHz", "Intel Core i7-920", 130),
        ("AMD FX(tm)-8350 Eight-Core Processor", "AMD FX-8350", 125),
        ("Apple M2 Max", "Apple M2 Max", 50),
        ("Apple M1 Pro", None, None),
        ("Intel(R) Xeon(R) Processor", None, None),
        ("", None, None),
    ],
)
def test_processors_are_found_by_their_whole_name(name: str, model: str | None, watts: float | None) -> None:
    assert tdp_watts(name) == ((model, watts) if model else None)


@pytest.mark.skipif(sys.platform != "linux", reason="the made-up trees are those of Linux")
def test_the_model_is_chosen_by_what_the_machine_is(tmp_path: Path) -> None:
    root = machine(tmp_path, proc__cpuinfo=BARE_METAL)
    assert choose_model(root) == (ThermalDesignPowerModel(120.0, 2), "tdp:2xIntel Xeon E5-2680 v4")
    machine(tmp_path, sys__hypervisor__type="xen")
    assert choose_model(root) == (VirtualCpuModel(os.cpu_count() or 1), "vcpu-average")
