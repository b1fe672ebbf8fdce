"""The seam between the sensor and whatever it reads: four sources, each with `open`, `read` and `close`."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import anyio
from tracarbon.hardwares.energy import Device, DeviceUsage, EnergyUsage, Fidelity, Scope, UsageType
from tracarbon.plugin import PluginContext, Probe

from tracarbon_sensor_macos import _commands
from tracarbon_sensor_macos._channels import Count
from tracarbon_sensor_macos._errors import SourceError
from tracarbon_sensor_macos._ioreg import Accumulated, read_system_power
from tracarbon_sensor_macos._ioreport import EnergyModel
from tracarbon_sensor_macos._powermetrics import Powermetrics, can_run
from tracarbon_sensor_macos.counters import Counters

__all__ = [
    "CommandSource",
    "IOReportSource",
    "IoregSource",
    "PowermetricsSource",
    "Source",
]

_PROBE_SECONDS = 2.0
_OPEN_SECONDS = 2.0
_COMMAND_SECONDS = 4.5
"""A pipeline waits 5 seconds for a reading, and would not say so well what is wrong."""
_WATTS = re.compile(r"(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_CLOSE_SECONDS = 0.5
_HIGHEST_WATTS = 10_000.0
_LATEST_WRITTEN_SECONDS = 60.0
_WAITING = "system: waiting for the I/O registry's sum to move; it is written every 10 to 60 seconds"


class Source(Protocol):
    """Something that tells of energy or power, or why it cannot.

    Attributes:
        name: as in the option `source`.
        fidelity: of its figures.
        method: how they were obtained, in a few words.
    """

    name: str
    fidelity: Fidelity
    method: str

    @property
    def lacks_host(self) -> bool:
        """Whether what it last said is of parts alone, and not of the host."""

    def probe(self) -> Probe:
        """Say whether it would work, within 3 seconds; may block."""

    async def open(self) -> None:
        """Acquire it.

        Raises:
            SourceError: it is not here, or not for this user.
        """

    async def read(self) -> EnergyUsage:
        """Return the watts since the previous reading, or of now.

        Raises:
            SourceError: it could not be read.
        """

    async def close(self) -> None:
        """Release it."""


class IOReportSource:
    """The energy counters of Apple Silicon, for any user.

    Args:
        context: its clock and thread are used.
        core_foundation_path: of the library CoreFoundation.
        ioreport_path: of the library IOReport.
    """

    name = "ioreport"
    fidelity = Fidelity.MEASURED
    method = "IOReport energy counters"

    def __init__(self, context: PluginContext, core_foundation_path: str, ioreport_path: str) -> None:
        self._context = context
        self._model = EnergyModel(core_foundation_path, ioreport_path)
        self._counters = Counters(self.fidelity)

    @property
    def lacks_host(self) -> bool:
        """Whether what it last said is of parts alone."""
        return self._counters.lacks_host

    def probe(self) -> Probe:
        """Read the counters once."""
        try:
            self._model.open()
            labels = [count.label for count in self._model.read()]
        except SourceError as error:
            return _refused(error)
        finally:
            self._model.close()
        return Probe(works=True, reason=f"{self.method}: {', '.join(labels)}", fidelity=self.fidelity)

    async def open(self) -> None:
        """Subscribe to the counters. What is known of them from before is kept, so that no energy is missed."""
        with anyio.move_on_after(_OPEN_SECONDS):
            await self._context.run_blocking(self._model.open)
            return
        raise SourceError(f"IOReport did not answer within {_OPEN_SECONDS:g} s")

    async def read(self) -> EnergyUsage:
        """Return the mean watts since the previous reading."""
        counts, at = await self._context.run_blocking(self._read_at)
        return self._counters.read(counts, at)

    async def close(self) -> None:
        """Give up the subscription; one that hangs is not waited for."""
        with anyio.move_on_after(_CLOSE_SECONDS, shield=True):
            await self._context.run_blocking(self._model.close)

    def _read_at(self) -> tuple[list[Count], float]:
        counts = self._model.read()
        return counts, self._context.clock.monotonic()


class PowermetricsSource:
    """Apple's `powermetrics`, for root.

    By its manual its figures are estimates, hence the fidelity.
    """

    name = "powermetrics"
    fidelity = Fidelity.MODELLED
    method = "powermetrics"

    def __init__(self) -> None:
        self._powermetrics = Powermetrics()
        self._counters = Counters(self.fidelity)
        self._cut_off = 0

    @property
    def lacks_host(self) -> bool:
        """Whether what it last said is of parts alone."""
        return self._counters.lacks_host

    def probe(self) -> Probe:
        """Look whether it is there, and may be run."""
        try:
            can_run()
        except SourceError as error:
            return _refused(error)
        return Probe(works=True, reason=self.method, fidelity=self.fidelity)

    async def open(self) -> None:
        """Start it."""
        await self._powermetrics.open()

    async def read(self) -> EnergyUsage:
        """Return the mean watts since the previous reading, over the time that it says itself."""
        counts = await self._powermetrics.read()
        usage = self._counters.read(counts, self._powermetrics.seconds)
        known, self._cut_off = self._cut_off, self._powermetrics.cut_off
        if self._cut_off > known:
            usage.problems = [*usage.problems, "powermetrics: a sample was cut off; its energy is lost"]
        return usage

    async def close(self) -> None:
        """End it."""
        await self._powermetrics.close()


class IoregSource:
    """The I/O registry: power of the whole machine, where it has a battery.

    Args:
        clock: monotonic seconds.
    """

    name = "ioreg"
    fidelity = Fidelity.ESTIMATED
    lacks_host = False

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._device = Device("system", UsageType.HOST, Scope.WHOLE_MACHINE, fidelity=self.fidelity)
        self._previous: tuple[Accumulated, float] | None = None
        self._has_moved = False
        self.method = "ioreg"

    def probe(self) -> Probe:
        """Read it once."""
        try:
            # `probe` may be called within an event loop, and has to block.
            with ThreadPoolExecutor(1) as thread:
                power = thread.submit(anyio.run, read_system_power, _PROBE_SECONDS).result()
        except SourceError as error:
            return _refused(error)
        return Probe(works=True, reason=f"ioreg: {power.what}", fidelity=self.fidelity)

    async def open(self) -> None:
        """Read it once."""
        await read_system_power()

    async def read(self) -> EnergyUsage:
        """Return the mean watts since the registry was last written, or where it has no sum, those of now."""
        power, at = await read_system_power(), self._clock()
        if power.accumulated is None:
            self.method, self._previous = f"ioreg: {power.what}", None
            return self._whole(power.watts, None)
        self.method = f"ioreg: mean {power.what}"
        return self._mean(power.accumulated, at)

    async def close(self) -> None:
        """Nothing is held between two readings."""

    def _mean(self, now: Accumulated, at: float) -> EnergyUsage:
        previous, self._previous = self._previous, (now, at)
        if previous is None:
            return EnergyUsage()
        (milliwatts, samples), since = previous
        if now.samples == samples or at <= since:
            self._previous = previous  # not written since: the next reading covers this one
            is_usual = self._has_moved and at - since < _LATEST_WRITTEN_SECONDS
            return EnergyUsage(problems=[] if is_usual else [_WAITING])
        self._has_moved = True
        added, number = now.milliwatts - milliwatts, now.samples - samples
        watts = added / number / 1e3
        if number < 0 or not 0 <= watts <= _HIGHEST_WATTS:
            return EnergyUsage(problems=["system: the registry's sum was reset; the energy of its window is lost"])
        return self._whole(watts, at - since)

    def _whole(self, watts: float, window_seconds: float | None) -> EnergyUsage:
        return EnergyUsage(
            host_energy_usage=watts,
            window_seconds=window_seconds,
            devices=[DeviceUsage(self._device, watts, window_seconds)],
        )


class CommandSource:
    """The user's own command, which prints watts.

    Args:
        arguments: the program and its arguments.
    """

    name = "shell_command"
    fidelity = Fidelity.ESTIMATED
    lacks_host = False

    def __init__(self, arguments: Sequence[str]) -> None:
        self._arguments = list(arguments)
        self._name = arguments[0].rpartition("/")[2]
        self._device = Device("system", UsageType.HOST, Scope.WHOLE_MACHINE, fidelity=self.fidelity)
        self._running = anyio.Lock()
        # the arguments may hold a secret
        self.method = f"shell_command: {self._name}"

    def probe(self) -> Probe:
        """It is never among the default options."""
        return Probe(works=True, reason=self.method, fidelity=self.fidelity)

    async def open(self) -> None:
        """Look whether it is there; nothing is held between two readings."""
        _commands.find_program(self._arguments[0])

    async def read(self) -> EnergyUsage:
        """Run it, once one that runs has ended, and return the watts of now."""
        async with self._running:
            output = await _commands.run(self._arguments, timeout_seconds=_COMMAND_SECONDS)
        watts = self._watts(output)
        return EnergyUsage(host_energy_usage=watts, devices=[DeviceUsage(self._device, watts)])

    async def close(self) -> None:
        """Nothing is held between two readings."""

    def _watts(self, output: bytes) -> float:
        text = output.decode("utf-8", "replace").strip()
        watts = float(text) if _WATTS.fullmatch(text) else math.nan
        if not 0 <= watts <= _HIGHEST_WATTS:
            raise SourceError(
                f"{self._name} printed {text[:40]!r}, which is no number of watts",
                "the command has to print watts and nothing else",
            )
        return watts


def _refused(error: SourceError) -> Probe:
    return Probe(works=False, reason=error.reason, remedy=error.remedy)
