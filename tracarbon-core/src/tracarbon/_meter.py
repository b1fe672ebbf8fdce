"""The meter: adds up the joules of every device, and is itself the sensor that generators read."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import NamedTuple

from tracarbon._accounts import Account, Closing, Source
from tracarbon._clock import Clock
from tracarbon._composition import Component, compose
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
        self._sources: dict[str, Source] = {}
        self._accounts: list[Account] = []
        self._by_device: dict[tuple[str, str], Account] = {}
        self._lumps: dict[tuple[str, UsageType], Device] = {}
        self.opened_at = -math.inf
        self.closing = Closing(0.0, 0.0)
        self.layout = 0

    def add_sensor(self, name: str, sensor: Sensor | type[Sensor], max_gap_seconds: float) -> None:
        """Register a sensor; its instantaneous samples are bridged over at most `max_gap_seconds`."""
        self._sources[name] = Source(name, len(self._sources), sensor.scope, sensor.fidelity, max_gap_seconds)

    def open(self) -> None:
        """Begin the first window now."""
        self.opened_at = self._clock.monotonic()
        self.closing = Closing(self.opened_at, self._clock.time(), [account.balance() for account in self._accounts])

    def record(self, sensor: str, usage: EnergyUsage, at: float) -> None:
        """Add what a sensor read at the monotonic second `at`."""
        source = self._sources[sensor]
        if usage.method != source.method:
            source.method = usage.method
            self.layout += 1
        for reading in usage.devices or self._lumped(source, usage):
            account = self._by_device.get((sensor, reading.device.name))
            if account is None or account.device is not reading.device:
                account = self._account_of(source, reading.device)
            account.add(reading, at, self.opened_at)

    def close(self) -> Closing:
        """Close the window now."""
        before = self.closing
        balances = []
        for index, account in enumerate(self._accounts):
            balance = account.balance()
            balances.append(balance)
            if balance.seconds > before.balance(index).seconds:
                if account.missed:
                    account.missed = 0
            else:
                account.missed += 1
        self.closing = Closing(self._clock.monotonic(), self._clock.time(), balances)
        return self.closing

    def accounts(self, sensors: Collection[str] | None) -> list[tuple[int, Account]]:
        """Return the accounts of `sensors` (all where it is `None`), each with its index in a closing."""
        return [
            (index, account)
            for index, account in enumerate(self._accounts)
            if sensors is None or account.source.name in sensors
        ]

    def _account_of(self, source: Source, device: Device) -> Account:
        account = self._by_device.get((source.name, device.name))
        if account is None:
            account = Account(source, device)
            self._accounts.append(account)
            self._by_device[source.name, device.name] = account
            self.layout += 1
        elif account.device != device:
            account.device = device
            self.layout += 1
        return account

    def _lumped(self, source: Source, usage: EnergyUsage) -> list[DeviceUsage]:
        """Readings of a sensor that lists no devices, only components."""
        if usage.unit is not EnergyUsageUnit.WATT:
            usage = usage.model_copy()
            usage.convert_unit(EnergyUsageUnit.WATT)
        readings = []
        for usage_type in UsageType:
            watts = usage.get_energy_usage_on_type(usage_type)
            if watts is not None:
                has_host = usage.host_energy_usage is not None
                readings.append(DeviceUsage(self._lump(source, usage_type, has_host), watts, usage.window_seconds))
        return readings

    def _lump(self, source: Source, usage_type: UsageType, has_host: bool) -> Device:
        key = (source.name, usage_type)
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


class _Figure(NamedTuple):
    watts: float
    joules: float
    seconds: float
    low_joules: float
    high_joules: float


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
        self._start = meter.closing
        self._waiting: dict[UsageType, Closing] = {}
        self._closing = meter.closing
        self._usage = EnergyUsage()
        self._left_waiting: dict[UsageType, Closing] = {}

    async def get_energy_usage(self) -> EnergyUsage:
        """Return the window that the view stands at; each caller gets a copy of its own."""
        if self._follows and self._closing is not self._meter.closing:
            self.advance()
            self.commit()
        return self._usage.model_copy()

    def reset(self) -> None:
        """Begin at the meter's latest closing."""
        self._start = self._closing = self._meter.closing
        self._waiting.clear()

    @property
    def window(self) -> Window:
        """The window that the view stands at."""
        start, end = self._start, self._closing
        return Window(start.at, end.at, start.wall_time, end.wall_time)

    def advance(self) -> Window:
        """Turn to the window that was closed last and return it."""
        self._closing = self._meter.closing
        if self._layout != self._meter.layout:
            self._layout = self._meter.layout
            self._composition = compose(self._meter.accounts(self._sensors))
        self._left_waiting = {}
        self._usage = self._read()
        return self.window

    def commit(self) -> None:
        """Consume the window."""
        self._start = self._closing
        self._waiting = self._left_waiting

    def _read(self) -> EnergyUsage:
        watts: dict[UsageType, float] = {}
        provenance: dict[UsageType, Provenance] = {}
        self._read_host(watts, provenance)
        for usage_type, component in self._composition.components.items():
            self._take(usage_type, component, self._figure(usage_type, component), watts, provenance)
        seconds = self._closing.at - self._start.at
        usage = usage_of_components(watts, seconds if seconds > 0 else None, provenance)
        usage.devices = self._devices()
        return usage

    def _read_host(self, watts: dict[UsageType, float], provenance: dict[UsageType, Provenance]) -> None:
        composition = self._composition
        whole, host = composition.whole, composition.host
        figure = self._figure(UsageType.HOST, host) if host else None
        if whole is not None:
            whole_figure = self._figure(UsageType.HOST, whole)
            if figure is None or whole_figure is None or whole_figure.watts >= figure.watts * _WHOLE_TOLERANCE:
                host, figure = whole, whole_figure
        if host is not None:
            self._take(UsageType.HOST, host, figure, watts, provenance)

    def _take(
        self,
        usage_type: UsageType,
        component: Component,
        figure: _Figure | None,
        watts: dict[UsageType, float],
        provenance: dict[UsageType, Provenance],
    ) -> None:
        if figure is None:
            self._left_waiting[usage_type] = self._waiting.get(usage_type, self._start)
            return
        watts[usage_type] = figure.watts
        covered = figure.joules / figure.watts if figure.watts > 0 else figure.seconds
        band = None
        if figure.low_joules < figure.joules or figure.high_joules > figure.joules:
            band = Band(figure.low_joules / covered, figure.high_joules / covered)
        provenance[usage_type] = component.provenance._replace(covered_seconds=covered, band=band)

    def _figure(self, usage_type: UsageType, component: Component) -> _Figure | None:
        """Sum the parts, each over its own seconds: watts = sum of joules / covered. `None` where a part is missing."""
        start, end = self._waiting.get(usage_type, self._start), self._closing
        watts = joules = seconds = low = high = 0.0
        for part in component.parts:
            first, last = start.balance(part.index), end.balance(part.index)
            covered = last.seconds - first.seconds
            if covered <= 0:
                if part.account.missed < GONE_AFTER_MISSED:
                    return None
                continue
            part_joules = last.joules - first.joules
            part_watts = part_joules / covered
            for index, account in part.inside:
                inner = self._watts_between(start, end, index)
                if inner is None:
                    if account.missed < GONE_AFTER_MISSED:
                        return None
                    continue
                part_watts = max(0.0, part_watts - inner)
            net_joules = part_watts * covered if part.inside else part_joules
            watts += part_watts
            joules += net_joules
            seconds = max(seconds, covered)
            low += last.low_joules - first.low_joules - part_joules + net_joules
            high += last.high_joules - first.high_joules - part_joules + net_joules
        return _Figure(watts, joules, seconds, low, high) if seconds > 0 else None

    @staticmethod
    def _watts_between(start: Closing, end: Closing, index: int) -> float | None:
        first, last = start.balance(index), end.balance(index)
        seconds = last.seconds - first.seconds
        return (last.joules - first.joules) / seconds if seconds > 0 else None

    def _devices(self) -> list[DeviceUsage]:
        start, end = self._start, self._closing
        readings = []
        for index, account in self._composition.accounts:
            first, last = start.balance(index), end.balance(index)
            seconds = last.seconds - first.seconds
            if seconds > 0:
                readings.append(DeviceUsage(account.device, (last.joules - first.joules) / seconds, seconds))
        return readings
