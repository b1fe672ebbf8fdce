"""The sensor `rapl` on made-up trees, with a clock turned by hand: what it says, what it loses, and that it says so."""

import contextlib
import copy
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tracarbon._meter import Meter, MeterView
from tracarbon.exceptions import HardwareRAPLException
from tracarbon.hardwares.energy import EnergyUsage, Fidelity, Scope, UsageType
from tracarbon.plugin import PluginContext
from tracarbon.testing import ManualClock
from tracarbon_sensor_rapl import RAPL, LinuxEnergyConsumption, RAPLResult

from tests.support.descriptors import open_below
from tests.support.powercap_tree import (
    PACKAGE_RANGE_UJ,
    PowercapTree,
    TreeSpec,
    ZoneSpec,
    one_socket,
    package,
    psys,
    two_sockets_eight_zones,
)

PACKAGE, CORE, UNCORE, DRAM = "intel-rapl:0", "intel-rapl:0:0", "intel-rapl:0:1", "intel-rapl:0:2"

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become nobody")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Machine:
    """A tree, a clock, and the counters over both."""

    def __init__(self, root: Path, spec: TreeSpec, *, path: str = "class/powercap") -> None:
        self.tree = PowercapTree(root, spec)
        self.clock = Clock()
        self.rapl = RAPL(path=str(root / path), hwmon=str(root / "class/hwmon"), clock=self.clock)

    def run(self, seconds: float, watts: dict[str, float]) -> None:
        """Let time pass, and each zone draw its watts meanwhile."""
        self.clock.now += seconds
        for key, power in watts.items():
            self.tree.advance(key, round(power * seconds * 1e6))

    def read_after(self, seconds: float, watts: dict[str, float]) -> EnergyUsage:
        self.run(seconds, watts)
        return self.rapl.read()


Make: TypeAlias = Callable[..., Machine]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Make a machine; its counters are closed at the end."""
    made: list[Machine] = []

    def make(spec: TreeSpec, *, root: Path = tmp_path, path: str = "class/powercap") -> Machine:
        made.append(Machine(root, spec, path=path))
        return made[-1]

    yield make
    for machine in made:
        machine.rapl.close()


@pytest.fixture
def machine(make: Make) -> Machine:
    machine = make(one_socket())
    machine.rapl.read()
    return machine


def figures(usage: EnergyUsage) -> tuple[object, ...]:
    """Host, cpu, memory, gpu."""
    return tuple(
        None if watts is None else pytest.approx(watts)
        for watts in map(
            usage.get_energy_usage_on_type, (UsageType.HOST, UsageType.CPU, UsageType.MEMORY, UsageType.GPU)
        )
    )


def device_watts(usage: EnergyUsage) -> dict[str, object]:
    return {reading.device.name: pytest.approx(reading.watts) for reading in usage.devices}


def open_counters() -> list[str]:
    return [path for path in open_below(Path("/")) if path.endswith(("energy_uj", "_input"))]


class TestComponents:
    def test_first_reading_opens_the_window_and_reports_nothing(self, make: Make) -> None:
        usage = make(one_socket()).rapl.read()
        assert figures(usage) == (None,) * 4
        assert (usage.window_seconds, usage.devices, usage.problems) == (None, (), [])

    def test_host_is_the_package_and_its_memory(self, machine: Machine) -> None:
        usage = machine.read_after(10.0, {PACKAGE: 30, CORE: 20, UNCORE: 4, DRAM: 3})
        assert figures(usage) == (33, 26, 3, 4)
        assert usage.window_seconds == pytest.approx(10.0)
        assert device_watts(usage) == {"package-0": 30, "core-0": 20, "uncore-0": 4, "dram-0": 3}

    def test_cores_are_detail(self, machine: Machine) -> None:
        usage = machine.read_after(10.0, {PACKAGE: 30, CORE: 20})
        scopes = {reading.device.name: (reading.device.scope, reading.device.within) for reading in usage.devices}
        assert scopes == {
            "package-0": (Scope.HOST, None),
            "core-0": (Scope.DETAIL, "package-0"),
            "uncore-0": (Scope.DETAIL, "package-0"),
            "dram-0": (Scope.HOST, None),
        }

    def test_two_sockets_of_one_name_are_two(self, make: Make) -> None:
        # Zones keyed by bare name once gave 29 MW for this machine (its issue 391).
        machine = make(TreeSpec(msr=tuple(package(socket, "dram") for socket in (0, 1))))
        for zone in ("intel-rapl:0", "intel-rapl:1"):
            machine.tree.set(zone, PACKAGE_RANGE_UJ // 2)
        machine.rapl.read()
        watts = {"intel-rapl:0": 30.0, "intel-rapl:1": 30.0, "intel-rapl:0:0": 3.0, "intel-rapl:1:0": 3.0}
        assert figures(machine.read_after(1.0, watts)) == (66, 60, 6, None)

    def test_two_sockets_with_every_zone(self, make: Make) -> None:
        machine = make(two_sockets_eight_zones())
        machine.rapl.read()
        watts = {f"intel-rapl:{socket}{zone}": power for socket in (0, 1) for zone, power in (("", 30.0), (":2", 3.0))}
        assert figures(machine.read_after(1.0, watts)) == (66, 60, 6, 0)

    def test_graphics_only_once_its_counter_counts(self, make: Make) -> None:
        spec = TreeSpec(msr=(ZoneSpec("package-0", children=(ZoneSpec("uncore", initial_uj=0),)),))
        machine = make(spec)
        machine.rapl.read()
        idle = machine.read_after(1.0, {PACKAGE: 30})
        assert figures(idle) == (30, 30, None, None)
        assert [reading.device.component for reading in idle.devices] == [UsageType.CPU] * 2
        drawing = machine.read_after(1.0, {PACKAGE: 30, "intel-rapl:0:0": 5})
        assert figures(drawing) == (30, 25, None, 5)
        assert [reading.device.component for reading in drawing.devices] == [UsageType.CPU, UsageType.GPU]

    def test_cpu_is_never_negative(self, machine: Machine) -> None:
        assert figures(machine.read_after(1.0, {PACKAGE: 1, UNCORE: 1.5}))[1] == 0

    def test_zone_that_is_no_part_we_know_is_detail_of_its_package(self, make: Make) -> None:
        machine = make(TreeSpec(msr=(ZoneSpec("package-0", children=(ZoneSpec("npu"),)),)))
        machine.rapl.read()
        usage = machine.read_after(1.0, {PACKAGE: 30, "intel-rapl:0:0": 5})
        assert figures(usage) == (30, 30, None, None)
        assert usage.devices[1].device.within == "package-0"

    def test_memory_mapped_twin_counts_once(self, make: Make) -> None:
        machine = make(TreeSpec(msr=(package(0, "dram"),), mmio=(package(0, "dram"),)))
        machine.rapl.read()
        watts = {"intel-rapl:0": 30.0, "intel-rapl-mmio:0": 30.0, "intel-rapl:0:0": 3.0, "intel-rapl-mmio:0:0": 3.0}
        assert figures(machine.read_after(1.0, watts)) == (33, 30, 3, None)

    def test_documented_default_path_is_one_control_type(self, make: Make) -> None:
        machine = make(one_socket(), path="class/powercap/intel-rapl")
        machine.rapl.read()
        assert figures(machine.read_after(1.0, {PACKAGE: 30, DRAM: 3})) == (33, 30, 3, 0)


class TestWholePlatform:
    SPEC = TreeSpec(msr=(package(0, "dram"), psys()))

    @pytest.fixture
    def machine(self, make: Make) -> Machine:
        machine = make(self.SPEC)
        machine.rapl.read()
        return machine

    def test_is_the_host_where_plausible(self, machine: Machine) -> None:
        usage = machine.read_after(1.0, {PACKAGE: 30, "intel-rapl:0:0": 3, "intel-rapl:1": 50})
        assert figures(usage) == (50, 30, 3, None)

    def test_is_not_where_it_is_less_than_its_parts(self, machine: Machine) -> None:
        usage = machine.read_after(1.0, {PACKAGE: 30, "intel-rapl:0:0": 3, "intel-rapl:1": 2})
        assert figures(usage) == (33, 30, 3, None)
        assert device_watts(usage)["psys"] == 2

    def test_parts_stand_in_while_it_cannot_be_read(self, machine: Machine) -> None:
        machine.tree.garble("intel-rapl:1")
        assert figures(machine.read_after(1.0, {PACKAGE: 30, "intel-rapl:0:0": 3})) == (33, 30, 3, None)


class TestWrapsAndResets:
    def test_wrap_is_energy(self, machine: Machine) -> None:
        machine.tree.set(PACKAGE, PACKAGE_RANGE_UJ - 10_000_000)
        machine.rapl.close()
        rapl = machine.rapl = RAPL(path=machine.rapl.path, clock=machine.clock)
        rapl.read()
        usage = machine.read_after(1.0, {PACKAGE: 30})
        assert machine.tree.value(PACKAGE) == 20_000_000
        assert usage.cpu_energy_usage == pytest.approx(30)
        assert usage.problems == []

    def test_reset_loses_that_zones_window_alone_and_is_named(self, machine: Machine) -> None:
        machine.run(5.0, {PACKAGE: 30, DRAM: 3})
        machine.tree.reset(PACKAGE)
        usage = machine.read_after(5.0, {PACKAGE: 0.1, DRAM: 3})
        assert figures(usage) == (None, None, 3, 0)
        assert usage.problems == ["package-0: the counter was reset; the energy of its window is lost"]
        assert figures(machine.read_after(10.0, {PACKAGE: 30, DRAM: 3})) == (33, 30, 3, 0)

    def test_seldom_read_counter_may_have_wrapped_unseen(self, machine: Machine) -> None:
        # A range lasts 1589 s at 165 W; here it is exceeded once and a third, but nothing in the counter tells.
        usage = machine.read_after(2000.0, {PACKAGE: 175})
        assert figures(usage)[:2] == (None, None)
        assert usage.problems[0] == (
            "package-0: not read for 2000 s, in which it may have wrapped unseen; the energy of its window is lost"
        )
        assert figures(machine.read_after(10.0, {PACKAGE: 30}))[1] == 30

    def test_limit_that_means_no_limit_does_not_make_a_reset_a_wrap(self, make: Make) -> None:
        machine = make(TreeSpec(msr=(package(0, max_power_uw=4_095_000_000),)))
        machine.tree.set(PACKAGE, PACKAGE_RANGE_UJ // 2)
        machine.rapl.read()
        assert machine.read_after(60.0, {PACKAGE: 30}).host_energy_usage == pytest.approx(30)
        machine.tree.reset(PACKAGE)
        # As a wrap, this would be 2185 W, which 4095 W would allow.
        usage = machine.read_after(60.0, {PACKAGE: 30})
        assert usage.host_energy_usage is None
        assert usage.problems == ["package-0: the counter was reset; the energy of its window is lost"]

    def test_without_a_range_nothing_is_taken_for_a_wrap(self, make: Make) -> None:
        machine = make(TreeSpec(msr=(package(0, max_range_uj=None),)))
        machine.tree.set(PACKAGE, PACKAGE_RANGE_UJ - 10_000_000)
        machine.rapl.read()
        assert machine.read_after(1.0, {PACKAGE: 30}).problems != []


class TestUnreadableZones:
    @pytest.mark.parametrize("fault", ["hide", "garble"])
    def test_zone_takes_no_other_along_and_its_gap_is_recovered(self, machine: Machine, fault: str) -> None:
        getattr(machine.tree, fault)(DRAM)
        for _ in range(3):
            usage = machine.read_after(10.0, {PACKAGE: 30})
            assert figures(usage) == (None, 30, None, 0)
            assert device_watts(usage) == {"package-0": 30, "core-0": 0, "uncore-0": 0}
            assert [problem.partition(":")[0] for problem in usage.problems] == ["dram-0"]
        if fault == "hide":
            machine.tree.restore(DRAM)
        machine.tree.set(DRAM, 1_000_000 + round(3 * 40 * 1e6))
        usage = machine.read_after(10.0, {PACKAGE: 30})
        assert figures(usage) == (33, 30, 3, 0)
        assert {reading.device.name: reading.window_seconds for reading in usage.devices} == {
            "package-0": pytest.approx(10.0),
            "core-0": pytest.approx(10.0),
            "uncore-0": pytest.approx(10.0),
            "dram-0": pytest.approx(40.0),
        }
        assert usage.problems == []

    def test_zone_that_was_never_readable_is_named_and_nothing_else_happens(self, make: Make) -> None:
        machine = make(one_socket())
        machine.tree.garble(CORE)
        machine.rapl.read()
        usage = machine.read_after(1.0, {PACKAGE: 30, DRAM: 3})
        assert figures(usage) == (33, 30, 3, 0)
        assert [problem.partition(":")[0] for problem in usage.problems] == ["core-0"]

    def test_nothing_readable_any_more_is_an_error_and_still_no_loss(self, machine: Machine) -> None:
        machine.tree.hide(PACKAGE)
        machine.clock.now += 10.0
        with pytest.raises(HardwareRAPLException, match="not an energy counter"):
            machine.rapl.read()
        machine.tree.restore(PACKAGE, 1_000_000)
        usage = machine.read_after(10.0, {PACKAGE: 60})
        assert usage.cpu_energy_usage == pytest.approx(30)
        assert usage.window_seconds == pytest.approx(20)


class TestLife:
    @pytest.fixture
    def sensor(self, machine: Machine) -> LinuxEnergyConsumption:
        machine.rapl.close()
        return LinuxEnergyConsumption(rapl=machine.rapl)

    async def test_release_closes_the_counters(self, machine: Machine, sensor: LinuxEnergyConsumption) -> None:
        assert open_counters() == []
        async with sensor:
            assert len(open_counters()) == 4
        assert open_counters() == []

    async def test_entering_after_a_direct_reading_leaks_nothing(
        self, machine: Machine, sensor: LinuxEnergyConsumption
    ) -> None:
        await sensor.get_energy_usage()
        async with sensor:
            assert len(open_counters()) == 4
        assert open_counters() == []

    async def test_entering_again_recovers_the_gap(self, machine: Machine, sensor: LinuxEnergyConsumption) -> None:
        async with sensor:
            await sensor.get_energy_usage()
        machine.run(60.0, {PACKAGE: 30, DRAM: 3})
        async with sensor:
            usage = await sensor.get_energy_usage()
        assert figures(usage) == (33, 30, 3, 0)
        assert usage.window_seconds == pytest.approx(60.0)

    async def test_a_copy_reads_for_itself(self, machine: Machine, sensor: LinuxEnergyConsumption) -> None:
        twin = copy.copy(sensor)
        async with sensor, twin:
            assert len(open_counters()) == 8
            await twin.get_energy_usage()
            machine.run(60.0, {PACKAGE: 30, DRAM: 3})
            assert figures(await sensor.get_energy_usage()) == (33, 30, 3, 0)
            assert figures(await twin.get_energy_usage()) == (33, 30, 3, 0)
        assert sensor.rapl == twin.rapl

    async def test_entering_while_a_zone_is_away_does_not_forget_it(
        self, machine: Machine, sensor: LinuxEnergyConsumption
    ) -> None:
        machine.tree.hide(DRAM)
        async with sensor:
            usage = await sensor.get_energy_usage()
            assert [problem.partition(":")[0] for problem in usage.problems] == ["dram-0"]
            machine.tree.restore(DRAM, 1_000_000 + 3 * 60_000_000)
            machine.clock.now += 60.0
            assert (await sensor.get_energy_usage()).memory_energy_usage == pytest.approx(3)

    async def test_zones_numbered_anew_are_the_same_counters(self, make: Make, tmp_path: Path) -> None:
        two = TreeSpec(msr=(package(0), package(1)))
        machine = make(two, root=tmp_path / "before")
        machine.tree.set("intel-rapl:1", 8_000_000)
        machine.rapl.read()
        other = PowercapTree(tmp_path / "after", TreeSpec(msr=(package(1), package(0))))
        other.set("intel-rapl:0", 68_000_000)
        machine.rapl.path = str(other.powercap)
        machine.rapl.open()
        machine.clock.now += 60.0
        other.advance("intel-rapl:1", 120_000_000)
        assert device_watts(machine.rapl.read()) == {"package-1": 1, "package-0": 2}

    async def test_direct_use_without_a_pipeline(self, machine: Machine) -> None:
        sensor = LinuxEnergyConsumption(rapl=RAPL(path=machine.rapl.path, clock=machine.clock))
        assert (await sensor.get_energy_usage()).host_energy_usage is None
        machine.run(10.0, {PACKAGE: 30, DRAM: 3})
        assert (await sensor.get_energy_usage()).host_energy_usage == pytest.approx(33)
        sensor.rapl.close()

    async def test_from_options_uses_the_hosts_folders(self, machine: Machine) -> None:
        root = machine.tree.root
        (root / "sys").symlink_to(root)
        clock = ManualClock()
        context = PluginContext("rapl", host_root=root, clock=clock)
        sensor = LinuxEnergyConsumption.from_options(LinuxEnergyConsumption.Options(), context)
        async with sensor:
            await sensor.get_energy_usage()
            clock.elapse(5.0)
            machine.tree.advance(PACKAGE, 50_000_000)
            assert (await sensor.get_energy_usage()).cpu_energy_usage == pytest.approx(10)
        elsewhere = LinuxEnergyConsumption.Options(path=str(root / "class/powercap/intel-rapl"))
        assert LinuxEnergyConsumption.from_options(elsewhere, context).rapl.path == elsewhere.path

    def test_probe(self, machine: Machine) -> None:
        root = machine.tree.root
        (root / "sys").symlink_to(root)
        machine.rapl.close()
        probe = LinuxEnergyConsumption.probe(PluginContext("rapl", host_root=root))
        assert (probe.works, probe.fidelity) == (True, Fidelity.MEASURED)
        assert probe.reason == "package-0, core-0, uncore-0, dram-0"
        assert open_counters() == []

    def test_probe_where_there_is_nothing(self, tmp_path: Path) -> None:
        probe = LinuxEnergyConsumption.probe(PluginContext("rapl", host_root=tmp_path))
        assert not probe.works
        assert probe.reason == f"{tmp_path}/sys/class/powercap does not exist: no energy counters here"
        assert "intel_rapl_msr" in probe.remedy


class TestDocumentedMethods:
    async def test_files_and_results(self, machine: Machine) -> None:
        rapl = machine.rapl
        assert rapl.is_rapl_compatible()
        rapl.get_rapl_files_list()
        powercap = machine.tree.powercap
        assert rapl.file_list == [f"{powercap}/{key}/energy_uj" for key in (PACKAGE, CORE, UNCORE, DRAM)]
        machine.tree.garble(CORE)
        results = await rapl.get_rapl_power_usage()
        assert [(result.name, result.energy_uj) for result in results] == [
            ("package-0", 1_000_000),
            ("uncore-0", 1_000_000),
            ("dram-0", 1_000_000),
        ]
        assert rapl.rapl_results["package-0"].max_energy_uj == PACKAGE_RANGE_UJ
        assert isinstance(results[0], RAPLResult)

    async def test_looking_at_the_counters_takes_nothing_from_the_report(self, machine: Machine) -> None:
        machine.run(5.0, {PACKAGE: 30})
        await machine.rapl.get_rapl_power_usage()
        machine.run(5.0, {PACKAGE: 30})
        usage = await machine.rapl.get_energy_report()
        assert figures(usage)[1] == 30
        assert usage.window_seconds == pytest.approx(10)

    async def test_where_there_is_nothing(self, tmp_path: Path) -> None:
        rapl = RAPL(path=str(tmp_path / "powercap"), hwmon=str(tmp_path))
        assert not rapl.is_rapl_compatible()
        for call in (rapl.get_rapl_files_list, rapl.open, rapl.read):
            with pytest.raises(HardwareRAPLException, match="does not exist"):
                call()
        for read in (rapl.get_rapl_power_usage, rapl.get_energy_report):
            with pytest.raises(HardwareRAPLException, match="does not exist"):
                await read()

    def test_shows_what_is_documented(self) -> None:
        assert repr(LinuxEnergyConsumption().rapl) == "RAPL(path='/sys/class/powercap/intel-rapl')"
        assert RAPL(file_list=["a"]).file_list == ["a"]


class TestAmdEnergy:
    def test_stands_in_where_there_are_no_zones(self, tmp_path: Path) -> None:
        folder = tmp_path / "hwmon" / "hwmon1"
        folder.mkdir(parents=True)
        texts = {"name": "amd_energy", "energy1_label": "Ecore000", "energy1_input": "5000000"}
        texts |= {"energy2_label": "Esocket0", "energy2_input": "7000000"}
        for name, text in texts.items():
            (folder / name).write_text(f"{text}\n")
        clock = Clock()
        rapl = RAPL(path=str(tmp_path / "powercap"), hwmon=str(tmp_path / "hwmon"), clock=clock)
        rapl.read()
        clock.now += 10.0
        (folder / "energy2_input").write_text("307000000\n")
        assert figures(rapl.read()) == (30, 30, None, None)
        rapl.close()


@contextlib.contextmanager
def as_nobody(*folders: Path) -> Iterator[None]:
    """Be a user without rights, who may pass the folders."""
    closed = [folder for folder in folders if not folder.stat().st_mode & 0o001]
    modes = [folder.stat().st_mode for folder in closed]
    for folder in closed:
        folder.chmod(folder.stat().st_mode | 0o011)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        for folder, mode in zip(closed, modes, strict=True):
            folder.chmod(mode)


@needs_root
class TestAsNobody:
    def test_says_why_and_what_to_do(self, make: Make, tmp_path: Path) -> None:
        machine = make(one_socket())
        with as_nobody(tmp_path, *tmp_path.parents):
            assert not machine.rapl.is_rapl_compatible()
            with pytest.raises(HardwareRAPLException) as caught:
                machine.rapl.read()
        reason, _, remedy = str(caught.value).partition(". ")
        counter = machine.tree.powercap / PACKAGE / "energy_uj"
        assert reason == f"{counter} is readable by root only, as the kernel has it since CVE-2020-8694"
        assert "/etc/tmpfiles.d/tracarbon.conf" in remedy
        assert open_counters() == []

    def test_probe_says_the_same(self, make: Make, tmp_path: Path) -> None:
        machine = make(one_socket())
        (tmp_path / "sys").symlink_to(tmp_path)
        with as_nobody(tmp_path, *tmp_path.parents):
            probe = LinuxEnergyConsumption.probe(PluginContext("rapl", host_root=tmp_path))
        assert not probe.works
        assert probe.reason.endswith("is readable by root only, as the kernel has it since CVE-2020-8694")
        assert probe.remedy.startswith("put the line 'z /sys/class/powercap/*:*/energy_uj 0440 root tracarbon'")
        assert machine.tree.value(PACKAGE) == 1_000_000

    def test_one_readable_counter_suffices(self, make: Make, tmp_path: Path) -> None:
        machine = make(one_socket())
        machine.tree.chmod(0o444, PACKAGE)
        with as_nobody(tmp_path, *tmp_path.parents):
            assert machine.rapl.is_rapl_compatible()
            machine.rapl.read()
        machine.run(1.0, {PACKAGE: 30})
        with as_nobody(tmp_path, *tmp_path.parents):
            usage = machine.rapl.read()
        assert usage.cpu_energy_usage == pytest.approx(30)
        assert len(usage.problems) == 3
        machine.rapl.close()


ZONES = ("intel-rapl:0", "intel-rapl:0:0", "intel-rapl:1", "intel-rapl:1:0")
LABELS = {
    "intel-rapl:0": "package-0",
    "intel-rapl:0:0": "dram-0",
    "intel-rapl:1": "package-1",
    "intel-rapl:1:0": "dram-1",
}
MAX_WATTS = {"package": 165.0, "dram": 40.0}


@dataclass
class Zone:
    """The truth of one zone, against what was said of it."""

    key: str
    counter_uj: int
    range_uj: int
    is_hidden: bool = False
    used: float = 0.0
    used_at_reading: float = 0.0
    reported: float = 0.0
    lost: float = 0.0
    losses: int = 0

    @property
    def max_watts(self) -> float:
        return MAX_WATTS[LABELS[self.key].partition("-")[0]]

    def use(self, joules: float) -> None:
        microjoules = round(joules * 1e6)
        self.used += microjoules / 1e6
        self.counter_uj = (self.counter_uj + microjoules) % self.range_uj


@dataclass
class History:
    """Drives the real files and the sensor, and keeps the accounts of every zone."""

    machine: Machine
    zones: dict[str, Zone]
    meter: Meter
    view: MeterView
    clock: ManualClock
    host: float = 0.0
    memory: float = 0.0

    def advance(self, seconds: float, load: float) -> None:
        self.clock.elapse(seconds)
        self.machine.clock.now = self.clock.monotonic()
        for zone in self.zones.values():
            zone.use(load * zone.max_watts * seconds)
            if not zone.is_hidden:
                self.machine.tree.set(zone.key, zone.counter_uj)

    def reset(self, zone: Zone) -> None:
        """Reset a counter between two readings of which the reset can be seen.

        It cannot be where the counter stood so low that it is soon as high again, or so high that it seems to wrap.
        """
        self.read()
        if not zone.is_hidden and 2e9 < zone.counter_uj < zone.range_uj - 4e9:
            zone.counter_uj = 0
            self.machine.tree.reset(zone.key)
            self.advance(10.0, 1.0)
            losses = zone.losses
            self.read()
            assert zone.losses == losses + 1

    def hide(self, zone: Zone) -> None:
        if not zone.is_hidden:
            zone.is_hidden = True
            self.machine.tree.garble(zone.key)

    def restore(self, zone: Zone) -> None:
        zone.is_hidden = False
        self.machine.tree.set(zone.key, zone.counter_uj)

    def read(self) -> None:
        if all(zone.is_hidden for zone in self.zones.values()):
            with pytest.raises(HardwareRAPLException):
                self.machine.rapl.read()
            return
        usage = self.machine.rapl.read()
        self.meter.record("rapl", usage, self.clock.monotonic())
        joules = {reading.device.name: reading.watts * (reading.window_seconds or 0.0) for reading in usage.devices}
        lost = {problem.partition(":")[0] for problem in usage.problems if problem.endswith("is lost")}
        for zone in self.zones.values():
            label = LABELS[zone.key]
            zone.reported += joules.get(label, 0.0)
            if label in lost:
                zone.lost += zone.used - zone.used_at_reading
                zone.losses += 1
            if label in lost or label in joules:
                zone.used_at_reading = zone.used

    def close(self) -> None:
        self.meter.close()
        self.view.advance()
        self.view.commit()
        usage = self.view._read.usage
        for usage_type, name in ((UsageType.HOST, "host"), (UsageType.MEMORY, "memory")):
            watts, origin = usage.get_energy_usage_on_type(usage_type), usage.provenance.get(usage_type)
            if watts is not None:
                assert origin is not None
                assert origin.covered_seconds is not None
                setattr(self, name, getattr(self, name) + watts * origin.covered_seconds)

    def end(self) -> None:
        """Bring everything back, and read until nothing is left waiting."""
        for zone in self.zones.values():
            self.restore(zone)
        for _ in range(3):
            self.advance(2.0, 0.5)
            self.read()
            self.close()


def begin(root: Path, starts: list[int]) -> History:
    machine = Machine(root, TreeSpec(msr=tuple(package(socket, "dram") for socket in (0, 1))))
    zones = {
        key: Zone(key, start % machine.tree.range_uj(key), machine.tree.range_uj(key))
        for key, start in zip(ZONES, starts, strict=True)
    }
    for zone in zones.values():
        machine.tree.set(zone.key, zone.counter_uj)
    clock = ManualClock()
    machine.clock.now = clock.monotonic()
    meter = Meter(clock)
    meter.add_sensor("rapl", LinuxEnergyConsumption, 60.0)
    machine.rapl.read()
    meter.open()
    view = MeterView(meter)
    view.reset()
    return History(machine, zones, meter, view, clock)


ADVANCES = st.tuples(st.just("advance"), st.floats(1.0, 60.0), st.floats(0.0, 1.0))
LATE_READS = st.tuples(st.just("advance"), st.floats(60.0, 6000.0), st.floats(0.0, 1.0))
FAULTS = st.tuples(st.sampled_from(["hide", "restore", "reset"]), st.sampled_from(ZONES), st.none())
READS = st.tuples(st.sampled_from(["read", "close"]), st.none(), st.none())


@settings(max_examples=150, deadline=None)
@given(
    starts=st.lists(st.integers(0, PACKAGE_RANGE_UJ - 1), min_size=4, max_size=4),
    steps=st.lists(ADVANCES | READS | READS | FAULTS | LATE_READS, max_size=40),
)
def test_what_was_used_is_reported_or_named_as_lost(
    tmp_path_factory: pytest.TempPathFactory, starts: list[int], steps: list[tuple[str, object, object]]
) -> None:
    history = begin(tmp_path_factory.mktemp("history"), starts)
    for step in steps:
        match step:
            case ("advance", float(seconds), float(load)):
                history.advance(seconds, load)
            case ("hide" | "restore" | "reset" as fault, str(key), _):
                getattr(history, fault)(history.zones[key])
            case (action, _, _):
                getattr(history, action)()
    history.end()
    for zone in history.zones.values():
        assert zone.reported + zone.lost == pytest.approx(zone.used, abs=1e-3), LABELS[zone.key]
    # Nor does the meter lose or invent anything on the way to the components.
    assert history.host == pytest.approx(sum(zone.reported for zone in history.zones.values()), abs=1e-3)
    memory = sum(zone.reported for zone in history.zones.values() if LABELS[zone.key].startswith("dram"))
    assert history.memory == pytest.approx(memory, abs=1e-3)
    history.machine.rapl.close()
