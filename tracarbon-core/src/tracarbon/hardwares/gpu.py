"""The power of graphics processors, for whoever asks without a pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracarbon._forwarding import forward
from tracarbon.exceptions import HardwareNoGPUDetectedException

if TYPE_CHECKING:
    from tracarbon_sensor_nvidia import NvidiaGPU as NvidiaGPU

__getattr__ = forward(__name__, {"NvidiaGPU": "tracarbon-sensor-nvidia"})


class GPUInfo:
    """GPU information."""

    @classmethod
    def get_gpu_power_usage(cls) -> float:
        """Return the watts that the graphics processors draw now, all together.

        Raises:
            HardwareNoGPUDetectedException: there is none, or none can be read; it is never 0 W instead.
        """
        try:
            gpu: type[GPUInfo] = __getattr__("NvidiaGPU")
        except ImportError as error:
            raise HardwareNoGPUDetectedException(f"no GPU can be read: {error}") from None
        return gpu.get_gpu_power_usage()
