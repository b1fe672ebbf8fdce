"""What a generator has to keep to."""

from __future__ import annotations

import math
import re
from collections import Counter
from contextlib import aclosing
from pathlib import Path
from typing import Any, ClassVar

from tracarbon._discovery import GENERATOR, Kind
from tracarbon.exporters.exporter import Metric, MetricKind
from tracarbon.plugin import PluginContext
from tracarbon.testing._clock import SleeplessClock
from tracarbon.testing._contract import PluginContract
from tracarbon.testing._parts import FixedLocation, FixedSensor

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_KINDS = {"watts": MetricKind.RATE, "joules": MetricKind.AMOUNT, "co2g": MetricKind.AMOUNT}


class GeneratorContract(PluginContract):
    """The standard tests of a generator, over a meter whose figures are known."""

    _kind: ClassVar[Kind] = GENERATOR

    def meter(self) -> FixedSensor:
        """Return the meter that the generator reads."""
        return FixedSensor()

    def test_metrics_are_sound(self) -> None:
        """There are metrics; their names are snake_case and their values finite numbers."""

        async def collect(folder: Path) -> None:
            values = await self._values(folder, self.meter())
            assert any(value is not None for _, value in values), "no metric has a value"
            for metric, value in values:
                assert _NAME.fullmatch(metric.name), f"{metric.name!r}: names are lower case, digits and underscores"
                assert value is None or math.isfinite(value), f"{metric.name} is {value}"

        self._on_each_loop(collect)

    def test_a_series_comes_once(self) -> None:
        """Two metrics of one window differ in their name or their tags."""

        async def collect(folder: Path) -> None:
            values = await self._values(folder, self.meter())
            series = Counter((metric.name, tuple(sorted(metric.tags))) for metric, _ in values)
            twice = [name for (name, _), count in series.items() if count > 1]
            assert not twice, f"{', '.join(twice)}: more than once with the same tags"

        self._on_each_loop(collect)

    def test_values_can_be_asked_for_late(self) -> None:
        """Values that are calls say the same when all of them are called after the last metric has come."""

        async def collect(folder: Path) -> None:
            at_once = await self._values(folder, self.meter())
            late = await self._values(folder, self.meter(), is_late=True)
            assert [value for _, value in at_once] == [value for _, value in late], (
                "values called late differ: closures in a loop see its last round"
            )

        self._on_each_loop(collect)

    def test_the_meter_is_read_once_in_a_window(self) -> None:
        """Energy and carbon of a window come from one reading."""

        async def collect(folder: Path) -> None:
            meter = self.meter()
            await self._values(folder, meter)
            assert meter.asked <= 1, f"the meter was read {meter.asked} times for one window"

        self._on_each_loop(collect)

    def test_a_failing_meter_is_no_zero(self) -> None:
        """What the meter raises comes through: the window then waits, and nothing is lost."""

        async def collect(folder: Path) -> None:
            meter = self.meter()
            meter.error = OSError("the meter fails")
            try:
                await self._values(folder, meter)
            except OSError:
                return
            assert not meter.asked, "the meter failed, and nobody heard of it; let the exception through"

        self._on_each_loop(collect)

    def test_unknown_is_left_out(self) -> None:
        """Where the meter knows nothing there is no power and no carbon: not 0 either."""

        async def collect(folder: Path) -> None:
            meter = self.meter()
            meter.watts = {}
            for metric, value in await self._values(folder, meter):
                assert value is None or metric.unit not in _KINDS, f"{metric.name} is {value}, and nothing is known"

        self._on_each_loop(collect)

    def test_metrics_say_how_they_add_up(self) -> None:
        """Watts are a rate, joules and grams an amount: merged batches and totals depend on it."""

        async def collect(folder: Path) -> None:
            for metric, _ in await self._values(folder, self.meter()):
                kind = _KINDS.get(metric.unit or "", metric.kind)
                assert metric.kind is kind, f"{metric.name} in {metric.unit} has to be of kind {kind.value}"

        self._on_each_loop(collect)

    def test_provenance_is_stated(self) -> None:
        """Tags of energy and carbon say the sensor and its fidelity, and for carbon the intensity's source."""

        async def collect(folder: Path) -> None:
            for metric, _ in await self._values(folder, self.meter()):
                if metric.unit not in _KINDS:
                    continue
                wanted = {"sensor", "fidelity"} | ({"location", "source"} if metric.unit == "co2g" else set())
                missing = wanted - {tag.key for tag in metric.tags}
                assert not missing, f"{metric.name} has no tag {', '.join(sorted(missing))}"

        self._on_each_loop(collect)

    async def _use(self, plugin: Any, folder: Path) -> object:
        return [(metric, await _value(metric)) async for metric in plugin.generate()]

    async def _values(
        self, folder: Path, meter: FixedSensor, *, is_late: bool = False
    ) -> list[tuple[Metric, float | None]]:
        options, context = self._given(folder)
        context.meter = meter
        generator: Any = self._cls().from_options(options, context)
        try:
            async with generator:
                return await self._call(_late(generator) if is_late else _at_once(generator))
        finally:
            context.close()

    def _context(self, folder: Path) -> PluginContext:
        return PluginContext(
            self.plugin,
            meter=self.meter(),
            location=FixedLocation(),
            clock=SleeplessClock(),
            host_root=self.host_root(folder),
        )


async def _at_once(generator: Any) -> list[tuple[Metric, float | None]]:
    async with aclosing(generator.generate()) as metrics:
        return [(metric, await _value(metric)) async for metric in metrics]


async def _late(generator: Any) -> list[tuple[Metric, float | None]]:
    async with aclosing(generator.generate()) as generated:
        metrics = [metric async for metric in generated]
    return [(metric, await _value(metric)) for metric in metrics]


async def _value(metric: Metric) -> float | None:
    value: float | None = await metric.value() if metric.value is not None else None
    return value
