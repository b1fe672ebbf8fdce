"""What a pipeline says of itself to whoever watches over it: its ticks, and what its exporters merge and drop."""

from __future__ import annotations

import pytest
from tracarbon.exporters.exporter import Batch, Exporter
from tracarbon.plugin import PluginContext

from tests.support.fakes import Rig, Script, hang, raising

DOWN = raising(OSError("refused"))


def ticking() -> Rig:
    rig = Rig(interval_seconds=10.0)
    rig.sensor()
    rig.energy()
    return rig


async def test_ticks_are_counted_and_the_last_is_known() -> None:
    rig = ticking()
    pulse = rig.pipeline.pulse
    assert (pulse.interval_seconds, pulse.ticks, pulse.last_tick_at) == (10.0, 0, None)
    async with rig.running():
        await rig.to(35.0)
        assert (pulse.ticks, pulse.skipped_ticks) == (4, 0)
        assert pulse.last_tick_at == pytest.approx(rig.start + 30.0)
    assert pulse.ticks == 5


async def test_the_time_that_sensors_take_is_the_ticks() -> None:
    rig = Rig(interval_seconds=10.0)
    rig.sensor(script=Script([None], then=rig.late(0.25)))
    rig.energy()
    async with rig.running():
        await rig.to(35.0)
        assert rig.pipeline.pulse.tick_seconds == pytest.approx(4 * 0.25)


async def test_ticks_that_a_blocking_sensor_swallows_are_skipped() -> None:
    rig = Rig(interval_seconds=10.0)
    rig.sensor(script=Script([None, None, rig.blocking(35.0)]))
    rig.energy()
    async with rig.running():
        await rig.to(60.0)
        assert rig.pipeline.pulse.skipped_ticks == 3


async def test_only_windows_that_wait_count_as_merged() -> None:
    """Energy and carbon of one window come in one batch, which is as it should be."""
    rig = ticking()
    rig.carbon(rig.location())
    rig.exporter("good")
    rig.exporter("slow", interval=30.0)
    rig.exporter("bad", script=Script([None], then=hang))
    async with rig.running():
        await rig.to(45.0)
        assert rig.component("good").merged_batches == rig.component("slow").merged_batches == 0
        assert rig.component("bad").merged_batches > 0


async def test_what_is_given_up_on_at_the_end_is_dropped() -> None:
    rig = ticking()
    rig.exporter("bad", script=Script(then=DOWN))
    async with rig.running():
        await rig.to(5.0)
    assert rig.component("bad").dropped_records == 2


class Curious(Exporter):
    """Keeps what it was told of its pipeline."""

    context: PluginContext | None = None

    def attach(self, context: PluginContext) -> None:
        self.context = context

    async def export(self, batch: Batch) -> None:
        pass


def test_an_exporter_of_code_is_told_of_its_pipeline() -> None:
    exporter = Curious()
    exporter.start(10.0)
    exporter.stop()
    context = exporter.context
    assert context is not None
    assert context.pulse.ticks > 0
    assert {component.kind for component in context.components} == {"sensor", "location", "generator", "exporter"}
    assert context.component.name == "Curious"
