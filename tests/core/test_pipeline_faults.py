"""One bad plugin harms nobody: hanging, raising, late and lying sensors, generators and locations."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncGenerator

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tracarbon._runner import FORGIVING_CALLS
from tracarbon._states import ComponentState
from tracarbon.exporters.exporter import Metric
from tracarbon.hardwares.energy import DeviceUsage, EnergyUsage

from tests.support.fakes import (
    CPU,
    GRAPHICS_CARD,
    MEMORY,
    FakeGenerator,
    FakeSensor,
    Fault,
    Panic,
    Rig,
    Script,
    constant,
    hang,
    leak_cancellation,
    raising,
)

HOST, CPU_WATTS, MEMORY_WATTS = "energy_consumption_host", "energy_consumption_cpu", "energy_consumption_memory"
GRAMS = "carbon_emission_host"
BLOCKED = "it blocked everybody else for 0.5 s: its code waits or computes without `await`, or the machine is very busy"


# ---- sensors


async def test_a_sensor_that_hangs_costs_the_others_one_short_deadline_once() -> None:
    """L30, L32: one that hangs held up everybody."""
    rig = Rig(interval_seconds=10.0)
    rig.sensor()
    rig.sensor("hung", loads={MEMORY: constant(5.0)}, script=Script([None, None], then=hang))
    rig.energy()
    exporter = rig.exporter()
    async with rig.running():
        await rig.to(105.0)
        assert rig.component("hung").state is ComponentState.FAILED
        assert rig.component("hung").reason == "no answer within 10 s"
        assert rig.component("sensor").state is ComponentState.OK
    ends = [window.end - rig.start for window in exporter.windows()]
    assert ends[:-1] == pytest.approx([0.15, 10.5, *range(20, 110, 10)])
    # The last close waits for it once more, unless it is being left alone: its time-out and a tick come at one instant.
    assert ends[-1] in (pytest.approx(105.0), pytest.approx(107.0))
    assert exporter.total(CPU_WATTS) == pytest.approx(1050.0)


async def test_a_sensor_that_hangs_once_loses_nothing() -> None:
    """A missing read is a gap that the next good reading recovers; it is never a zero."""
    rig = Rig(interval_seconds=10.0)
    rig.sensor(script=Script([None, None, hang]))
    rig.energy()
    exporter = rig.exporter()
    async with rig.running():
        await rig.to(45.0)
    assert exporter.total(HOST) == pytest.approx(450.0)
    assert exporter.values(HOST) == pytest.approx([10.0] * len(exporter.values(HOST)))


async def test_a_sensor_that_is_always_late_holds_up_one_close_alone_and_loses_nothing() -> None:
    rig = Rig(interval_seconds=10.0)
    rig.sensor()
    rig.sensor("slow", loads={MEMORY: constant(5.0)}, script=Script([None, None], then=rig.late(1.0)))
    rig.energy()
    exporter = rig.exporter()
    async with rig.running():
        await rig.to(65.0)
    ends = [window.end - rig.start for window in exporter.windows()]
    assert ends == pytest.approx([0.15, 10.5, 20.0, 30.0, 40.0, 50.0, 60.0, 66.0])
    assert exporter.total(CPU_WATTS) == pytest.approx(650.0)
    assert exporter.total(MEMORY_WATTS) == pytest.approx(5.0 * 66.0)
    assert rig.component("slow").failures == 0


async def test_what_is_lost_of_a_sensor_that_does_not_answer_at_the_end_is_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rig = Rig(interval_seconds=10.0)
    rig.sensor()
    rig.sensor("slow", loads={MEMORY: constant(5.0)}, script=Script([None, None, None], then=rig.late(2.5)))
    rig.energy()
    exporter = rig.exporter()
    async with rig.running():
        await rig.to(15.0)
        with caplog.at_level(logging.WARNING, "tracarbon"):
            await rig.stop()
    assert "sensor slow degraded: its last 7 s were not read and are lost" in caplog.messages
    assert exporter.total(MEMORY_WATTS) == pytest.approx(5.0 * 10.0)


@pytest.mark.parametrize("seconds", [0.4, 1.5, 2.5, 4.0])
async def test_samples_that_take_longer_than_the_interval_count_in_full(seconds: float) -> None:
    rig = Rig(interval_seconds=1.0)
    rig.sensor()
    slow = rig.sensor("slow", loads={MEMORY: constant(5.0)}, counts=False, script=Script(then=rig.late(seconds)))
    rig.energy()
    exporter = rig.exporter()
    async with rig.running():
        await rig.to(30.0)
    covered = max(at for at in slow.read_at if at <= exporter.windows()[-1].end) - slow.read_at[0]
    assert covered > 25.0
    assert exporter.total(MEMORY_WATTS) == pytest.approx(5.0 * covered)


async def test_a_sensor_is_waited_for_again_once_it_answers_in_time() -> None:
    rig = Rig(interval_seconds=10.0)
    rig.sensor(script=Script([None, None, rig.late(1.0), None, rig.late(0.4), rig.late(0.4)]))
    rig.energy()
    exporter = rig.exporter()
    async with rig.running():
        await rig.to(45.0)
    ends = [window.end - rig.start for window in exporter.windows()]
    assert ends == pytest.approx([0.15, 10.5, 20.0, 30.4, 40.4, 45.0])
    assert exporter.total(HOST) == pytest.approx(450.0)


async def test_a_sensor_that_raises_is_asked_again_and_then_entered_again_with_back_off() -> None:
    """T14: one exception ended scheduling for good. L31."""
    rig = Rig(interval_seconds=1.0)
    failing = [raising(OSError("EIO"))] * 6
    sensor = rig.sensor(script=Script([None, None, *failing]))
    rig.energy()
    exporter = rig.exporter()
    async with rig.running():
        await rig.to(3.0)
        assert (rig.component("sensor").state, rig.component("sensor").reason) == (
            ComponentState.FAILED,
            "OSError: EIO",
        )
        assert sensor.entries == 1
        await rig.to(100.0)
        assert rig.component("sensor").state is ComponentState.OK
    assert sensor.entries == sensor.exits == 5  # at 3 s it was let go; back after 4, 8, 16 and 32 s
    assert exporter.total(HOST) == pytest.approx(1000.0)


@settings(max_examples=25)
@given(
    st.lists(st.sampled_from(["ok", "raise", "hang", "late", "block"]), max_size=14),
    st.lists(st.sampled_from(["ok", "raise", "hang", "late"]), max_size=14),
    st.lists(st.sampled_from(["ok", "raise", "hang", "midway"]), max_size=10),
)
async def test_no_sequence_of_faults_loses_a_joule(one: list[str], other: list[str], generator: list[str]) -> None:
    """Two sensors of counters, a generator and an exporter, each with faults: the totals are the truth."""
    rig = Rig(interval_seconds=10.0)

    def fault(name: str) -> Fault | None:
        faults: dict[str, Fault] = {
            "raise": raising(OSError("down")),
            "midway": raising(OSError("down")),
            "hang": hang,
            "late": rig.late(2.0),
            "block": rig.blocking(12.0),
        }
        return faults.get(name)

    rig.sensor("one", script=Script([None, *map(fault, one)]))
    rig.sensor("other", loads={MEMORY: constant(3.0)}, script=Script([None, *map(fault, other)]))
    rig.generator(
        "generator",
        script=Script(fault(name) if name != "midway" else None for name in generator),
        midway=Script(fault(name) if name == "midway" else None for name in generator),
    )
    exporter = rig.exporter(script=Script(fault(name) for name in reversed(one) if name in ("ok", "raise")))
    async with rig.running():
        await rig.to(1000.0)
        await rig.clock.advance(10.0)
        stopped_at = rig.clock.monotonic()
    assert exporter.total("host") == pytest.approx(13.0 * (stopped_at - rig.start))


async def test_one_sensor_that_fails_leaves_the_other_its_figures_and_the_host_unknown_for_a_while() -> None:
    """L14: one of two that said nothing was summed as if total. L8."""
    rig = Rig(interval_seconds=10.0)
    rig.sensor()
    rig.sensor(
        "memory", loads={MEMORY: constant(5.0)}, script=Script([None, None, None], then=raising(OSError("gone")))
    )
    rig.energy()
    exporter = rig.exporter()
    async with rig.running():
        await rig.to(65.0)
    assert exporter.values(CPU_WATTS) == pytest.approx([10.0] * 8)
    assert exporter.values(MEMORY_WATTS) == pytest.approx([5.0] * 2)
    # from the third silent window on, the host is what is known; its watts hold for all that time
    assert exporter.values(HOST) == pytest.approx([15.0, 15.0, 10.0, 10.0, 10.0, 10.0])
    assert exporter.total(HOST) == pytest.approx(650.0 + 50.0)


class Lying(FakeSensor):
    """Says watts that cannot be."""

    async def get_energy_usage(self) -> EnergyUsage:
        usage = await super().get_energy_usage()
        lie = DeviceUsage(GRAPHICS_CARD, math.nan, 10.0)
        return EnergyUsage(devices=[lie, *usage.devices])


async def test_a_sensor_that_lies_is_degraded_and_what_is_sound_counts() -> None:
    rig = Rig(interval_seconds=10.0)
    rig.add_sensor("liar", Lying(clock=rig.clock))
    rig.energy()
    exporter = rig.exporter()
    async with rig.running():
        await rig.to(20.0)
        assert rig.component("liar").state is ComponentState.DEGRADED
        assert rig.component("liar").reason == "card: nan W over 10.0 s"
    assert exporter.total(CPU_WATTS) == pytest.approx(200.0)
    assert exporter.records("energy_consumption_gpu") == []


async def test_problems_of_a_reading_are_shown_while_they_last(caplog: pytest.LogCaptureFixture) -> None:
    class Partial(FakeSensor):
        async def get_energy_usage(self) -> EnergyUsage:
            usage = await super().get_energy_usage()
            usage.problems = ["dram-0: permission denied"] if len(self.read_at) in (3, 4) else []
            return usage

    rig = Rig(interval_seconds=10.0)
    rig.add_sensor("rapl", Partial(clock=rig.clock))
    async with rig.running():
        with caplog.at_level(logging.WARNING, "tracarbon"):
            await rig.to(15.0)
            assert rig.component("rapl").reason == "dram-0: permission denied"
            await rig.to(35.0)
    assert [record.getMessage() for record in caplog.records] == [
        "sensor rapl degraded: dram-0: permission denied",
        "sensor rapl works again",
    ]


async def test_a_plugin_that_blocks_the_event_loop_is_named() -> None:
    rig = Rig(interval_seconds=10.0)
    rig.sensor(script=Script([None, None, rig.blocking(2.5)]))
    async with rig.running():
        await rig.to(13.0)
    assert "sensor sensor degraded" in rig.listener.moments


async def test_one_that_blocks_in_every_call_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig(interval_seconds=10.0)
    rig.sensor(script=Script([None, None, *[rig.blocking(0.5)] * 4]))
    async with rig.running():
        with caplog.at_level(logging.WARNING, "tracarbon"):
            await rig.to(65.0)
        assert rig.component("sensor").state is ComponentState.DEGRADED
    assert [record.getMessage() for record in caplog.records] == [f"sensor sensor degraded: {BLOCKED}"]


async def test_one_that_blocked_is_forgiven_once_it_has_not_for_many_calls(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig(interval_seconds=10.0)
    rig.sensor(script=Script([None, None, rig.blocking(0.5), *[None] * (FORGIVING_CALLS - 1)]))
    async with rig.running():
        with caplog.at_level(logging.WARNING, "tracarbon"):
            await rig.to(10.0 * FORGIVING_CALLS + 5.0)
            assert rig.component("sensor").reason == BLOCKED
            await rig.to(10.0 * FORGIVING_CALLS + 15.0)
            assert rig.component("sensor").state is ComponentState.OK
    said = [record.getMessage() for record in caplog.records]
    assert said == [f"sensor sensor degraded: {BLOCKED}", "sensor sensor works again"]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (leak_cancellation, ""),
        (raising(asyncio.CancelledError("odd")), "CancelledError: odd"),
        (raising(SystemExit(3)), "SystemExit: 3"),
        (raising(GeneratorExit("odd")), "GeneratorExit: odd"),
        (raising(Panic("index out of bounds")), "Panic: index out of bounds"),
        (raising(ExceptionGroup("all", [OSError("one"), ValueError("two")])), "OSError: one; ValueError: two"),
        (raising(BaseExceptionGroup("all", [SystemExit(3), OSError("one")])), "SystemExit: 3; OSError: one"),
    ],
    ids=["cancellation", "asyncio's cancellation", "exit", "generator exit", "panic", "group", "base group"],
)
@pytest.mark.parametrize("who", ["sensor", "generator", "exporter"])
async def test_whatever_a_plugin_raises_harms_nobody_and_nothing_is_lost(who: str, fault: Fault, reason: str) -> None:
    rig = Rig(interval_seconds=10.0)
    script = Script([None, None, fault])
    rig.sensor(script=script if who == "sensor" else Script())
    rig.sensor("other", loads={MEMORY: constant(1.0)})
    rig.generator("generator", script=script if who == "generator" else Script())
    exporters = {
        "exporter": rig.exporter(script=script if who == "exporter" else Script()),
        "good": rig.exporter("good"),
    }
    async with rig.running():
        await rig.to(20.9)
        assert rig.component(who).failures == 1
        assert reason in rig.component(who).reason or rig.component(who).state is ComponentState.OK
        await rig.to(65.0)
        assert rig.component(who).state is ComponentState.OK
    for exporter in exporters.values():
        assert exporter.total("host") == pytest.approx(11.0 * 65.0)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), BaseExceptionGroup("all", [KeyboardInterrupt()])])
def test_keyboard_interrupt_is_not_a_plugins_fault(backend: str, error: BaseException) -> None:
    async def main() -> None:
        rig = Rig(interval_seconds=10.0)
        rig.sensor(script=Script([None, None, raising(error)]))
        async with rig.running():
            await rig.to(20.0)

    with pytest.raises((KeyboardInterrupt, BaseExceptionGroup)):
        anyio.run(main, backend=backend)


# ---- generators


async def test_a_generator_slower_than_the_interval_gets_longer_windows_and_starves_nobody() -> None:
    """L32: a slow generator starved the others."""
    rig = Rig(interval_seconds=10.0, flush_seconds=30.0)
    rig.sensor()
    rig.generator("slow", script=Script(then=rig.late(12.0)))
    rig.generator("quick")
    slow, quick = rig.exporter("s", inputs=["slow"]), rig.exporter("q", inputs=["quick"])
    async with rig.running():
        await rig.to(95.0)
    assert [window.end - rig.start for window in quick.windows()] == pytest.approx([0.15, *range(10, 100, 10), 95.0])
    assert slow.total("host") == quick.total("host") == pytest.approx(950.0)
    assert slow.total("windows") < quick.total("windows")
    assert rig.component("slow").failures == 0


async def test_a_generator_that_raises_midway_commits_nothing() -> None:
    rig = Rig(interval_seconds=10.0)
    rig.sensor()
    rig.generator("broken", midway=Script([None, raising(ValueError("midway")), raising(ValueError("midway"))]))
    exporter = rig.exporter()
    async with rig.running():
        await rig.to(15.0)
        assert rig.component("broken").state is ComponentState.FAILED
        await rig.to(35.0)
        assert rig.component("broken").state is ComponentState.OK
    assert exporter.values("windows") == [1.0, 1.0, 1.0]
    assert [record.covered_seconds for record in exporter.records("host")] == pytest.approx([0.15, 29.85, 5.0])
    assert exporter.total("host") == pytest.approx(350.0)


async def test_a_generator_that_goes_on_in_spite_of_a_problem_is_degraded() -> None:
    rig = Rig(interval_seconds=10.0)
    rig.sensor()
    generator = rig.generator("generator")
    exporter = rig.exporter()
    async with rig.running():
        await rig.to(12.0)
        generator.problems = ["no names", "no cards"]
        await rig.to(22.0)
        component = rig.component("generator")
        assert (component.state, component.reason) == (ComponentState.DEGRADED, "no names; no cards")
        generator.problems = []
        await rig.to(32.0)
        assert component.state is ComponentState.OK
    assert exporter.total("windows") == len(exporter.windows())


async def test_a_generator_that_hangs_is_given_up_after_its_deadline_and_the_others_go_on() -> None:
    rig = Rig(interval_seconds=10.0)
    rig.sensor()
    rig.generator("hung", script=Script([None, hang]))
    rig.energy()
    exporter = rig.exporter()
    async with rig.running():
        await rig.to(39.9)
        assert rig.component("hung").failures == 0
        await rig.to(65.0)
        assert rig.component("hung").failures == 1
        assert "generator hung failed" in rig.listener.moments
    assert exporter.total("host") == pytest.approx(650.0)
    assert exporter.values(HOST) == pytest.approx([10.0] * 8)


async def test_the_energy_of_a_window_is_the_same_all_through_a_run_of_the_generator() -> None:
    class Twice(FakeGenerator):
        async def generate(self) -> AsyncGenerator[Metric, None]:
            before = await self.view.get_energy_usage()
            await self.midway.play()
            after = await self.view.get_energy_usage()
            assert before == after
            yield Metric(name="same", value=1.0)

    rig = Rig(interval_seconds=10.0)
    rig.sensor(script=Script(then=rig.late(0.1)))
    view = rig.pipeline.view()
    twice = Twice(view=view, midway=Script(then=rig.late(11.0)))
    rig.pipeline.add_generator(rig.pipeline.components.add("generator", "twice"), twice, view)
    exporter = rig.exporter()
    async with rig.running():
        await rig.to(65.0)
    assert rig.component("twice").failures == 0
    assert len(exporter.records("same")) >= 4


# ---- locations


async def test_an_intensity_that_is_unknown_for_a_while_loses_no_gram() -> None:
    """L1: the energy of the interval was lost when the lookup failed; 0.667 g of 3.833 g were told."""
    rig = Rig(interval_seconds=10.0)
    rig.sensor()
    location = rig.location()
    rig.carbon(location)
    rig.energy()
    exporter = rig.exporter()
    async with rig.running():
        await rig.to(15.0)
        location.script.then = raising(OSError("no network"))
        await rig.to(45.0)
        assert rig.component("carbon").reason == "OSError: no network"
        assert rig.component("energy").state is ComponentState.OK
        location.script.then = None
        await rig.to(55.0)
    assert exporter.values(GRAMS) == pytest.approx([1.5, 98.5, 400.0, 50.0])
    assert exporter.total(HOST) == pytest.approx(550.0)
    assert len(exporter.records(HOST)) == 7


async def test_an_intensity_that_hangs_holds_up_no_energy_and_loses_no_gram() -> None:
    """L23: every collection took 10 s while the service hung."""
    rig = Rig(interval_seconds=10.0)
    rig.sensor()
    location = rig.location(script=Script([None, None, hang]))
    rig.carbon(location)
    rig.energy()
    exporter = rig.exporter()
    async with rig.running():
        await rig.to(75.0)
    assert exporter.total(GRAMS) == pytest.approx(750.0)
    assert [record.last_seen - rig.start for record in exporter.records(HOST)] == pytest.approx(
        [0.15, *range(10, 80, 10), 75.0]
    )


async def test_carbon_uses_the_intensity_of_its_window() -> None:
    rig = Rig(interval_seconds=10.0)
    rig.sensor(loads={CPU: constant(36.0)})
    location = rig.location(intensity=100.0)
    rig.carbon(location)
    exporter = rig.exporter()
    async with rig.running():
        await rig.to(10.0)
        location.intensity = 0.0
        await rig.to(20.0)
        location.intensity = -1.0
        await rig.to(30.0)
        assert rig.component("carbon").reason == "location xx: -1.0 g/kWh is no carbon intensity"
        location.intensity = 1000.0
        await rig.to(40.0)
    assert exporter.values(GRAMS) == pytest.approx([0.15e-3, 9.85e-3, 0.0, 0.2])
