"""Plugins as bad as they come: they hang, they block everybody, they fail."""

import sys
import time
from pathlib import Path

import anyio
from pydantic import Field
from tracarbon.exporters.exporter import Batch, Exporter
from tracarbon.hardwares.energy import Device, DeviceUsage, EnergyUsage, Scope, UsageType
from tracarbon.hardwares.sensors import Sensor
from tracarbon.hooks import hookimpl
from tracarbon.plugin import Plugin, PluginOptions

_DEVICE = Device("card", UsageType.GPU, Scope.EXTRA)


class HangingSensor(Sensor):
    """Answers some times, then waits for ever."""

    scope = Scope.EXTRA
    answers: int = 0

    class Options(PluginOptions):
        """Options of `[sensors.NAME]`."""

        answers: int = Field(description="how many times it answers")

    async def get_energy_usage(self) -> EnergyUsage:
        """Answer, or hang."""
        if self.answers <= 0:
            await anyio.sleep_forever()
        self.answers -= 1
        return EnergyUsage(devices=[DeviceUsage(_DEVICE, 5.0)])


class BlockingSensor(Sensor):
    """Answers some times, then holds up the event loop: it waits without awaiting."""

    scope = Scope.EXTRA
    seconds: float
    answers: int = 0

    class Options(PluginOptions):
        """Options of `[sensors.NAME]`."""

        seconds: float = Field(description="how long each later reading blocks")
        answers: int = Field(default=0, description="how many times it answers at once")

    async def get_energy_usage(self) -> EnergyUsage:
        """Answer, or block."""
        if self.answers <= 0:
            print("acme_blocking blocks", file=sys.stderr, flush=True)
            time.sleep(self.seconds)
        self.answers -= 1
        return EnergyUsage(devices=[DeviceUsage(_DEVICE, 5.0)])


class HangingExporter(Exporter):
    """Never delivers anything."""

    async def export(self, batch: Batch) -> None:
        """Hang."""
        await anyio.sleep_forever()


class FailingHook:
    """Fails at every moment."""

    @hookimpl
    def tracarbon_window_closed(self) -> None:
        """Fail."""
        raise RuntimeError("the hook is broken")


class WaitingHook(Plugin):
    """Holds up the first window, and all hooks with it, until a file is there."""

    until: str

    class Options(PluginOptions):
        """Options of `[hooks.NAME]`."""

        until: str = Field(description="file to wait for")

    @hookimpl
    def tracarbon_window_closed(self) -> None:
        """Wait."""
        while not Path(self.until).exists():
            time.sleep(0.01)
