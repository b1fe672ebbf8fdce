"""The sensor `aws`: what an EC2 instance draws at the load of its processors, its memory and its graphics cards."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable
from dataclasses import field, replace
from typing import Annotated, Any, ClassVar, Self

import psutil
from pydantic import AfterValidator, Field
from tracarbon.exceptions import AWSSensorException
from tracarbon.hardwares.cpu_load import CpuLoad, MeanLoad
from tracarbon.hardwares.energy import Band, Device, DeviceUsage, EnergyUsage, Fidelity, Scope, UsageType
from tracarbon.hardwares.power_curve import watts_at
from tracarbon.hardwares.sensors import EnergyConsumption
from tracarbon.plugin import PluginContext, Probe

from tracarbon_sensor_aws._firmware import read_firmware
from tracarbon_sensor_aws._gpu_load import gpu_load
from tracarbon_sensor_aws._instances import Curve, InstancePower, checked_type, find_power
from tracarbon_sensor_aws._metadata import MetadataError
from tracarbon_sensor_aws.instance import Instance, InstanceOptions, asked, probed

logger = logging.getLogger("tracarbon")

_BYTES_PER_GB = 2**30
_GPU_SAMPLING_SECONDS = 5.0


class _TableFigure:
    """A field that is what the table says where it is not given."""

    def __init__(self, of: Callable[[InstancePower], float]) -> None:
        self._of = of

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, sensor: AWSEC2EnergyConsumption | None, owner: type) -> Any:
        if sensor is None:
            return None  # the default, as far as dataclasses are concerned
        given = vars(sensor).get(self._name)
        return self._of(sensor.power) if given is None else given

    def __set__(self, sensor: AWSEC2EnergyConsumption, value: Any) -> None:
        if value is not None and not (isinstance(value, int | float) and 0 <= value < math.inf):
            raise AWSSensorException(f"{self._name} is {value!r}; it has to be a number of watts")
        vars(sensor)[self._name] = value

    def is_given(self, sensor: AWSEC2EnergyConsumption) -> bool:
        """Whether it is not the table's."""
        return vars(sensor).get(self._name) is not None


class AWSEC2EnergyConsumption(EnergyConsumption):
    """The power of an EC2 instance, modelled from its type and its loads.

    Watts of processors and memory lie on the straight line between the two of idle, 10, 50 and 100 % load beside the
    present one; the instance's share of what the machine draws besides is added. The load of the processors is the
    mean since the previous reading, by the kernel's counters of CPU time; what a hypervisor took away (steal) counts as
    idle.

    A type that the table has not is modelled in proportion to the nearest size of its family, else by the average per
    virtual CPU, which is an estimate. Graphics processors are the table's at their load, where the kernel tells it
    (AMD), else at idle, with a band up to full load; a sensor that reads the cards themselves takes their place.

    Attributes:
        instance_type: such as `m5.large`; where it is empty, the firmware or the metadata service says.
        cpu_idle: watts of the processors at idle; this and the next ones are the table's where they are not given.
        cpu_at_10: watts of the processors at 10 % load.
        cpu_at_50: watts of the processors at 50 % load.
        cpu_at_100: watts of the processors at full load.
        memory_idle: watts of the memory while it is empty.
        memory_at_10: watts of the memory while 10 % are in use.
        memory_at_50: watts of the memory while 50 % are in use.
        memory_at_100: watts of the memory while all is in use.
        has_gpu: whether the table's watts of graphics processors count.
        delta_full_machine: watts that the instance's share of the machine draws besides, whatever the load.
        instance: whom to ask for the type.
        clock: monotonic seconds.
    """

    fidelity: ClassVar[Fidelity] = Fidelity.MODELLED
    # CPU times add up in the kernel: two readings give the mean of all the time between. The load of AMD's graphics
    # cards does not; where there are some, the sensor is read more often.
    sampling_interval_seconds: ClassVar[float] = math.inf

    instance_type: str = field(default="", kw_only=False)
    cpu_idle: _TableFigure = _TableFigure(lambda power: power.cpu[0])
    cpu_at_10: _TableFigure = _TableFigure(lambda power: power.cpu[1])
    cpu_at_50: _TableFigure = _TableFigure(lambda power: power.cpu[2])
    cpu_at_100: _TableFigure = _TableFigure(lambda power: power.cpu[3])
    memory_idle: _TableFigure = _TableFigure(lambda power: power.memory[0])
    memory_at_10: _TableFigure = _TableFigure(lambda power: power.memory[1])
    memory_at_50: _TableFigure = _TableFigure(lambda power: power.memory[2])
    memory_at_100: _TableFigure = _TableFigure(lambda power: power.memory[3])
    has_gpu: _TableFigure = _TableFigure(lambda power: power.gpu is not None)
    delta_full_machine: _TableFigure = _TableFigure(lambda power: power.delta_full_machine)
    instance: Instance = Instance()
    clock: Callable[[], float] = time.monotonic

    class Options(InstanceOptions):
        """Options of `[sensors.aws]`."""

        instance_type: Annotated[str, AfterValidator(checked_type)] | None = Field(
            default=None,
            description="EC2 instance type, such as m5.large; default: what the firmware or the metadata service says",
        )

    @classmethod
    def from_options(cls, options: Any, context: PluginContext) -> Self:
        """Construct it; a type that is not given is found out on entry."""
        sensor = cls(
            options.instance_type or "",
            instance=Instance(context.host_root, options.imds, options.imds_endpoint),
            clock=context.clock.monotonic,
        )
        sensor._context = context
        return sensor

    @classmethod
    def probe(cls, context: Any) -> Probe:
        """Say which type this is; the metadata service is asked where the firmware says EC2, and no type."""
        return probed(context, "instance_type in [sensors.aws]", _probe_of)

    def __post_init__(self) -> None:
        self._context: PluginContext | None = None
        self._is_found_out = False
        self._power: InstancePower | None = None
        self._devices: _Devices | None = None
        self._load = CpuLoad(self.clock)
        self._memory_load = _MeanOfEnds()
        self._gpu_load = _MeanOfEnds()
        if self.instance_type:
            self._check_type()

    async def __aenter__(self) -> Self:
        """Find out the type and what it draws.

        Raises:
            AWSSensorException: the type is not known; says why, and what would help.
        """
        await self._settle()
        return self

    @property
    def power(self) -> InstancePower:
        """What the table says of this type.

        Raises:
            AWSSensorException: the type is not known yet.
        """
        if self._power is None:
            if not self.instance_type:
                raise AWSSensorException("the instance type is not known before the sensor is entered; pass it")
            firmware = read_firmware(self.instance.host_root)
            is_here = self._is_found_out or firmware.instance_type == self.instance_type
            self._power = _power_of(self.instance_type, is_here=is_here)
        return self._power

    async def get_energy_usage(self) -> EnergyUsage:
        """Return the mean watts since the previous call; the first call opens the window.

        Raises:
            AWSSensorException: the type is not known; says why, and what would help.
        """
        await self._settle()
        mean = self._load.read()
        memory_load = self._memory_load.mean_with(psutil.virtual_memory().percent / 100)
        gpu_now = gpu_load(self.instance.host_root) if self._gpu_curve() else None
        gpu_mean = self._gpu_load.mean_with(gpu_now)
        if mean is None or memory_load is None:
            return EnergyUsage(method=self.power.method)
        return self._usage(mean, memory_load, gpu_mean)

    async def _settle(self) -> None:
        """Find out what is not known yet."""
        if self._devices is not None:
            return
        if not self.instance_type:
            try:
                self.instance_type = await asked(self._context, "instance_type", self.instance)
            except MetadataError as error:
                raise AWSSensorException(
                    f"the EC2 instance type is not known: {error}. Set instance_type in [sensors.aws], or pass it"
                ) from None
            self._check_type()
            self._is_found_out = True
        self._check_figures()
        self._warn()
        self._devices = _Devices(self.power)
        if gpu_load(self.instance.host_root) is not None:
            self.sampling_interval_seconds = _GPU_SAMPLING_SECONDS  # type: ignore[misc]

    def _check_figures(self) -> None:
        if self.has_gpu and self.power.gpu is None:
            raise AWSSensorException(f"has_gpu is true: of {self.instance_type} no watts of graphics cards are known")
        figures = ((name, it) for name, it in vars(AWSEC2EnergyConsumption).items() if isinstance(it, _TableFigure))
        if any(figure.is_given(self) for name, figure in figures if name != "has_gpu"):
            self._power = replace(self.power, method=f"{self.power.method}, with figures of the user")

    def _warn(self) -> None:
        said, power = read_firmware(self.instance.host_root).instance_type, self.power
        if said and said != self.instance_type:
            logger.warning("instance_type is %s, but the firmware says that this is %s", self.instance_type, said)
        if power.is_average:
            logger.warning("the data set has no instance of the family of %s: %s", self.instance_type, power.method)

    def _check_type(self) -> None:
        try:
            self.instance_type = checked_type(str(self.instance_type))
        except ValueError as error:
            raise AWSSensorException(str(error)) from None

    def _usage(self, mean: MeanLoad, memory_load: float, gpu_mean: float | None) -> EnergyUsage:
        assert self._devices is not None
        seconds = mean.seconds
        cpu = DeviceUsage(self._devices.cpu, watts_at(self._cpu_curve(), mean.load), seconds)
        memory = DeviceUsage(self._devices.memory, watts_at(self._memory_curve(), memory_load), seconds)
        machine = DeviceUsage(self._devices.machine, self.delta_full_machine, seconds)
        devices, gpu = [cpu, memory, machine], None
        curve = self._gpu_curve()
        if curve is not None:
            card = self._devices.gpu_at_idle if gpu_mean is None else self._devices.gpu_by_load
            band = Band(curve[0], curve[-1]) if gpu_mean is None else None
            gpu = DeviceUsage(card, watts_at(curve, gpu_mean or 0.0), seconds, band)
            devices.append(gpu)
        return EnergyUsage(
            host_energy_usage=sum(device.watts for device in devices),
            cpu_energy_usage=cpu.watts,
            memory_energy_usage=memory.watts,
            gpu_energy_usage=gpu.watts if gpu else None,
            window_seconds=seconds,
            devices=devices,
            method=self.power.method if gpu is None else gpu.device.method,
        )

    def _gpu_curve(self) -> Curve | None:
        return self.power.gpu if self.has_gpu else None

    def _cpu_curve(self) -> Curve:
        return self.cpu_idle, self.cpu_at_10, self.cpu_at_50, self.cpu_at_100

    def _memory_curve(self) -> Curve:
        return self.memory_idle, self.memory_at_10, self.memory_at_50, self.memory_at_100


class _MeanOfEnds:
    """The mean of what a level is now and what it was at the previous reading."""

    def __init__(self) -> None:
        self._previous: float | None = None

    def mean_with(self, now: float | None) -> float | None:
        """Return the mean; `None` where one of the two is not known."""
        before, self._previous = self._previous, now
        return None if before is None or now is None else (before + now) / 2


class _Devices:
    """The parts of the instance. `machine` is its share of what the machine draws besides them.

    Each has a method of its own: what is true of the graphics cards alone is no provenance of the others.
    """

    def __init__(self, power: InstancePower) -> None:
        fidelity, method = _fidelity(power), power.method
        self.cpu = Device("cpu", UsageType.CPU, Scope.HOST, fidelity=fidelity, method=method)
        self.memory = Device("memory", UsageType.MEMORY, Scope.HOST, fidelity=fidelity, method=method)
        self.machine = Device("machine", UsageType.HOST, Scope.HOST, fidelity=fidelity, method=method)
        gpu = Device("gpu", UsageType.GPU, Scope.EXTRA, fidelity=fidelity)
        self.gpu_at_idle = replace(gpu, method=f"{method}, gpu at idle since its load is unknown")
        self.gpu_by_load = replace(gpu, method=f"{method}, gpu by sampled load")


def _power_of(instance_type: str, *, is_here: bool) -> InstancePower:
    memory_gb = psutil.virtual_memory().total / _BYTES_PER_GB
    vcpus = os.cpu_count()
    return find_power(instance_type, vcpus or 1, memory_gb, is_here=is_here and vcpus is not None)


def _probe_of(instance: Instance) -> Probe:
    power = _power_of(instance.instance_type(), is_here=True)
    return Probe(works=True, reason=power.method, fidelity=_fidelity(power))


def _fidelity(power: InstancePower) -> Fidelity:
    return Fidelity.ESTIMATED if power.is_average else Fidelity.MODELLED
