"""Speaking NVML, the management library of NVIDIA's driver, from threads that may hang in it.

Units are NVML's own: millijoules, milliwatts. Facts are from the NVML API reference: initialisations are counted, GPUs
are attached when a handle is asked for, calls may be made from several threads at once.
"""

from __future__ import annotations

import ctypes
import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from tracarbon_sensor_nvidia._lane import Call, Lane

T = TypeVar("T")

NOT_SUPPORTED = 3
NO_PERMISSION = 4
DRIVER_NOT_LOADED = 9
LIBRARY_NOT_FOUND = 12
FUNCTION_NOT_FOUND = 13
GPU_IS_LOST = 15
RESET_REQUIRED = 16
VERSION_MISMATCH = 18
GPU_NOT_FOUND = 28
UNKNOWN = 999
NO_ANSWER = -1
"""Not NVML's: a call has not returned for long."""
LATE = -3
"""Not NVML's: a call has not returned yet."""
NO_CARD = -2
"""Not NVML's: the driver shows no card at all."""

_HANGING_SECONDS = 5.0
"""A call that takes longer hangs, as far as anybody can tell."""
_UNINITIALIZED = 1
_LACKING = (NOT_SUPPORTED, FUNCTION_NOT_FOUND)
_UNREADABLE = "\ufffd"
_WITHOUT_GPUS = 1
"""NVML_INIT_FLAG_NO_GPUS: that there is no card is for `nvmlDeviceGetCount` to say."""

_KERNEL_LOG = "The kernel log (dmesg) says more, in lines with Xid."
_EXPLANATIONS = {
    NO_PERMISSION: (
        "no permission",
        "Let the user read and write /dev/nvidiactl and /dev/nvidia*; a container has to be given the card.",
    ),
    DRIVER_NOT_LOADED: (
        "the NVIDIA driver is not loaded",
        "Load the kernel module nvidia (modprobe nvidia); after an installation or an update, restart the machine.",
    ),
    LIBRARY_NOT_FOUND: (
        "there is no NVIDIA driver: libnvidia-ml.so.1 is not found",
        "Install the NVIDIA driver. A container needs the NVIDIA Container Toolkit (docker run --gpus all) and "
        "NVIDIA_DRIVER_CAPABILITIES=utility.",
    ),
    FUNCTION_NOT_FOUND: ("the NVIDIA driver is too old", "Update the driver."),
    GPU_IS_LOST: ("the card is lost: it has fallen off the bus", f"Reset it or restart the machine. {_KERNEL_LOG}"),
    RESET_REQUIRED: ("the card has to be reset", f"Reset it or restart the machine. {_KERNEL_LOG}"),
    VERSION_MISMATCH: (
        "the driver's library and its kernel module are of different versions",
        "Restart the machine, or load the kernel module anew.",
    ),
    GPU_NOT_FOUND: ("the card is no longer there", _KERNEL_LOG),
    NO_CARD: (
        "the NVIDIA driver shows no card",
        "Look whether the machine does (lspci -d 10de:); a container has to be given the card.",
    ),
    NO_ANSWER: ("it does not answer: a call of the driver hangs", _KERNEL_LOG),
    LATE: ("it does not answer in time: what it says counts with a later reading", _KERNEL_LOG),
}


class NvmlFailure(Exception):
    """A call of NVML failed, or did not return.

    Attributes:
        code: NVML's return code, `NO_ANSWER`, `LATE`, `NO_CARD`, or `UNKNOWN` for what is not NVML's.
        reason: what is wrong.
        remedy: what the user would have to do; empty where nobody knows.
    """

    def __init__(self, code: int, reason: str, remedy: str = "") -> None:
        super().__init__(code, reason, remedy)
        self.code = code
        self.reason = reason
        self.remedy = remedy

    def __str__(self) -> str:
        return ". ".join(filter(None, (self.reason, self.remedy.rstrip("."))))


def explain(code: int, text: str = "") -> NvmlFailure:
    """Return the failure of a code, or of NVML's own `text` where there is no more to say."""
    return NvmlFailure(code, *_EXPLANATIONS.get(code, (f"NVML says: {text or code}",)))


@dataclass(frozen=True, slots=True)
class Card:
    """A graphics card; MIG instances are parts of one, and none themselves.

    Attributes:
        index: its number in NVML, which may change when cards come and go.
        uuid: `GPU-...`, which stays; of a card that does not say it, its bus id, or where it is.
        name: the product's; empty where it is not known.
        bus_id: such as `00000000:65:00.0`; empty where it is not known.
        max_watts: the highest power limit that it takes, or the one it keeps to.
        has_counter: whether it has an energy counter (Volta and later), or only tells its power.
    """

    index: int
    uuid: str
    name: str = ""
    bus_id: str = ""
    max_watts: float | None = None
    has_counter: bool = True

    @property
    def has_uuid(self) -> bool:
        """Whether `uuid` is one."""
        return self.uuid.startswith("GPU-")

    def __str__(self) -> str:
        return f"card {self.index} ({', '.join(filter(None, (self.name, self.uuid)))})"


@dataclass(frozen=True, slots=True)
class Reading:
    """What a card said.

    Attributes:
        at: the monotonic second.
        millijoules: the energy counter, since the driver was loaded; `None` where only the power was asked.
        milliwatts: the power; of Ampere cards (but GA100) and later the mean of the last second.
    """

    card: Card
    at: float
    millijoules: int | None = None
    milliwatts: int | None = None


class NvmlThread:
    """A thread that holds NVML initialised from its first call on until it leaves.

    NVML counts initialisations: it is shut down when the last thread has left, and a thread that hangs in a call keeps
    it open until that call returns.

    Args:
        name: of the thread.
        clock: monotonic seconds.
    """

    def __init__(self, name: str, clock: Callable[[], float]) -> None:
        self._lane = Lane(f"tracarbon-nvidia-{name}")
        self._clock = clock
        self._asked_at = 0.0
        self._latest: Call[Any] | None = None
        self._leaving: Call[None] | None = None
        self._is_attached = False

    @property
    def is_busy(self) -> bool:
        """Whether a call has not returned yet."""
        return self._latest is not None and not self._latest.is_done

    def ask(self, function: Callable[[Any], T]) -> Call[T]:
        """Have `function` called in the thread with the module pynvml; not while it `is_busy`.

        The call raises `NvmlFailure` where NVML does not do as it is asked.
        """
        self._asked_at = self._clock()
        self._latest = call = self._lane.submit(lambda: self._perform(function))
        self._leaving = None
        return call

    @property
    def silence(self) -> NvmlFailure:
        """Why the call that was asked for last has not returned: it takes its time, or it hangs."""
        return explain(LATE if self._clock() - self._asked_at < _HANGING_SECONDS else NO_ANSWER)

    def leave(self) -> Call[None] | None:
        """Let NVML go and the thread end, as soon as it is not busy; returns what can be waited for.

        Whether NVML could be shut down is nobody's concern: what is not initialised need not be.
        """
        if self._latest is not None and self._leaving is None:
            self._latest = self._leaving = self._lane.submit(self._detach)
            self._lane.end()
        return self._leaving

    def _perform(self, function: Callable[[Any], T]) -> T:
        nvml = _library()
        try:
            if not self._is_attached:
                nvml.nvmlInitWithFlags(_WITHOUT_GPUS)
                self._is_attached = True
            return function(nvml)
        except nvml.NVMLError as error:
            # Somebody else in this process has shut it down once too often.
            self._is_attached = self._is_attached and error.value != _UNINITIALIZED
            raise explain(error.value, str(error)) from error

    def _detach(self) -> None:
        if self._is_attached:
            self._is_attached = False
            _library().nvmlShutdown()


def _library() -> Any:
    # An import costs; nobody has to pay for it before there is something to be read.
    import pynvml  # type: ignore[import-untyped]

    return pynvml


class Slot(NvmlThread):
    """The place of a card in NVML's numbering, with a thread of its own.

    Args:
        index: the number.
        clock: monotonic seconds.
        has_counter: by UUID, which cards have been found to have an energy counter. One that has none, or no longer,
            is not asked again: going back from power to counter would have the time in between counted twice.
        asks_power: ask for the power in any case.
    """

    def __init__(
        self, index: int, clock: Callable[[], float], has_counter: dict[str, bool], *, asks_power: bool = False
    ) -> None:
        super().__init__(str(index), clock)
        self.index = index
        self.card: Card | None = None
        self._has_counter = has_counter
        self._asks_power = asks_power
        self._handle: Any = None
        self._is_stale = False

    def forget(self) -> None:
        """Ask for the handle again at the next reading: the numbering has changed."""
        self._is_stale = True

    @property
    def silence(self) -> NvmlFailure:
        """Why it has not answered; of one of which nothing is known yet, nothing is promised either."""
        return explain(NO_ANSWER) if self.card is None else super().silence

    def read(self) -> Call[Reading]:
        """Begin to read the card; not while it `is_busy`."""
        if self._is_stale:
            self._handle, self._is_stale = None, False
        return self.ask(self._read)

    def _read(self, nvml: Any) -> Reading:
        try:
            if self._handle is not None and self.card is not None:
                reading = self._reading(nvml, self.card)
                if _is_still(nvml, self._handle, self.card):
                    return reading
            # There is no handle, or it leads to another card since cards have come or gone.
            handle = nvml.nvmlDeviceGetHandleByIndex(self.index)
            self.card = self._identify(nvml, handle)
            self._handle = handle
            return self._reading(nvml, self.card)
        except nvml.NVMLError:
            self._handle = None  # that of a card that was away may lead nowhere
            raise

    def _reading(self, nvml: Any, card: Card) -> Reading:
        if not card.has_counter or self._asks_power:
            return self._power(nvml, card)
        try:
            millijoules = nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)
        except nvml.NVMLError as error:
            if error.value not in _LACKING:
                raise
            # It had one before; without a power either, it is not known to have lost it.
            reading = self._power(nvml, replace(card, has_counter=False))
            self._has_counter[card.uuid], self.card = False, reading.card
            return reading
        return Reading(card, self._clock(), millijoules=millijoules)

    def _power(self, nvml: Any, card: Card) -> Reading:
        milliwatts = nvml.nvmlDeviceGetPowerUsage(self._handle)
        return Reading(card, self._clock(), milliwatts=milliwatts)

    def _identify(self, nvml: Any, handle: Any) -> Card:
        bus_id = _bus_id(nvml, handle)
        uuid = _uuid(nvml, handle) or bus_id or f"index-{self.index}"
        if uuid not in self._has_counter:
            self._has_counter[uuid] = _has_counter(nvml, handle)
        return Card(
            self.index,
            uuid,
            name=_readable(_detail(nvml, nvml.nvmlDeviceGetName, handle)),
            bus_id=bus_id,
            max_watts=_max_watts(nvml, handle),
            has_counter=self._has_counter[uuid],
        )

    def _detach(self) -> None:
        self._handle = None
        super()._detach()


def _has_counter(nvml: Any, handle: Any) -> bool:
    try:
        nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except nvml.NVMLError as error:
        if error.value not in _LACKING:
            raise
        return False
    return True


def _is_still(nvml: Any, handle: Any, card: Card) -> bool:
    """Whether a handle leads to the card that it was got for."""
    uuid = _uuid(nvml, handle)
    if uuid is None or not card.has_uuid:
        return _bus_id(nvml, handle) == card.bus_id
    return uuid == card.uuid


def _uuid(nvml: Any, handle: Any) -> str | None:
    """Return the UUID; `None` where the card has none, or one that is no text."""
    try:
        uuid = _raw(nvml.nvmlDeviceGetUUID)(handle)
    except nvml.NVMLError as error:
        if error.value not in _LACKING:
            raise
        return None
    text = _readable(uuid)
    return text if text and _UNREADABLE not in text else None


def _bus_id(nvml: Any, handle: Any) -> str:
    pci = _detail(nvml, nvml.nvmlDeviceGetPciInfo, handle)
    # Past the binding, which decodes whatever it is.
    return "" if pci is None else _readable(ctypes.Structure.__getattribute__(pci, "busId"))


def _raw(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of the binding that gives bytes as they are, and does not fail where they are no UTF-8."""
    raw: Callable[..., Any] = inspect.unwrap(function)
    return raw


def _readable(text: str | bytes | None) -> str:
    """Return text with whatever is none of it, or would do something to a terminal, replaced."""
    decoded = text.decode(errors="replace") if isinstance(text, bytes) else text or ""
    return "".join(c if c.isprintable() else _UNREADABLE for c in decoded.strip())


def _max_watts(nvml: Any, handle: Any) -> float | None:
    """Return the highest power limit that can be set, since the one that is set may be changed at any time."""
    limits = _detail(nvml, nvml.nvmlDeviceGetPowerManagementLimitConstraints, handle)
    milliwatts = limits[1] if limits else _detail(nvml, nvml.nvmlDeviceGetEnforcedPowerLimit, handle)
    return milliwatts / 1000 if milliwatts else None


def _detail(nvml: Any, function: Callable[[Any], Any], handle: Any) -> Any:
    """Return what a card can be read without; where it does not say, `None`."""
    try:
        return _raw(function)(handle)
    except nvml.NVMLError:
        return None
