"""What the I/O registry says of the power of the whole machine: of its power controller, adapter or battery.

The controller writes into the registry every 10 to 60 seconds. What it writes is one sample, and beside it, on newer
machines, the sum and the number of all the samples so far, of which the mean between two readings is made.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

from tracarbon_sensor_macos import _commands, _plists
from tracarbon_sensor_macos._errors import SourceError

_NAME = "ioreg"
_ARGUMENTS = ("-a", "-r", "-w0", "-c", "AppleSmartBattery")
_TIMEOUT_SECONDS = 3.0
_HIGHEST_WATTS = 1000.0
"""The largest adapter of a Mac with a battery has 140 W."""
_LOWEST_MEAN_MILLIWATTS = 100.0
"""A sum whose mean since the start is below this, or above what a machine draws, is of another unit."""


class Accumulated(NamedTuple):
    """The power controller's own sum.

    Attributes:
        milliwatts: the sum of all its samples.
        samples: how many these are.
    """

    milliwatts: int
    samples: int


class SystemPower(NamedTuple):
    """What the registry says.

    Attributes:
        watts: the latest sample.
        what: what that is the power of, for humans.
        accumulated: the sum of all samples, where there is one.
    """

    watts: float
    what: str
    accumulated: Accumulated | None = None


async def read_system_power(timeout_seconds: float = _TIMEOUT_SECONDS) -> SystemPower:
    """Run `ioreg` and return what it says of the power of the machine.

    Raises:
        SourceError: it cannot be run, or says nothing of it.
    """
    program = _commands.find_program(_NAME, "/usr/sbin")
    return parse_system_power(await _commands.run([program, *_ARGUMENTS], timeout_seconds=timeout_seconds))


def parse_system_power(data: bytes) -> SystemPower:
    """Return the power in what `ioreg -a -r -c AppleSmartBattery` printed.

    In this order: the system's load; what comes in from the adapter; what the battery gives while no adapter is there.
    `AdapterDetails` has what the adapter could give, and says nothing of what it does.

    Raises:
        SourceError: it is no property list, there is no battery, or none of the fields is filled.
    """
    if not data.strip():
        raise SourceError("ioreg knows of no battery, and so of no power of the machine")
    document = _plists.parse(data, _NAME)
    entries = document if isinstance(document, list) else [document]
    battery = next((entry for entry in entries if isinstance(entry, Mapping)), {})
    power = _of_controller(battery) or _of_adapter(battery) or _of_battery(battery)
    if power is None:
        raise SourceError(
            "ioreg shows no power: the fields of the battery are empty, as on macOS 15.2, or this Mac has none"
        )
    return power


def _of_controller(battery: Mapping[str, Any]) -> SystemPower | None:
    inner = _plists.table(battery, "BatteryData")
    telemetry = _plists.table(battery, "PowerTelemetryData") or _plists.table(inner, "PowerTelemetryData")
    load = _watts(telemetry, "SystemLoad", 1e3)
    if load is not None:
        return SystemPower(load, "system load", _accumulated(telemetry))
    incoming = _watts(telemetry, "SystemPowerIn", 1e3)
    return None if incoming is None else SystemPower(incoming, "power from the adapter")


def _accumulated(telemetry: Mapping[str, Any]) -> Accumulated | None:
    total, samples = telemetry.get("AccumulatedSystemLoad"), telemetry.get("SystemLoadAccumulatorCount")
    if type(total) is not int or type(samples) is not int or samples <= 0:
        return None
    is_milliwatts = _LOWEST_MEAN_MILLIWATTS * samples <= total <= _HIGHEST_WATTS * 1e3 * samples
    return Accumulated(total, samples) if is_milliwatts else None


def _of_adapter(battery: Mapping[str, Any]) -> SystemPower | None:
    """Where it is filled, AdapterPower is watts: a float, whose bits are given as an integer."""
    value = _plists.table(battery, "BatteryData").get("AdapterPower")
    if type(value) is int and 0 <= value < 2**32:
        [value] = struct.unpack("<f", value.to_bytes(4, "little"))
    watts = _watts({"watts": value}, "watts", 1.0)
    return None if watts is None else SystemPower(watts, "power from the adapter")


def _of_battery(battery: Mapping[str, Any]) -> SystemPower | None:
    """Volts x amperes, where nothing is plugged in; a current out of the battery is negative."""
    if battery.get("ExternalConnected") is not False:
        return None
    millivolts = _plists.number(battery, "Voltage")
    milliamperes = _signed(battery.get("InstantAmperage")) or _signed(battery.get("Amperage"))
    if millivolts is None or milliamperes is None:
        return None
    watts = _watts({"watts": -milliamperes * millivolts}, "watts", 1e6)
    return None if watts is None else SystemPower(watts, "power from the battery")


def _signed(value: object) -> int | None:
    """Return a number that is printed as 64 bits without sign."""
    if type(value) is not int or not -(2**63) <= value < 2**64:
        return None
    return value - 2**64 if value >= 2**63 else value


def _watts(fields: Mapping[str, Any], key: str, per_watt: float) -> float | None:
    """Return the watts under a key; a machine that runs draws more than none, so 0 stands for unknown."""
    value = _plists.number(fields, key)
    return value / per_watt if value is not None and 0 < value / per_watt <= _HIGHEST_WATTS else None
