"""Apple's `powermetrics`, which only root may run.

It runs as long as the sensor, and is asked for a sample by a signal, SIGINFO. A sample covers the time since the
previous one: no energy is missed between two, and between the readings it costs nothing. With `-i 0` it would take no
sample by itself; but one that never prints outlives a reader that was killed, so it takes one every ten minutes.
"""

from __future__ import annotations

import math
import os
import signal
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from typing import IO, NamedTuple

import anyio
from anyio.abc import Process

from tracarbon_sensor_macos import _commands, _plists
from tracarbon_sensor_macos._channels import Count
from tracarbon_sensor_macos._errors import SourceError

SAMPLE_SIGNAL: int = getattr(signal, "SIGINFO", getattr(signal, "SIGURG", signal.SIGTERM))
"""Where there is no SIGINFO, only stand-ins run; SIGURG is likewise ignored by a program that is not ready yet."""
_NAME = "powermetrics"
_OWN_INTERVAL_MS = 600_000
_ARGUMENTS = ("-f", "plist", "-s", "cpu_power,gpu_power", "-b", "0", "-i", str(_OWN_INTERVAL_MS))
_ANSWER_SECONDS = 4.0
_ASK_AGAIN_SECONDS = 0.25
"""A signal that arrives before it is ready is lost."""
_DOCUMENT_LIMIT_BYTES = 4 * 2**20
_END = b"</plist>"
_MICROJOULES_PER_MILLIJOULE = 1000
_COMPONENTS = {"cpu": "cpu", "gpu": "gpu", "ane": "ane", "dram": "memory"}


def can_run() -> str:
    """Return the path of `powermetrics`, if this user may run it.

    Raises:
        SourceError: it is not there, or the user is not root.
    """
    program = _commands.find_program(_NAME, "/usr/bin")
    if os.geteuid() != 0:
        raise SourceError(f"{_NAME} has to be run as root", "run tracarbon as root")
    return program


class Sample(NamedTuple):
    """What it said of one period.

    Attributes:
        seconds: how long that was.
        millijoules: by component; `package` is the whole chip of an Intel Mac.
    """

    seconds: float
    millijoules: Mapping[str, float]


def parse_sample(data: bytes) -> Sample:
    """Return the energy in one property list.

    Apple Silicon says the mean power of each component in milliwatts, older versions of macOS its energy in
    millijoules; Intel Macs the power of the package in watts, or its energy in joules.

    Raises:
        SourceError: it is no property list, or has no energy in it.
    """
    document = _plists.parse(data, _NAME)
    top = document if isinstance(document, Mapping) else {}
    elapsed_ns, processor = _plists.number(top, "elapsed_ns") or 0.0, _plists.table(top, "processor")
    if elapsed_ns <= 0:
        raise SourceError(f"{_NAME} did not say which time it speaks of")
    seconds = elapsed_ns / 1e9
    found = {
        component: energy
        for name, component in _COMPONENTS.items()
        if (energy := _energy(processor, f"{name}_power", seconds, f"{name}_energy", 1.0)) is not None
    }
    if "cpu" not in found:
        package = _energy(processor, "package_watts", 1e3 * seconds, "package_joules", 1e3)
        found |= {} if package is None else {"package": package}
    if not found:
        raise SourceError(f"{_NAME} said nothing of the power of this machine")
    return Sample(seconds, found)


def _energy(
    processor: Mapping[str, object], power: str, power_factor: float, energy: str, energy_factor: float
) -> float | None:
    """Return millijoules, by the power or else by the energy; one that is negative is unknown."""
    for key, factor in ((power, power_factor), (energy, energy_factor)):
        value = _plists.number(processor, key)
        if value is not None and 0 <= value * factor < math.inf:
            return value * factor
    return None


class Documents:
    """Cuts a stream into property lists, which NUL bytes are between.

    Attributes:
        cut_off: how many have begun and not ended.
    """

    def __init__(self) -> None:
        self._rest = bytearray()
        self.cut_off = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Take what has arrived, and return the property lists that are complete by it.

        Raises:
            SourceError: it is far too much for one.
        """
        found, searched = [], max(0, len(self._rest) - len(_END) + 1)
        self._rest += data
        while (end := self._rest.find(_END, searched)) >= 0:
            *earlier, last = bytes(self._rest[:end]).split(b"\0")
            self.cut_off += sum(1 for one in earlier if one.strip())
            found.append(last.strip() + _END)
            del self._rest[: end + len(_END)]
            searched = 0
        if len(self._rest) > _DOCUMENT_LIMIT_BYTES:
            raise SourceError(f"{_NAME} printed no end of a property list")
        return found


class Powermetrics:
    """A `powermetrics` that runs.

    Attributes:
        seconds: how much time the samples of this run cover.
    """

    def __init__(self) -> None:
        self._process: Process | None = None
        self._errors: IO[bytes] | None = None
        self._runs = 0
        self.seconds = 0.0

    @property
    def cut_off(self) -> int:
        """How many samples of this run have begun and not ended: their energy and their time are missing."""
        return self._documents.cut_off

    async def open(self) -> None:
        """Start it and wait for its first sample.

        Raises:
            SourceError: it cannot be run, by this user, or says nothing.
        """
        await self.close()
        program = can_run()
        try:
            await self._start(program)
            await self._sample_within()
        except BaseException:  # nobody closes what could not be opened, nor what was cancelled on the way
            await self.close()
            raise

    async def read(self) -> list[Count]:
        """Take a sample and return what the counters of this run stand at. One that has ended is started again.

        Raises:
            SourceError: it has ended, or says nothing; the energy since the previous sample is lost.
        """
        if self._process is None:
            await self._start(can_run())
        await self._sample_within()
        return [
            Count(f"{name} {self._runs}", name, "cpu" if name == "package" else name, round(microjoules), 1e6)
            for name, microjoules in self._microjoules.items()
        ]

    async def close(self) -> None:
        """End it."""
        process, self._process = self._process, None
        errors, self._errors = self._errors, None
        if process is not None:
            await _commands.end(process)
        if errors is not None:
            errors.close()

    async def _start(self, program: str) -> None:
        # Not a pipe, which could fill up: it writes a line each time that a sample comes early.
        errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        try:
            self._process = await _commands.start([program, *_ARGUMENTS], errors)
        except BaseException:
            errors.close()
            raise
        self._errors = errors
        self._documents = Documents()
        self._microjoules: dict[str, float] = {}
        self._samples = 0
        self._runs += 1
        self.seconds = 0.0

    async def _sample_within(self) -> None:
        try:
            with anyio.fail_after(_ANSWER_SECONDS):
                await self._sample()
        except TimeoutError:
            await self.close()
            raise SourceError(f"{_NAME} gave no sample within {_ANSWER_SECONDS:g} s") from None
        except SourceError:
            await self.close()
            raise
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            raise await self._ended() from None
        assert self._errors is not None
        self._errors.seek(0)
        self._errors.truncate()

    async def _sample(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        known = self._samples
        while self._samples == known:
            if self._process.returncode is None:
                with suppress(ProcessLookupError):
                    # Not `Process.send_signal`: it polls, and asyncio, which waits for it too, would lose its status.
                    os.kill(self._process.pid, SAMPLE_SIGNAL)
            with anyio.move_on_after(_ASK_AGAIN_SECONDS):
                while self._samples == known:
                    self._take(await self._process.stdout.receive())

    def _take(self, data: bytes) -> None:
        for document in self._documents.feed(data):
            sample = parse_sample(document)
            self._samples += 1
            self.seconds += sample.seconds
            for component, millijoules in sample.millijoules.items():
                known = self._microjoules.get(component, 0.0)
                self._microjoules[component] = known + millijoules * _MICROJOULES_PER_MILLIJOULE

    async def _ended(self) -> SourceError:
        assert self._process is not None
        assert self._errors is not None
        _commands.end_group(self._process)
        code = await self._process.wait()
        self._errors.seek(0)
        said = _commands.quoted(self._errors.read())
        await self.close()
        return SourceError(f"{_NAME} ended with status {code}{said}")
