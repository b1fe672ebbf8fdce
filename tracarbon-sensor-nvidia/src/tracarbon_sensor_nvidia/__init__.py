"""Energy counters of NVIDIA graphics cards: the sensor `nvidia` of tracarbon.

Each card is an extra device: no processor package contains it, so that it adds to the host. Cards with an energy
counter (Volta and later) give the mean power since the previous reading; of others the power is sampled, and integrated
by the meter. Cards that are lost, hang or may not be read are named, and the others go on without them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import field
from types import TracebackType
from typing import Any, ClassVar, Self

from pydantic import Field, field_validator
from tracarbon.exceptions import HardwareNoGPUDetectedException
from tracarbon.hardwares.counter import EnergyCounter
from tracarbon.hardwares.energy import Device, DeviceUsage, EnergyUsage, Fidelity, Scope, UsageType
from tracarbon.hardwares.gpu import GPUInfo
from tracarbon.hardwares.sensors import Sensor
from tracarbon.plugin import PluginContext, PluginOptions, Probe

from tracarbon_sensor_nvidia._cards import Cards, Silence, Survey
from tracarbon_sensor_nvidia._nvml import LATE, NO_CARD, Card, NvmlFailure, Reading, explain
from tracarbon_sensor_nvidia._selection import Selection, SelectionError, problem_of

__all__ = ["NvidiaGPU", "NvidiaSensor"]

_MILLIJOULES_PER_JOULE = 1000
_OPEN_SECONDS = 8.0
"""Without persistence mode, the driver takes seconds to wake a card that nobody uses."""
_PROBE_SECONDS = 2.2
_POWER_SECONDS = 5.0
_NO_COUNTER = "its energy counter is not supported any more; its power is sampled, and the energy of a window is lost"
_FOLDER = "proc/driver/nvidia/gpus"

_probed = Cards()
_powered = Cards(asks_power=True)


class _Account:
    """A card as the meter knows it, and what its counter stood at."""

    __slots__ = ("card", "counter", "device", "joules", "power", "seconds")

    def __init__(self, card: Card) -> None:
        self.card = card
        self.counter = EnergyCounter(counts_per_joule=_MILLIJOULES_PER_JOULE, max_watts=card.max_watts)
        self.device = _device(card)
        self.begin()

    def begin(self) -> None:
        """Begin a reading of the sensor."""
        self.joules = self.seconds = 0.0
        self.power: float | None = None

    def take(self, reading: Reading) -> str | None:
        """Add what the card said; returns what is lost of it, for humans."""
        known = self.card
        if reading.card != known:
            self.card, self.device = reading.card, _device(reading.card)
        if reading.milliwatts is not None:
            self.power = reading.milliwatts / 1000
            if known.has_counter and not reading.card.has_counter:
                return f"{self.card}: {_NO_COUNTER}"
        if reading.millijoules is None:
            return None
        delta = self.counter.update(reading.millijoules, reading.at)
        if delta is not None:
            self.joules += delta.joules
            self.seconds += delta.seconds
        elif self.counter.lost is not None:
            return f"{self.card}: {self.counter.lost}; the energy of its window is lost"
        return None

    @property
    def usage(self) -> DeviceUsage | None:
        """What came of the reading; `None` where it is not known."""
        if self.seconds > 0:
            return DeviceUsage(self.device, self.joules / self.seconds, self.seconds)
        return DeviceUsage(self.device, self.power) if self.power is not None else None


def _device(card: Card) -> Device:
    tags = (("index", str(card.index)), ("uuid", card.uuid), ("name", card.name))
    return Device(card.uuid, UsageType.GPU, Scope.EXTRA, tags=tags)


class NvidiaSensor(Sensor):
    """Energy of NVIDIA graphics cards, by the driver's own library (NVML).

    Attributes:
        devices: the cards to read, by index, UUID (or its beginning) or PCI bus id; none stands for all. Each stands
            for the card that it matched first, also when the numbering changes.
        context: what the pipeline offers; left out, the sensor makes one of its own.
    """

    fidelity: ClassVar[Fidelity] = Fidelity.MEASURED
    scope: ClassVar[Scope] = Scope.EXTRA
    # For the cards that tell their power alone.
    sampling_interval_seconds: ClassVar[float] = 5.0

    devices: list[int | str] = field(default_factory=list)
    context: PluginContext | None = None

    class Options(PluginOptions):
        """Options of `[sensors.nvidia]`."""

        devices: list[int | str] | None = Field(
            default=None,
            min_length=1,
            description="cards to read, by index, UUID (or its beginning) or PCI bus id (65:00.0); default: all",
        )

        @field_validator("devices", mode="before")
        @classmethod
        def _check_devices(cls, devices: object) -> object:
            if isinstance(devices, list) and (problems := [*filter(None, map(problem_of, devices))]):
                raise ValueError("; ".join(problems))
            return devices

    def __post_init__(self) -> None:
        self._is_context_mine = self.context is None
        self._context = self.context or PluginContext("nvidia")
        self._cards = Cards(clock=self._context.clock.monotonic, folder=self._context.host_root / _FOLDER)
        self._selection = Selection(self.devices)
        self._accounts: dict[str, _Account] = {}

    @classmethod
    def from_options(cls, options: Any, context: PluginContext) -> Self:
        """Construct it with the pipeline's clock and thread."""
        return cls(devices=options.devices or [], context=context)

    @classmethod
    def probe(cls, context: Any) -> Probe:
        """Look which cards there are, and whether they can be read."""
        try:
            survey = _probed.once(_PROBE_SECONDS)
            cards = _cards_of(survey)
            if not cards:
                raise _reason_of(survey.silences)
        except NvmlFailure as failure:
            return Probe(works=False, reason=failure.reason, remedy=failure.remedy)
        said = [f"{card}, by its {'energy counter' if card.has_counter else 'power'}" for card in cards]
        return Probe(works=True, reason="; ".join([*said, *map(str, survey.silences)]), fidelity=cls.fidelity)

    async def __aenter__(self) -> Self:
        """Find the cards.

        Raises:
            HardwareNoGPUDetectedException: there is none, one that is asked for is not there, or none can be read; says
                why, and what would help.
        """
        try:
            survey = await self._context.run_blocking(self._cards.open, _OPEN_SECONDS)
            self._check(survey)
        except BaseException as error:
            await self._leave()
            if isinstance(error, NvmlFailure | SelectionError):
                raise HardwareNoGPUDetectedException(str(error)) from error
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Let go of the cards; what their counters stood at is kept for the next entry."""
        await self._leave()

    async def get_energy_usage(self) -> EnergyUsage:
        """Return the mean watts of each card since the previous call, or its power now where it has no counter.

        Cards that could not be read, and energy that is lost, are named in `problems`.

        Raises:
            HardwareNoGPUDetectedException: none can be read any more; says why, and what would help.
        """
        try:
            survey = await self._context.run_blocking(self._cards.read)
            self._selection.match(_cards_of(survey))
            return self._usage(survey)
        except (NvmlFailure, SelectionError) as error:
            raise HardwareNoGPUDetectedException(str(error)) from error

    async def _leave(self) -> None:
        await self._context.run_blocking(self._cards.close)
        if self._is_context_mine:
            self._context.close()

    def _check(self, survey: Survey) -> None:
        """See that what is asked for is there; what cannot be told yet may still turn up."""
        cards = _cards_of(survey)
        self._selection.match(cards)
        if survey.trouble is None and all(silence.card is not None for silence in survey.silences):
            self._selection.require_all(cards)
        if not any(self._selection.has(card) for card in cards):
            raise _reason_of(self._silences(survey))

    def _silences(self, survey: Survey) -> list[Silence]:
        """Return the silences that matter to the user."""
        return [
            silence
            for silence in survey.silences
            if (self._selection.has(silence.card) if silence.card else self._selection.may_have(silence.index))
        ]

    def _usage(self, survey: Survey) -> EnergyUsage:
        silences = self._silences(survey)
        readings = [reading for reading in survey.readings if self._selection.has(reading.card)]
        if not readings and not any(silence.failure.code == LATE for silence in silences):
            raise _reason_of(silences)
        lost = self._take(readings)
        problems = [*lost, *_problems_of(silences)]
        if survey.trouble is not None:
            problems.append(f"the number of cards: {survey.trouble.reason}")
        places = {silence.index for silence in silences}
        if missing := [selector for selector in self._selection.unmatched if selector not in places]:
            problems.append(f"not found so far: {', '.join(map(repr, missing))}")
        return self._put_together(problems, [*self._never_read(silences), *missing])

    def _never_read(self, silences: Iterable[Silence]) -> list[int]:
        """Return where the cards are that are meant for sure, and that no figure has anything of."""
        unmatched = self._selection.unmatched
        unread = [silence for silence in silences if silence.card is None or silence.card.uuid not in self._accounts]
        return sorted({it.index for it in unread if it.card or not self.devices or it.index in unmatched})

    def _take(self, readings: Iterable[Reading]) -> list[str]:
        for account in self._accounts.values():
            account.begin()
        lost = []
        for reading in readings:
            account = self._accounts.get(reading.card.uuid) or _Account(reading.card)
            self._accounts[reading.card.uuid] = account
            lost.append(account.take(reading))
        return [text for text in lost if text is not None]

    def _put_together(self, problems: list[str], never_read: list[int | str]) -> EnergyUsage:
        usages = [account.usage for account in self._accounts.values()]
        devices = [usage for usage in usages if usage is not None]
        windows = [usage.window_seconds for usage in devices if usage.window_seconds is not None]
        return EnergyUsage(
            # For whoever reads the sensor without a meter; a sum of some of the cards would be taken for all of them.
            gpu_energy_usage=None if problems or len(devices) < len(usages) else sum(usage.watts for usage in devices),
            window_seconds=max(windows) if len(windows) == len(devices) > 0 else None,
            devices=devices,
            method=self._method(never_read),
            problems=problems,
        )

    def _method(self, never_read: list[int | str]) -> str:
        cards = [account.card for account in self._accounts.values()]
        sampled = sorted(card.index for card in cards if not card.has_counter)
        method = "nvml-power" if sampled and len(sampled) == len(cards) else "nvml-counter"
        if 0 < len(sampled) < len(cards):
            method += f", nvml-power of {', '.join(map(str, sampled))}"
        return method + (f", without card {', '.join(map(repr, never_read))}" if never_read else "")


def _cards_of(survey: Survey) -> list[Card]:
    return list({reading.card.uuid: reading.card for reading in survey.readings}.values())


def _problems_of(silences: Iterable[Silence]) -> list[str]:
    """Say which cards could not be read, why, and, once for each reason, what would help."""
    by_code: dict[int, list[Silence]] = {}
    for silence in silences:
        by_code.setdefault(silence.failure.code, []).append(silence)
    return [str(_reason_of(alike)) for alike in by_code.values()]


def _reason_of(silences: Sequence[Silence]) -> NvmlFailure:
    """Return why nothing could be read."""
    if not silences:
        return explain(NO_CARD)
    failure = silences[0].failure
    return NvmlFailure(failure.code, "; ".join(map(str, silences)), failure.remedy)


class NvidiaGPU(GPUInfo):
    """The power of NVIDIA graphics cards, for whoever asks without a pipeline."""

    @classmethod
    def get_gpu_power_usage(cls) -> float:
        """Return the watts that the cards draw now, all together; blocks for up to five seconds.

        Raises:
            HardwareNoGPUDetectedException: there is no card or no driver, or one of the cards cannot be read: what is
                not known is neither 0 W nor the sum of the others.
        """
        try:
            return sum(_milliwatts().values()) / 1000
        except NvmlFailure as failure:
            raise HardwareNoGPUDetectedException(str(failure)) from failure

    @classmethod
    def launch_shell_command(cls) -> tuple[bytes, int]:
        """Return the watts of each card, one a line (`250.50 W`), and 0; or the reason why not, and NVML's return code.

        No shell and no program is started: NVML is asked, whose return codes are those of `nvidia-smi`. 255 stands for
        an error that has none.
        """
        try:
            lines = [f"{milliwatts / 1000:.2f} W\n" for milliwatts in _milliwatts().values()]
        except NvmlFailure as failure:
            return f"{failure}\n".encode(), failure.code if failure.code > 0 else 255
        return "".join(lines).encode(), 0


def _milliwatts() -> dict[str, int]:
    """Return the power of every card, by UUID."""
    survey = _powered.once(_POWER_SECONDS)
    if survey.trouble is not None:
        raise survey.trouble
    if survey.silences or not survey.readings:
        raise _reason_of(survey.silences)
    return {reading.card.uuid: reading.milliwatts or 0 for reading in survey.readings}
