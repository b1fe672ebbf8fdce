"""The location `electricitymaps`: a zone's carbon intensity of the hour, from Electricity Maps."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import AfterValidator, ConfigDict, Field, SecretStr, model_validator

from tracarbon.locations._answers import FactorType, live_address
from tracarbon.locations._settings import checked_prefix, checked_secret, checked_zone
from tracarbon.locations.country import Country
from tracarbon.locations.location import CarbonIntensitySource
from tracarbon.plugin import PluginContext, PluginOptions, Probe


class ElectricityMaps(Country):
    """A zone of Electricity Maps, with the carbon intensity of the hour.

    One request an hour. When the service fails, its last figure holds for a day; then the yearly average of the
    country, also for a zone that is a part of one, such as `US-CAL-CISO`.

    Attributes:
        factor_type: `lifecycle` counts what building the power stations emits too, `direct` only what burning does.
    """

    factor_type: FactorType = "lifecycle"

    class Options(PluginOptions):
        """Options of `[location]` with `plugin = "electricitymaps"`."""

        model_config = ConfigDict(hide_input_in_errors=True)

        zone: Annotated[str, AfterValidator(checked_zone)] = Field(
            min_length=1, description="zone of Electricity Maps, such as FR or US-CAL-CISO"
        )
        api_key: Annotated[SecretStr, AfterValidator(checked_secret)] = Field(
            description='key of Electricity Maps, such as { env = "ELECTRICITYMAPS_API_KEY" }'
        )
        factor_type: FactorType = Field(
            default="lifecycle", description="lifecycle, or direct: without what building the power stations emits"
        )
        url: Annotated[str, AfterValidator(checked_prefix)] | None = Field(
            default=None, description="another address that answers likewise; the zone in upper case is put after it"
        )

        @model_validator(mode="after")
        def _check_what_goes_together(self) -> Self:
            if not self.api_key.get_secret_value().strip():
                raise ValueError("api_key is empty; give your key of Electricity Maps")
            if self.url is not None and "factor_type" in self.model_fields_set:
                raise ValueError("factor_type is not sent to another url; put it into the url itself")
            return self

    @classmethod
    def from_options(cls, options: Any, context: PluginContext) -> Self:
        """Construct it."""
        return cls.in_pipeline(
            context,
            name=options.zone,
            co2g_kwh_source=CarbonIntensitySource.CO2SignalAPI,
            co2signal_api_key=options.api_key.get_secret_value(),
            co2signal_url=options.url,
            factor_type=options.factor_type,
        )

    @classmethod
    def probe(cls, context: Any) -> Probe:
        """Say that it needs to be told."""
        return Probe(works=False, reason="it needs a zone and a key", remedy="set zone and api_key in [location]")

    def _live_address(self) -> str:
        return live_address(self.co2signal_url, self.name, self.factor_type)
