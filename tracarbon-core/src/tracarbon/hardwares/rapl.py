"""The documented home of the RAPL names, which live in tracarbon-sensor-rapl."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracarbon._forwarding import forward

if TYPE_CHECKING:
    from tracarbon_sensor_rapl import RAPL as RAPL
    from tracarbon_sensor_rapl import RAPLResult as RAPLResult

__getattr__ = forward(__name__, {"RAPL": "tracarbon-sensor-rapl", "RAPLResult": "tracarbon-sensor-rapl"})
