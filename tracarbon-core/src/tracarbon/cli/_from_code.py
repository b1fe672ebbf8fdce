"""The command as functions, for scripts that were written for them.

They run in the caller's process: no signal handler is installed, and Ctrl-C ends a run with its report. SIGTERM is left
to the caller; `tracarbon run` handles it.
"""

from __future__ import annotations

import sys
import weakref
from contextlib import suppress

from pydantic import ValidationError

from tracarbon._discovery import EXPORTER, find_plugin, load_class, not_installed
from tracarbon._lifting import default_generators
from tracarbon.builder import Tracarbon, TracarbonBuilder
from tracarbon.conf import logger_configuration
from tracarbon.exceptions import PluginError
from tracarbon.exporters.exporter import Exporter, MetricGenerator
from tracarbon.locations.country import Country
from tracarbon.locations.location import Location
from tracarbon.plugin import PluginContext

_SHORT_RUN_SECONDS = 1.0
_POLL_SECONDS = 1.0  # some platforms cannot interrupt a wait without an end


def run(exporter_name: str = "Stdout", country_code_alpha_iso_2: str | None = None, containers: bool = False) -> None:
    """Measure and export until Ctrl-C, then print the report to standard error.

    Args:
        exporter_name: an installed exporter, in any case.
        country_code_alpha_iso_2: the country, as an ISO 3166 code, or `world`; by default `TRACARBON_COUNTRY`, then
            what the system's time zone says.
        containers: energy and carbon of Kubernetes containers as well (with tracarbon-k8s).

    Raises:
        PluginError: no such exporter is installed, or it has to be told more than its name.
        CountryIsMissing: no carbon intensity is known for the country.
        ImportError: tracarbon-k8s is not installed.
        StartupError: a sensor or the exporter does not work.
    """
    run_metrics(exporter_name, country_code_alpha_iso_2, containers=containers)


def run_metrics(
    exporter_name: str,
    country_code_alpha_iso_2: str | None = None,
    running: bool = True,
    containers: bool = False,
) -> None:
    """Measure and export as `run`.

    Args:
        exporter_name: as for `run`.
        country_code_alpha_iso_2: as for `run`.
        running: until Ctrl-C; otherwise one second.
        containers: as for `run`.

    Raises:
        Exception: as `run`.
    """
    builder = TracarbonBuilder()
    configuration = builder.configuration
    logger_configuration(configuration.log_level)
    exporter = get_exporter(exporter_name, [], builder)
    location = Country.get_location(
        configuration.co2signal_api_key, configuration.co2signal_url, country_code_alpha_iso_2
    )
    exporter.metric_generators = default_generators(location)
    if containers:
        exporter.metric_generators += add_containers_generator(location)
    tracarbon = builder.with_exporter(exporter).with_location(location).build()
    try:
        try:  # not `with`, which does not leave what an interrupt keeps it from entering
            tracarbon.start()
            _wait(tracarbon, running=running)
        finally:
            tracarbon.stop()
    except KeyboardInterrupt:
        pass
    finally:
        if tracarbon.report.start_time is not None and sys.stderr is not None:
            with suppress(OSError):
                print(tracarbon.report, file=sys.stderr)


def get_exporter(
    exporter_name: str, metric_generators: list[MetricGenerator], tracarbon_builder: TracarbonBuilder | None = None
) -> Exporter:
    """Construct an installed exporter, with its default options.

    Args:
        exporter_name: its name, in any case.
        metric_generators: what it exports when it is started.
        tracarbon_builder: whose configuration has the prefix of the metric names.

    Raises:
        PluginError: it is not installed (says what to install), or it has options that have no default.
    """
    builder = tracarbon_builder or TracarbonBuilder()
    if not isinstance(exporter_name, str):
        raise PluginError(f"an exporter is named by a text, such as 'Stdout', not by {exporter_name!r}")
    plugin = find_plugin(EXPORTER, exporter_name)
    if plugin is None:
        raise PluginError(": ".join(filter(None, not_installed(EXPORTER, exporter_name))))
    loaded = load_class(plugin)
    prefix = builder.configuration.metric_prefix_name
    context = PluginContext(plugin.name, metric_prefix_name=prefix)
    try:
        exporter = loaded.from_options(loaded.Options(), context)
    except ValidationError as error:
        missing = ", ".join(str(detail["loc"][0]) for detail in error.errors())
        raise PluginError(
            f"exporter {plugin.name} has to be told its {missing}: construct {loaded.__name__} yourself, "
            "or run a pipeline.toml"
        ) from None
    assert isinstance(exporter, Exporter)
    weakref.finalize(exporter, context.close)
    exporter.metric_generators = list(metric_generators)
    exporter.metric_prefix_name = prefix
    return exporter


def add_containers_generator(location: Location) -> list[MetricGenerator]:
    """Return the generators of energy and carbon of Kubernetes containers.

    Args:
        location: where the machine is.

    Raises:
        ImportError: tracarbon-k8s is not installed; says what to install.
    """
    from tracarbon.general_metrics import CarbonEmissionKubernetesGenerator, EnergyConsumptionKubernetesGenerator

    return [
        EnergyConsumptionKubernetesGenerator(location=location),
        CarbonEmissionKubernetesGenerator(location=location),
    ]


def _wait(tracarbon: Tracarbon, *, running: bool) -> None:
    if not running:
        tracarbon.wait(_SHORT_RUN_SECONDS)
        return
    while not tracarbon.wait(_POLL_SECONDS):
        pass
