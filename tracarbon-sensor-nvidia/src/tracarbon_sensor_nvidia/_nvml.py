"""Speaking NVML, the management library of NVIDIA's driver, from threads that may hang in it.

Units are NVML's own: millijoules, milliwatts. Facts are from the NVML API reference: initialisations are counted, GPUs
are attached when a handle is asked for, calls may be made from several threads at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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
"""Not NVML's: a call has not returned."""
NO_CARD = -2
"""Not NVML's: the driver shows no card at all."""

_UNINITIALIZED = 1
_LACKING = (NOT_SUPPORTED, FUNCTION_NOT_FOUND)
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
}


class NvmlFailure(Exception):
    """A call of NVML failed, or did not return.

    Attributes:
        code: NVML's return code, `NO_ANSWER`, `NO_CARD`, or `UNKNOWN` for what is not NVML's.
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
        uuid: `GPU-...`, which stays.
        name: the product's.
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
    """

    def __init__(self, name: str) -> None:
        self._lane = Lane(f"tracarbon-nvidia-{name}")
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
        self._latest = call = self._lane.submit(lambda: self._perform(function))
        self._leaving = None
        return call

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
        has_counter: by UUID, which cards have been found to have an energy counter. It is not asked again: one that
            went from counter to power and back would have the time in between counted twice.
        asks_power: ask for the power in any case.
    """

    def __init__(
        self, index: int, clock: Callable[[], float], has_counter: dict[str, bool], *, asks_power: bool = False
    ) -> None:
        super().__init__(str(index))
        self.index = index
        self.card: Card | None = None
        self._clock = clock
        self._has_counter = has_counter
        self._asks_power = asks_power
        self._handle: Any = None
        self._is_stale = False

    def forget(self) -> None:
        """Ask for the handle again at the next reading: the numbering has changed."""
        self._is_stale = True

    def read(self) -> Call[Reading]:
        """Begin to read the card; not while it `is_busy`."""
        if self._is_stale:
            self._handle, self._is_stale = None, False
        return self.ask(self._read)

    def _read(self, nvml: Any) -> Reading:
        try:
            if self._handle is not None and self.card is not None:
                reading = self._reading(nvml, self.card)
                if _text(nvml.nvmlDeviceGetUUID(self._handle)) == self.card.uuid:
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
        if card.has_counter and not self._asks_power:
            millijoules = nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)
            return Reading(card, self._clock(), millijoules=millijoules)
        milliwatts = nvml.nvmlDeviceGetPowerUsage(self._handle)
        return Reading(card, self._clock(), milliwatts=milliwatts)

    def _identify(self, nvml: Any, handle: Any) -> Card:
        uuid = _text(nvml.nvmlDeviceGetUUID(handle))
        if uuid not in self._has_counter:
            self._has_counter[uuid] = _has_counter(nvml, handle)
        pci = _detail(nvml, nvml.nvmlDeviceGetPciInfo, handle)
        return Card(
            self.index,
            uuid,
            name=_text(_detail(nvml, nvml.nvmlDeviceGetName, handle) or ""),
            bus_id=_text(pci.busId) if pci is not None else "",
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


def _text(text: str | bytes) -> str:
    return text if isinstance(text, str) else text.decode()  # as bindings of 2022 and before leave it


def _max_watts(nvml: Any, handle: Any) -> float | None:
    """Return the highest power limit that can be set, since the one that is set may be changed at any time."""
    limits = _detail(nvml, nvml.nvmlDeviceGetPowerManagementLimitConstraints, handle)
    milliwatts = limits[1] if limits else _detail(nvml, nvml.nvmlDeviceGetEnforcedPowerLimit, handle)
    return milliwatts / 1000 if milliwatts else None


def _detail(nvml: Any, function: Callable[[Any], Any], handle: Any) -> Any:
    """Return what a card can be read without; where it does not say, `None`."""
    try:
        return function(handle)
    except nvml.NVMLError:
        return None
