"""The sensor `windows`: what LibreHardwareMonitor measures, where it runs, else the estimate."""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, ClassVar, Literal, Self, TypeAlias

from pydantic import Field, SecretStr, field_validator

from tracarbon._text import Secret
from tracarbon.exceptions import HardwareNoGPUDetectedException, TracarbonException
from tracarbon.hardwares._libre_hardware_monitor import ADDRESS, check_address, devices_of, fetch, power_sensors
from tracarbon.hardwares.energy import Device, DeviceUsage, EnergyUsage, Fidelity, Scope, UsageType
from tracarbon.hardwares.estimate import EstimatedEnergyConsumption
from tracarbon.hardwares.gpu import GPUInfo
from tracarbon.plugin import PluginContext, PluginOptions, Probe, platform_name

logger = logging.getLogger("tracarbon")

Source: TypeAlias = Literal["auto", "librehardwaremonitor", "estimate"]

_TIMEOUT_SECONDS = 2.0
_PROBE_SECONDS = 1.0
_HIGHEST_WATTS = 5000.0
"""No processor and no card draws more: a figure above it is no figure."""
_MONITOR = "librehardwaremonitor"


class WindowsEnergyConsumption(EstimatedEnergyConsumption):
    """Energy consumption of a Windows device.

    Windows shows no energy counter to everybody. LibreHardwareMonitor, which runs with the rights for it, shows the
    power of processors, memory and graphics cards on its web server: where that answers on entry, its figures are
    taken, as samples; else the estimate for the load. Once its figures were taken, the estimate does not stand in for
    them: while it is away the sensor has failed.

    Used alone, the estimate has the NVIDIA cards added where tracarbon-sensor-nvidia is installed and finds some; in a
    pipeline they are the sensor `nvidia`'s.

    Attributes:
        url: where LibreHardwareMonitor shows its tree.
        user: for its web server, where that wants one.
        password: likewise; never shown.
        source: whether to take its figures, the estimate, or what there is.
        nvidia: whether the NVIDIA cards that it shows count; by default unless tracarbon-sensor-nvidia is installed,
            whose figures are energy and not samples.

    Raises:
        TracarbonException: `url` is none.
    """

    sampling_interval_seconds: ClassVar[float] = 5.0

    url: str = ADDRESS
    user: str = ""
    password: str = ""
    source: Source = "auto"
    nvidia: bool | None = None

    class Options(PluginOptions):
        """Options of `[sensors.windows]`."""

        source: Source = Field(
            default="auto",
            description="librehardwaremonitor (measured), estimate, or auto: the former where it answers at the start",
        )
        url: str = Field(
            default=ADDRESS, pattern="^https?://[^/]", description="where LibreHardwareMonitor shows its tree"
        )
        user: str | None = Field(default=None, min_length=1, description="user of its web server, if it wants one")
        password: SecretStr | None = Field(default=None, description="password of its web server")
        nvidia: bool | None = Field(
            default=None,
            description="whether the NVIDIA cards that it shows count; default: unless tracarbon-sensor-nvidia is "
            "installed, whose sensor knows them better",
        )
        tdp_watts: float | None = Field(
            default=None,
            gt=0,
            le=5000,
            description="of one socket, for the estimate, where the built-in table has none",
        )

        @field_validator("url")
        @classmethod
        def _can_be_asked(cls, url: str) -> str:
            check_address(url)
            return url

    @classmethod
    def from_options(cls, options: Any, context: PluginContext) -> Self:
        """Construct it for the host."""
        password = options.password
        sensor = cls(
            url=options.url,
            user=options.user or "",
            password="" if password is None else password.get_secret_value(),
            source=options.source,
            nvidia=options.nvidia,
            tdp_watts=options.tdp_watts,
            host_root=context.host_root,
            clock=context.clock.monotonic,
        )
        sensor._context = context
        return sensor

    @classmethod
    def probe(cls, context: Any) -> Probe:
        """It works on Windows; measured where LibreHardwareMonitor answers at its usual address."""
        if platform_name() != "Windows":
            return Probe(works=False, reason=f"needs Windows, and this is {platform_name()}")
        try:
            found = devices_of(power_sensors(fetch(ADDRESS, _PROBE_SECONDS)), with_nvidia=True)
        except TracarbonException as error:
            return Probe(works=True, reason=f"estimate, since {error}", fidelity=Fidelity.ESTIMATED)
        if not found:
            return Probe(works=True, reason="estimate, since " + _shows_nothing(ADDRESS), fidelity=Fidelity.ESTIMATED)
        return Probe(works=True, reason=f"{_MONITOR}: {len(found)} power sensors", fidelity=Fidelity.MEASURED)

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            check_address(self.url)
        except ValueError as error:
            raise TracarbonException(f"url: {error}") from None
        self.password = Secret(self.password)
        self._context: PluginContext | None = None
        self._is_measured: bool | None = None
        self._known: dict[Device, Device] = {}

    async def __aenter__(self) -> Self:
        """Find out what machine this is, and whether LibreHardwareMonitor runs.

        Raises:
            TracarbonException: it is not Windows; or LibreHardwareMonitor is wanted, and does not answer.
        """
        self._check_platform()
        await super().__aenter__()
        await self._choose()
        return self

    async def get_energy_usage(self) -> EnergyUsage:
        """Return what LibreHardwareMonitor shows now, or the estimate for the mean load since the previous call.

        The first call for the estimate opens the window.

        Raises:
            TracarbonException: it is not Windows; or LibreHardwareMonitor does not answer any more.
        """
        self._check_platform()
        if self._is_measured is None:
            await self._choose()
        if self._is_measured:
            return _usage(await self._measured())
        estimate = await super().get_energy_usage()
        return estimate if self._context is not None else await self._with_cards(estimate)

    async def _choose(self) -> None:
        """Take what LibreHardwareMonitor shows, if it does."""
        if self._is_measured or self.source == "estimate":
            self._is_measured = bool(self._is_measured)
            return
        try:
            await self._measured()
            self._is_measured = True
        except TracarbonException as error:
            if self.source == _MONITOR:
                raise
            self._is_measured = False
            logger.warning("the figures are an estimate: %s", error)

    async def _measured(self) -> dict[Device, float]:
        password = str(self.password)
        tree = await self._run_blocking(fetch, self.url, _TIMEOUT_SECONDS, self.user, Secret(password))
        with_nvidia = self.nvidia if self.nvidia is not None else find_spec("tracarbon_sensor_nvidia") is None
        found = devices_of(power_sensors(tree), with_nvidia=with_nvidia)
        if not found:
            raise TracarbonException(_shows_nothing(self.url))
        return {self._known.setdefault(device, device): watts for device, watts in found.items()}

    async def _with_cards(self, estimate: EnergyUsage) -> EnergyUsage:
        """Add what the NVIDIA cards draw now, if they can be read."""
        if estimate.host_energy_usage is None:
            return estimate
        try:
            gpu: float = await self._run_blocking(GPUInfo.get_gpu_power_usage)
        except HardwareNoGPUDetectedException:
            return estimate
        return estimate.model_copy(
            update={
                "host_energy_usage": estimate.host_energy_usage + gpu,
                "gpu_energy_usage": gpu,
                "devices": [*estimate.devices, DeviceUsage(_CARDS, gpu, estimate.window_seconds)],
                "method": f"{estimate.method}, nvidia",
            }
        )

    async def _run_blocking(self, function: Callable[..., Any], *arguments: Any) -> Any:
        if self._context is not None:
            return await self._context.run_blocking(function, *arguments)
        context = PluginContext("windows")
        try:
            return await context.run_blocking(function, *arguments)
        finally:
            context.close()

    def _check_platform(self) -> None:
        if platform_name() == "Windows":
            return
        advice = "EnergyConsumption.from_platform() finds the best sensor of this machine"
        if self._context is not None:
            advice = "`tracarbon doctor` shows the sensors that work here"
        raise TracarbonException(f"it needs Windows, and this is {platform_name()}; {advice}")


_CARDS = Device("nvidia", UsageType.GPU, Scope.EXTRA, fidelity=Fidelity.MEASURED)


def _shows_nothing(url: str) -> str:
    return f"LibreHardwareMonitor at {url} shows no power: run it as administrator"


def _usage(found: dict[Device, float]) -> EnergyUsage:
    """Return a sample of what was found, with the components as they add up; the meter goes by the devices.

    What cannot be true is named, and neither it nor a sum that it belongs to is known.
    """

    def total(*components: UsageType, scopes: tuple[Scope, ...]) -> float | None:
        watts = [it for device, it in found.items() if device.component in components and device.scope in scopes]
        return sum(watts) if watts and max(watts) <= _HIGHEST_WATTS else None

    package = total(UsageType.CPU, scopes=(Scope.HOST,))
    inside = total(UsageType.GPU, scopes=(Scope.DETAIL,))
    parts = total(*UsageType, scopes=(Scope.HOST, Scope.EXTRA))
    whole = total(UsageType.HOST, scopes=(Scope.WHOLE_MACHINE,))
    return EnergyUsage(
        host_energy_usage=whole if parts is None or (whole is not None and whole >= parts) else parts,
        cpu_energy_usage=None if package is None else max(0.0, package - (inside or 0.0)),
        memory_energy_usage=total(UsageType.MEMORY, scopes=(Scope.HOST,)),
        gpu_energy_usage=total(UsageType.GPU, scopes=(Scope.DETAIL, Scope.EXTRA)),
        devices=[DeviceUsage(device, watts) for device, watts in found.items() if watts <= _HIGHEST_WATTS],
        method=_MONITOR,
        problems=[
            f"{device.name}: LibreHardwareMonitor shows more than {_HIGHEST_WATTS:g} W, which cannot be true"
            for device, watts in found.items()
            if watts > _HIGHEST_WATTS
        ],
    )
