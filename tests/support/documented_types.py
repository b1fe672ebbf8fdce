"""What type checkers know of names that are loaded when they are first used. Nothing runs it: mypy reads it."""

from typing import assert_type

import tracarbon_sensor_rapl
from tracarbon import cli
from tracarbon import hardwares as short_path
from tracarbon.exporters import Exporter, StdoutExporter
from tracarbon.hardwares.rapl import RAPL, RAPLResult
from tracarbon.hardwares.sensors import LinuxEnergyConsumption, Sensor, WindowsEnergyConsumption
from tracarbon.hardwares.windows import WindowsEnergyConsumption as AtHome
from tracarbon.locations import Country


def forwarded_to_another_distribution(result: RAPLResult) -> None:
    assert_type(RAPL(), tracarbon_sensor_rapl.RAPL)
    assert_type(result, tracarbon_sensor_rapl.RAPLResult)
    assert_type(LinuxEnergyConsumption(init=True), tracarbon_sensor_rapl.LinuxEnergyConsumption)
    assert_type(short_path.RAPL(path="/x"), tracarbon_sensor_rapl.RAPL)


def forwarded_within_the_core() -> None:
    assert_type(WindowsEnergyConsumption(init=True), AtHome)
    assert_type(cli.list_exporters(displayed=False), list[str])
    assert_type(cli.get_exporter("json", []), Exporter)
    assert_type(StdoutExporter.get_name(), str)
    assert_type(Country.get_location(), Country)
    sensor: Sensor = short_path.EnergyConsumption.from_platform()
    assert_type(sensor, Sensor)
