"""The contract `Location`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from enum import Enum
from typing import Any

from tracarbon._text import Secret
from tracarbon.plugin import Plugin, Probe


class CarbonIntensitySource(Enum):
    """Where a carbon intensity comes from."""

    FILE = "file"
    """The yearly average in the table that is part of tracarbon."""
    CO2SignalAPI = "CO2SignalAPI"
    """Live, of Electricity Maps or the service that the settings name."""
    GREAT_BRITAIN = "carbonintensity.org.uk"
    """Live, of the national API of Great Britain."""
    LAST_KNOWN = "last known"
    """Of a live service that does not answer any more; less than a day old."""
    STATIC = "static"
    """What the user says."""


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

    @property
    def known_co2g_kwh(self) -> float | None:
        """The latest intensity, in grams of CO2e per kWh; `None` before there was one."""
        return self.co2g_kwh if self.co2g_kwh or self.co2g_kwh_kind else None

    def tags(self) -> tuple[tuple[str, str | None], ...]:
        """Return what says, as tags of carbon, where it was emitted and where the intensity is from.

        The keys are `location`, `location_from`, `source`, `factor_kind` and `factor_date`; what is unknown is empty.
        """
        return (
            ("location", self.name),
            ("location_from", self.detected_by),
            ("source", self.co2g_kwh_source.value),
            ("factor_kind", self.co2g_kwh_kind),
            ("factor_date", self.co2g_kwh_date),
        )

    @abstractmethod
    async def get_latest_co2g_kwh(self) -> float:
        """Return the latest carbon intensity in grams of CO2e per kWh.

        Raises:
            Exception: when it is not known; the energy of the window then waits for the next call.
        """

    @classmethod
    async def request(cls, url: str, headers: dict[str, str] | None = None) -> dict[str, Any]:
        """Return the JSON object that a GET of an address answers with, within 10 s and 1 MB.

        Needs httpx: `pip install 'tracarbon-core[live]'`. Proxies and certificates are what the environment says.
        Redirections are followed; to another host, they go without `headers`.

        Args:
            url: address of http or https.
            headers: of the request, such as a key; they are never shown.

        Raises:
            TracarbonException: no connection, no answer in time, a status that is not 2xx, no JSON object, one that is
                compressed, which it is asked not to be, or no httpx. Names the address without its query.
        """
        from tracarbon.locations._http import get_json

        hidden = {name: Secret(value) for name, value in (headers or {}).items()}
        headers = None  # a traceback that shows the locals of this frame shows no key
        return await get_json(url, hidden)

    @classmethod
    def probe(cls, context: Any) -> Probe:
        """Say whether the location would work on this machine with its default options. May block; must not hang."""
        return Probe(works=True)
