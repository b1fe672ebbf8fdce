from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tracarbon._meter import Meter, MeterView
from tracarbon.hardwares.energy import Band, Device, DeviceUsage, EnergyUsage, EnergyUsageUnit, Scope, UsageType
from tracarbon.hardwares.sensors import Sensor
from tracarbon.testing import ManualClock

from tests.core.test_composition import CARD, DRAM, PACKAGE, PSYS, UNCORE, Estimated, Measured, Wall, figures
from tests.support.fakes import Load, constant

WHOLE_WINDOWS = 3
"""Windows that a missing device is waited for."""


class Bench:
    """A meter under devices of known power, read when the test says so."""

    def __init__(self, *, max_gap: float = 20.0, **sensors: type[Sensor]) -> None:
        self.clock = ManualClock()
        self.meter = Meter(self.clock)
        for name, sensor in (sensors or {"rapl": Measured}).items():
            self.meter.add_sensor(name, sensor, max_gap)
        self.meter.open()
        self.loads: dict[Device, Load] = defaultdict(lambda: constant(10.0))
        opened_at = self.clock.monotonic()
        self.read_at: dict[Device, float] = defaultdict(lambda: opened_at)
        self.booked: dict[Device, float] = defaultdict(float)

    def pass_seconds(self, seconds: float) -> None:
        self.clock.elapse(seconds)

    def count(self, *devices: Device, sensor: str = "rapl", band: tuple[float, float] | None = None) -> None:
        """Read counters: everything since each one's previous reading."""
        now = self.clock.monotonic()
        readings = []
        for device in devices:
            start, self.read_at[device] = self.read_at[device], now
            if now > start:
                joules = self.loads[device].joules(start, now)
                watts = joules / (now - start)
                limits = Band(watts * band[0], watts * band[1]) if band else None
                readings.append(DeviceUsage(device, watts, now - start, limits))
                self.booked[device] += joules
        self.meter.record(sensor, EnergyUsage(devices=readings), now)

    def sample(self, *devices: Device, sensor: str = "rapl") -> None:
        """Read instantaneous samples."""
        now = self.clock.monotonic()
        readings = [DeviceUsage(device, self.loads[device].watts(now)) for device in devices]
        self.meter.record(sensor, EnergyUsage(devices=readings), now)

    def view(self, sensors: Collection[str] | None = None, *, follows: bool = False) -> MeterView:
        return MeterView(self.meter, sensors, follows=follows)


class Sum:
    """Adds up the joules of the windows that a view commits."""

    def __init__(self, view: MeterView) -> None:
        self.view = view
        self.joules: dict[UsageType, float] = defaultdict(float)
        self.known: list[set[str]] = []

    async def read(self, *, commit: bool = True, is_last: bool = False) -> EnergyUsage:
        self.view.advance(is_last=is_last)
        usage = await self.view.get_energy_usage()
        if commit:
            self.view.commit()
            for usage_type, provenance in usage.provenance.items():
                watts = usage.get_energy_usage_on_type(usage_type)
                assert watts is not None and provenance.covered_seconds is not None
                self.joules[usage_type] += watts * provenance.covered_seconds
            self.known.append({usage_type.value for usage_type in usage.provenance})
        return usage


# what happens to each device in a window: read, or not; and whether each of two generators gets through the window
ticks = st.lists(
    st.tuples(
        st.floats(0.01, 30.0),
        st.sets(st.sampled_from(["package", "dram", "card"])),
        st.booleans(),
        st.booleans(),
    ),
    min_size=1,
    max_size=25,
)


@settings(max_examples=150)
@given(ticks)
async def test_no_sequence_of_ticks_and_missed_reads_loses_or_doubles_a_joule(
    sequence: list[tuple[float, set[str], bool, bool]],
) -> None:
    """Sum of watts x covered seconds over the committed windows = joules that the sensors recorded, for each view."""
    named = {"package": PACKAGE, "dram": DRAM, "card": CARD}
    bench = Bench()
    for device, points in zip(named.values(), (((0, 5), (60, 90)), ((0, 3),), ((0, 0), (100, 300))), strict=True):
        bench.loads[device] = Load(*((1000.0 + at, float(watts)) for at, watts in points))
    steady, lagging = Sum(bench.view()), Sum(bench.view())
    for seconds, read, first_commits, second_commits in sequence:
        bench.pass_seconds(seconds)
        bench.count(*(named[name] for name in sorted(read)))
        bench.meter.close()
        await steady.read(commit=first_commits)
        if second_commits:
            await lagging.read()
    bench.pass_seconds(1.0)
    bench.count(*named.values())
    bench.meter.close()
    for reader in (steady, lagging):
        await reader.read()
        assert reader.joules[UsageType.HOST] == pytest.approx(sum(bench.booked.values()))
        assert reader.joules[UsageType.CPU] == pytest.approx(bench.booked[PACKAGE])
        assert reader.joules[UsageType.MEMORY] == pytest.approx(bench.booked[DRAM])
        assert reader.joules[UsageType.GPU] == pytest.approx(bench.booked[CARD])


@settings(max_examples=100)
@given(st.lists(st.tuples(st.floats(0.01, 5.0), st.booleans()), min_size=1, max_size=20))
async def test_a_whole_machine_that_comes_and_goes_is_never_counted_beside_its_parts(
    sequence: list[tuple[float, bool]],
) -> None:
    """The parts stand in for psys while it is silent; what it says of that time when it is back is not added."""
    bench = Bench()
    bench.loads[PSYS] = bench.loads[PACKAGE] = constant(20.0)
    reader = Sum(bench.view())
    start = bench.clock.monotonic()
    for seconds, is_whole_read in sequence:
        bench.pass_seconds(seconds)
        bench.count(PACKAGE, *([PSYS] if is_whole_read else []))
        bench.meter.close()
        await reader.read()
        assert reader.joules[UsageType.HOST] <= 20.0 * (bench.clock.monotonic() - start) * (1 + 1e-9)
    for _ in range(2):
        bench.pass_seconds(1.0)
        bench.count(PSYS, PACKAGE)
        bench.meter.close()
        await reader.read()
    assert reader.joules[UsageType.HOST] == pytest.approx(20.0 * (bench.clock.monotonic() - start))


async def test_the_parts_stand_in_for_a_whole_machine_that_is_gone() -> None:
    bench = Bench()
    view, hosts = bench.view(), []
    bench.loads[PSYS] = constant(50.0)
    for number in range(9):
        bench.pass_seconds(1.0)
        bench.count(PACKAGE, *((PSYS,) if number in (0, 7, 8) else ()))
        bench.meter.close()
        hosts.append((await figures(view)).get("host"))
    # waited for in two windows, and back in the eighth, in which it speaks of all that time
    assert hosts == [50.0, None, None, 10.0, 10.0, 10.0, 10.0, 10.0, 50.0]


async def test_a_component_is_unknown_while_a_part_is_missing_and_recovered_later() -> None:
    """L14: one of two cards that said nothing was summed as if it drew nothing. L2: a missing sample was lost."""
    bench = Bench()
    reader = Sum(bench.view())
    for read in ((PACKAGE, DRAM), (PACKAGE,), (PACKAGE,), (PACKAGE, DRAM)):
        bench.pass_seconds(10.0)
        bench.count(*read)
        bench.meter.close()
        usage = await reader.read()
    assert reader.known == [{"host", "cpu", "memory"}, {"cpu"}, {"cpu"}, {"host", "cpu", "memory"}]
    assert usage.host_energy_usage == pytest.approx(20.0)
    assert usage.provenance[UsageType.HOST].covered_seconds == pytest.approx(30.0)
    assert reader.joules[UsageType.HOST] == pytest.approx(800.0)


async def test_a_part_that_is_gone_is_no_longer_waited_for() -> None:
    bench = Bench()
    reader = Sum(bench.view())
    bench.pass_seconds(10.0)
    bench.count(PACKAGE, DRAM)
    bench.meter.close()
    await reader.read()
    for _ in range(WHOLE_WINDOWS + 1):
        bench.pass_seconds(10.0)
        bench.count(PACKAGE)
        bench.meter.close()
        usage = await reader.read()
    assert [("host" in known) for known in reader.known] == [True, False, False, True, True]
    assert usage.host_energy_usage == pytest.approx(10.0)
    assert usage.memory_energy_usage is None
    assert reader.joules[UsageType.HOST] == pytest.approx(200.0 + 400.0)


async def test_graphics_that_are_missing_make_the_processor_unknown() -> None:
    bench = Bench()
    view = bench.view()
    bench.loads[UNCORE] = constant(4.0)
    seen = []
    for read in ((PACKAGE, UNCORE), (PACKAGE,), (PACKAGE, UNCORE)):
        bench.pass_seconds(10.0)
        bench.count(*read)
        bench.meter.close()
        seen.append(await figures(view))
    assert seen == [{"host": 10.0, "cpu": 6.0, "gpu": 4.0}, {"host": 10.0}, {"host": 10.0, "cpu": 6.0, "gpu": 4.0}]


async def test_the_last_window_waits_for_nothing() -> None:
    """What was held back for a part that may still come is told at the end, without it."""
    bench = Bench()
    readers = [Sum(bench.view()), Sum(bench.view(follows=True))]
    for number in range(3):
        bench.pass_seconds(10.0)
        bench.count(*((PACKAGE, DRAM) if number == 0 else (PACKAGE,)))
        bench.meter.close()
        for reader in readers:
            await reader.read(is_last=number == 2)
    assert readers[0].known == [{"host", "cpu", "memory"}, {"cpu"}, {"host", "cpu"}]
    assert readers[0].joules[UsageType.HOST] == pytest.approx(400.0)


async def test_parts_with_windows_of_their_own_add_up_in_watts() -> None:
    """Decision: host watts = sum of joules / covered seconds of each, never joules / window."""
    bench = Bench()
    view = bench.view()
    bench.pass_seconds(8.0)
    bench.count(DRAM)
    bench.pass_seconds(2.0)
    bench.count(PACKAGE)
    bench.meter.close()
    view.advance()
    usage = await view.get_energy_usage()
    assert usage.host_energy_usage == pytest.approx(20.0)
    assert usage.provenance[UsageType.HOST].covered_seconds == pytest.approx(180.0 / 20.0)


async def test_energy_of_before_the_opening_is_not_counted() -> None:
    clock = ManualClock()
    meter = Meter(clock)
    meter.add_sensor("rapl", Measured, 20.0)
    meter.record("rapl", EnergyUsage(devices=[DeviceUsage(PACKAGE, 10.0, 5.0)]), clock.monotonic())
    clock.elapse(100.0)
    meter.open()
    view = MeterView(meter)
    clock.elapse(1.0)
    meter.record("rapl", EnergyUsage(devices=[DeviceUsage(PACKAGE, 10.0, 101.0)]), clock.monotonic())
    meter.close()
    view.advance()
    assert (await view.get_energy_usage()).host_energy_usage is None


async def test_a_pause_between_two_runs_is_not_bridged() -> None:
    """However short: the trapezoidal rule stops at the opening."""
    bench = Bench()
    view = bench.view()
    bench.sample(PACKAGE)
    bench.pass_seconds(10.0)
    bench.sample(PACKAGE)
    bench.meter.close()
    bench.pass_seconds(5.0)
    bench.meter.open()
    view.reset()
    bench.sample(PACKAGE)
    bench.pass_seconds(10.0)
    bench.sample(PACKAGE)
    bench.meter.close()
    reader = Sum(view)
    await reader.read()
    assert reader.joules[UsageType.HOST] == pytest.approx(100.0)


async def test_a_view_that_begins_anew_has_forgotten_its_window() -> None:
    bench = Bench()
    view = bench.view(follows=True)
    bench.pass_seconds(1.0)
    bench.count(PACKAGE)
    bench.meter.close()
    assert (await view.get_energy_usage()).window_seconds == 1.0
    bench.meter.open()
    view.reset()
    assert (await view.get_energy_usage()) == EnergyUsage()


@given(
    st.lists(st.tuples(st.floats(0.1, 10.0), st.floats(0.0, 500.0)), min_size=1, max_size=20),
    st.lists(st.booleans(), min_size=20, max_size=20),
)
async def test_trapezoid_is_exact_where_power_is_piecewise_linear(
    pieces: list[tuple[float, float]], closes: list[bool]
) -> None:
    """L5: a point sample held over the interval gave 6002 J, truth 3002 J."""
    bench = Bench()
    at = bench.clock.monotonic()
    points = [(at, 100.0)]
    for seconds, watts in pieces:
        at += seconds
        points.append((at, watts))
    bench.loads[CARD] = Load(*points)
    reader = Sum(bench.view())
    bench.sample(CARD)
    for (seconds, _), closing in zip(pieces, closes, strict=False):
        bench.pass_seconds(seconds)
        bench.sample(CARD)
        if closing:
            bench.meter.close()
            await reader.read()
    bench.meter.close()
    await reader.read()
    truth = bench.loads[CARD].joules(points[0][0], bench.clock.monotonic())
    assert reader.joules[UsageType.GPU] == pytest.approx(truth, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(("gap", "joules"), [(20.0, 200.0), (20.1, 0.0)])
async def test_trapezoid_bridges_no_more_than_two_sampling_intervals(gap: float, joules: float) -> None:
    bench = Bench(max_gap=20.0)
    reader = Sum(bench.view())
    bench.sample(CARD)
    bench.pass_seconds(gap)
    bench.sample(CARD)
    bench.meter.close()
    await reader.read()
    assert reader.joules[UsageType.GPU] == pytest.approx(joules)
    bench.pass_seconds(5.0)
    bench.sample(CARD)
    bench.meter.close()
    await reader.read()
    assert reader.joules[UsageType.GPU] == pytest.approx(joules + 50.0)


async def test_one_sample_alone_says_nothing() -> None:
    bench = Bench()
    view = bench.view()
    bench.pass_seconds(10.0)
    bench.sample(CARD)
    bench.meter.close()
    assert await figures(view) == {}


async def test_bands_of_samples_are_integrated_too() -> None:
    bench = Bench(guess=Estimated)
    view = bench.view()
    for watts, band in ((10.0, Band(5.0, 20.0)), (20.0, Band(15.0, 40.0))):
        reading = DeviceUsage(CARD, watts, band=band)
        bench.meter.record("guess", EnergyUsage(devices=[reading]), bench.clock.monotonic())
        bench.pass_seconds(10.0)
    bench.meter.close()
    view.advance()
    provenance = (await view.get_energy_usage()).provenance[UsageType.HOST]
    assert provenance.band == Band(10.0, 30.0)


async def test_bands_add_up_over_the_parts_and_measured_figures_have_none() -> None:
    bench = Bench(rapl=Measured, guess=Estimated)
    view = bench.view()
    bench.pass_seconds(10.0)
    bench.count(PACKAGE)
    bench.count(DRAM, sensor="guess", band=(0.5, 2.0))
    bench.meter.close()
    view.advance()
    provenance = (await view.get_energy_usage()).provenance
    assert provenance[UsageType.CPU].band is None
    assert provenance[UsageType.MEMORY].band == pytest.approx((5.0, 20.0))
    assert provenance[UsageType.HOST].band == pytest.approx((15.0, 30.0))


async def test_every_caller_gets_a_copy_of_its_own() -> None:
    """T2: a conversion in place by one reader changed what the next one read."""
    bench = Bench()
    one, other = bench.view(), bench.view()
    bench.pass_seconds(10.0)
    bench.count(PACKAGE)
    bench.meter.close()
    one.advance()
    other.advance()
    converted = await one.get_energy_usage()
    converted.convert_unit(EnergyUsageUnit.MILLIWATT)
    assert converted.host_energy_usage == pytest.approx(10_000)
    assert converted.unit is EnergyUsageUnit.MILLIWATT
    for view in (one, other):
        usage = await view.get_energy_usage()
        assert usage.host_energy_usage == pytest.approx(10.0)
        assert usage.unit is EnergyUsageUnit.WATT


async def test_a_window_stays_the_same_until_the_next_is_turned_to() -> None:
    bench = Bench()
    view = bench.view()
    bench.pass_seconds(10.0)
    bench.count(PACKAGE)
    bench.meter.close()
    window = view.advance()
    first = await view.get_energy_usage()
    bench.pass_seconds(5.0)
    bench.loads[PACKAGE] = constant(99.0)
    bench.count(PACKAGE)
    bench.meter.close()
    assert await view.get_energy_usage() == first
    assert view.window == window


async def test_a_window_that_was_not_committed_is_part_of_the_next() -> None:
    bench = Bench()
    view = bench.view()
    for _ in range(3):
        bench.pass_seconds(10.0)
        bench.count(PACKAGE)
        bench.meter.close()
        window = view.advance()
    assert window.seconds == 30.0
    assert (await view.get_energy_usage()).provenance[UsageType.HOST].covered_seconds == 30.0


async def test_views_do_not_take_joules_from_one_another() -> None:
    """L6, L7: each generator owned a sensor, and energy and carbon were of different windows."""
    bench = Bench()
    every, second = Sum(bench.view()), Sum(bench.view())
    for number in range(6):
        bench.pass_seconds(10.0)
        bench.count(PACKAGE)
        bench.meter.close()
        await every.read()
        if number % 3 == 2:
            usage = await second.read()
            assert usage.window_seconds == 30.0
    assert every.joules == second.joules


async def test_a_device_that_turns_up_between_two_closings_belongs_to_the_next_one() -> None:
    """A generator may turn to a closing long after it, when a sensor has found another device."""
    bench = Bench()
    reader = Sum(bench.view())
    bench.pass_seconds(10.0)
    bench.count(PACKAGE)
    bench.meter.close()
    bench.count(CARD)
    usage = await reader.read()
    assert usage.host_energy_usage == pytest.approx(10.0)
    assert usage.gpu_energy_usage is None
    bench.pass_seconds(10.0)
    bench.count(PACKAGE, CARD)
    bench.meter.close()
    usage = await reader.read()
    assert usage.gpu_energy_usage == pytest.approx(10.0)
    assert reader.joules[UsageType.HOST] == pytest.approx(400.0)


async def test_a_device_that_says_something_new_of_itself_is_put_elsewhere() -> None:
    """An uncore counter that begins to count is graphics from then on."""
    bench = Bench()
    view = bench.view()
    idle = Device(UNCORE.name, UsageType.CPU, Scope.DETAIL, within=PACKAGE.name)
    for uncore in (idle, UNCORE):
        bench.pass_seconds(10.0)
        readings = [DeviceUsage(PACKAGE, 10.0, 10.0), DeviceUsage(uncore, 4.0, 10.0)]
        bench.meter.record("rapl", EnergyUsage(devices=readings), bench.clock.monotonic())
        bench.meter.close()
        seen = await figures(view)
    assert seen == {"host": 10.0, "cpu": 6.0, "gpu": 4.0}


LIES = [math.nan, math.inf, -math.inf, -1.0]


@pytest.mark.parametrize("watts", LIES)
async def test_a_power_that_cannot_be_is_refused_and_spoils_nothing(watts: float) -> None:
    """L14: what is negative or no number would stay in the sums for good."""
    bench = Bench()
    reader = Sum(bench.view())
    for said in (10.0, watts, 10.0):
        bench.pass_seconds(10.0)
        readings = [DeviceUsage(DRAM, said, 10.0), DeviceUsage(PACKAGE, 10.0, 10.0)]
        refused = bench.meter.record("rapl", EnergyUsage(devices=readings), bench.clock.monotonic())
        assert bool(refused) is (said is watts)
        bench.meter.close()
        await reader.read()
    assert refused == []
    assert reader.known == [{"host", "cpu", "memory"}, {"cpu"}, {"host", "cpu", "memory"}]
    assert reader.joules[UsageType.CPU] == pytest.approx(300.0)
    assert reader.joules[UsageType.HOST] == pytest.approx(500.0)


@pytest.mark.parametrize("seconds", [*LIES, 0.0])
def test_a_window_that_cannot_be_is_refused_and_named(seconds: float) -> None:
    bench = Bench()
    reading = DeviceUsage(PACKAGE, 10.0, seconds)
    refused = bench.meter.record("rapl", EnergyUsage(devices=[reading]), bench.clock.monotonic())
    assert refused == [f"package-0: 10.0 W over {seconds!r} s"]


async def test_a_whole_machine_sensor_without_parts_is_unknown_while_it_is_silent() -> None:
    bench = Bench(wall=Wall)
    reader = Sum(bench.view())
    for number in range(6):
        bench.pass_seconds(10.0)
        if number in (0, 5):
            bench.count(PSYS, sensor="wall")
        bench.meter.close()
        await reader.read()
    assert [bool(known) for known in reader.known] == [True, False, False, False, False, True]
    assert reader.joules[UsageType.HOST] == pytest.approx(600.0)


async def test_a_method_that_changes_is_told() -> None:
    bench = Bench()
    view = bench.view()
    methods = []
    for method in ("tdp", "tdp", "vcpu"):
        bench.pass_seconds(10.0)
        usage = EnergyUsage(cpu_energy_usage=10.0, window_seconds=10.0, method=method)
        bench.meter.record("rapl", usage, bench.clock.monotonic())
        bench.meter.close()
        view.advance()
        methods.append((await view.get_energy_usage()).provenance[UsageType.HOST].method)
    assert methods == ["tdp", "tdp", "vcpu"]
