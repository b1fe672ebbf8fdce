"""Sensors, and the energy that they read. Each name is loaded when it is first used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracarbon._forwarding import offer

if TYPE_CHECKING:
    from tracarbon_k8s import Container as Container
    from tracarbon_k8s import Kubernetes as Kubernetes
    from tracarbon_k8s import Pod as Pod
    from tracarbon_sensor_aws import AWSEC2EnergyConsumption as AWSEC2EnergyConsumption
    from tracarbon_sensor_macos import MacEnergyConsumption as MacEnergyConsumption
    from tracarbon_sensor_nvidia import NvidiaGPU as NvidiaGPU
    from tracarbon_sensor_rapl import RAPL as RAPL
    from tracarbon_sensor_rapl import LinuxEnergyConsumption as LinuxEnergyConsumption
    from tracarbon_sensor_rapl import RAPLResult as RAPLResult

    from tracarbon.hardwares.energy import EnergyUsage as EnergyUsage
    from tracarbon.hardwares.energy import EnergyUsageUnit as EnergyUsageUnit
    from tracarbon.hardwares.energy import Power as Power
    from tracarbon.hardwares.energy import UsageType as UsageType
    from tracarbon.hardwares.gpu import GPUInfo as GPUInfo
    from tracarbon.hardwares.hardware import HardwareInfo as HardwareInfo
    from tracarbon.hardwares.sensors import EnergyConsumption as EnergyConsumption
    from tracarbon.hardwares.sensors import Sensor as Sensor
    from tracarbon.hardwares.windows import WindowsEnergyConsumption as WindowsEnergyConsumption

_HOMES = {
    "AWSEC2EnergyConsumption": "tracarbon-sensor-aws",
    "Container": "tracarbon-k8s",
    "EnergyConsumption": "tracarbon.hardwares.sensors",
    "EnergyUsage": "tracarbon.hardwares.energy",
    "EnergyUsageUnit": "tracarbon.hardwares.energy",
    "GPUInfo": "tracarbon.hardwares.gpu",
    "HardwareInfo": "tracarbon.hardwares.hardware",
    "Kubernetes": "tracarbon-k8s",
    "LinuxEnergyConsumption": "tracarbon-sensor-rapl",
    "MacEnergyConsumption": "tracarbon-sensor-macos",
    "NvidiaGPU": "tracarbon-sensor-nvidia",
    "Pod": "tracarbon-k8s",
    "Power": "tracarbon.hardwares.energy",
    "RAPL": "tracarbon-sensor-rapl",
    "RAPLResult": "tracarbon-sensor-rapl",
    "Sensor": "tracarbon.hardwares.sensors",
    "UsageType": "tracarbon.hardwares.energy",
    "WindowsEnergyConsumption": "tracarbon.hardwares.windows",
}

__all__, __getattr__, __dir__ = offer(__name__, _HOMES)
