"""When windows are closed, what they cover, and how a pipeline starts and ends."""

from __future__ import annotations

import logging
from itertools import pairwise

import anyio
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tracarbon._states import ComponentState
from tracarbon.exceptions import StartupError
from tracarbon.metrics import Window

from tests.support.fakes import (
    CPU,
    GRAPHICS_CARD,
    MEMORY,
    FakeGenerator,
    FakeSensor,
    Fault,
    Load,
    RecordingExporter,
    Rig,
    Script,
    constant,
    hang,
    raising,
)

HOST = "energy_consumption_host"
GRAMS = "carbon_emission_host"


def assert_tiled(windows: list[Window], start: float, end: float) -> None:
    """Windows follow one another without gap or overlap."""
    assert windows[0].start == start
    assert windows[-1].end == end
    for one, other in pairwise(windows):
        assert one.end == other.start


async def test_first_window_is_short_and_the_next_ends_where_the_first_tick_is_due() -> None:
    """Decision: the quick window is a real one, and tick 1 covers the rest of the interval."""
    rig = Rig(interval_seconds=10.0)
    rig.sensor(loads={CPU: Load((1000.0, 10.0), (1100.0, 110.0))})
    rig.energy()
    exporter = rig.exporter()
    async with rig.running():
        await rig.to(0.14)
        assert exporter.delivered == []
        await rig.to(0.15)
        assert [record.covered_seconds for record in exporter.records(HOST)] == [pytest.approx(0.15)]
        await rig.to(31.0)
        assert exporter.delivered_at == pytest.approx([1000.15, 1010.0, 1020.0, 1030.0])
        await rig.to(33.0)
    assert_tiled(exporter.windows(), rig.start, rig.start + 33.0)
    assert exporter.total(HOST) == pytest.approx(Load((0.0, 10.0), (100.0, 110.0)).joules(0.0, 33.0))


async def test_ticks_do_not_drift_and_late_ones_are_skipped_without_bursts() -> None:
    """L32: the interval drifted by the time of the collection. L34: 1 s became gaps of 4 s."""
    rig = Rig(interval_seconds=10.0)
    rig.sensor(script=Script([None, None, rig.blocking(0.3), rig.blocking(25.0), None, rig.blocking(0.2)]))
    rig.energy()
    exporter = rig.exporter()
    async with rig.running():
        await rig.to(75.0)
    ends = [window.end - rig.start for window in exporter.windows()]
    assert ends == pytest.approx([0.15, 10.3, 45.0, 50.0, 60.2, 70.0, 75.0])
    assert_tiled(exporter.windows(), rig.start, rig.start + 75.0)
    assert exporter.total(HOST) == pytest.approx(750.0)


@settings(max_examples=30)
@example(0.2, [0.0, 0.0, 1.0, 2.0], 0.5)
@given(
    st.sampled_from([0.2, 1.0, 7.0, 60.0]),
    st.lists(st.one_of(st.just(0.0), st.floats(0.0, 0.2), st.floats(0.0, 3.5)), min_size=1, max_size=12),
    st.floats(0.01, 0.99),
)
async def test_windows_tile_time_whatever_the_ticks_take(interval: float, delays: list[float], rest: float) -> None:
    """No gap, no overlap, no tick before it is due, none twice, and every joule; `delays` are in intervals."""
    rig = Rig(interval_seconds=interval)
    rig.sensor(script=Script([None, *(rig.blocking(delay * interval) for delay in delays)]))
    rig.energy()
    exporter = rig.exporter()
    async with rig.running():
        await rig.to(0.0)
        while len(rig.listener.moments) < 200 and len(exporter.delivered) <= len(delays):
            await rig.clock.advance(interval)
        await rig.clock.advance(rest * interval)
        stopped_at = rig.clock.monotonic()
    assert_tiled(exporter.windows(), rig.start, stopped_at)
    assert exporter.total(HOST) == pytest.approx(10.0 * (stopped_at - rig.start))
    quick, *ticks = [window.end - rig.start for window in exporter.windows()[:-1]]
    assert quick >= min(0.15, interval / 2) - 1e-6
    numbers = [int(end / interval + 1e-6) for end in ticks]
    assert numbers == sorted(set(numbers))
    assert numbers == [] or numbers[0] >= 1


async def test_stop_reads_the_last_partial_window() -> None:
    rig = Rig(interval_seconds=3600.0)
    rig.sensor()
    rig.energy()
    exporter = rig.exporter()
    async with rig.running():
        await rig.to(7.5)
    assert exporter.total(HOST) == pytest.approx(75.0)
    assert rig.ended_at == rig.start + 7.5
    assert {component.state for component in rig.pipeline.components} == {ComponentState.STOPPED}


async def test_stop_waits_for_a_sensor_that_was_late_before() -> None:
    rig = Rig(interval_seconds=10.0)
    rig.sensor(script=Script([None, None, rig.late(2.0), rig.late(0.3)]))
    rig.energy()
    exporter = rig.exporter()
    async with rig.running():
        await rig.to(15.0)
    assert exporter.total(HOST) == pytest.approx(153.0)


async def test_stop_tries_a_sensor_once_more_that_is_left_alone_after_failures() -> None:
    rig = Rig(interval_seconds=1.0)
    gone = raising(OSError("gone"))
    rig.sensor(script=Script([None, None, *[gone] * 4]))
    rig.energy()
    exporter = rig.exporter()
    async with rig.running():
        await rig.to(8.5)
        assert rig.component("sensor").state is ComponentState.FAILED
    assert exporter.total(HOST) == pytest.approx(85.0)
    assert not rig.pipeline.all_sensors_failed
    assert rig.ended_at == rig.start + 8.5


async def test_stop_does_not_wait_for_a_sensor_that_cannot_be_entered_again(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig(interval_seconds=1.0)
    gone = raising(OSError("gone"))
    rig.sensor(script=Script([None, None], then=gone), entering=Script([None], then=gone))
    rig.energy()
    async with rig.running():
        await rig.to(8.0)
        with caplog.at_level(logging.WARNING, "tracarbon"):
            await rig.stop()
    assert rig.pipeline.all_sensors_failed
    assert rig.ended_at == rig.start + 8.0
    assert "sensor sensor degraded: its last 7.85 s were not read and are lost (OSError: gone)" in caplog.messages


async def test_stop_waits_two_seconds_for_a_sensor_that_hangs_while_it_is_entered_again() -> None:
    rig = Rig(interval_seconds=1.0)
    rig.sensor(script=Script([None, None], then=raising(OSError("gone"))), entering=Script([None], then=hang))
    rig.energy()
    async with rig.running():
        await rig.to(8.0)
    assert rig.pipeline.all_sensors_failed
    assert rig.ended_at <= rig.start + 8.0 + 2.0 + 0.5


async def test_stop_collects_no_more() -> None:
    """T13: a pending timer collected once more after stop()."""
    rig = Rig(interval_seconds=10.0)
    sensor = rig.sensor()
    rig.energy()
    exporter = rig.exporter()
    async with rig.running():
        await rig.to(12.0)
    reads, batches = len(sensor.read_at), len(exporter.delivered)
    await rig.clock.advance(100.0)
    assert (len(sensor.read_at), len(exporter.delivered)) == (reads, batches)
    assert (sensor.exits, exporter.exits) == (1, 1)


@pytest.mark.parametrize("counts", [True, False])
@pytest.mark.parametrize("pause", [3.0, 1000.0])
async def test_a_pipeline_can_run_again_and_does_not_bill_the_pause(counts: bool, pause: float) -> None:
    """T13: a stopped exporter never ran periodically again."""
    rig = Rig(interval_seconds=10.0)
    rig.sensor(counts=counts)
    rig.carbon(rig.location())
    rig.energy()
    exporter = rig.exporter()
    for _ in range(2):
        async with rig.running():
            await rig.to(25.0)
        await rig.clock.advance(pause)
    assert exporter.total(HOST) == pytest.approx(500.0)
    assert exporter.total(GRAMS) == pytest.approx(500.0)
    assert [window.seconds for window in exporter.windows()] == pytest.approx([0.15, 9.85, 10, 5] * 2)
    assert {component.state for component in rig.pipeline.components} == {ComponentState.STOPPED}


async def test_energy_and_carbon_are_of_the_same_window_and_of_one_reading() -> None:
    """L6: 0.02054 Wh against 0.01866 g. L7: two exporters disagreed, and doubled the reads."""
    rig = Rig(interval_seconds=10.0)
    sensor = rig.sensor()
    rig.energy()
    rig.carbon(rig.location())
    exporters = [rig.exporter(name) for name in ("one", "other")]
    async with rig.running():
        await rig.to(35.0)
    assert len(sensor.read_at) == 1 + 5  # at the opening, and at each close
    for exporter in exporters:
        assert exporter.values(HOST) == pytest.approx([10.0] * 5)
        assert exporter.values(GRAMS) == pytest.approx([1.5, 98.5, 100.0, 100.0, 50.0])


async def test_a_wall_clock_that_jumps_changes_no_energy() -> None:
    """Peers take the wall clock for the interval."""
    rig = Rig(interval_seconds=10.0)
    rig.sensor()
    rig.energy()
    exporter = rig.exporter()
    async with rig.running():
        await rig.to(15.0)
        rig.clock.step_wall(-7200.0)
        await rig.to(25.0)
        rig.clock.step_wall(8 * 3600.0)  # as after a suspend, in which the monotonic clock stands still
        await rig.to(35.0)
    assert exporter.values(HOST) == pytest.approx([10.0] * 5)
    assert exporter.total(HOST) == pytest.approx(350.0)
    assert all(record.covered_seconds > 0 for record in exporter.records(HOST))
    assert_tiled(exporter.windows(), rig.start, rig.start + 35.0)


async def test_instantaneous_samples_are_integrated_between_the_closes() -> None:
    """L5: a point sample was held over the interval."""
    rig = Rig(interval_seconds=10.0)
    peak = Load((1000.0, 0.0), (1005.0, 600.0), (1010.0, 0.0), (1015.0, 600.0), (1020.0, 0.0))
    sensor = rig.sensor(loads={GRAPHICS_CARD: peak}, counts=False, interval=2.5)
    rig.energy()
    exporter = rig.exporter()
    async with rig.running():
        await rig.to(20.0)
        reads = [at - rig.start for at in sensor.read_at]
    assert reads == pytest.approx([0, 0.15, 2.5, 5, 7.5, 10, 12.5, 15, 17.5, 20])
    assert exporter.total("energy_consumption_gpu") == pytest.approx(6000.0)


async def test_a_sensor_may_learn_when_it_is_entered_how_often_it_wants_to_be_read() -> None:
    rig = Rig(interval_seconds=10.0)
    sensor = rig.sensor()

    async def learn() -> None:
        sensor.sampling_interval_seconds = 2.5  # type: ignore[misc]

    sensor.entering = Script([learn])
    rig.energy()
    async with rig.running():
        await rig.to(10.0)
        reads = [at - rig.start for at in sensor.read_at]
    assert reads == pytest.approx([0, 0.15, 2.5, 5, 7.5, 10])


async def test_a_generator_with_an_interval_runs_on_the_pipelines_ticks() -> None:
    rig = Rig(interval_seconds=10.0)
    rig.sensor()
    same, slow, odd = (rig.generator(f"g{interval:g}", interval=interval) for interval in (10.0, 30.0, 15.0))
    exporters = [rig.exporter(f"e{name}", inputs=[name]) for name in ("g10", "g30", "g15")]
    async with rig.running():
        await rig.to(65.0)
    ends = [[window.end - rig.start for window in exporter.windows()] for exporter in exporters]
    assert ends[0] == pytest.approx([0.15, 10, 20, 30, 40, 50, 60, 65])
    assert ends[1] == pytest.approx([0.15, 30, 60, 65])
    assert ends[2] == pytest.approx([0.15, 20, 30, 50, 60, 65])
    for exporter in exporters:
        assert_tiled(exporter.windows(), rig.start, rig.start + 65.0)
        assert exporter.total("host") == pytest.approx(650.0)
    assert (same.runs, slow.runs, odd.runs) == (8, 4, 6)


async def test_an_exporter_with_an_interval_gets_merged_batches_on_time() -> None:
    rig = Rig(interval_seconds=10.0)
    rig.sensor()
    rig.energy()
    exporter = rig.exporter(interval=30.0)
    async with rig.running():
        await rig.to(95.0)
    assert exporter.delivered_at == pytest.approx([1000.15, 1030.15, 1060.15, 1090.15, 1095.0])
    assert exporter.total(HOST) == pytest.approx(950.0)


async def test_failures_do_not_stretch_an_exporters_interval() -> None:
    rig = Rig(interval_seconds=10.0)
    rig.sensor()
    rig.energy()
    exporter = rig.exporter(interval=30.0, script=Script([None, *[raising(OSError("down"))] * 3]))
    async with rig.running():
        await rig.to(100.0)
    attempts = [at - rig.start for at in exporter.attempted_at]
    assert attempts == pytest.approx([0.15, 30.15, 31.15, 33.15, 37.15, 67.15, 97.15, 100.0])


async def test_exporters_get_the_generators_that_they_ask_for() -> None:
    rig = Rig(interval_seconds=10.0)
    rig.sensor()
    rig.energy()
    rig.carbon(rig.location())
    every, carbon = rig.exporter("every"), rig.exporter("some", inputs=["carbon"])
    async with rig.running():
        await rig.to(10.0)
    assert {record.name for batch in every.delivered for record in batch} >= {HOST, GRAMS}
    assert {record.generator for batch in carbon.delivered for record in batch} == {"carbon"}
    assert carbon.total(GRAMS) == pytest.approx(every.total(GRAMS))


async def test_listeners_are_told_in_order() -> None:
    rig = Rig(interval_seconds=10.0)
    rig.sensor()
    rig.energy()
    rig.exporter()
    async with rig.running():
        await rig.to(1.0)
    moments = rig.listener.moments
    assert set(moments[:3]) == {"sensor sensor ok", "generator energy ok", "exporter exporter ok"}
    assert moments[3:6] == ["started", "window energy", "exported exporter"]
    assert moments[-1] == "stopped"
    assert moments.count("stopped") == moments.count("started") == 1


async def test_what_is_to_be_released_at_the_end_is_released() -> None:
    rig = Rig()
    rig.sensor()
    released: list[str] = []
    rig.pipeline.at_stop.append(lambda: released.append("now"))
    async with rig.running():
        await rig.to(1.0)
        assert released == []
    assert released == ["now"]


# ---- start


async def start(rig: Rig, seconds: float) -> StartupError:
    """Run a pipeline that cannot start, for so long, and return what it says."""
    with pytest.raises(ExceptionGroup) as raised:
        async with anyio.create_task_group() as group:
            group.start_soon(rig.run)
            await rig.clock.advance(seconds)
    (error,) = raised.value.exceptions
    assert isinstance(error, StartupError)
    return error


async def test_components_that_do_not_start_are_all_named_and_nothing_is_measured() -> None:
    rig = Rig()
    sensor = rig.sensor("good")
    rig.sensor("bad", entering=Script(then=raising(OSError("no counters"))))
    rig.location(entering=Script(then=raising(ValueError("no country"))))
    rig.generator("lazy", entering=Script(then=hang))
    exporter = rig.exporter("down", entering=Script(then=raising(PermissionError())))
    rig.energy()
    error = await start(rig, 60.0)
    assert str(error).splitlines() == [
        "location: ValueError: no country",
        "sensor bad: OSError: no counters",
        "generator lazy: did not start within 10 s",
        "exporter down: PermissionError",
    ]
    assert (sensor.read_at, exporter.attempts, rig.started) == ([], [], False)
    assert sensor.exits == 1
    assert rig.listener.moments[-1] == "stopped"
    assert "started" not in rig.listener.moments
    assert rig.component("bad").state is ComponentState.FAILED


async def test_failing_components_are_named_at_once() -> None:
    rig = Rig()
    rig.exporter("down", entering=Script(then=raising(OSError("refused"))))
    await start(rig, 0.6)
    assert rig.ended_at is not None and rig.ended_at <= rig.start + 0.5


@pytest.mark.parametrize("make", ["leak", "exit", "panic", "group"])
async def test_whatever_a_plugin_raises_when_it_is_entered_is_a_start_that_failed(make: str) -> None:
    from tests.support.fakes import Panic, leak_cancellation

    faults = {
        "leak": leak_cancellation,
        "exit": raising(SystemExit(3)),
        "panic": raising(Panic("index out of bounds")),
        "group": raising(BaseExceptionGroup("all", [SystemExit(3), OSError("refused")])),
    }
    rig = Rig()
    rig.exporter("odd", entering=Script(then=faults[make]))
    error = await start(rig, 60.0)
    assert str(error).startswith("exporter odd: ")
    if make == "group":
        assert str(error) == "exporter odd: SystemExit: 3; OSError: refused"


async def test_an_optional_component_does_not_keep_the_others_and_comes_back_later() -> None:
    rig = Rig(interval_seconds=10.0)
    rig.sensor()
    failing = Script([raising(OSError("not yet"))] * 3)
    rig.sensor("card", optional=True, entering=failing, loads={GRAPHICS_CARD: constant(100.0)})
    rig.energy()
    exporter = rig.exporter()
    late = rig.exporter("late", optional=True, entering=Script([raising(OSError("refused"))] * 2))
    async with rig.running():
        await rig.to(0.15)
        assert exporter.values(HOST) == pytest.approx([10.0])
        assert rig.component("card").state is ComponentState.FAILED
        assert rig.component("card").reason == "OSError: not yet"
        assert late.delivered == []
        await rig.to(10.0)
        assert rig.component("card").state is ComponentState.OK
        await rig.to(30.0)
    # it failed at 0, 1 and 3 s, opened its counters at 7 s and was read at 10 s for the first time
    assert exporter.total("energy_consumption_gpu") == pytest.approx(100.0 * 20.0)
    assert late.total(HOST) == pytest.approx(exporter.total(HOST))
    assert late.entries == 3


async def test_an_optional_component_that_hangs_holds_up_the_start_for_a_moment_only() -> None:
    rig = Rig(interval_seconds=10.0)
    rig.sensor()
    rig.sensor("hung", optional=True, entering=Script(then=hang), loads={MEMORY: constant(1.0)})
    rig.energy()
    exporter = rig.exporter()
    async with rig.running():
        await rig.clock.advance(0.5 + 0.15)
        assert exporter.values(HOST) == pytest.approx([10.0])
        assert rig.component("hung").state is ComponentState.STARTING
        await rig.to(5.0)
    assert rig.ended_at is not None and rig.ended_at <= rig.start + 5.0 + 0.5


async def test_a_sensor_that_hangs_at_its_first_reading_does_not_keep_the_window_from_opening() -> None:
    rig = Rig(interval_seconds=10.0)
    rig.sensor("hung", script=Script(then=hang), loads={MEMORY: constant(1.0)})
    rig.sensor()
    rig.energy()
    exporter = rig.exporter()
    async with rig.running():
        await rig.to(0.65)
        assert len(exporter.delivered) == 1
        await rig.to(20.0)
    assert exporter.total(HOST) == pytest.approx(200.0)


@pytest.mark.parametrize("seconds", [0.0, 3.0])
async def test_stop_during_the_start_ends_it_without_error(seconds: float) -> None:
    """L31: Ctrl-C with a hung component did nothing for 4 s."""
    rig = Rig()
    sensor = rig.sensor()
    rig.exporter("slow", entering=Script(then=hang))
    async with rig.running():
        await rig.to(seconds)
        rig.pipeline.stop()
        await rig.clock.advance(11.0)
        assert rig.has_ended()
        assert rig.listener.moments[-1] == "stopped"
    assert (sensor.read_at, sensor.exits, rig.started) == ([], 1, False)


async def test_a_cancelled_run_ends_at_once_and_blames_nobody(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig()
    sensor = rig.sensor()
    rig.energy()
    rig.exporter()
    with caplog.at_level(logging.WARNING, "tracarbon"), anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:
            group.start_soon(rig.run)
            await rig.clock.advance(1.0)
            scope.cancel()
    assert sensor.exits == 1
    assert rig.listener.moments[-1] == "stopped"
    assert caplog.records == []
    assert [component.failures for component in rig.pipeline.components] == [0, 0, 0]


# ---- end


async def test_a_stop_before_the_run_ends_it_at_once_and_the_next_run_is_whole() -> None:
    rig = Rig(interval_seconds=10.0)
    rig.sensor()
    exporter = rig.exporter()
    rig.energy()
    rig.pipeline.stop()
    await rig.pipeline.run()
    assert exporter.total(HOST) == 0.0
    async with rig.running():
        await rig.to(25.0)
    assert exporter.total(HOST) == pytest.approx(10.0 * 25.0)


async def test_a_generator_that_is_busy_at_the_stop_still_generates_the_last_window() -> None:
    rig = Rig(interval_seconds=10.0)
    rig.sensor()
    rig.generator("slow", script=Script([None, rig.late(3.0)]))
    exporter = rig.exporter()
    async with rig.running():
        await rig.to(11.0)
    assert exporter.total("host") == pytest.approx(110.0)
    assert_tiled(exporter.windows(), rig.start, rig.start + 11.0)


async def test_a_generator_that_is_being_left_alone_at_the_stop_is_asked_once_more() -> None:
    rig = Rig(interval_seconds=10.0)
    rig.sensor()
    rig.generator("odd", script=Script([None, raising(SystemExit(1))]))
    exporter = rig.exporter()
    async with rig.running():
        await rig.to(10.2)
    assert exporter.total("host") == pytest.approx(102.0)


@pytest.mark.parametrize("fault", [raising(ValueError("broken")), hang], ids=["raises", "hangs"])
async def test_figures_that_a_generator_does_not_give_at_the_end_are_named(
    fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    rig = Rig(interval_seconds=10.0)
    rig.sensor()
    rig.energy()
    rig.generator("broken", script=Script([None, None], then=fault))
    async with rig.running():
        await rig.to(25.0)
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR] == [
        "generator broken: the figures of its last 15 s were not generated and are lost"
    ]


async def test_energy_that_waits_for_a_missing_part_is_told_at_the_end() -> None:
    rig = Rig(interval_seconds=10.0)
    rig.sensor()
    memory = rig.sensor("memory", loads={MEMORY: constant(1.0)})
    rig.energy()
    exporter = rig.exporter()
    async with rig.running():
        await rig.to(10.0)
        memory.script.then = raising(OSError("gone"))
        await rig.to(25.0)
    assert exporter.total(HOST) == pytest.approx(250.0 + 10.0)
    assert exporter.total("energy_consumption_cpu") == pytest.approx(250.0)


async def test_an_exporter_that_hangs_is_given_up_after_the_flush_deadline_and_its_loss_is_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """L30, L31: stop() blocked for ever."""
    rig = Rig(interval_seconds=10.0, flush_seconds=4.0)
    rig.sensor()
    rig.energy()
    rig.exporter("hung", script=Script(then=hang))
    good = rig.exporter("good")
    async with rig.running():
        await rig.to(15.0)
        with caplog.at_level(logging.ERROR, "tracarbon"):
            rig.pipeline.stop()
            await rig.clock.advance(0.0)
            assert good.total(HOST) == pytest.approx(150.0)
            await rig.clock.advance(4.6)
            assert rig.has_ended()
    assert [record.getMessage() for record in caplog.records] == [
        "exporter hung: 4 records (15 s, 0.04167 Wh), of which 2 may have arrived, were not delivered within 4 s "
        "and are lost"
    ]


async def test_everything_that_hangs_at_once_does_not_keep_the_pipeline() -> None:
    """L30: no time-out anywhere."""
    rig = Rig(interval_seconds=10.0, flush_seconds=4.0)
    rig.sensor(script=Script([None, None], then=hang), leaving=Script(then=hang))
    rig.generator("hung", script=Script([None], then=hang))
    rig.exporter(script=Script(then=hang), leaving=Script(then=hang))
    async with rig.running():
        await rig.to(15.0)
        rig.pipeline.stop()
        await rig.clock.advance(2.0 + 4.0 + 4.0 + 0.5 + 0.1)
        assert rig.has_ended()


async def test_a_plugin_that_raises_while_it_is_cancelled_does_not_end_the_pipeline_with_an_error() -> None:
    class Untidy(RecordingExporter):
        async def export(self, batch: object) -> None:
            async with anyio.create_task_group() as group:
                group.start_soon(anyio.sleep_forever)
                try:
                    await anyio.sleep_forever()
                finally:
                    raise ValueError("in the cleanup")

    rig = Rig(interval_seconds=10.0, flush_seconds=1.0)
    rig.sensor()
    rig.energy()
    rig.pipeline.add_exporter(rig.pipeline.components.add("exporter", "untidy"), Untidy(clock=rig.clock))
    async with rig.running():
        await rig.to(5.0)
    assert rig.listener.moments[-1] == "stopped"


async def test_all_sensors_failed_tells_whether_nothing_is_measured_at_the_end() -> None:
    rig = Rig(interval_seconds=10.0)
    one = rig.sensor("one")
    other = rig.sensor("other", loads={MEMORY: constant(1.0)})
    async with rig.running():
        await rig.to(15.0)
        one.script.then = other.script.then = raising(OSError("gone"))
        await rig.to(200.0)
    assert rig.pipeline.all_sensors_failed
    other.script.then = None
    async with rig.running():
        await rig.to(15.0)
    assert not rig.pipeline.all_sensors_failed


@pytest.mark.parametrize("seconds", [44.1, 77.0, 111.0, 123.4])
async def test_a_sensor_that_fails_for_good_is_failed_also_while_it_is_tried_again(seconds: float) -> None:
    rig = Rig(interval_seconds=1.0)
    rig.sensor(script=Script([None], then=raising(OSError("gone"))))
    states = []
    async with rig.running():
        await rig.to(2.0)
        for _ in range(20):
            await rig.clock.advance(seconds / 20)
            states.append(rig.component("sensor").state)
    assert set(states) == {ComponentState.FAILED}
    assert rig.pipeline.all_sensors_failed
    assert "sensor sensor ok" not in rig.listener.moments[rig.listener.moments.index("sensor sensor failed") :]


async def test_a_pipeline_without_sensors_has_none_that_failed() -> None:
    rig = Rig()
    rig.generator("alone")
    exporter = rig.exporter()
    async with rig.running():
        await rig.to(20.0)
    assert not rig.pipeline.all_sensors_failed
    assert exporter.total("windows") == 3


def test_fakes_are_plugins_like_others() -> None:
    for kind in (FakeSensor, FakeGenerator, RecordingExporter):
        assert kind.__name__ in repr(kind.__new__(kind))
