"""Every name of the documented API: where it is, how it is called, what its defaults are, and who has it now."""

from __future__ import annotations

import ast
import dataclasses
import inspect
from collections.abc import Iterator
from enum import Enum
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from pydantic import BaseModel
from tracarbon.exceptions import TracarbonException

ROOT = Path(__file__).parents[2]

# One name a line, as documented. `async`, `static` and `class` say what a method is.
CORE = """
tracarbon.cli.add_containers_generator(location)
tracarbon.cli.get_exporter(exporter_name, metric_generators, tracarbon_builder=None)
tracarbon.cli.list_exporters(displayed=True)
tracarbon.cli.run(exporter_name='Stdout', country_code_alpha_iso_2=None, containers=False)
tracarbon.cli.run_metrics(exporter_name, country_code_alpha_iso_2=None, running=True, containers=False)

tracarbon.conf.TracarbonConfiguration(metric_prefix_name='tracarbon', interval_in_seconds=60, log_level='INFO', \
co2signal_api_key='', co2signal_url='https://api.co2signal.com/v1/latest?countryCode=', env_file_path=None)
tracarbon.conf.logger_configuration(level)

tracarbon.builder.Tracarbon(configuration, exporter, location)
tracarbon.builder.Tracarbon.start()
tracarbon.builder.Tracarbon.stop()
tracarbon.builder.TracarbonBuilder(*, exporter=None, location=None, configuration)
tracarbon.builder.TracarbonBuilder.build()
tracarbon.builder.TracarbonBuilder.with_exporter(exporter)
tracarbon.builder.TracarbonBuilder.with_location(location)
tracarbon.builder.TracarbonReport(*, start_time=None, end_time=None, metric_report={})

tracarbon.hardwares.hardware.HardwareInfo()
static tracarbon.hardwares.hardware.HardwareInfo.get_cpu_usage(interval=None)
class tracarbon.hardwares.hardware.HardwareInfo.get_gpu_power_usage()
static tracarbon.hardwares.hardware.HardwareInfo.get_memory_total()
static tracarbon.hardwares.hardware.HardwareInfo.get_memory_usage()
static tracarbon.hardwares.hardware.HardwareInfo.get_number_of_cores(logical=True)
static tracarbon.hardwares.hardware.HardwareInfo.get_platform()

tracarbon.hardwares.energy.EnergyUsage(*, host_energy_usage=0.0, cpu_energy_usage=None, memory_energy_usage=None, \
gpu_energy_usage=None, unit=EnergyUsageUnit.WATT)
tracarbon.hardwares.energy.EnergyUsage.convert_unit(unit)
tracarbon.hardwares.energy.EnergyUsage.get_energy_usage_on_type(usage_type)
tracarbon.hardwares.energy.EnergyUsageUnit(value)
tracarbon.hardwares.energy.Power()
static tracarbon.hardwares.energy.Power.co2g_from_watts_hour(watts_hour, co2g_per_kwh)
static tracarbon.hardwares.energy.Power.watts_from_microjoules(uj)
static tracarbon.hardwares.energy.Power.watts_to_watt_hours(watts, previous_energy_measurement_time=None)
tracarbon.hardwares.energy.UsageType(value)
tracarbon.hardwares.gpu.GPUInfo()
class tracarbon.hardwares.gpu.GPUInfo.get_gpu_power_usage()
tracarbon.hardwares.sensors.EnergyConsumption(*, init=False)
static tracarbon.hardwares.sensors.EnergyConsumption.from_platform(platform='Linux')
async tracarbon.hardwares.sensors.EnergyConsumption.get_energy_usage()
tracarbon.hardwares.sensors.Sensor()
async tracarbon.hardwares.sensors.Sensor.get_energy_usage()
tracarbon.hardwares.sensors.WindowsEnergyConsumption(*, init=False)
async tracarbon.hardwares.sensors.WindowsEnergyConsumption.get_energy_usage()

tracarbon.exporters.exporter.Exporter(*, metric_generators, event=None, stopped=False, metric_prefix_name=None, \
metric_report={})
async tracarbon.exporters.exporter.Exporter.add_metric_to_report(metric, value)
class tracarbon.exporters.exporter.Exporter.get_name()
async tracarbon.exporters.exporter.Exporter.launch(metric_generator)
tracarbon.exporters.exporter.Exporter.start(interval_in_seconds)
tracarbon.exporters.exporter.Exporter.stop()
tracarbon.exporters.exporter.Metric(*, name, value, tags=[])
tracarbon.exporters.exporter.Metric.format_name(metric_prefix_name=None, separator='.')
tracarbon.exporters.exporter.Metric.format_tags(separator=':')
tracarbon.exporters.exporter.MetricGenerator(*, metrics, platform='Linux', location=None)
async tracarbon.exporters.exporter.MetricGenerator.generate()
tracarbon.exporters.exporter.MetricReport(*, exporter_name, metric, average_interval_in_seconds=None, \
last_report_time=None, total=0.0, average=0.0, minimum=1.7976931348623157e+308, maximum=0.0, call_count=0)
tracarbon.exporters.exporter.Tag(*, key, value)
tracarbon.exporters.stdout.StdoutExporter(*, metric_generators, event=None, stopped=False, metric_prefix_name=None, \
metric_report={})
class tracarbon.exporters.stdout.StdoutExporter.get_name()
async tracarbon.exporters.stdout.StdoutExporter.launch(metric_generator)
tracarbon.exporters.json_exporter.JSONExporter(*, metric_generators, event=None, stopped=False, \
metric_prefix_name=None, metric_report={}, path='tracarbon_export_13_11_2024.json', indent=4)
tracarbon.exporters.json_exporter.JSONExporter.flush()
class tracarbon.exporters.json_exporter.JSONExporter.get_name()
async tracarbon.exporters.json_exporter.JSONExporter.launch(metric_generator)

tracarbon.emissions.carbon_emissions.CarbonEmission(*, location, energy_consumption, \
previous_energy_consumption_time=None)
async tracarbon.emissions.carbon_emissions.CarbonEmission.get_co2_usage()
async tracarbon.emissions.carbon_emissions.CarbonEmission.get_energy_usage()
tracarbon.emissions.carbon_emissions.CarbonUsage(*, host_carbon_usage=0.0, cpu_carbon_usage=None, \
memory_carbon_usage=None, gpu_carbon_usage=None, unit=CarbonUsageUnit.CO2_G)
tracarbon.emissions.carbon_emissions.CarbonUsage.convert_unit(unit)
tracarbon.emissions.carbon_emissions.CarbonUsage.get_carbon_usage_on_type(usage_type)
tracarbon.emissions.carbon_emissions.CarbonUsageUnit(value)

tracarbon.locations.location.CarbonIntensitySource(value)
tracarbon.locations.location.Location(*, name, co2g_kwh_source=CarbonIntensitySource.FILE, co2signal_api_key=None, \
co2signal_url=None, co2g_kwh=0.0)
async tracarbon.locations.location.Location.get_latest_co2g_kwh()
async class tracarbon.locations.location.Location.request(url, headers=None)
tracarbon.locations.country.Country(*, name, co2g_kwh_source=CarbonIntensitySource.FILE, co2signal_api_key=None, \
co2signal_url=None, co2g_kwh=0.0)
class tracarbon.locations.country.Country.from_eu_file(country_code_alpha_iso_2)
class tracarbon.locations.country.Country.get_current_country(url='http://ipinfo.io/json', timeout=300)
async tracarbon.locations.country.Country.get_latest_co2g_kwh()
class tracarbon.locations.country.Country.get_location(co2signal_api_key=None, co2signal_url=None, \
country_code_alpha_iso_2=None)

tracarbon.exceptions.AWSSensorException()
tracarbon.exceptions.CO2SignalAPIKeyIsMissing()
tracarbon.exceptions.CloudProviderRegionIsMissing()
tracarbon.exceptions.CountryIsMissing()
tracarbon.exceptions.HardwareNoGPUDetectedException()
tracarbon.exceptions.HardwareRAPLException()
tracarbon.exceptions.TracarbonException()

tracarbon.general_metrics.CarbonEmissionGenerator(location=None, *, metrics, platform='Linux', carbon_emission, \
co2signal_api_key=None)
async tracarbon.general_metrics.CarbonEmissionGenerator.generate()
tracarbon.general_metrics.EnergyConsumptionGenerator(location=None, *, metrics, platform='Linux', energy_consumption)
async tracarbon.general_metrics.EnergyConsumptionGenerator.generate()
"""

PLUGINS = {
    "tracarbon-sensor-rapl": """
tracarbon.hardwares.rapl.RAPL(*, path='/sys/class/powercap/intel-rapl', rapl_separator=':', rapl_results={}, \
file_list=[])
async tracarbon.hardwares.rapl.RAPL.get_energy_report()
tracarbon.hardwares.rapl.RAPL.get_rapl_files_list()
async tracarbon.hardwares.rapl.RAPL.get_rapl_power_usage()
tracarbon.hardwares.rapl.RAPL.is_rapl_compatible()
tracarbon.hardwares.rapl.RAPLResult(*, name, energy_uj, max_energy_uj, timestamp)
tracarbon.hardwares.sensors.LinuxEnergyConsumption(*, init=False, rapl)
async tracarbon.hardwares.sensors.LinuxEnergyConsumption.get_energy_usage()
""",
    "tracarbon-sensor-macos": """
tracarbon.hardwares.sensors.MacEnergyConsumption(*, init=False, shell_command)
async tracarbon.hardwares.sensors.MacEnergyConsumption.get_energy_usage()
""",
    "tracarbon-sensor-aws": """
tracarbon.hardwares.sensors.AWSEC2EnergyConsumption(instance_type, *, init=False, cpu_idle, cpu_at_10, cpu_at_50, \
cpu_at_100, memory_idle, memory_at_10, memory_at_50, memory_at_100, has_gpu, delta_full_machine)
async tracarbon.hardwares.sensors.AWSEC2EnergyConsumption.get_energy_usage()
tracarbon.locations.country.AWSLocation(region_name, *, name, co2g_kwh_source=CarbonIntensitySource.FILE, \
co2signal_api_key=None, co2signal_url=None, co2g_kwh=0.0)
async tracarbon.locations.country.AWSLocation.get_co2g_kwh()
async tracarbon.locations.country.AWSLocation.get_latest_co2g_kwh()
""",
    "tracarbon-sensor-nvidia": """
tracarbon.hardwares.gpu.NvidiaGPU()
class tracarbon.hardwares.gpu.NvidiaGPU.get_gpu_power_usage()
class tracarbon.hardwares.gpu.NvidiaGPU.launch_shell_command()
""",
    "tracarbon-exporter-datadog": """
tracarbon.exporters.datadog_exporter.DatadogExporter(*, metric_generators, event=None, stopped=False, \
metric_prefix_name=None, metric_report={}, api_key=None, app_key=None, stats=None, disable_buffering=False, \
datadog_flush_interval=10)
class tracarbon.exporters.datadog_exporter.DatadogExporter.get_name()
async tracarbon.exporters.datadog_exporter.DatadogExporter.launch(metric_generator)
""",
    "tracarbon-exporter-prometheus": """
tracarbon.exporters.prometheus_exporter.PrometheusExporter(*, metric_generators, event=None, stopped=False, \
metric_prefix_name=None, metric_report={}, prometheus_metrics={}, address=None, port=None)
class tracarbon.exporters.prometheus_exporter.PrometheusExporter.get_name()
async tracarbon.exporters.prometheus_exporter.PrometheusExporter.launch(metric_generator)
""",
    "tracarbon-k8s": """
tracarbon.hardwares.containers.Container(*, name, cpu_usage, memory_usage)
tracarbon.hardwares.containers.Kubernetes(*, namespaces=None, api, group='metrics.k8s.io', version='v1beta1')
tracarbon.hardwares.containers.Kubernetes.get_pods_usage(namespace=None)
tracarbon.hardwares.containers.Kubernetes.refresh_namespaces()
tracarbon.hardwares.containers.Pod(*, name, namespace, containers)
tracarbon.general_metrics.CarbonEmissionKubernetesGenerator(location, *, metrics, platform='Linux', carbon_emission, \
kubernetes, co2signal_api_key=None)
async tracarbon.general_metrics.CarbonEmissionKubernetesGenerator.generate()
tracarbon.general_metrics.EnergyConsumptionKubernetesGenerator(*, metrics, platform='Linux', location=None, \
energy_consumption, kubernetes)
async tracarbon.general_metrics.EnergyConsumptionKubernetesGenerator.generate()
""",
}

# What is not as documented, on purpose; docs/api.md says why.
OTHER_DEFAULTS = {
    "EnergyUsage(host_energy_usage)": None,
    "CarbonUsage(host_carbon_usage)": None,
    "JSONExporter(path)": "tracarbon_export.json",
    "EnergyConsumption.from_platform(platform)": None,
}

MEMBERS = {
    "tracarbon.hardwares.energy.EnergyUsageUnit": {"WATT": "watts", "MILLIWATT": "milliwatts"},
    "tracarbon.hardwares.energy.UsageType": {"HOST": "host", "CPU": "cpu", "MEMORY": "memory", "GPU": "gpu"},
    "tracarbon.emissions.carbon_emissions.CarbonUsageUnit": {"CO2_G": "co2g", "CO2_MG": "co2mg"},
    "tracarbon.locations.location.CarbonIntensitySource": {"FILE": "file", "CO2SignalAPI": "CO2SignalAPI"},
}


class Documented(NamedTuple):
    path: str
    words: frozenset[str]
    arguments: ast.arguments

    @property
    def label(self) -> str:
        parts = self.path.split(".")
        return ".".join(part for part in parts if part[0].isupper() or part == parts[-1])


def documented(table: str) -> Iterator[Documented]:
    for line in filter(None, table.splitlines()):
        *words, call = line.partition("(")[0].split()
        signature = line[line.index("(") :]
        function = ast.parse(f"lambda {signature[1:-1]}: 0", mode="eval").body
        assert isinstance(function, ast.Lambda)
        yield Documented(call, frozenset(words), function.args)


def find(path: str) -> tuple[Any, Any]:
    """Return what is at a path, and the class or module that has it."""
    parts = path.split(".")
    length = next(number for number, part in enumerate(parts) if part[0].isupper() or part in FUNCTIONS)
    owner: Any = import_module(".".join(parts[:length]))
    for part in parts[length:-1]:
        owner = getattr(owner, part)
    return getattr(owner, parts[-1]), owner


FUNCTIONS = {
    "add_containers_generator",
    "get_exporter",
    "list_exporters",
    "run",
    "run_metrics",
    "logger_configuration",
}


def is_installed(distribution: str) -> bool:
    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


CASES = [(item, None) for item in documented(CORE)]
CASES += [(item, name) for name, table in PLUGINS.items() for item in documented(table)]


@pytest.mark.parametrize(("item", "distribution"), CASES, ids=[item.label for item, _ in CASES])
def test_path_signature_and_defaults(item: Documented, distribution: str | None) -> None:
    if distribution is not None and not is_installed(distribution):
        with pytest.raises(ImportError, match=rf"is in {distribution}: pip install {distribution}$"):
            find(item.path)
        return
    found, owner = find(item.path)
    check_kind(item, found, owner)
    if inspect.isclass(found) and issubclass(found, Enum):
        assert MEMBERS[item.path].items() <= {member.name: member.value for member in found}.items()
    elif inspect.isclass(found) and issubclass(found, Exception):
        assert issubclass(found, TracarbonException)
        assert "what to do" in str(found("what to do"))
    else:
        check_arguments(item, found)


def check_kind(item: Documented, found: Any, owner: Any) -> None:
    is_asynchronous = inspect.iscoroutinefunction(found) or inspect.isasyncgenfunction(found)
    assert is_asynchronous == ("async" in item.words)
    if inspect.isclass(owner):
        descriptor = inspect.getattr_static(owner, item.path.rpartition(".")[2])
        assert isinstance(descriptor, staticmethod) == ("static" in item.words)
        assert isinstance(descriptor, classmethod) == ("class" in item.words)


def check_arguments(item: Documented, found: Any) -> None:
    parameters = dict(inspect.signature(found).parameters)
    if not inspect.isclass(found) and "self" in parameters:
        del parameters["self"]
    by_position = [argument.arg for argument in item.arguments.args]
    takes_positions = [
        name for name, parameter in parameters.items() if parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    ]
    assert takes_positions[: len(by_position)] == by_position
    for name in [*by_position, *(argument.arg for argument in item.arguments.kwonlyargs)]:
        assert name in parameters
    for name, default in documented_defaults(item, found):
        key = f"{item.label}({name})"
        assert effective_default(found, parameters[name]) == OTHER_DEFAULTS.get(key, default), key
    required = {name for name, it in parameters.items() if it.default is it.empty}
    required -= {name for name, it in parameters.items() if it.kind in (it.VAR_KEYWORD, it.VAR_POSITIONAL)}
    assert required <= documented_required(item)


def documented_defaults(item: Documented, found: Any) -> Iterator[tuple[str, Any]]:
    arguments = item.arguments
    pairs: list[tuple[ast.arg, ast.expr | None]] = [*zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    pairs += zip(arguments.args[len(arguments.args) - len(arguments.defaults) :], arguments.defaults, strict=True)
    for argument, written in pairs:
        if written is None:
            continue
        if argument.arg == "platform" and item.label != "EnergyConsumption.from_platform":
            continue  # the documentation was made on Linux
        if isinstance(written, ast.Attribute):
            name = ast.unparse(written)
            [(path, enumeration)] = [pair for pair in MEMBERS.items() if pair[0].endswith(name.partition(".")[0])]
            assert name.partition(".")[2] in enumeration
            yield argument.arg, find(path)[0][name.partition(".")[2]]
        else:
            yield argument.arg, ast.literal_eval(written)


def documented_required(item: Documented) -> set[str]:
    arguments = item.arguments
    required = {arg.arg for arg, it in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if it is None}
    return required | {arg.arg for arg in arguments.args[: len(arguments.args) - len(arguments.defaults)]}


def effective_default(found: Any, parameter: inspect.Parameter) -> Any:
    if dataclasses.is_dataclass(found):
        [field] = [field for field in dataclasses.fields(found) if field.name == parameter.name]
        return parameter.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    if inspect.isclass(found) and issubclass(found, BaseModel):
        return found.model_fields[parameter.name].get_default(call_default_factory=True)
    if inspect.isclass(found) and parameter.default is None:
        return getattr(found(), parameter.name)  # what it stands for
    return parameter.default


def test_each_documented_name_is_on_the_page() -> None:
    page = (ROOT / "docs" / "api.md").read_text("utf-8")
    missing = [item.path for item, _ in CASES if f"`{item.label}`" not in page and f"`{item.label}(" not in page]
    assert missing == []


def test_each_deviation_is_on_the_page() -> None:
    page = (ROOT / "docs" / "api.md").read_text("utf-8")
    deviations = page[page.index("## What is not as documented") :]
    for key in OTHER_DEFAULTS:
        name = key.partition("(")[2].rstrip(")")
        assert f"`{name}" in deviations, key


# how the old tracarbon's own examples import these names
SHORT_PATHS = {
    "tracarbon": """TracarbonBuilder TracarbonConfiguration TracarbonReport Country CarbonEmission EnergyConsumption
        EnergyUsage EnergyUsageUnit UsageType Power HardwareInfo MetricGenerator Metric Tag Exporter Location
        CarbonEmissionGenerator EnergyConsumptionGenerator StdoutExporter JSONExporter CountryIsMissing""",
    "tracarbon.exporters": "Exporter JSONExporter Metric MetricGenerator MetricReport StdoutExporter Tag",
    "tracarbon.hardwares": """EnergyConsumption EnergyUsage EnergyUsageUnit HardwareInfo Power Sensor UsageType RAPL
        RAPLResult LinuxEnergyConsumption WindowsEnergyConsumption""",
    "tracarbon.locations": "CarbonIntensitySource Country Location",
    "tracarbon.emissions": "CarbonEmission CarbonUsage CarbonUsageUnit",
}


@pytest.mark.parametrize("package", SHORT_PATHS)
def test_names_are_importable_from_their_package(package: str) -> None:
    full = {item.path.rpartition(".")[2]: item.path for item, _ in CASES}
    for name in SHORT_PATHS[package].split():
        assert getattr(import_module(package), name) is find(full[name])[0]


@pytest.mark.parametrize("package", SHORT_PATHS)
def test_everything_can_be_imported_at_once_whatever_is_installed(package: str) -> None:
    names: dict[str, object] = {}
    exec(f"from {package} import *", names)
    assert set(import_module(package).__all__) <= names.keys()
