"""Facts about this machine, for whoever asks without a pipeline."""

from __future__ import annotations

import threading
import time

import psutil

from tracarbon.hardwares.cpu_load import cpu_seconds, utilisation
from tracarbon.hardwares.gpu import GPUInfo
from tracarbon.plugin import platform_name

_FIRST_SECONDS = 0.1


class HardwareInfo:
    """Hardware information."""

    @staticmethod
    def get_platform() -> str:
        """Return the name of the platform: `Linux`, `Darwin` or `Windows`."""
        return platform_name()

    @staticmethod
    def get_number_of_cores(logical: bool = True) -> int:
        """Return the number of processor cores.

        Args:
            logical: count every hardware thread. Where the system does not tell the physical cores, as in many virtual
                machines, the logical ones are counted all the same.
        """
        return psutil.cpu_count(logical=logical) or psutil.cpu_count() or 1

    @staticmethod
    def get_cpu_usage(interval: float | None = None) -> float:
        """Return the load of all processors together, in per cent, from 0 to 100.

        Args:
            interval: measure for so many seconds, during which the call blocks. Without it, the mean since the previous
                call without, whichever thread made it; the first such call measures for a tenth of a second.

        Raises:
            ValueError: the interval is negative.
        """
        return _load.measured(interval) if interval else _load.since_previous_call()

    @staticmethod
    def get_memory_total() -> float:
        """Return the physical memory, in bytes."""
        return float(psutil.virtual_memory().total)

    @staticmethod
    def get_memory_usage() -> float:
        """Return how much of the memory is in use and cannot be had without swapping, in per cent, from 0 to 100."""
        return float(psutil.virtual_memory().percent)

    @classmethod
    def get_gpu_power_usage(cls) -> float:
        """Return the watts that the graphics processors draw now, all together.

        Raises:
            HardwareNoGPUDetectedException: there is none, or none can be read; it is never 0 W instead.
        """
        return GPUInfo.get_gpu_power_usage()


class _Load:
    """The load of the processors; one state for all threads, none of which starts from nothing."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._previous: tuple[float, float] | None = None
        self._percent = 0.0

    def measured(self, seconds: float) -> float:
        before = cpu_seconds()
        time.sleep(seconds)
        return 100 * (utilisation(before, cpu_seconds()) or 0.0)

    def since_previous_call(self) -> float:
        with self._lock:
            if self._previous is None:
                self._previous = cpu_seconds()
                time.sleep(_FIRST_SECONDS)
            counted = cpu_seconds()
            load = utilisation(self._previous, counted)
            if load is not None:  # the counters do not move between two calls that follow closely
                self._previous, self._percent = counted, 100 * load
            return self._percent


_load = _Load()
