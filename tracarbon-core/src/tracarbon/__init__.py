"""tracarbon: measure the energy a machine uses, work out the carbon emitted for it, and export both.

Importing this package imports nothing else of it but one small module; each name below is loaded when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracarbon._forwarding import offer

if TYPE_CHECKING:
    from tracarbon_exporter_datadog import DatadogExporter as DatadogExporter
    from tracarbon_exporter_prometheus import PrometheusExporter as PrometheusExporter
    from tracarbon_k8s import CarbonEmissionKubernetesGenerator as CarbonEmissionKubernetesGenerator
    from tracarbon_k8s import Container as Container
    from tracarbon_k8s import EnergyConsumptionKubernetesGenerator as EnergyConsumptionKubernetesGenerator
    from tracarbon_k8s import Kubernetes as Kubernetes
    from tracarbon_k8s import Pod as Pod
    from tracarbon_sensor_aws import AWSEC2EnergyConsumption as AWSEC2EnergyConsumption
    from tracarbon_sensor_aws import AWSLocation as AWSLocation
    from tracarbon_sensor_macos import MacEnergyConsumption as MacEnergyConsumption
    from tracarbon_sensor_nvidia import NvidiaGPU as NvidiaGPU
    from tracarbon_sensor_rapl import RAPL as RAPL
    from tracarbon_sensor_rapl import LinuxEnergyConsumption as LinuxEnergyConsumption
    from tracarbon_sensor_rapl import RAPLResult as RAPLResult

    from tracarbon.builder import Tracarbon as Tracarbon
    from tracarbon.builder import TracarbonBuilder as TracarbonBuilder
    from tracarbon.conf import TracarbonConfiguration as TracarbonConfiguration
    from tracarbon.conf import logger_configuration as logger_configuration
    from tracarbon.emissions.carbon_emissions import CarbonEmission as CarbonEmission
    from tracarbon.emissions.carbon_emissions import CarbonUsage as CarbonUsage
    from tracarbon.emissions.carbon_emissions import CarbonUsageUnit as CarbonUsageUnit
    from tracarbon.exceptions import AWSSensorException as AWSSensorException
    from tracarbon.exceptions import CloudProviderRegionIsMissing as CloudProviderRegionIsMissing
    from tracarbon.exceptions import CO2SignalAPIKeyIsMissing as CO2SignalAPIKeyIsMissing
    from tracarbon.exceptions import CountryIsMissing as CountryIsMissing
    from tracarbon.exceptions import HardwareNoGPUDetectedException as HardwareNoGPUDetectedException
    from tracarbon.exceptions import HardwareRAPLException as HardwareRAPLException
    from tracarbon.exceptions import TracarbonException as TracarbonException
    from tracarbon.exporters.exporter import Exporter as Exporter
    from tracarbon.exporters.exporter import MetricGenerator as MetricGenerator
    from tracarbon.exporters.json_exporter import JSONExporter as JSONExporter
    from tracarbon.exporters.stdout import StdoutExporter as StdoutExporter
    from tracarbon.general_metrics import CarbonEmissionGenerator as CarbonEmissionGenerator
    from tracarbon.general_metrics import EnergyConsumptionGenerator as EnergyConsumptionGenerator
    from tracarbon.hardwares.energy import EnergyUsage as EnergyUsage
    from tracarbon.hardwares.energy import EnergyUsageUnit as EnergyUsageUnit
    from tracarbon.hardwares.energy import Power as Power
    from tracarbon.hardwares.energy import UsageType as UsageType
    from tracarbon.hardwares.gpu import GPUInfo as GPUInfo
    from tracarbon.hardwares.hardware import HardwareInfo as HardwareInfo
    from tracarbon.hardwares.sensors import EnergyConsumption as EnergyConsumption
    from tracarbon.hardwares.sensors import Sensor as Sensor
    from tracarbon.hardwares.windows import WindowsEnergyConsumption as WindowsEnergyConsumption
    from tracarbon.locations.country import Country as Country
    from tracarbon.locations.location import CarbonIntensitySource as CarbonIntensitySource
    from tracarbon.locations.location import Location as Location
    from tracarbon.metrics import Batch as Batch
    from tracarbon.metrics import Metric as Metric
    from tracarbon.metrics import MetricKind as MetricKind
    from tracarbon.metrics import Record as Record
    from tracarbon.metrics import Tag as Tag
    from tracarbon.metrics import Window as Window
    from tracarbon.report import MetricReport as MetricReport
    from tracarbon.report import TracarbonReport as TracarbonReport

__version__ = "0.1.0"

_HOMES = {
    "AWSEC2EnergyConsumption": "tracarbon-sensor-aws",
    "AWSLocation": "tracarbon-sensor-aws",
    "AWSSensorException": "tracarbon.exceptions",
    "Batch": "tracarbon.metrics",
    "CO2SignalAPIKeyIsMissing": "tracarbon.exceptions",
    "CarbonEmission": "tracarbon.emissions.carbon_emissions",
    "CarbonEmissionGenerator": "tracarbon.general_metrics",
    "CarbonEmissionKubernetesGenerator": "tracarbon-k8s",
    "CarbonIntensitySource": "tracarbon.locations.location",
    "CarbonUsage": "tracarbon.emissions.carbon_emissions",
    "CarbonUsageUnit": "tracarbon.emissions.carbon_emissions",
    "CloudProviderRegionIsMissing": "tracarbon.exceptions",
    "Container": "tracarbon-k8s",
    "Country": "tracarbon.locations.country",
    "CountryIsMissing": "tracarbon.exceptions",
    "DatadogExporter": "tracarbon-exporter-datadog",
    "EnergyConsumption": "tracarbon.hardwares.sensors",
    "EnergyConsumptionGenerator": "tracarbon.general_metrics",
    "EnergyConsumptionKubernetesGenerator": "tracarbon-k8s",
    "EnergyUsage": "tracarbon.hardwares.energy",
    "EnergyUsageUnit": "tracarbon.hardwares.energy",
    "Exporter": "tracarbon.exporters.exporter",
    "GPUInfo": "tracarbon.hardwares.gpu",
    "HardwareInfo": "tracarbon.hardwares.hardware",
    "HardwareNoGPUDetectedException": "tracarbon.exceptions",
    "HardwareRAPLException": "tracarbon.exceptions",
    "JSONExporter": "tracarbon.exporters.json_exporter",
    "Kubernetes": "tracarbon-k8s",
    "LinuxEnergyConsumption": "tracarbon-sensor-rapl",
    "Location": "tracarbon.locations.location",
    "MacEnergyConsumption": "tracarbon-sensor-macos",
    "Metric": "tracarbon.metrics",
    "MetricGenerator": "tracarbon.exporters.exporter",
    "MetricKind": "tracarbon.metrics",
    "MetricReport": "tracarbon.report",
    "NvidiaGPU": "tracarbon-sensor-nvidia",
    "Pod": "tracarbon-k8s",
    "Power": "tracarbon.hardwares.energy",
    "PrometheusExporter": "tracarbon-exporter-prometheus",
    "RAPL": "tracarbon-sensor-rapl",
    "RAPLResult": "tracarbon-sensor-rapl",
    "Record": "tracarbon.metrics",
    "Sensor": "tracarbon.hardwares.sensors",
    "StdoutExporter": "tracarbon.exporters.stdout",
    "Tag": "tracarbon.metrics",
    "Tracarbon": "tracarbon.builder",
    "TracarbonBuilder": "tracarbon.builder",
    "TracarbonConfiguration": "tracarbon.conf",
    "TracarbonException": "tracarbon.exceptions",
    "TracarbonReport": "tracarbon.report",
    "UsageType": "tracarbon.hardwares.energy",
    "Window": "tracarbon.metrics",
    "WindowsEnergyConsumption": "tracarbon.hardwares.windows",
    "logger_configuration": "tracarbon.conf",
}

__all__, __getattr__, __dir__ = offer(__name__, _HOMES)
__all__ += ["__version__"]
