"""The powercap mechanism, on real files laid out as the kernel lays them out."""

import errno
import grp
import os
import pwd
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tracarbon_sensor_rapl._amd_energy import find_sockets
from tracarbon_sensor_rapl._powercap import Zone, ZoneKind, ZoneReader, explain, find_zones

from tests.support.descriptors import open_below
from tests.support.powercap_tree import (
    DRAM_RANGE_UJ,
    PACKAGE_RANGE_UJ,
    PowercapTree,
    TreeSpec,
    ZoneSpec,
    one_socket,
    package,
    psys,
    two_sockets_eight_zones,
)

IS_ROOT = os.geteuid() == 0


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tree(tmp_path: Path) -> PowercapTree:
    return PowercapTree(tmp_path, one_socket())


def labels(zones: list[Zone]) -> list[str]:
    return [zone.label for zone in zones]


def by_label(zones: list[Zone]) -> dict[str, Zone]:
    return {zone.label: zone for zone in zones}


class TestFindZones:
    def test_two_sockets_have_distinct_labels(self, tmp_path: Path) -> None:
        tree = PowercapTree(tmp_path, two_sockets_eight_zones())
        zones = find_zones(tree.powercap)
        assert labels(zones) == [
            *("package-0", "core-0", "uncore-0", "dram-0"),
            *("package-1", "core-1", "uncore-1", "dram-1"),
        ]
        assert [zone.key for zone in zones] == tree.keys()
        assert [zone.parent for zone in zones] == [None, *["package-0"] * 3, None, *["package-1"] * 3]

    def test_every_field_of_a_zone(self, tree: PowercapTree) -> None:
        zones = by_label(find_zones(tree.powercap))
        assert zones["dram-0"] == Zone(
            key="intel-rapl:0:2",
            label="dram-0",
            kind=ZoneKind.DRAM,
            parent="package-0",
            path=tree.powercap / "intel-rapl:0:2",
            max_range_uj=DRAM_RANGE_UJ,
            max_power_uw=40_000_000,
        )
        assert zones["package-0"].max_range_uj == PACKAGE_RANGE_UJ
        assert zones["package-0"].counter_path.samefile(tree.counter("intel-rapl:0"))

    @pytest.mark.parametrize("folder", ["class/powercap/intel-rapl", "devices/virtual/powercap"])
    def test_other_folders_of_the_same_layout(self, tree: PowercapTree, folder: str) -> None:
        assert labels(find_zones(tree.root / folder)) == ["package-0", "core-0", "uncore-0", "dram-0"]

    def test_plain_nested_folder_without_links(self, tree: PowercapTree, tmp_path: Path) -> None:
        copy = tmp_path / "copy"
        shutil.copytree(
            tree.virtual_folder / "powercap", copy, ignore=lambda *_: {"device", "subsystem"}, symlinks=True
        )
        assert labels(find_zones(copy)) == ["package-0", "core-0", "uncore-0", "dram-0"]

    def test_order_is_numeric(self, tmp_path: Path) -> None:
        tree = PowercapTree(tmp_path, TreeSpec(msr=tuple(package(socket) for socket in range(12))))
        assert labels(find_zones(tree.powercap)) == [f"package-{socket}" for socket in range(12)]

    def test_dies_are_packages_of_their_own(self, tmp_path: Path) -> None:
        spec = TreeSpec(msr=tuple(package(0, "core", "dram", die=die) for die in (0, 1)))
        zones = find_zones(PowercapTree(tmp_path, spec).powercap)
        assert labels(zones) == [
            *("package-0-die-0", "core-0-die-0", "dram-0-die-0"),
            *("package-0-die-1", "core-0-die-1", "dram-0-die-1"),
        ]
        assert [zone.kind for zone in zones[:3]] == [ZoneKind.PACKAGE, ZoneKind.CORE, ZoneKind.DRAM]
        assert zones[-1].parent == "package-0-die-1"

    def test_psys_is_no_package_and_a_second_one_is_told_apart(self, tmp_path: Path) -> None:
        spec = TreeSpec(msr=(package(0, "core"), psys(), package(1), psys()))
        zones = find_zones(PowercapTree(tmp_path, spec).powercap)
        assert labels(zones) == ["package-0", "core-0", "psys", "package-1", "psys-intel-rapl:3"]
        assert {zone.kind for zone in zones if zone.label.startswith("psys")} == {ZoneKind.PSYS}

    def test_other_control_types_and_odd_names_are_ignored(self, tree: PowercapTree) -> None:
        for name in ("dtpm", "dtpm:0", "intel-rapl:x", "not-intel-rapl:0", "intel-rapl:0.bak"):
            (tree.powercap / name).mkdir()
            (tree.powercap / name / "name").write_text("package-7\n")
        assert labels(find_zones(tree.powercap)) == ["package-0", "core-0", "uncore-0", "dram-0"]

    def test_zones_with_capping_switched_off_are_kept(self, tmp_path: Path) -> None:
        spec = TreeSpec(msr=(ZoneSpec("package-0", enabled=False),))
        assert labels(find_zones(PowercapTree(tmp_path, spec).powercap)) == ["package-0"]

    def test_maximum_power_is_the_largest_of_all_constraints(self, tree: PowercapTree) -> None:
        folder = tree.path("intel-rapl:0")
        (folder / "constraint_1_power_limit_uw").write_text("210000000\n")
        (folder / "constraint_1_max_power_uw").write_text("garbage\n")
        (folder / "constraint_1_time_window_us").write_text("999999999999\n")
        zones = by_label(find_zones(tree.powercap))
        assert zones["package-0"].max_power_uw == 210_000_000
        assert zones["core-0"].max_power_uw is None

    def test_range_that_cannot_be_had_is_unknown(self, tmp_path: Path) -> None:
        spec = TreeSpec(msr=(package(0, max_range_uj=None), package(1, max_range_uj=0)))
        tree = PowercapTree(tmp_path, spec)
        assert [zone.max_range_uj for zone in find_zones(tree.powercap)] == [None, None]

    def test_zone_that_vanishes_while_listing(self, tree: PowercapTree) -> None:
        # The link of a zone whose folder went after the listing, and a folder whose files went.
        (tree.powercap / "intel-rapl:1").symlink_to("../../devices/virtual/powercap/intel-rapl/intel-rapl:1")
        (tree.path("intel-rapl:0:0") / "name").unlink()
        assert labels(find_zones(tree.powercap)) == ["package-0", "uncore-0", "dram-0"]

    def test_zone_inside_a_vanished_package_is_kept(self, tree: PowercapTree) -> None:
        (tree.path("intel-rapl:0") / "name").unlink()
        zones = by_label(find_zones(tree.powercap))
        assert set(zones) == {"core-0", "uncore-0", "dram-0"}
        assert zones["dram-0"].parent is None

    def test_unknown_zone_names_are_other(self, tmp_path: Path) -> None:
        spec = TreeSpec(msr=(ZoneSpec("package-0", children=(ZoneSpec("npu"),)), ZoneSpec("hbm")))
        zones = by_label(find_zones(PowercapTree(tmp_path, spec).powercap))
        assert {label: zone.kind for label, zone in zones.items()} == {
            "package-0": ZoneKind.PACKAGE,
            "npu-0": ZoneKind.OTHER,
            "hbm": ZoneKind.OTHER,
        }

    def test_no_folder_is_an_error_and_an_empty_one_is_not(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            find_zones(tmp_path / "powercap")
        assert find_zones(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("package-10", ZoneKind.PACKAGE),
        ("package-1-die-0", ZoneKind.PACKAGE),
        ("package", ZoneKind.OTHER),
        ("package-0-core", ZoneKind.OTHER),
        ("core", ZoneKind.CORE),
        ("uncore", ZoneKind.UNCORE),
        ("dram", ZoneKind.DRAM),
        ("psys", ZoneKind.PSYS),
        ("sram", ZoneKind.OTHER),
        ("other", ZoneKind.OTHER),
    ],
)
def test_kind_goes_by_the_exact_name(name: str, kind: ZoneKind) -> None:
    assert ZoneKind.of(name) is kind


class TestMmioTwins:
    @pytest.fixture
    def twins(self, tmp_path: Path) -> PowercapTree:
        spec = TreeSpec(msr=(psys(), package(0, "core", "dram")), mmio=(package(0, "dram"),))
        return PowercapTree(tmp_path, spec)

    def test_count_once_by_msr(self, twins: PowercapTree) -> None:
        zones = find_zones(twins.powercap)
        assert [zone.key for zone in zones] == ["intel-rapl:0", "intel-rapl:1", "intel-rapl:1:0", "intel-rapl:1:1"]
        assert labels(zones) == ["psys", "package-0", "core-0", "dram-0"]

    def test_stand_in_for_an_unreadable_twin(self, twins: PowercapTree) -> None:
        twins.garble("intel-rapl:1")
        zones = by_label(find_zones(twins.powercap))
        assert zones["package-0"].key == "intel-rapl-mmio:0"
        assert {zones["core-0"].key, zones["dram-0"].key} == {"intel-rapl:1:0", "intel-rapl:1:1"}
        assert zones["dram-0"].parent == "package-0"

    def test_stand_in_for_a_missing_twin(self, twins: PowercapTree) -> None:
        twins.hide("intel-rapl:1:1")
        zones = by_label(find_zones(twins.powercap))
        assert zones["dram-0"].key == "intel-rapl-mmio:0:0"
        assert zones["dram-0"].parent == "package-0"

    def test_msr_where_neither_can_be_read(self, twins: PowercapTree) -> None:
        twins.garble("intel-rapl:1")
        twins.garble("intel-rapl-mmio:0")
        assert by_label(find_zones(twins.powercap))["package-0"].key == "intel-rapl:1"

    def test_of_another_package_is_no_twin(self, tmp_path: Path) -> None:
        tree = PowercapTree(tmp_path, TreeSpec(msr=(package(0, "dram"),), mmio=(package(1, "dram"),)))
        assert labels(find_zones(tree.powercap)) == ["package-0", "dram-0", "package-1", "dram-1"]


class TestZoneReader:
    def test_gives_the_counters_in_the_order_of_the_zones(self, tree: PowercapTree) -> None:
        zones = find_zones(tree.powercap)
        for number, zone in enumerate(zones):
            tree.set(zone.key, 10**number)
        with ZoneReader(zones[::-1]) as reader:
            assert reader.read() == [1000, 100, 10, 1]
            tree.advance("intel-rapl:0", 5)
            assert reader.read() == [1000, 100, 10, 6]

    @given(microjoules=st.integers(0, 2**64 - 1), trailing=st.sampled_from([b"", b"\n", b" \n"]))
    def test_gives_any_counter_exactly(
        self, tmp_path_factory: pytest.TempPathFactory, microjoules: int, trailing: bytes
    ) -> None:
        folder = tmp_path_factory.mktemp("zone")
        (folder / "energy_uj").write_bytes(b"%d%s" % (microjoules, trailing))
        zone = Zone("intel-rapl:0", "package-0", ZoneKind.PACKAGE, None, folder, None, None)
        with ZoneReader([zone]) as reader:
            assert reader.read() == [microjoules]

    @pytest.mark.parametrize("text", [b"", b"\n", b"garbage\n", b"12 34\n", b"1.5\n", b"\xff\x00"])
    def test_garbage_is_the_error_of_that_zone_alone(self, tree: PowercapTree, text: bytes) -> None:
        with ZoneReader(find_zones(tree.powercap)) as reader:
            tree.garble("intel-rapl:0:1", text)
            package_0, core, uncore, dram = reader.read()
            assert (package_0, core, dram) == (1_000_000, 1_000_000, 1_000_000)
            assert isinstance(uncore, ValueError)
            assert "intel-rapl:0:1/energy_uj" in str(uncore)
            tree.set("intel-rapl:0:1", 0)

    def test_zone_that_cannot_be_opened_has_its_error_in_each_reading(self, tree: PowercapTree, clock: Clock) -> None:
        zones = find_zones(tree.powercap)
        tree.counter("intel-rapl:0").unlink()
        with ZoneReader(zones, clock=clock) as reader:
            for _ in range(3):
                missing, *others = reader.read()
                assert isinstance(missing, FileNotFoundError)
                assert missing.filename == str(tree.powercap / "intel-rapl:0/energy_uj")
                assert others == [1_000_000] * 3

    def test_zone_that_returns_is_used_again(self, tree: PowercapTree, clock: Clock) -> None:
        with ZoneReader(find_zones(tree.powercap), clock=clock) as reader:
            tree.hide("intel-rapl:0:2")
            assert isinstance(reader.read()[3], ValueError)
            clock.now += 1
            assert isinstance(reader.read()[3], FileNotFoundError)
            tree.restore("intel-rapl:0:2", 77)
            assert isinstance(reader.read()[3], FileNotFoundError)
            clock.now += 1
            assert reader.read() == [1_000_000, 1_000_000, 1_000_000, 77]

    def test_zone_that_returns_as_another_file_is_used_again(self, tree: PowercapTree, clock: Clock) -> None:
        counter = tree.counter("intel-rapl:0")
        with ZoneReader(find_zones(tree.powercap), clock=clock) as reader:
            tree.garble("intel-rapl:0")
            counter.unlink()
            counter.write_text("5\n")
            assert isinstance(reader.read()[0], ValueError)
            clock.now += 1
            assert reader.read()[0] == 5

    def test_attempts_to_open_are_a_second_apart(
        self, tree: PowercapTree, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        zones = find_zones(tree.powercap)
        tree.hide("intel-rapl:0:0")
        opened: list[str] = []
        really_open = os.open

        def counting_open(path: str, flags: int) -> int:
            opened.append(path)
            return really_open(path, flags)

        with ZoneReader(zones, clock=clock) as reader:
            monkeypatch.setattr(os, "open", counting_open)
            for _ in range(100):
                reader.read()
                clock.now += 0.1
        assert 9 <= len(opened) <= 10
        assert set(opened) == {str(tree.powercap / "intel-rapl:0:0/energy_uj")}

    def test_error_of_the_read_itself_names_the_file(self, tree: PowercapTree, monkeypatch: pytest.MonkeyPatch) -> None:
        def no_such_device(descriptor: int, length: int, offset: int) -> bytes:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))

        with ZoneReader(find_zones(tree.powercap)) as reader:
            with monkeypatch.context() as patch:
                patch.setattr(os, "pread", no_such_device)
                gone = reader.read()[0]
            assert isinstance(gone, OSError)
            assert (gone.errno, gone.filename) == (errno.ENODEV, str(tree.powercap / "intel-rapl:0/energy_uj"))

    def test_leaks_no_descriptor(self, tree: PowercapTree, clock: Clock) -> None:
        zones = find_zones(tree.powercap)
        with ZoneReader(zones, clock=clock) as reader:
            counters = {str(tree.counter(zone.key)) for zone in zones}
            assert counters == set(open_below(tree.root))
            for _ in range(5):
                tree.hide("intel-rapl:0")
                reader.read()
                clock.now += 1
                reader.read()
                tree.restore("intel-rapl:0")
                clock.now += 1
                assert reader.read() == [0, 0, 0, 0]
            assert len(open_below(tree.root)) == len(zones)
        assert open_below(tree.root) == []

    def test_descriptors_are_not_inherited(self, tree: PowercapTree) -> None:
        with ZoneReader(find_zones(tree.powercap)) as reader:
            assert not any(os.get_inheritable(descriptor) for descriptor in reader._descriptors)

    def test_closed_reader_refuses_and_can_be_entered_again(self, tree: PowercapTree) -> None:
        reader = ZoneReader(find_zones(tree.powercap))
        with pytest.raises(RuntimeError, match="with"):
            reader.read()
        for _ in range(2):
            with reader:
                assert len(reader.read()) == 4
        reader.close()
        with pytest.raises(RuntimeError, match="with"):
            reader.read()


@pytest.fixture
def open_tree(tmp_path: Path) -> Iterator[PowercapTree]:
    """A tree whose folders every user may pass."""
    closed = [folder for folder in (tmp_path, *tmp_path.parents) if not folder.stat().st_mode & 0o001]
    modes = [folder.stat().st_mode for folder in closed]
    for folder in closed:
        folder.chmod(folder.stat().st_mode | 0o011)
    yield PowercapTree(tmp_path, one_socket())
    for folder, mode in zip(closed, modes, strict=True):
        folder.chmod(mode)


@pytest.mark.skipif(not IS_ROOT, reason="only root can become nobody")
class TestAsNobody:
    def readings(self, tree: PowercapTree) -> list[int | str]:
        """What a child that became nobody read."""
        script = textwrap.dedent("""\
            import os, sys
            from pathlib import Path
            from tracarbon_sensor_rapl._powercap import ZoneReader, explain, find_zones

            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            with ZoneReader(find_zones(Path(sys.argv[1]))) as reader:
                for zone, reading in zip(reader.zones, reader.read(), strict=True):
                    print(explain(reading, zone.counter_path)[0] if isinstance(reading, OSError) else reading)
        """)
        command = [sys.executable, "-c", script, str(tree.powercap)]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return [int(line) if line.isdigit() else line for line in output.splitlines()]

    def test_counters_of_mode_0400_are_found_and_denied(self, open_tree: PowercapTree) -> None:
        readings = self.readings(open_tree)
        assert len(readings) == 4
        assert all(isinstance(reading, str) and "root only" in reading for reading in readings)

    def test_one_readable_counter_is_read(self, open_tree: PowercapTree) -> None:
        open_tree.chmod(0o444, "intel-rapl:0")
        counter, *denied = self.readings(open_tree)
        assert counter == 1_000_000
        assert len(denied) == 3
        assert all(isinstance(reading, str) for reading in denied)

    def test_readable_mmio_twin_is_preferred_to_a_closed_msr_zone(self, open_tree: PowercapTree) -> None:
        PowercapTree(open_tree.root / "twins", TreeSpec(msr=(package(0),), mmio=(package(0),))).chmod(
            0o444, "intel-rapl-mmio:0"
        )
        assert self.readings(PowercapTree(open_tree.root / "twins")) == [1_000_000]


class TestAmdEnergy:
    @pytest.fixture
    def hwmon(self, tmp_path: Path) -> Path:
        folder = tmp_path / "devices" / "hwmon3"
        labels = ["Ecore000", "Ecore001", "Esocket0", "Esocket1"]
        texts = {"name": "amd_energy"}
        for number, label in enumerate(labels, start=1):
            texts |= {f"energy{number}_label": label, f"energy{number}_input": str(number * 1000)}
        other = tmp_path / "devices" / "hwmon0"
        for place, files in ((folder, texts), (other, {"name": "coretemp", "energy1_label": "Esocket0"})):
            place.mkdir(parents=True)
            for name, text in files.items():
                (place / name).write_text(f"{text}\n")
        hwmon = tmp_path / "hwmon"
        hwmon.mkdir()
        for place in (folder, other, tmp_path / "devices" / "gone"):
            (hwmon / place.name).symlink_to(f"../devices/{place.name}")
        return hwmon

    def test_gives_the_sockets_without_their_cores(self, hwmon: Path) -> None:
        zones = find_sockets(hwmon)
        assert [(zone.key, zone.label, zone.kind) for zone in zones] == [
            ("amd_energy:Esocket0", "package-0", ZoneKind.PACKAGE),
            ("amd_energy:Esocket1", "package-1", ZoneKind.PACKAGE),
        ]
        with ZoneReader(zones) as reader:
            assert reader.read() == [3000, 4000]

    def test_no_such_device(self, tmp_path: Path) -> None:
        assert find_sockets(tmp_path) == []
        with pytest.raises(FileNotFoundError):
            find_sockets(tmp_path / "hwmon")

    def test_denied_counter_has_its_own_rule(self, hwmon: Path) -> None:
        error = PermissionError(errno.EACCES, "Permission denied")
        reason, remedy = explain(error, find_sockets(hwmon)[0].counter_path)
        assert "CVE-2020-12912" in reason
        assert "/sys/class/hwmon/hwmon*/energy*_input" in remedy


class TestExplain:
    COUNTER = Path("/sys/class/powercap/intel-rapl:0/energy_uj")

    @pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM])
    def test_denied(self, number: int) -> None:
        reason, remedy = explain(OSError(number, os.strerror(number)), self.COUNTER)
        assert str(self.COUNTER) in reason
        assert "CVE-2020-8694" in reason
        assert "tmpfiles.d" in remedy
        assert "CAP_DAC_READ_SEARCH" in remedy

    def test_denied_folder_is_not_a_matter_of_counters(self) -> None:
        reason, remedy = explain(PermissionError(errno.EACCES, "Permission denied"), Path("/sys/class/powercap"))
        assert "listed" in reason
        assert "tmpfiles" not in remedy

    def test_no_powercap(self, tmp_path: Path) -> None:
        missing = tmp_path / "powercap"
        reason, remedy = explain(FileNotFoundError(errno.ENOENT, "No such file"), missing)
        assert f"{missing} does not exist" in reason
        assert "intel_rapl_msr" in remedy
        assert "virtual machine" in remedy

    def test_powercap_without_zones(self, tmp_path: Path) -> None:
        reason, _ = explain(FileNotFoundError(errno.ENOENT, "No such file"), tmp_path)
        assert f"{tmp_path} holds no RAPL zone" in reason

    @pytest.mark.parametrize("number", [errno.ENOENT, errno.ENODEV])
    def test_vanished_zone(self, number: int) -> None:
        reason, _ = explain(OSError(number, os.strerror(number)), self.COUNTER)
        assert f"{self.COUNTER} is gone" in reason

    def test_anything_else_is_told_as_it_is(self) -> None:
        reason, remedy = explain(OSError(errno.EIO, "Input/output error"), self.COUNTER)
        assert reason == f"{self.COUNTER} cannot be read: Input/output error"
        assert "no remedy is known" in remedy

    @pytest.mark.skipif(
        not IS_ROOT or shutil.which("systemd-tmpfiles") is None, reason="needs root and systemd-tmpfiles"
    )
    def test_recommended_tmpfiles_line_opens_every_counter_to_the_group(self, tmp_path: Path) -> None:
        sys_tree = PowercapTree(tmp_path / "sys", two_sockets_eight_zones())
        etc = tmp_path / "etc"
        (etc / "tmpfiles.d").mkdir(parents=True)
        root = pwd.getpwuid(0)
        (etc / "passwd").write_text(f"{root.pw_name}:x:0:0::/:/bin/sh\n")
        (etc / "group").write_text(f"{grp.getgrgid(0).gr_name}:x:0:\ntracarbon:x:4711:\n")
        _, remedy = explain(PermissionError(errno.EACCES, "Permission denied"), self.COUNTER)
        (etc / "tmpfiles.d" / "tracarbon.conf").write_text(remedy.split("'")[1] + "\n")
        subprocess.run(["systemd-tmpfiles", "--create", f"--root={tmp_path}", "tracarbon.conf"], check=True)
        keys = sys_tree.keys()
        assert len(keys) == 8
        for key in keys:
            status = sys_tree.counter(key).stat()
            assert (status.st_mode & 0o777, status.st_gid) == (0o440, 4711)
