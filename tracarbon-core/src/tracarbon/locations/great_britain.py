"""The location `uk`: the carbon intensity of Great Britain by the half-hour, from its national API, without a key."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, Field

from tracarbon.locations._answers import GREAT_BRITAIN, british_figure_in
from tracarbon.locations._http import require_httpx
from tracarbon.locations._intensity import Figure, find_factor
from tracarbon.locations._settings import checked_url, require
from tracarbon.locations.country import Country, detect_country
from tracarbon.locations.location import CarbonIntensitySource
from tracarbon.plugin import PluginContext, PluginOptions, Probe


class GreatBritain(Country):
    """Great Britain, with the carbon intensity of the half-hour: the actual one, or the forecast while that is open.

    It counts what burning emits, not what building the power stations did. When the service fails, its last figure
    holds for a day, then the yearly average. Source: https://carbonintensity.org.uk, by the National Energy System
    Operator.
    """

    live_source: ClassVar[CarbonIntensitySource] = CarbonIntensitySource.GREAT_BRITAIN

    name: str = "gb"
    co2g_kwh_source: CarbonIntensitySource = CarbonIntensitySource.GREAT_BRITAIN
    url: str = GREAT_BRITAIN

    class Options(PluginOptions):
        """Options of `[location]` with `plugin = "uk"`."""

        url: Annotated[str, AfterValidator(checked_url)] = Field(
            default=GREAT_BRITAIN, description="address of the service"
        )

    @classmethod
    def from_options(cls, options: Any, context: PluginContext) -> Self:
        """Construct it."""
        return cls.in_pipeline(context, url=options.url)

    @classmethod
    def probe(cls, context: Any) -> Probe:
        """Say whether it could ask, and that it is for Great Britain alone."""
        if find_spec("httpx") is None:
            return Probe(works=False, reason="it needs httpx", remedy="pip install 'tracarbon-core[live]'")
        code, reason = detect_country()
        factor = find_factor(code)
        if factor is None or factor.alpha_2 != "GB":
            return Probe(works=False, reason=f"this machine is not known to be in Great Britain: {code} by {reason}")
        return Probe(works=True, reason="asks carbonintensity.org.uk")

    def _check_settings(self) -> None:
        require(checked_url, "url", self.url)

    def _check_live(self) -> None:
        require_httpx()

    async def _ask(self) -> Figure:
        return british_figure_in(await self.request(self.url), self.wall_clock())
