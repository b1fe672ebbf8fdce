"""The default path, on a machine that seems to have RAPL; and the support modules that make it seem so."""

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import ClassVar

import pytest
from tracarbon_sensor_rapl._powercap import ZoneReader, find_zones

from tests.support.feeder import Event, Feeder, Truth, start_feeder
from tests.support.overlay import overlay_available, popen_in_overlay
from tests.support.powercap_tree import PACKAGE_RANGE_UJ, PowercapTree, TreeSpec, package, two_sockets_eight_zones

needs_overlay = pytest.mark.skipif(overlay_available() is not None, reason=str(overlay_available()))

# Answers each line on stdin with one reading of the zones at the default path.
READ_ON_DEMAND = """
import json, sys
from tracarbon_sensor_rapl._powercap import ZoneReader, find_zones
with ZoneReader(find_zones(), retry_seconds=0.0) as reader:
    print(json.dumps([zone.label for zone in reader.zones]), flush=True)
    for line in sys.stdin:
        readings = [one if isinstance(one, int) else type(one).__name__ for one in reader.read()]
        print(json.dumps(readings), flush=True)
"""


class Sensor:
    """`READ_ON_DEMAND` as a child in the overlay."""

    def __init__(self, tree: PowercapTree, *prefix: str, as_nobody: bool = False) -> None:
        self.process: subprocess.Popen[str] = popen_in_overlay(
            tree,
            [*prefix, sys.executable, "-c", READ_ON_DEMAND],
            as_nobody=as_nobody,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.labels = self._answer()

    def __enter__(self) -> "Sensor":
        return self

    def __exit__(self, *_: object) -> None:
        with self.process:
            pass

    def read(self) -> object:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> object:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())


@needs_overlay
class TestOverlay:
    @pytest.fixture
    def tree(self, tmp_path: Path) -> PowercapTree:
        return PowercapTree(tmp_path, TreeSpec(msr=(package(0, "core", "dram"),)))

    def test_zones_are_at_the_default_path_and_move(self, tree: PowercapTree) -> None:
        with Sensor(tree) as sensor:
            assert sensor.labels == ["package-0", "core-0", "dram-0"]
            assert sensor.read() == [1_000_000] * 3
            tree.advance("intel-rapl:0", 5)
            assert sensor.read() == [1_000_005, 1_000_000, 1_000_000]

    def test_faults_come_and_go(self, tree: PowercapTree) -> None:
        with Sensor(tree) as sensor:
            tree.hide("intel-rapl:0:1")
            tree.garble("intel-rapl:0:0", b"x")
            assert sensor.read() == [1_000_000, "ValueError", "ValueError"]
            tree.restore("intel-rapl:0:1", 3)
            tree.set("intel-rapl:0:0", 4)
            assert sensor.read() == [1_000_000, 4, 3]

    def test_nobody_may_not_read(self, tree: PowercapTree) -> None:
        with Sensor(tree, as_nobody=True) as sensor:
            assert sensor.labels == ["package-0", "core-0", "dram-0"]
            assert sensor.read() == ["PermissionError"] * 3

    def test_nobody_may_read_what_is_opened(self, tree: PowercapTree) -> None:
        tree.chmod(0o444, "intel-rapl:0")
        with Sensor(tree, as_nobody=True) as sensor:
            assert sensor.read() == [1_000_000, "PermissionError", "PermissionError"]

    def test_recommended_capability_suffices(self, tree: PowercapTree) -> None:
        capability = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
        with Sensor(tree, "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *capability) as sensor:
            assert sensor.read() == [1_000_000] * 3

    def test_command_is_the_process_itself(self, tree: PowercapTree) -> None:
        script = "import os, sys; print(os.getpid(), os.environ['WORD'], os.getuid()); sys.exit(7)"
        process = popen_in_overlay(
            tree,
            [sys.executable, "-c", script],
            env={"WORD": "spoken", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            as_nobody=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        output, _ = process.communicate()
        assert output.split() == [str(process.pid), "spoken", "65534"]
        assert process.returncode == 7

    def test_nobody_has_the_same_interpreter(self, tree: PowercapTree) -> None:
        # One that may not enter its own home falls back, in silence, to the library of another.
        script = "import json, sys; print(json.__file__, sys.prefix)"
        process = popen_in_overlay(
            tree, [sys.executable, "-c", script], as_nobody=True, stdout=subprocess.PIPE, text=True
        )
        assert process.communicate()[0].split() == [json.__file__, sys.prefix]

    def test_only_loopback_is_there(self, tree: PowercapTree) -> None:
        script = "import socket; print([name for _, name in socket.if_nameindex() if name == 'lo' or 'eth' in name])"
        process = popen_in_overlay(tree, [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        assert process.communicate()[0] == "['lo']\n"


class TestPowercapTree:
    def test_counter_wraps_at_its_range(self, tmp_path: Path) -> None:
        tree = PowercapTree(tmp_path, TreeSpec(msr=(package(0),)))
        tree.set("intel-rapl:0", PACKAGE_RANGE_UJ - 10)
        tree.advance("intel-rapl:0", 25)
        assert tree.value("intel-rapl:0") == 15

    def test_is_written_in_place(self, tmp_path: Path) -> None:
        tree = PowercapTree(tmp_path, TreeSpec(msr=(package(0),)))
        counter = tree.counter("intel-rapl:0")
        before = counter.stat()
        tree.set("intel-rapl:0", 7)
        after = counter.stat()
        assert (before.st_ino, before.st_size, before.st_mode) == (after.st_ino, after.st_size, after.st_mode)
        assert PowercapTree(tmp_path).value("intel-rapl:0") == 7


class TestFeeder:
    WATTS: ClassVar = {"intel-rapl:0": 50.0, "intel-rapl:0:2": 4.0}

    @pytest.fixture
    def tree(self, tmp_path: Path) -> PowercapTree:
        return PowercapTree(tmp_path / "tree", two_sockets_eight_zones())

    def test_counters_follow_the_watts(self, tree: PowercapTree) -> None:
        feeder = Feeder(tree, self.WATTS)
        for now in (10.0, 10.5, 12.0):
            feeder.tick(now)
        assert tree.value("intel-rapl:0") == 1_000_000 + 100_000_000
        truth = feeder.truth
        assert truth.joules_between("intel-rapl:0", 10.5, 12.0) == pytest.approx(75.0)
        assert truth.joules_until("intel-rapl:0:2", 11.25) == pytest.approx(5.0)
        assert truth.step_joules("intel-rapl:0") == pytest.approx(75.0)
        with pytest.raises(ValueError, match="known from"):
            truth.joules_until("intel-rapl:0", 12.5)

    def test_scripted_wrap_adds_no_energy(self, tree: PowercapTree) -> None:
        feeder = Feeder(tree, self.WATTS, events=[Event(2.0, "wrap", "intel-rapl:0")])
        feeder.tick(10.0)
        assert tree.value("intel-rapl:0") == PACKAGE_RANGE_UJ - 100_000_000
        feeder.tick(13.0)
        assert tree.value("intel-rapl:0") == 50_000_000
        assert feeder.truth.joules_until("intel-rapl:0", 13.0) == pytest.approx(150.0)

    def test_scripted_faults_leave_the_truth_alone(self, tree: PowercapTree) -> None:
        events = [
            Event.parse(text) for text in ("1:reset:intel-rapl:0", "2:hide:intel-rapl:0", "4:restore:intel-rapl:0")
        ]
        feeder = Feeder(tree, self.WATTS, events=events)
        feeder.tick(10.0)
        feeder.tick(11.0)
        assert tree.value("intel-rapl:0") == 0
        feeder.tick(12.5)
        assert not tree.path("intel-rapl:0").exists()
        feeder.tick(15.0)
        assert tree.value("intel-rapl:0") == 200_000_000
        assert tree.value("intel-rapl:0:2") == 1_000_000 + 20_000_000
        assert feeder.truth.joules_until("intel-rapl:0", 15.0) == pytest.approx(250.0)

    def test_unknown_action_is_refused(self) -> None:
        with pytest.raises(ValueError, match="use one of wrap"):
            Event.parse("1:explode:intel-rapl:0")

    def test_runs_for_the_seconds_asked(self, tree: PowercapTree) -> None:
        feeder = Feeder(tree, self.WATTS, period_seconds=0.01)
        feeder.run(threading.Event(), seconds=0.05)
        assert feeder.truth.end - feeder.truth.start >= 0.05

    def test_process_tells_the_truth_at_the_end(self, tree: PowercapTree, tmp_path: Path) -> None:
        events = [Event(0.05, "wrap", "intel-rapl:0"), Event(0.1, "garble", "intel-rapl:0:2")]
        process = start_feeder(tree.root, self.WATTS, tmp_path / "truth.json", period_seconds=0.01, events=events)
        with ZoneReader(find_zones(tree.powercap)) as reader:
            while isinstance(reader.read()[3], int):
                pass
        process.terminate()
        assert process.wait() == 0
        truth = Truth.load(tmp_path / "truth.json")
        # So much was missing until the wrap; whoever reads the counter may come after it.
        before_wrap, last = round(50.0 * 0.05 * 1e6), tree.value("intel-rapl:0")
        assert last < PACKAGE_RANGE_UJ - before_wrap
        assert (before_wrap + last) / 1e6 == pytest.approx(truth.joules_until("intel-rapl:0", truth.end))
        assert truth.joules_until("intel-rapl:0", truth.end) == pytest.approx(50.0 * (truth.end - truth.start))
