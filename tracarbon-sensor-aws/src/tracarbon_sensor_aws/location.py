"""The location `aws`: the carbon intensity of an AWS region."""

from __future__ import annotations

import logging
from dataclasses import field
from functools import partial
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator
from tracarbon.exceptions import CloudProviderRegionIsMissing, CO2SignalAPIKeyIsMissing
from tracarbon.locations.electricity_maps import ElectricityMaps
from tracarbon.locations.location import CarbonIntensitySource, Location
from tracarbon.plugin import PluginContext, Probe

from tracarbon_sensor_aws._metadata import MetadataError
from tracarbon_sensor_aws._regions import REGIONS, Region, nearest_regions
from tracarbon_sensor_aws.instance import Instance, InstanceOptions, asked, probed

logger = logging.getLogger("tracarbon")


def _find_region(name: str) -> Region:
    region = REGIONS.get(name.strip().lower())
    if region is None:
        near = nearest_regions(name)
        hint = f"did you mean {' or '.join(near)}?" if near else "it is like eu-west-1"
        raise CloudProviderRegionIsMissing(f"no carbon intensity is known for AWS region {name!r}; {hint}")
    return region


def _no_zone(region_name: str) -> str:
    return f"no zone of Electricity Maps is known for AWS region {region_name!r}; set zone"


def _probe_of(instance: Instance) -> Probe:
    name = instance.region()
    region = _find_region(name)
    return Probe(works=True, reason=f"{name}, {region.place}, {region.co2g_per_kwh:g} g/kWh")


def _checked_region(name: str) -> str:
    try:
        _find_region(name)
    except CloudProviderRegionIsMissing as error:
        raise ValueError(str(error)) from None
    return name.strip().lower()


class AWSLocation(Location):
    """An AWS region, with the carbon intensity of its grid.

    By default that is the average in the table that is part of this distribution. With a key it is that of the hour, of
    the zone of Electricity Maps that the region lies in, as of the location `electricitymaps`; when the service fails,
    its last figure holds for a day, then the average. Of a region whose zone is not known it is the average all the
    same, with a warning, unless an address or `co2g_kwh_source` says that it has to be live.

    Attributes:
        region_name: such as `eu-west-1`; where it is empty, the instance metadata service is asked on entry.
        name: what the location is called in tags: `AWS(eu-west-1)` unless given.
        zone: of Electricity Maps, in place of the one that is known for the region.
        instance: whom to ask for the region.

    Raises:
        CloudProviderRegionIsMissing: the region is not known; names the nearest.
        CO2SignalAPIKeyIsMissing: there is a zone or an address of a live intensity, and no key.
    """

    region_name: str = field(default="", kw_only=False)
    name: str = ""
    zone: str = ""
    instance: Instance = Instance()

    class Options(InstanceOptions):
        """Options of `[location]` with `plugin = "aws"`."""

        region: Annotated[str, AfterValidator(_checked_region)] | None = Field(
            default=None, description="AWS region, such as eu-west-1; default: what the metadata service says"
        )
        co2signal_api_key: SecretStr | None = Field(
            default=None, description="key of Electricity Maps: the intensity is live (needs tracarbon-core[live])"
        )
        co2signal_url: str | None = Field(
            default=None, description="address of another live service; the zone in upper case is put after it"
        )
        zone: str | None = Field(
            default=None,
            min_length=1,
            description="zone of the live service, in place of the one that the region is known to lie in",
        )

        @model_validator(mode="after")
        def _check_what_goes_together(self) -> Self:
            is_live = self.co2signal_api_key is not None
            if is_live and not self.co2signal_api_key.get_secret_value().strip():  # type: ignore[union-attr]
                raise ValueError("co2signal_api_key is empty; give your key of Electricity Maps")
            alone = [name for name in ("co2signal_url", "zone") if getattr(self, name) is not None and not is_live]
            if alone:
                raise ValueError(f"{alone[0]} is of a live intensity, which needs co2signal_api_key")
            if self.co2signal_url and self.zone is None and self.region and not _find_region(self.region).zone:
                raise ValueError(_no_zone(self.region))
            return self

    @classmethod
    def from_options(cls, options: Any, context: PluginContext) -> Self:
        """Construct it; a region that is not given is asked for on entry."""
        key = options.co2signal_api_key
        location = cls(
            options.region or "",
            co2signal_api_key=None if key is None else key.get_secret_value(),
            co2signal_url=options.co2signal_url,
            zone=options.zone or "",
            instance=Instance(context.host_root, options.imds, options.imds_endpoint),
        )
        location._context = context
        return location

    @classmethod
    def probe(cls, context: Any) -> Probe:
        """Say which region this is; the metadata service is asked only where the firmware says EC2."""
        return probed(context, "region in [location]", _probe_of)

    def __post_init__(self) -> None:
        self._context: PluginContext | None = None
        self._live: ElectricityMaps | None = None
        self._is_live = self.co2g_kwh_source is CarbonIntensitySource.CO2SignalAPI or bool(self.co2signal_api_key)
        if (self.zone or self.co2signal_url) and not self._is_live:
            raise CO2SignalAPIKeyIsMissing("zone and co2signal_url are of a live intensity: pass co2signal_api_key")
        if self.region_name:
            self._settle_on(self.region_name)

    async def __aenter__(self) -> Self:
        """Find out the region; a live intensity is asked for, and waited for shortly.

        Raises:
            CloudProviderRegionIsMissing: the region is not known; says why, and what to set.
            CO2SignalAPIKeyIsMissing: it should be live, and there is no key.
            TracarbonException: it should be live, and httpx is not installed.
        """
        await self._settle()
        if self._live is not None:
            await self._live.__aenter__()
        return self

    async def __aexit__(self, *details: Any) -> None:
        """Nobody has to be waited for any more."""
        if self._live is not None:
            await self._live.__aexit__(*details)

    async def get_latest_co2g_kwh(self) -> float:
        """Return the intensity in grams of CO2e per kWh: live, at most an hour old, or the region's average.

        Raises:
            CloudProviderRegionIsMissing: the region is not known; says why, and what to set.
            CO2SignalAPIKeyIsMissing: it should be live, and there is no key.
            TracarbonException: it should be live, and httpx is not installed.
        """
        await self._settle()
        if self._live is not None:
            await self._live.get_latest_co2g_kwh()
            self.co2g_kwh, self.co2g_kwh_source = self._live.co2g_kwh, self._live.co2g_kwh_source
            self.co2g_kwh_kind, self.co2g_kwh_date = self._live.co2g_kwh_kind, self._live.co2g_kwh_date
        return self.co2g_kwh

    async def get_co2g_kwh(self) -> float:
        """Return the same as `get_latest_co2g_kwh`."""
        return await self.get_latest_co2g_kwh()

    async def _settle(self) -> None:
        if not self.region_name:
            try:
                region_name = await asked(self._context, "region", self.instance)
            except MetadataError as error:
                raise CloudProviderRegionIsMissing(
                    f"the AWS region is not known: {error}. Set region in [location], or pass region_name"
                ) from None
            self._settle_on(region_name)
            self.detected_by = "instance metadata"
        if self._is_live and self._live is None:
            self._go_live(self.zone or _find_region(self.region_name).zone)

    def _settle_on(self, region_name: str) -> None:
        region = _find_region(region_name)
        self.region_name = region_name.strip().lower()
        self.name = self.name or f"AWS({self.region_name})"
        if not self.known_co2g_kwh:
            self.co2g_kwh, self.co2g_kwh_kind, self.co2g_kwh_date = region.co2g_per_kwh, region.kind, region.date

    def _go_live(self, zone: str) -> None:
        if zone:
            self._live = self._live_zone(zone)
            return
        # A key alone may be meant for other machines: TRACARBON_CO2SIGNAL_API_KEY is whole fleets'.
        if self.co2signal_url or self.co2g_kwh_source is CarbonIntensitySource.CO2SignalAPI:
            raise CloudProviderRegionIsMissing(_no_zone(self.region_name))
        self._is_live = False
        logger.warning("no live carbon intensity: %s; the %s is used", _no_zone(self.region_name), self.co2g_kwh_kind)

    def _live_zone(self, zone: str) -> ElectricityMaps:
        make = ElectricityMaps if self._context is None else partial(ElectricityMaps.in_pipeline, self._context)
        return make(
            name=zone,
            co2g_kwh_source=CarbonIntensitySource.CO2SignalAPI,
            co2signal_api_key=self.co2signal_api_key,
            co2signal_url=self.co2signal_url,
            co2g_kwh=self.co2g_kwh,
            co2g_kwh_kind=self.co2g_kwh_kind,
            co2g_kwh_date=self.co2g_kwh_date,
        )
