"""The contract `Location`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from enum import Enum
from typing import Any

from tracarbon.plugin import Plugin, Probe


class CarbonIntensitySource(Enum):
    """Where a carbon intensity comes from."""

    FILE = "file"
    CO2SignalAPI = "CO2SignalAPI"


class Location(Plugin, ABC):
    """Where the machine is, and how much carbon a kilowatt-hour emits there.

    Attributes:
        name: such as `fr`.
        co2g_kwh_source: where the intensity is from.
        co2signal_api_key: key of a live service; never shown.
        co2signal_url: address of a live service.
        co2g_kwh: the latest intensity, in grams of CO2e per kWh.
        co2g_kwh_kind: what the factor is, such as `yearly average`.
        co2g_kwh_date: what time it is of, such as `2024`.
        detected_by: how the location became known, such as `setting` or `time zone`.
    """

    name: str
    co2g_kwh_source: CarbonIntensitySource = CarbonIntensitySource.FILE
    co2signal_api_key: str | None = None
    co2signal_url: str | None = None
    co2g_kwh: float = 0.0
    co2g_kwh_kind: str = ""
    co2g_kwh_date: str = ""
    detected_by: str = "setting"

    @abstractmethod
    async def get_latest_co2g_kwh(self) -> float:
        """Return the latest carbon intensity in grams of CO2e per kWh.

        Raises:
            Exception: when it is not known; the energy of the window then waits for the next call.
        """

    @classmethod
    def probe(cls, context: Any) -> Probe:
        """Say whether the location would work on this machine with its default options. May block; must not hang."""
        return Probe(works=True)
