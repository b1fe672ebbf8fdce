"""The meter: adds up the joules of every device, and is itself the sensor that generators read."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from tracarbon._accounts import Account, Balance, Closing, Source
from tracarbon._clock import Clock
from tracarbon._composition import Component, Composition, Part, compose
from tracarbon.hardwares.energy import (
    Band,
    Device,
    DeviceUsage,
    EnergyUsage,
    EnergyUsageUnit,
    Provenance,
    Scope,
    UsageType,
    usage_of_components,
)
from tracarbon.hardwares.sensors import Sensor
from tracarbon.metrics import Window

GONE_AFTER_MISSED = 3
"""A device that was silent for this many windows is no longer waited for."""
_WHOLE_TOLERANCE = 0.98
"""A whole-machine figure below the sum of its parts is not believed, but for the skew between two reads."""


class Meter:
    """Adds up the joules of every device, each over the seconds that its own readings cover.

    Nothing is ever reset: a view reads the difference between two closings, so that each generator can have a window of
    its own and none takes a joule from another.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._has_changed = False
        self._sources: dict[str, Source] = {}
        self._accounts: list[Account] = []
        self._by_device: dict[tuple[str, str], Account] = {}
        self._lumps: dict[tuple[str, UsageType, bool], Device] = {}
        self.opened_at = -math.inf
        self.closing = Closing(0.0, 0.0)
        self.layout = 0
        self.read_windows: dict[tuple[frozenset[str] | None, Closing, int], ReadWindow] = {}

    def add_sensor(self, name: str, sensor: Sensor | type[Sensor], max_gap_seconds: float) -> None:
        """Register a sensor; its instantaneous samples are bridged over at most `max_gap_seconds`."""
        self._sources[name] = Source(name, len(self._sources), sensor.scope, sensor.fidelity, max_gap_seconds)

    def open(self) -> None:
        """Begin the first window now."""
        self.opened_at = self._clock.monotonic()
        self._take_stock(self.opened_at)

    def record(self, sensor: str, usage: EnergyUsage, at: float, took_seconds: float = 0.0) -> Sequence[str]:
        """Add what a sensor read at the monotonic second `at` and return what of it cannot be true, for humans."""
        source = self._sources[sensor]
        if usage.method != source.method:
            source.method = usage.method
            self._has_changed = True
        refused: list[str] = []
        for reading in usage.devices or self._lumped(source, usage):
            account = self._by_device.get((sensor, reading.device.name))
            if account is None or account.device is not reading.device:
                account = self._account_of(source, reading.device)
            if not account.add(reading, at, self.opened_at, took_seconds):
                refused.append(f"{reading.device.name}: {reading.watts!r} W over {reading.window_seconds!r} s")
        return refused

    def close(self) -> Closing:
        """Close the window now."""
        for account in self._accounts:
            account.close()
        return self._take_stock(self._clock.monotonic())

    def accounts(self, sensors: Collection[str] | None) -> list[tuple[int, Account]]:
        """Return the accounts in the latest closing, of `sensors` or of all, each with its index there."""
        return [
            (index, account)
            for index, account in enumerate(self._accounts[: len(self.closing.balances)])
            if sensors is None or account.source.name in sensors
        ]

    def _take_stock(self, at: float) -> Closing:
        # A device that turns up later is in no closing yet: the layout changes only together with the closing.
        if self._has_changed:
            self._has_changed = False
            self.layout += 1
        self.closing = Closing.of(self._accounts, at, self._clock.time())
        self.read_windows.clear()
        return self.closing

    def _account_of(self, source: Source, device: Device) -> Account:
        account = self._by_device.get((source.name, device.name))
        if account is None:
            account = Account(source, device)
            self._accounts.append(account)
            self._by_device[source.name, device.name] = account
            self._has_changed = True
        elif account.device != device:
            account.device = device
            self._has_changed = True
        return account

    def _lumped(self, source: Source, usage: EnergyUsage) -> list[DeviceUsage]:
        """Readings of a sensor that lists no devices, only components."""
        if usage.unit is not EnergyUsageUnit.WATT:
            usage = usage.model_copy()
            usage.convert_unit(EnergyUsageUnit.WATT)
        # Once the host was known, the components lie inside it for good, also while it is not.
        source.has_host = has_host = source.has_host or usage.host_energy_usage is not None
        readings = []
        for usage_type in UsageType:
            watts = usage.get_energy_usage_on_type(usage_type)
            if watts is not None:
                readings.append(DeviceUsage(self._lump(source, usage_type, has_host), watts, usage.window_seconds))
        return readings

    def _lump(self, source: Source, usage_type: UsageType, has_host: bool) -> Device:
        key = (source.name, usage_type, has_host)
        if key not in self._lumps:
            inside = has_host and usage_type is not UsageType.HOST
            scope = Scope.HOST if source.scope is Scope.WHOLE_MACHINE and not has_host else source.scope
            self._lumps[key] = Device(
                usage_type.value,
                component=usage_type,
                scope=Scope.DETAIL if inside else scope,
                within=UsageType.HOST.value if inside else None,
            )
        return self._lumps[key]


class Carry(NamedTuple):
    """What one window leaves to the next.

    Attributes:
        waiting: the closings from which components wait for a part that was not read.
        is_bridged: the parts stood in for the whole machine's figure, which was silent: when it comes back it speaks
            of that time too, and is passed over once.
    """

    waiting: dict[UsageType, Closing]
    is_bridged: bool = False


class ReadWindow(NamedTuple):
    """What a view read of a window, and what it leaves to the next."""

    watts: Mapping[UsageType, float]
    seconds: float | None
    provenance: Mapping[UsageType, Provenance]
    devices: Sequence[DeviceUsage]
    carry: Carry

    @property
    def usage(self) -> EnergyUsage:
        """A new one each time: it is the caller's own, who may convert it in place."""
        return usage_of_components(self.watts, self.seconds, self.provenance, self.devices)


_NO_CARRY = Carry({})
_NOTHING_READ = ReadWindow({}, None, {}, (), _NO_CARRY)


class MeterView(Sensor):
    """The meter over some sensors, as one generator sees it, with a cursor of its own.

    `advance` turns to the window that was closed last; until `commit`, that window is not consumed, and the next one
    contains it. A component of which a part was not read waits likewise, so that its energy arrives later, not never.

    Args:
        meter: the meter.
        sensors: names of the sensors to read; all where it is `None`.
        follows: advance and commit by itself whenever a newer window has been closed.
    """

    def __init__(self, meter: Meter, sensors: Collection[str] | None = None, *, follows: bool = False) -> None:
        self._meter = meter
        self._sensors = None if sensors is None else frozenset(sensors)
        self._follows = follows
        self._layout = -1
        self._composition = compose(())
        self._start = self._closing = meter.closing
        self._carry = _NO_CARRY
        self._read = _NOTHING_READ

    async def get_energy_usage(self) -> EnergyUsage:
        """Return the window that the view stands at; each caller gets one of its own."""
        if self._follows and self._closing is not self._meter.closing:
            self.advance()
            self.commit()
        return self._read.usage

    def reset(self) -> None:
        """Begin at the meter's latest closing."""
        self._start = self._closing = self._meter.closing
        self._carry = _NO_CARRY
        self._read = _NOTHING_READ

    @property
    def window(self) -> Window:
        """The window that the view stands at."""
        start, end = self._start, self._closing
        return Window(start.at, end.at, start.wall_time, end.wall_time)

    def advance(self, *, is_last: bool = False) -> Window:
        """Turn to the window that was closed last and return it.

        Args:
            is_last: no other will follow, so that nothing is waited for.
        """
        self._closing = self._meter.closing
        if self._layout != self._meter.layout:
            self._layout = self._meter.layout
            self._composition = compose(self._meter.accounts(self._sensors))
        self._read = self._shared_window(0 if is_last else GONE_AFTER_MISSED)
        return self.window

    @property
    def pending_seconds(self) -> float:
        """How much of what was closed is not consumed."""
        return self._meter.closing.at - self._start.at

    def commit(self) -> None:
        """Consume the window."""
        self._start = self._closing
        self._carry = self._read.carry

    def _shared_window(self, patience: int) -> ReadWindow:
        """Read the window, or take what another view over the same sensors has read of the same window."""
        if self._carry.waiting or self._carry.is_bridged:
            return _WindowReading(self._composition, self._start, self._closing, self._carry, patience).read()
        key = (self._sensors, self._start, patience)
        known = self._meter.read_windows.get(key)
        if known is None:
            known = _WindowReading(self._composition, self._start, self._closing, _NO_CARRY, patience).read()
            self._meter.read_windows[key] = known
        return known


class _WindowReading:
    """Works out one window: watts of each component, and where they come from.

    A part that was silent for `patience` windows is not waited for.
    """

    def __init__(self, composition: Composition, start: Closing, end: Closing, carry: Carry, patience: int) -> None:
        self._composition = composition
        self._start = start
        self._end = end
        self._waiting, self._was_bridged = carry
        self._is_bridged = False
        self._patience = patience
        self._gains = end.gains_since(start)
        self._still_waiting: dict[UsageType, Closing] = {}
        self._watts: dict[UsageType, float] = {}
        self._provenance: dict[UsageType, Provenance] = {}

    def read(self) -> ReadWindow:
        self._read_host()
        for usage_type, component in self._composition.components.items():
            self._take(usage_type, component, self._figure(usage_type, component))
        seconds = self._end.at - self._start.at
        return ReadWindow(
            self._watts,
            seconds if seconds > 0 else None,
            self._provenance,
            self._device_usages(),
            Carry(self._still_waiting, self._is_bridged),
        )

    def _read_host(self) -> None:
        whole, host = self._composition.whole, self._composition.host
        figure = self._figure(UsageType.HOST, host) if host else None
        if whole is not None:
            whole_figure = self._figure(UsageType.HOST, whole)
            if host is None or self._is_better(whole, whole_figure, host, figure):
                host, figure = whole, whole_figure
            else:
                self._is_bridged = whole_figure is None or (self._was_bridged and figure is None)
        if host is not None:
            self._take(UsageType.HOST, host, figure)

    def _is_better(
        self, whole: Component, whole_figure: _Figure | None, host: Component, figure: _Figure | None
    ) -> bool:
        """Whether the host's figure is to be the whole machine's, and not the sum of the parts."""
        if whole_figure is None:
            return whole.parts[0].account.missed < self._patience and not self._was_bridged
        if self._was_bridged or (self._is_new(whole) and not self._is_new(host)):
            return False
        return figure is None or whole_figure.watts >= figure.watts * _WHOLE_TOLERANCE

    def _is_new(self, component: Component) -> bool:
        """Whether none of it was known before this window, to which what it says first may not be confined."""
        known = len(self._waiting.get(UsageType.HOST, self._start).balances)
        return all(part.index >= known for part in component.parts)

    def _take(self, usage_type: UsageType, component: Component, figure: _Figure | None) -> None:
        if figure is None:
            self._still_waiting[usage_type] = self._waiting.get(usage_type, self._start)
            return
        watts, joules, seconds, low, high = figure
        covered = joules / watts if watts > 0 else seconds
        band = Band(low / covered, high / covered) if low < joules or high > joules else None
        sensor, fidelity, _, method, _ = component.provenance
        self._watts[usage_type] = watts
        self._provenance[usage_type] = Provenance(sensor, fidelity, covered, method, band)

    def _figure(self, usage_type: UsageType, component: Component) -> _Figure | None:
        """Sum the parts, each over its own seconds: watts = sum of joules / covered. `None` where a part is missing."""
        gains = self._gains
        if usage_type in self._waiting:
            gains = self._end.gains_since(self._waiting[usage_type])
        watts = joules = seconds = low = high = 0.0
        for part in component.parts:
            part_joules, part_seconds, part_low, part_high = gains[part.index]
            inside = self._watts_inside(part, gains) if part.inside else 0.0
            if part_seconds <= 0 or inside is None:
                if part.account.missed < self._patience:
                    return None
                continue
            part_watts = max(0.0, part_joules / part_seconds - inside)
            inner_joules = part_joules - part_watts * part_seconds if inside else 0.0
            watts += part_watts
            joules += part_joules - inner_joules
            low += part_low - inner_joules
            high += part_high - inner_joules
            seconds = max(seconds, part_seconds)
        return _Figure(watts, joules, seconds, low, high) if seconds > 0 else None

    def _watts_inside(self, part: Part, gains: Sequence[Balance]) -> float | None:
        """Return the watts of the devices inside that count for another component; `None` where one is missing."""
        watts = 0.0
        for index, account in part.inside:
            joules, seconds, _, _ = gains[index]
            if seconds > 0:
                watts += joules / seconds
            elif account.missed < self._patience:
                return None
        return watts

    def _device_usages(self) -> list[DeviceUsage]:
        readings = []
        for index, account in self._composition.accounts:
            joules, seconds, low, high = self._gains[index]
            if seconds > 0:
                band = Band(low / seconds, high / seconds) if low < joules or high > joules else None
                origin = Provenance(account.source.name, account.fidelity, seconds, account.method, band)
                readings.append(DeviceUsage(account.device, joules / seconds, seconds, band, origin))
        return readings


class _Figure(NamedTuple):
    watts: float
    joules: float
    seconds: float
    low_joules: float
    high_joules: float
