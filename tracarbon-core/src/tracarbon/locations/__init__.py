"""Where the machine is, and the carbon intensity there. Each name is loaded when it is first used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracarbon._forwarding import offer

if TYPE_CHECKING:
    from tracarbon_sensor_aws import AWSLocation as AWSLocation

    from tracarbon.locations.country import Country as Country
    from tracarbon.locations.location import CarbonIntensitySource as CarbonIntensitySource
    from tracarbon.locations.location import Location as Location

_HOMES = {
    "AWSLocation": "tracarbon-sensor-aws",
    "CarbonIntensitySource": "tracarbon.locations.location",
    "Country": "tracarbon.locations.country",
    "Location": "tracarbon.locations.location",
}

__all__, __getattr__, __dir__ = offer(__name__, _HOMES)
