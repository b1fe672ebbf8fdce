"""Fixtures for the tests of plugins. pytest finds this module by its entry point, and every run of pytest imports it.

So it imports nothing but pytest, and can do without that too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

try:
    from pytest import fixture
except ImportError:  # without pytest there is nobody to ask for fixtures

    def fixture(function):  # type: ignore[no-untyped-def,no-redef]
        """Leave the function as it is."""
        return function


if TYPE_CHECKING:
    from tracarbon.plugin import PluginContext
    from tracarbon.testing import FixedLocation, FixedSensor, ManualClock, RecordingExporter


@fixture
def manual_clock() -> ManualClock:
    """A clock that stands still until the test turns it."""
    from tracarbon.testing import ManualClock

    return ManualClock()


@fixture
def fixed_sensor() -> FixedSensor:
    """A sensor, or meter, that always says the same watts."""
    from tracarbon.testing import FixedSensor

    return FixedSensor()


@fixture
def fixed_location() -> FixedLocation:
    """A location of 3600 g/kWh: a gram for each kilojoule."""
    from tracarbon.testing import FixedLocation

    return FixedLocation()


@fixture
def recording_exporter() -> RecordingExporter:
    """An exporter that keeps what it is given."""
    from tracarbon.testing import RecordingExporter

    return RecordingExporter()


@fixture
def plugin_context(
    manual_clock: ManualClock, fixed_sensor: FixedSensor, fixed_location: FixedLocation
) -> Iterator[Callable[..., PluginContext]]:
    """Makes contexts to construct plugins with, over the other fixtures."""
    from tracarbon.plugin import PluginContext

    made: list[PluginContext] = []

    def make(name: str = "plugin", **how: Any) -> PluginContext:
        defaults = {"clock": manual_clock, "meter": fixed_sensor, "location": fixed_location}
        made.append(PluginContext(name, **{**defaults, **how}))
        return made[-1]

    yield make
    for context in made:
        context.close()
