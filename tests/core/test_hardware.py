"""Facts about the machine, asked without a pipeline."""

from __future__ import annotations

import sys
import threading
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from tracarbon.exceptions import HardwareNoGPUDetectedException, TracarbonException
from tracarbon.hardwares import hardware, windows
from tracarbon.hardwares.gpu import GPUInfo
from tracarbon.hardwares.hardware import HardwareInfo
from tracarbon.hardwares.windows import WindowsEnergyConsumption
from tracarbon.plugin import platform_name

Times = namedtuple("Times", "user idle")


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    counted = {"user": 0.0, "idle": 0.0}

    def pass_a_second(seconds: float) -> None:
        counted["user"] += 0.25 * seconds
        counted["idle"] += 0.75 * seconds

    monkeypatch.setattr(psutil, "cpu_times", lambda: Times(**counted))
    monkeypatch.setattr(hardware.time, "sleep", pass_a_second)
    monkeypatch.setattr(hardware, "_load", hardware._Load())
    return counted


class TestCpuUsage:
    def test_over_an_interval(self, times: dict[str, float]) -> None:
        times["user"] = 1000.0
        assert HardwareInfo.get_cpu_usage(interval=2.0) == pytest.approx(25.0)

    def test_the_first_call_measures_and_later_ones_tell_of_the_time_since(self, times: dict[str, float]) -> None:
        assert HardwareInfo.get_cpu_usage() == pytest.approx(25.0)
        times["user"] += 3.0
        times["idle"] += 1.0
        assert HardwareInfo.get_cpu_usage() == pytest.approx(75.0)

    def test_another_thread_starts_from_no_zero(self, times: dict[str, float]) -> None:
        """T28: a thread's first reading was 0.0, whatever the load."""
        HardwareInfo.get_cpu_usage()
        times["user"] += 1.0
        found: list[float] = []
        thread = threading.Thread(target=lambda: found.append(HardwareInfo.get_cpu_usage()))
        thread.start()
        thread.join()
        assert found == [pytest.approx(100.0)]

    def test_between_two_ticks_of_the_counters_the_load_stays(self, times: dict[str, float]) -> None:
        first = HardwareInfo.get_cpu_usage()
        assert HardwareInfo.get_cpu_usage() == first

    def test_of_this_machine(self) -> None:
        assert 0.0 <= HardwareInfo.get_cpu_usage(interval=0.02) <= 100.0
        with pytest.raises(ValueError, match="negative"):
            HardwareInfo.get_cpu_usage(interval=-1.0)


def test_memory_is_per_cent_of_bytes() -> None:
    """T10: bytes came in place of per cent."""
    assert 0.0 < HardwareInfo.get_memory_usage() < 100.0
    assert HardwareInfo.get_memory_total() == psutil.virtual_memory().total


def test_cores_and_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    assert HardwareInfo.get_platform() == platform_name()
    assert HardwareInfo.get_number_of_cores() == psutil.cpu_count()
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: 6 if logical else None)
    assert HardwareInfo.get_number_of_cores(logical=False) == 6


class TestGpu:
    @pytest.fixture(autouse=True)
    def _stand_in(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """A distribution of the same name, ahead of one that may be installed; it has what the test writes."""
        self.package = tmp_path / "tracarbon_sensor_nvidia.py"
        monkeypatch.syspath_prepend(str(tmp_path))
        real = sys.modules.pop("tracarbon_sensor_nvidia", None)
        yield
        sys.modules.pop("tracarbon_sensor_nvidia", None)
        if real is not None:
            sys.modules["tracarbon_sensor_nvidia"] = real

    def test_without_the_sensor_it_is_no_zero(self) -> None:
        self.package.write_text("raise ModuleNotFoundError('', name=__name__)")
        for ask in (HardwareInfo.get_gpu_power_usage, GPUInfo.get_gpu_power_usage):
            with pytest.raises(HardwareNoGPUDetectedException, match="pip install tracarbon-sensor-nvidia"):
                ask()

    def test_what_the_sensor_says(self) -> None:
        self.package.write_text(
            "class NvidiaGPU:\n    @classmethod\n    def get_gpu_power_usage(cls):\n        return 250.5\n"
        )
        assert HardwareInfo.get_gpu_power_usage() == GPUInfo.get_gpu_power_usage() == 250.5


class TestWindows:
    async def test_elsewhere_it_says_so(self) -> None:
        sensor = WindowsEnergyConsumption()
        if platform_name() == "Windows":
            pytest.skip("this is Windows")
        with pytest.raises(TracarbonException, match=r"needs Windows, and this is .*from_platform\(\)"):
            await sensor.get_energy_usage()
        with pytest.raises(TracarbonException, match="needs Windows"):
            await sensor.__aenter__()

    async def test_it_is_the_estimate(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(windows, "platform_name", lambda: "Windows")
        now = iter((0.0, 10.0))
        async with WindowsEnergyConsumption(clock=lambda: next(now)) as sensor:
            assert (await sensor.get_energy_usage()).host_energy_usage is None
            usage = await sensor.get_energy_usage()
        assert usage.host_energy_usage is not None
        assert usage.window_seconds == 10.0
