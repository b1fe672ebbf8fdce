"""From energy to carbon. Each name is loaded when it is first used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracarbon._forwarding import offer

if TYPE_CHECKING:
    from tracarbon.emissions.carbon_emissions import CarbonEmission as CarbonEmission
    from tracarbon.emissions.carbon_emissions import CarbonUsage as CarbonUsage
    from tracarbon.emissions.carbon_emissions import CarbonUsageUnit as CarbonUsageUnit

_HOMES = {
    "CarbonEmission": "tracarbon.emissions.carbon_emissions",
    "CarbonUsage": "tracarbon.emissions.carbon_emissions",
    "CarbonUsageUnit": "tracarbon.emissions.carbon_emissions",
}

__all__, __getattr__, __dir__ = offer(__name__, _HOMES)
