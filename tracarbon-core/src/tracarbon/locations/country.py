"""The location `country`: yearly average carbon intensities of 213 countries, and of the world."""

from __future__ import annotations

import logging
from typing import Any, Self

from pydantic import Field, field_validator

from tracarbon.exceptions import CountryIsMissing
from tracarbon.locations._intensity import Factor, find_factor, nearest_codes
from tracarbon.locations._timezone import country_of_time_zone, system_time_zone
from tracarbon.locations.location import Location
from tracarbon.plugin import PluginContext, PluginOptions, Probe

logger = logging.getLogger("tracarbon")

WORLD = "world"


def _factor(code: str) -> Factor:
    factor = find_factor(code)
    if factor is None:
        near = nearest_codes(code)
        hint = (
            f"did you mean {' or '.join(near)}?"
            if near
            else "give an ISO 3166 code of two or three letters, or 'world'"
        )
        raise CountryIsMissing(f"no carbon intensity is known for country {code!r}; {hint}")
    return factor


def detect_country() -> tuple[str, str]:
    """Work out the country without leaving the machine: its code, and how it became known.

    Where the system's time zone says nothing, it is the world, and never a country made up.
    """
    zone = system_time_zone()
    code = country_of_time_zone(zone) if zone else None
    if code is not None and find_factor(code) is not None:
        return code, f"time zone {zone}"
    return WORLD, f"the time zone, {zone or 'unknown'}, names no country"


class Country(Location):
    """A country, or the world, with its yearly average carbon intensity of electricity.

    Without a country, the system's time zone tells; where it does not, the world's average is used, with a warning.
    """

    name: str = ""

    class Options(PluginOptions):
        """Options of `[location]`."""

        country: str | None = Field(
            default=None, description="ISO 3166 code such as FR or FRA, or 'world'; default: what the time zone says"
        )

        @field_validator("country")
        @classmethod
        def _is_known(cls, value: str | None) -> str | None:
            if value is not None:
                try:
                    _factor(value)
                except CountryIsMissing as error:
                    raise ValueError(str(error)) from None
            return value

    @classmethod
    def from_options(cls, options: Any, context: PluginContext) -> Self:
        """Construct it; the country is worked out on entry where it is not given."""
        return cls(name=options.country or "")

    @classmethod
    def probe(cls, context: Any) -> Probe:
        """Say which country it would be."""
        code, reason = detect_country()
        factor = _factor(code)
        remedy = "set country in [location], or TRACARBON_COUNTRY" if code == WORLD else ""
        because = f"since {reason}" if code == WORLD else f"by the {reason}"
        return Probe(works=True, reason=f"{factor.country}, {factor.co2g_per_kwh:g} g/kWh, {because}", remedy=remedy)

    async def __aenter__(self) -> Self:
        """Work out the country and its intensity.

        Raises:
            CountryIsMissing: no intensity is known for it.
        """
        self._settle()
        return self

    async def get_latest_co2g_kwh(self) -> float:
        """Return the yearly average intensity in grams of CO2e per kWh.

        Raises:
            CountryIsMissing: no intensity is known for the country.
        """
        self._settle()
        return self.co2g_kwh

    def _settle(self) -> None:
        if self.co2g_kwh_date or self.co2g_kwh:
            return
        code = self.name
        if not code:
            code, self.detected_by = detect_country()
            if code == WORLD:
                logger.warning(
                    "the country is unknown (%s); the world's average carbon intensity is used. "
                    "Set it in [location], by --country, or by TRACARBON_COUNTRY",
                    self.detected_by,
                )
                self.detected_by = "nothing"
        factor = _factor(code)
        self.name = factor.alpha_2.lower() or WORLD
        self.co2g_kwh = factor.co2g_per_kwh
        self.co2g_kwh_kind = "yearly average"
        self.co2g_kwh_date = str(factor.year)
