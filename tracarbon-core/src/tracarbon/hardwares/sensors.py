"""The contract `Sensor`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from tracarbon._forwarding import forward
from tracarbon.hardwares.energy import EnergyUsage, Fidelity, Scope
from tracarbon.plugin import Plugin, Probe

if TYPE_CHECKING:
    from tracarbon_sensor_aws import AWSEC2EnergyConsumption as AWSEC2EnergyConsumption
    from tracarbon_sensor_macos import MacEnergyConsumption as MacEnergyConsumption
    from tracarbon_sensor_rapl import LinuxEnergyConsumption as LinuxEnergyConsumption

    from tracarbon.hardwares.windows import WindowsEnergyConsumption as WindowsEnergyConsumption

__getattr__ = forward(
    __name__,
    {
        "AWSEC2EnergyConsumption": "tracarbon-sensor-aws",
        "LinuxEnergyConsumption": "tracarbon-sensor-rapl",
        "MacEnergyConsumption": "tracarbon-sensor-macos",
        "WindowsEnergyConsumption": "tracarbon.hardwares.windows",
    },
)


class Sensor(Plugin, ABC):
    """Reads how much power the machine, or a part of it, draws.

    Attributes:
        scope: what its figures contain, where a reading lists no devices of its own.
        fidelity: how good they are.
        sampling_interval_seconds: how often it wants to be read at least. The meter also reads it whenever it closes a
            window; a sensor of cumulative counters needs no more than never to wrap twice in between.
    """

    scope: ClassVar[Scope] = Scope.HOST
    fidelity: ClassVar[Fidelity] = Fidelity.ESTIMATED
    sampling_interval_seconds: ClassVar[float] = 5.0

    @abstractmethod
    async def get_energy_usage(self) -> EnergyUsage:
        """Read the sensor.

        Watts averaged since the previous call state the `window_seconds` that they were averaged over; an instantaneous
        sample leaves it `None`. A sensor of counters has nothing to say on its first call and returns `EnergyUsage()`.

        Raises:
            Exception: when it could not be read; the pipeline notes the reason and asks again.
        """

    @classmethod
    def probe(cls, context: Any) -> Probe:
        """Say whether the sensor would work on this machine with its default options. May block; must not hang.

        Args:
            context: a `tracarbon.plugin.PluginContext`; `context.host_root` is where `/sys` and `/proc` are.
        """
        return Probe(works=True, fidelity=cls.fidelity)


class EnergyConsumption(Sensor):
    """A sensor to calculate the energy consumption of the host."""

    init: bool = False

    @staticmethod
    def from_platform(platform: str | None = None) -> Sensor:
        """Return the best installed sensor that works here: measured before modelled before estimated.

        Args:
            platform: such as `Linux`; by default, this machine's. For another platform no sensor can be probed.

        Raises:
            TracarbonException: when no installed sensor works here; says why for each.
        """
        from tracarbon._assembly import best_sensor

        return best_sensor(platform)
