"""Energy counters of Intel and AMD processors: the sensor `rapl` of tracarbon.

The host is every package and its memory, or the platform's own counter (psys) where there is a plausible one. Cores and
the graphics part lie inside their package: cpu = package - uncore, gpu = uncore. Wraps, resets and zones that cannot be
read are the counters' affair, one by one: no zone takes another one's reading along.
"""

from __future__ import annotations

import copy
import errno
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

from pydantic import BaseModel, Field
from tracarbon.exceptions import HardwareRAPLException
from tracarbon.hardwares.counter import EnergyCounter
from tracarbon.hardwares.energy import Device, DeviceUsage, EnergyUsage, Fidelity, Scope, UsageType
from tracarbon.hardwares.sensors import EnergyConsumption
from tracarbon.plugin import PluginContext, PluginOptions, Probe

from tracarbon_sensor_rapl._amd_energy import find_sockets
from tracarbon_sensor_rapl._powercap import Zone, ZoneKind, ZoneReader, explain, find_zones

__all__ = ["RAPL", "LinuxEnergyConsumption", "RAPLResult"]

_POWERCAP = Path("sys/class/powercap")
_HWMON = Path("sys/class/hwmon")
_MICROJOULES_PER_JOULE = 1e6
_HIGHEST_PUBLISHED_WATTS = 1000.0
"""A published limit above this stands for "no limit", and says nothing of what the zone can draw."""


class RAPLResult(BaseModel):
    """One reading of one zone's counter.

    Attributes:
        name: such as `package-0`.
        energy_uj: the counter, in microjoules.
        max_energy_uj: where it wraps, in microjoules.
        timestamp: when it was read.
    """

    name: str
    energy_uj: float
    max_energy_uj: float
    timestamp: datetime


class _Slot:
    """A zone, its counter, and the device that it stands for."""

    __slots__ = ("counter", "device", "has_counted", "zone")

    def __init__(self, zone: Zone) -> None:
        watts = (zone.max_power_uw or 0) / _MICROJOULES_PER_JOULE
        self.zone = zone
        self.counter = EnergyCounter(
            counts_per_joule=_MICROJOULES_PER_JOULE,
            range_counts=zone.max_range_uj,
            max_watts=watts if watts <= _HIGHEST_PUBLISHED_WATTS else None,
        )
        self.has_counted = False
        self.device = _device(zone, is_graphics=False)

    @classmethod
    def over(cls, zone: Zone, known: Mapping[tuple[str, str], _Slot]) -> _Slot:
        """Return the slot of this counter, under whatever number the kernel shows it now, or a new one."""
        slot = cls(zone)
        former = known.get(slot.identity)
        if former is None:
            return slot
        former.zone = zone
        return former

    @property
    def identity(self) -> tuple[str, str]:
        """Which counter it is: the interface (MSR and MMIO count apart) and the label."""
        return self.zone.key.partition(":")[0], self.zone.label

    def note_counting(self) -> None:
        """The uncore counter of a processor without graphics stands at 0 for ever; one that counts has graphics."""
        self.has_counted = True
        if self.zone.kind is ZoneKind.UNCORE:
            self.device = _device(self.zone, is_graphics=True)


def _device(zone: Zone, *, is_graphics: bool) -> Device:
    if zone.kind is ZoneKind.PACKAGE:
        return Device(zone.label, UsageType.CPU, Scope.HOST)
    if zone.kind is ZoneKind.DRAM:
        return Device(zone.label, UsageType.MEMORY, Scope.HOST)
    if zone.kind is ZoneKind.PSYS:
        return Device(zone.label, UsageType.HOST, Scope.WHOLE_MACHINE)
    component = UsageType.GPU if is_graphics else UsageType.CPU
    return Device(zone.label, component, Scope.DETAIL, within=zone.parent)


class RAPL:
    """The RAPL counters of this machine.

    Args:
        path: the folder of the zones.
        rapl_separator: what parts the numbers in a zone's folder name; kept for old callers.
        rapl_results: the latest results by zone; filled by `get_rapl_power_usage`.
        file_list: the counters' files; filled by `get_rapl_files_list`.
        hwmon: the folder of hardware monitors, searched for `amd_energy` where there are no zones.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        *,
        path: str = "/sys/class/powercap/intel-rapl",
        rapl_separator: str = ":",
        rapl_results: dict[str, RAPLResult] | None = None,
        file_list: list[str] | None = None,
        hwmon: str = "/sys/class/hwmon",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = path
        self.rapl_separator = rapl_separator
        self.rapl_results = dict(rapl_results or {})
        self.file_list = list(file_list or [])
        self._hwmon = hwmon
        self._clock = clock
        self._reader: ZoneReader | None = None
        self._slots: list[_Slot] = []
        self._groups = _Groups(())

    def __copy__(self) -> Self:
        # What was read last is its reader's own.
        return type(self)(path=self.path, rapl_separator=self.rapl_separator, hwmon=self._hwmon, clock=self._clock)

    def __repr__(self) -> str:
        return f"RAPL(path={self.path!r})"

    def __eq__(self, other: object) -> bool:
        """Two that read the same counters are equal."""
        return isinstance(other, RAPL) and (self.path, self._hwmon) == (other.path, other._hwmon)

    def __hash__(self) -> int:
        return hash((self.path, self._hwmon))

    def is_rapl_compatible(self) -> bool:
        """Check that there is a counter that this process may read."""
        try:
            with ZoneReader(self._find_zones()) as reader:
                return any(isinstance(reading, int) for reading in reader.read())
        except HardwareRAPLException:
            return False

    def get_rapl_files_list(self) -> None:
        """Fill `file_list` with the paths of the counters.

        Raises:
            HardwareRAPLException: there is none.
        """
        self.file_list = [str(zone.counter_path) for zone in self._find_zones()]

    async def get_rapl_power_usage(self) -> list[RAPLResult]:
        """Read every counter that can be read, as it stands, and fill `rapl_results`.

        Raises:
            HardwareRAPLException: none can be read.
        """
        reader, now = self._opened(), datetime.now(UTC)
        results = [
            RAPLResult(name=zone.label, energy_uj=reading, max_energy_uj=zone.max_range_uj or 0, timestamp=now)
            for zone, reading in zip(reader.zones, reader.read(), strict=True)
            if isinstance(reading, int)
        ]
        self.rapl_results = {result.name: result for result in results}
        return results

    async def get_energy_report(self) -> EnergyUsage:
        """Return the mean watts of each component since the previous call; the first call opens the window.

        Raises:
            HardwareRAPLException: none can be read.
        """
        return self.read()

    def open(self) -> None:
        """Find and open the counters. What is known of counters that were open before is kept.

        Raises:
            HardwareRAPLException: none can be read; says why, and what would help.
        """
        self.close()
        zones = self._with_known(self._find_zones())
        reader = ZoneReader(zones, clock=self._clock).__enter__()
        readings = reader.read()
        if not any(isinstance(reading, int) for reading in readings):
            reader.close()
            raise HardwareRAPLException(". ".join(_explained(zones[0], readings[0])))
        known = {slot.identity: slot for slot in self._slots}
        self._slots = [_Slot.over(zone, known) for zone in zones]
        self._groups = _Groups(self._slots)
        self._reader = reader

    def close(self) -> None:
        """Close the counters' files."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def read(self) -> EnergyUsage:
        """Read every counter and return the mean watts since the previous reading.

        What could not be read, and energy that is lost, is named in `problems`; other zones are not affected.

        Raises:
            HardwareRAPLException: none can be read; says why, and what would help.
        """
        readings = self._opened().read()
        at = self._clock()
        if not any(isinstance(reading, int) for reading in readings):
            raise HardwareRAPLException(". ".join(_explained(self._slots[0].zone, readings[0])))
        devices: list[DeviceUsage] = []
        problems: list[str] = []
        for slot, reading in zip(self._slots, readings, strict=True):
            if not isinstance(reading, int):
                problems.append(f"{slot.zone.label}: {_explained(slot.zone, reading)[0]}")
                continue
            if reading and not slot.has_counted:
                slot.note_counting()
                self._groups = _Groups(self._slots)
            delta = slot.counter.update(reading, at)
            if delta is not None:
                joules, seconds = delta
                devices.append(DeviceUsage(slot.device, joules / seconds, seconds))
            elif slot.counter.lost is not None:
                problems.append(f"{slot.zone.label}: {slot.counter.lost}; the energy of its window is lost")
        return self._groups.usage(devices, problems)

    def _opened(self) -> ZoneReader:
        if self._reader is None:
            self.open()
        assert self._reader is not None
        return self._reader

    def _with_known(self, zones: list[Zone]) -> list[Zone]:
        """Add the zones that were there before and are away just now: they may come back."""
        labels = {zone.label for zone in zones}
        return zones + [slot.zone for slot in self._slots if slot.zone.label not in labels]

    def _find_zones(self) -> list[Zone]:
        folder = Path(self.path)
        try:
            zones = find_zones(folder)
        except OSError as error:
            zones, reason = [], error
        else:
            reason = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.path)
        zones = zones or _amd_sockets(Path(self._hwmon))
        if not zones:
            raise HardwareRAPLException(". ".join(explain(reason, folder)))
        return zones


def _amd_sockets(hwmon: Path) -> list[Zone]:
    try:
        return find_sockets(hwmon)
    except OSError:
        return []


def _explained(zone: Zone, reading: object) -> tuple[str, str]:
    if isinstance(reading, OSError):
        return explain(reading, zone.counter_path)
    return str(reading), "the kernel log (dmesg) may say more"


class _Groups:
    """Which zones make up which component, for whoever reads the sensor without a meter."""

    def __init__(self, slots: Iterable[_Slot]) -> None:
        by_kind: dict[ZoneKind, list[str]] = {kind: [] for kind in ZoneKind}
        for slot in slots:
            if slot.has_counted or slot.zone.kind is not ZoneKind.UNCORE:
                by_kind[slot.zone.kind].append(slot.zone.label)
        self._package = by_kind[ZoneKind.PACKAGE]
        self._memory = by_kind[ZoneKind.DRAM]
        self._graphics = by_kind[ZoneKind.UNCORE]
        self._host = self._package + self._memory
        self._whole = by_kind[ZoneKind.PSYS][:1]

    def usage(self, devices: list[DeviceUsage], problems: list[str]) -> EnergyUsage:
        """Add up what the devices drew."""
        if not devices:
            return EnergyUsage(problems=problems)
        watts = {reading.device.name: reading.watts for reading in devices}
        host, whole = _sum(watts, self._host), _sum(watts, self._whole)
        package, graphics = _sum(watts, self._package), _sum(watts, self._graphics)
        return EnergyUsage(
            host_energy_usage=whole if whole is not None and whole >= (host or 0.0) else host,
            cpu_energy_usage=None if package is None else max(0.0, package - (graphics or 0.0)),
            memory_energy_usage=_sum(watts, self._memory),
            gpu_energy_usage=graphics,
            window_seconds=devices[0].window_seconds,
            devices=devices,
            problems=problems,
        )


def _sum(watts: dict[str, float], names: Sequence[str]) -> float | None:
    """Sum what is known; unknown as a whole where one part is."""
    try:
        return sum([watts[name] for name in names]) if names else None
    except KeyError:
        return None


class LinuxEnergyConsumption(EnergyConsumption):
    """Energy counters of Intel and AMD processors, through the kernel's powercap interface.

    Attributes:
        rapl: the counters.
    """

    fidelity: ClassVar[Fidelity] = Fidelity.MEASURED
    # The smallest range in use, 65 kJ, lasts over two minutes at 500 W.
    sampling_interval_seconds: ClassVar[float] = 30.0

    rapl: RAPL = field(default_factory=RAPL)

    class Options(PluginOptions):
        """Options of `[sensors.rapl]`."""

        path: str | None = Field(
            default=None, description="folder of the powercap zones; default: /sys/class/powercap below host_root"
        )

    @classmethod
    def from_options(cls, options: Any, context: PluginContext) -> Self:
        """Construct it over the host's counters."""
        root = context.host_root
        path = options.path or str(root / _POWERCAP)
        return cls(rapl=RAPL(path=path, hwmon=str(root / _HWMON), clock=context.clock.monotonic))

    @classmethod
    def probe(cls, context: Any) -> Probe:
        """Try to open the counters."""
        rapl = cls.from_options(cls.Options(), context).rapl
        try:
            rapl.open()
        except HardwareRAPLException as error:
            reason, _, remedy = str(error).partition(". ")
            return Probe(works=False, reason=reason, remedy=remedy)
        labels = ", ".join(slot.zone.label for slot in rapl._slots)
        rapl.close()
        return Probe(works=True, reason=labels, fidelity=cls.fidelity)

    def __copy__(self) -> Self:
        twin = object.__new__(type(self))
        vars(twin).update(vars(self), rapl=copy.copy(self.rapl))
        return twin

    async def __aenter__(self) -> Self:
        """Open the counters.

        Raises:
            HardwareRAPLException: none can be read; says why, and what would help.
        """
        self.rapl.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the counters' files."""
        self.rapl.close()

    async def get_energy_usage(self) -> EnergyUsage:
        """Return the mean watts since the previous call; the first call opens the window.

        Raises:
            HardwareRAPLException: no counter can be read any more.
        """
        return self.rapl.read()
