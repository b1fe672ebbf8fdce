"""From what counters stand at, to watts: windows, standstill, dies, and that no energy comes or goes."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tracarbon.hardwares.energy import EnergyUsage, Fidelity, Scope
from tracarbon_sensor_macos._channels import Count
from tracarbon_sensor_macos.counters import Counters

COMPONENTS = {"cpu": "cpu", "gpu": "gpu", "ane": "ane", "memory": "memory", "cpu-0": "cpu", "cpu-1": "cpu"}

STANDS_STILL = "its energy counter stands still for a minute or more; unknown until it counts"


class Chip:
    """Counters in millijoules, and a sensor over them."""

    def __init__(self, **millijoules: int) -> None:
        self.millijoules = {label.replace("_", "-"): counts for label, counts in millijoules.items()}
        self.counters = Counters(Fidelity.MEASURED)
        self.now = 100.0
        self.joules: dict[str, float] = defaultdict(float)
        self.seconds: dict[str, float] = defaultdict(float)

    def read(self, seconds: float = 0.0, **added: int) -> EnergyUsage:
        self.now += seconds
        for name, more in added.items():
            self.millijoules[name.replace("_", "-")] += more
        counts = [Count(label, label, COMPONENTS[label], it, 1e3) for label, it in self.millijoules.items()]
        usage = self.counters.read(counts, self.now)
        for device in usage.devices:
            assert device.window_seconds is not None
            self.joules[device.device.name] += device.watts * device.window_seconds
            self.seconds[device.device.name] += device.window_seconds
        return usage


def figures(usage: EnergyUsage) -> tuple[float | None, ...]:
    return (
        usage.host_energy_usage,
        usage.cpu_energy_usage,
        usage.memory_energy_usage,
        usage.gpu_energy_usage,
    )


def test_the_first_reading_opens_the_window() -> None:
    chip = Chip(cpu=5000, gpu=1, ane=7, memory=8)
    assert figures(chip.read()) == (None, None, None, None)
    usage = chip.read(10.0, cpu=50_000, gpu=20_000, ane=5_000, memory=10_000)
    assert figures(usage) == (8.5, 5.0, 1.0, 2.0)
    assert usage.window_seconds == 10.0
    assert {device.device.name: device.device.scope for device in usage.devices} == dict.fromkeys(
        ["cpu", "gpu", "ane", "memory"], Scope.HOST
    )
    assert not usage.problems


def test_the_neural_engine_belongs_to_the_host_and_to_no_component() -> None:
    chip = Chip(cpu=0, ane=0)
    chip.read()
    usage = chip.read(10.0, cpu=10_000, ane=30_000)
    assert figures(usage) == (4.0, 1.0, None, None)


def test_dies_add_up() -> None:
    chip = Chip(cpu_0=0, cpu_1=0, memory=0)
    chip.read()
    assert figures(chip.read(2.0, cpu_0=2000, cpu_1=6000, memory=1000)) == (4.5, 4.0, 0.5, None)


def test_graphics_that_counted_before_draw_nothing_when_their_counter_stands_still() -> None:
    chip = Chip(cpu=0, gpu=50)
    chip.read()
    chip.read(1.0, cpu=1000, gpu=1000)
    assert figures(chip.read(1.0, cpu=1000)) == (1.0, 1.0, None, 0.0)


@pytest.mark.parametrize("standing_at", [0, 50_000])
def test_a_counter_that_was_never_seen_to_count_is_unknown_and_not_0(standing_at: int) -> None:
    chip = Chip(cpu=0, gpu=standing_at, memory=standing_at)
    chip.read()
    for _ in range(3):
        usage = chip.read(1.0, cpu=1000)
        assert figures(usage) == (1.0, 1.0, None, None)
    usage = chip.read(1.0, cpu=1000, gpu=8000)
    assert usage.gpu_energy_usage == 2.0  # over the four seconds since the first reading
    assert chip.joules["gpu"] == 8.0


def test_memory_that_stands_still_is_unknown_and_is_named_after_a_minute() -> None:
    chip = Chip(cpu=0, memory=0)
    chip.read()
    chip.read(1.0, cpu=1000, memory=1000)
    assert not chip.read(30.0, cpu=1000).problems
    usage = chip.read(31.0, cpu=1000)
    assert usage.memory_energy_usage is None
    assert list(usage.problems) == [
        "memory: its energy counter stands still for a minute or more; unknown until it counts"
    ]
    assert chip.read(39.0, cpu=1000, memory=10_000).memory_energy_usage == 0.1


def test_an_a18_pro_whose_processors_read_0_has_no_figure_of_them_nor_of_the_host() -> None:
    chip = Chip(cpu=0, gpu=10, ane=0, memory=4)
    chip.read()
    for _ in range(5):
        usage = chip.read(10.0, gpu=5_000, memory=10_000)
        assert figures(usage) == (None, None, None, None)
        assert not chip.counters.lacks_host
    usage = chip.read(10.0, gpu=5_000, memory=10_000)
    assert figures(usage) == (None, None, 1.0, 0.5)
    assert chip.counters.lacks_host
    assert {device.device.scope for device in usage.devices} == {Scope.DETAIL}
    assert list(usage.problems) == [
        "cpu: its energy counter stands still for a minute or more; unknown until it counts"
    ]
    assert chip.read(10.0, gpu=5_000, memory=10_000).problems == usage.problems, "said once, and not once a reading"
    assert (chip.joules["gpu"], chip.joules["memory"]) == (35.0, 70.0)


def test_an_m5_ultra_that_moves_its_counters_once_in_half_an_hour_loses_nothing() -> None:
    chip = Chip(cpu_0=149_863_636, cpu_1=63_132_475, gpu=0, memory=0)
    chip.read()
    chip.read(10.0, cpu_0=1000, cpu_1=1000, gpu=100, memory=100)
    for step in range(1, 180):
        usage = chip.read(10.0, gpu=100)
        assert figures(usage) == (None, None, None, None)
        assert bool(usage.problems) == (step >= 6)
    usage = chip.read(10.0, cpu_0=3_821_928, cpu_1=2_661_801, gpu=100, memory=7000)
    assert usage.cpu_energy_usage == pytest.approx(6483.729 / 1800)
    assert usage.gpu_energy_usage == pytest.approx(18.0 / 1800)
    assert usage.host_energy_usage == pytest.approx((6483.729 + 18 + 7) / 1800)
    assert chip.joules["cpu-0"] == pytest.approx(3822.928)


def test_a_counter_that_went_back_loses_its_own_window_alone_and_is_named() -> None:
    chip = Chip(cpu=50_000, gpu=0, memory=0)
    chip.read()
    chip.read(1.0, cpu=1000, gpu=1000, memory=1000)
    usage = chip.read(1.0, cpu=-40_000, gpu=2000, memory=3000)
    assert figures(usage) == (None, None, 3.0, 2.0)
    assert list(usage.problems) == ["cpu: the counter was reset; the energy of its window is lost"]
    assert figures(chip.read(1.0, cpu=1000, gpu=2000, memory=3000)) == (6.0, 1.0, 3.0, 2.0)


def test_a_jump_that_no_chip_draws_is_no_energy() -> None:
    chip = Chip(cpu=0)
    chip.read()
    usage = chip.read(1.0, cpu=10**12)
    assert usage.cpu_energy_usage is None
    assert "jumped" in usage.problems[0]


def test_two_readings_at_one_instant_do_not_divide_by_0() -> None:
    chip = Chip(cpu=0, gpu=0)
    chip.read()
    chip.read(1.0, cpu=1000, gpu=500)
    assert figures(chip.read(0.0, cpu=7000, gpu=300)) == (None, None, None, None)
    assert figures(chip.read(1.0)) == (7.3, 7.0, None, 0.3)


def test_a_counter_that_is_missing_for_a_while_is_a_gap_that_its_next_reading_covers() -> None:
    chip = Chip(cpu=0, gpu=0)
    chip.read()
    chip.read(1.0, cpu=1000, gpu=1000)
    away = chip.millijoules.pop("gpu")
    assert figures(chip.read(1.0, cpu=1000)) == (1.0, 1.0, None, None)
    chip.millijoules["gpu"] = away
    assert figures(chip.read(1.0, cpu=1000, gpu=4000)) == (3.0, 1.0, None, 2.0)


def test_a_counter_that_has_begun_anew_opens_a_window_of_its_own() -> None:
    counters = Counters(Fidelity.MODELLED)
    for at, key, counts in [(0.0, "1", 0), (1.0, "1", 1000), (0.5, "2", 9000), (1.5, "2", 9500)]:
        usage = counters.read([Count(f"cpu {key}", "cpu", "cpu", counts, 1e3)], at)
        assert figures(usage)[1] == {"1": 1.0, "2": 0.5}[key] or not usage.devices
    assert (usage.cpu_energy_usage, usage.window_seconds) == (0.5, 1.0)


def test_a_channel_that_turns_up_later_opens_a_window_of_its_own() -> None:
    chip = Chip(cpu=0)
    chip.read()
    chip.millijoules["gpu"] = 9_000_000
    assert figures(chip.read(1.0, cpu=1000)) == (None, 1.0, None, None)
    assert figures(chip.read(1.0, cpu=1000, gpu=2000)) == (3.0, 1.0, None, 2.0)


STEPS = st.lists(
    st.tuples(
        st.floats(min_value=0.01, max_value=100.0),
        st.one_of(st.just(0), st.integers(0, 100_000)),
        st.one_of(st.just(0), st.integers(0, 100_000)),
        st.one_of(st.just(0), st.integers(0, 100_000)),
        st.one_of(st.just(0), st.integers(0, 100_000)),
    ),
    max_size=30,
)


@given(STEPS)
def test_energy_is_conserved_whatever_stands_still_and_when(
    steps: list[tuple[float, int, int, int, int]],
) -> None:
    chip = Chip(cpu=10, gpu=20, ane=0, memory=30)
    start = dict(chip.millijoules)
    began = chip.now
    chip.read()
    chip.read(0.1, cpu=1, memory=1)  # they move at once: what they stood at first was of then
    for seconds, cpu, gpu, ane, memory in steps:
        usage = chip.read(seconds, cpu=cpu, gpu=gpu, ane=ane, memory=memory)
        assert not [problem for problem in usage.problems if "lost" in problem]
        assert usage.host_energy_usage is None or usage.cpu_energy_usage is not None
        assert usage.cpu_energy_usage != 0
        assert usage.memory_energy_usage != 0
    chip.read(1.0, cpu=1, gpu=1, ane=1, memory=1)
    for label, counts in chip.millijoules.items():
        assert chip.joules[label] == pytest.approx((counts - start[label]) / 1e3)
        assert chip.seconds[label] == pytest.approx(chip.now - began)


@given(STEPS)
def test_counters_that_stand_still_first_invent_nothing_and_lose_only_what_was_before_their_first_move(
    steps: list[tuple[float, int, int, int, int]],
) -> None:
    chip = Chip(cpu=10, gpu=20, ane=0, memory=30)
    chip.read()
    chip.read(0.1)
    chip.read(5.9, cpu=90_000, gpu=1, memory=70_000)
    start, began = dict(chip.millijoules), chip.now
    assert not chip.joules
    for seconds, cpu, gpu, ane, memory in steps:
        chip.read(seconds, cpu=cpu, gpu=gpu, ane=ane, memory=memory)
    chip.read(1.0, cpu=1, gpu=1, ane=1, memory=1)
    for label, counts in chip.millijoules.items():
        assert chip.joules[label] == pytest.approx((counts - start[label]) / 1e3)
        assert chip.seconds[label] == pytest.approx(chip.now - began)


class TestCountersThatMoveSeldom:
    def test_the_first_move_opens_the_window_and_from_there_on_it_is_exact(self) -> None:
        chip = Chip(cpu=5000, gpu=70, memory=900)  # 10 W, 5 W, 2 W; the last two move 6 seconds from now
        chip.read()
        chip.read(0.1, gpu=500)
        usage = chip.read(5.9, cpu=600_000, gpu=29_500, memory=120_000)
        assert (figures(usage), usage.devices) == ((None, None, None, None), ())
        assert list(usage.problems) == ["cpu: its energy counter moves seldom; it is counted from its first move on"]
        for _ in range(5):
            usage = chip.read(10.0, gpu=50_000)
            assert (figures(usage), list(usage.problems)) == ((None, None, None, None), [])
        usage = chip.read(10.0, cpu=600_000, gpu=50_000, memory=120_000)
        assert figures(usage) == (17.0, 10.0, 2.0, 5.0)
        assert usage.window_seconds == 60.0
        assert not usage.problems

    def test_one_that_moves_once_in_long_is_known_to_count_once_it_has(self) -> None:
        chip = Chip(cpu=0, gpu=0)
        chip.read()
        chip.read(0.1, gpu=10)
        lacks_host = []
        for cpu in (0, 900_000, 0):
            assert chip.read(100.0, cpu=cpu).problems
            lacks_host.append(chip.counters.lacks_host)
        assert lacks_host == [True, False, False]
        assert figures(chip.read(100.0, cpu=200_000)) == (1.0, 1.0, None, 0.0)

    def test_graphics_that_were_seen_to_count_meanwhile_draw_nothing_when_they_stand_still(self) -> None:
        chip = Chip(cpu=0, gpu=0)
        chip.read()
        chip.read(0.1, gpu=10)
        chip.read(5.0, cpu=900_000, gpu=10)
        assert figures(chip.read(10.0, cpu=10_000)) == (1.0, 1.0, None, 0.0)

    def test_dies_that_move_one_after_the_other_begin_each_at_its_own_first_move(self) -> None:
        chip = Chip(cpu_0=0, cpu_1=0, gpu=0)
        chip.read()
        chip.read(0.1)
        assert not chip.read(5.0, cpu_0=600_000).devices
        assert not chip.read(5.0, cpu_1=60_000, gpu=8).devices
        usage = chip.read(55.0, cpu_0=600_000)
        assert not usage.devices
        usage = chip.read(5.0, cpu_1=60_000, gpu=60_000)
        assert {device.device.name: device.watts for device in usage.devices} == {
            "cpu-0": pytest.approx(600 / 65),
            "cpu-1": 1.0,
            "gpu": 1.0,
        }

    def test_memory_alone_that_moves_seldom_begins_alone(self) -> None:
        chip = Chip(cpu=0, memory=0)
        chip.read()
        chip.read(0.1, cpu=100)
        usage = chip.read(5.9, cpu=5_900, memory=120_000)
        [cpu] = usage.devices
        assert (cpu.device.name, cpu.watts == pytest.approx(1.0)) == ("cpu", True)
        assert figures(chip.read(60.0, cpu=60_000, memory=120_000)) == (3.0, 1.0, 2.0, None)

    @given(st.floats(0.2, 60.0), st.floats(0.5, 100.0), st.floats(5.0, 120.0))
    def test_no_energy_of_before_the_start_is_counted(self, moves_after: float, interval: float, period: float) -> None:
        chip = Chip(cpu=0)
        moves = 0

        def read(seconds: float) -> None:
            nonlocal moves
            at = chip.now + seconds
            before, moves = moves, max(0, int((at - 100.0 - moves_after) // period) + 1)
            chip.read(seconds, cpu=round((moves - before) * period * 10_000))

        read(0.0)
        read(0.1)
        for _ in range(30):
            read(interval)
        assert chip.joules["cpu"] <= 10.0 * (chip.now - 100.0) * (1 + 1e-6)
