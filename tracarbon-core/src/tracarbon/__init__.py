"""tracarbon: measure the energy a machine uses, work out the carbon emitted for it, and export both.

Importing this package imports nothing else; each name below is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tracarbon.builder import Tracarbon, TracarbonBuilder
    from tracarbon.conf import TracarbonConfiguration
    from tracarbon.emissions.carbon_emissions import CarbonEmission, CarbonUsage, CarbonUsageUnit
    from tracarbon.exceptions import TracarbonException
    from tracarbon.exporters.exporter import Exporter, MetricGenerator
    from tracarbon.general_metrics import CarbonEmissionGenerator, EnergyConsumptionGenerator
    from tracarbon.hardwares.energy import EnergyUsage, EnergyUsageUnit, Power, UsageType
    from tracarbon.hardwares.sensors import EnergyConsumption, Sensor
    from tracarbon.locations.country import Country
    from tracarbon.locations.location import Location
    from tracarbon.metrics import Batch, Metric, MetricKind, Tag
    from tracarbon.report import MetricReport, TracarbonReport

__version__ = "0.1.0"

_HOMES = {
    "Batch": "metrics",
    "CarbonEmission": "emissions.carbon_emissions",
    "CarbonEmissionGenerator": "general_metrics",
    "CarbonUsage": "emissions.carbon_emissions",
    "CarbonUsageUnit": "emissions.carbon_emissions",
    "Country": "locations.country",
    "EnergyConsumption": "hardwares.sensors",
    "EnergyConsumptionGenerator": "general_metrics",
    "EnergyUsage": "hardwares.energy",
    "EnergyUsageUnit": "hardwares.energy",
    "Exporter": "exporters.exporter",
    "Location": "locations.location",
    "Metric": "metrics",
    "MetricGenerator": "exporters.exporter",
    "MetricKind": "metrics",
    "MetricReport": "report",
    "Power": "hardwares.energy",
    "Sensor": "hardwares.sensors",
    "Tag": "metrics",
    "Tracarbon": "builder",
    "TracarbonBuilder": "builder",
    "TracarbonConfiguration": "conf",
    "TracarbonException": "exceptions",
    "TracarbonReport": "report",
    "UsageType": "hardwares.energy",
}

__all__ = [
    "Batch",
    "CarbonEmission",
    "CarbonEmissionGenerator",
    "CarbonUsage",
    "CarbonUsageUnit",
    "Country",
    "EnergyConsumption",
    "EnergyConsumptionGenerator",
    "EnergyUsage",
    "EnergyUsageUnit",
    "Exporter",
    "Location",
    "Metric",
    "MetricGenerator",
    "MetricKind",
    "MetricReport",
    "Power",
    "Sensor",
    "Tag",
    "Tracarbon",
    "TracarbonBuilder",
    "TracarbonConfiguration",
    "TracarbonException",
    "TracarbonReport",
    "UsageType",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"tracarbon.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'tracarbon' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
