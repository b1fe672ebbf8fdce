"""The location `static`: a carbon intensity that the user knows, such as that of a contract."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field

from tracarbon.locations.location import CarbonIntensitySource, Location
from tracarbon.plugin import PluginContext, PluginOptions


class StaticLocation(Location):
    """A place whose carbon intensity is given, and does not change.

    Attributes:
        name: of the place.
        co2g_kwh: grams of CO2e per kWh.
        co2g_kwh_kind: where the figure is from.
        co2g_kwh_date: what time it is of.
    """

    name: str = "static"
    co2g_kwh_source: CarbonIntensitySource = CarbonIntensitySource.STATIC

    class Options(PluginOptions):
        """Options of `[location]` with `plugin = "static"`."""

        co2g_per_kwh: float = Field(ge=0, allow_inf_nan=False, description="grams of CO2e per kWh of electricity")
        note: str = Field(min_length=1, description="where the figure is from; it goes with every figure of carbon")
        date: str = Field(
            default="undated",
            min_length=1,
            coerce_numbers_to_str=True,
            description='what time the figure is of, such as "2026"',
        )
        name: str = Field(default="static", min_length=1, description="what the place is called")

    @classmethod
    def from_options(cls, options: Any, context: PluginContext) -> Self:
        """Construct it."""
        return cls(
            name=options.name,
            co2g_kwh=options.co2g_per_kwh,
            co2g_kwh_kind=options.note,
            co2g_kwh_date=options.date,
        )

    async def get_latest_co2g_kwh(self) -> float:
        """Return the intensity in grams of CO2e per kWh."""
        return self.co2g_kwh
