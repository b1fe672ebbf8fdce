"""The sensor `estimate`: what a machine of this kind draws at this load, where nothing can be measured."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import field
from pathlib import Path
from typing import Any, ClassVar, Self

import psutil
from pydantic import Field

from tracarbon.hardwares._machine import socket_count
from tracarbon.hardwares._power_model import (
    BYTES_PER_GB,
    CpuPowerModel,
    ThermalDesignPowerModel,
    choose_model,
    memory_watts,
)
from tracarbon.hardwares.cpu_load import CpuLoad
from tracarbon.hardwares.energy import Band, Device, DeviceUsage, EnergyUsage, Fidelity, Scope, UsageType
from tracarbon.hardwares.sensors import EnergyConsumption
from tracarbon.plugin import PluginContext, PluginOptions, Probe

_CPU = Device("cpu", UsageType.CPU, Scope.HOST)
_MEMORY = Device("memory", UsageType.MEMORY, Scope.HOST)


class EstimatedEnergyConsumption(EnergyConsumption):
    """Estimate from the load of the processors and the size of the memory.

    Bare metal: the processor model's thermal design power. Virtual machine or unknown model: the averages per virtual
    CPU of the large clouds. Every figure carries a low to high band.

    Attributes:
        tdp_watts: thermal design power of one socket, where the built-in table does not know it or is wrong.
        host_root: where the host's `/proc` and `/sys` are.
        clock: monotonic seconds.
    """

    fidelity: ClassVar[Fidelity] = Fidelity.ESTIMATED
    # CPU times add up in the kernel: two readings give the mean of all the time between.
    sampling_interval_seconds: ClassVar[float] = math.inf

    tdp_watts: float | None = None
    host_root: Path = field(default=Path("/"))
    clock: Callable[[], float] = time.monotonic

    class Options(PluginOptions):
        """Options of `[sensors.estimate]`."""

        tdp_watts: float | None = Field(
            default=None,
            gt=0,
            le=5000,
            description="thermal design power of one socket in watts, where the built-in table has none",
        )

    def __post_init__(self) -> None:
        self._estimate: _Estimate | None = None
        self._load = CpuLoad(self.clock)

    @classmethod
    def from_options(cls, options: Any, context: PluginContext) -> Self:
        """Construct it for the host."""
        return cls(tdp_watts=options.tdp_watts, host_root=context.host_root, clock=context.clock.monotonic)

    @classmethod
    def probe(cls, context: Any) -> Probe:
        """It works everywhere; the reason is the method."""
        _, method = choose_model(context.host_root)
        return Probe(works=True, reason=method, fidelity=cls.fidelity)

    async def __aenter__(self) -> Self:
        """Find out what machine this is."""
        self._estimate = _Estimate(self.tdp_watts, self.host_root)
        return self

    async def get_energy_usage(self) -> EnergyUsage:
        """Return the estimate for the mean load since the previous call; the first call opens the window."""
        estimate = self._prepared()
        mean = self._load.read()
        return EnergyUsage(method=estimate.method) if mean is None else estimate.usage(mean.load, mean.seconds)

    def _prepared(self) -> _Estimate:
        if self._estimate is None:
            self._estimate = _Estimate(self.tdp_watts, self.host_root)
        return self._estimate


class _Estimate:
    """The power models of this machine."""

    def __init__(self, tdp_watts: float | None, host_root: Path) -> None:
        self._cpu: CpuPowerModel
        if tdp_watts is not None:
            sockets = socket_count(host_root)
            self._cpu, self.method = ThermalDesignPowerModel(tdp_watts, sockets), f"tdp:{sockets}x{tdp_watts:g}W"
        else:
            self._cpu, self.method = choose_model(host_root)
        self._memory = memory_watts(psutil.virtual_memory().total / BYTES_PER_GB)

    def usage(self, utilisation: float, seconds: float) -> EnergyUsage:
        """Return the usage at a mean utilisation (0 to 1) over `seconds`."""
        cpu, memory = self._cpu.watts(utilisation), self._memory
        return EnergyUsage(
            host_energy_usage=cpu.watts + memory.watts,
            cpu_energy_usage=cpu.watts,
            memory_energy_usage=memory.watts,
            window_seconds=seconds,
            devices=[
                DeviceUsage(_CPU, cpu.watts, seconds, Band(cpu.low, cpu.high)),
                DeviceUsage(_MEMORY, memory.watts, seconds, Band(memory.low, memory.high)),
            ],
            method=self.method,
        )
