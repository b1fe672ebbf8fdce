"""The sensor: which source it reads, what it says of it, and what of it a pipeline makes."""

from __future__ import annotations

import json
import os
import plistlib
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import anyio
import pytest
from pydantic import ValidationError
from tracarbon.exceptions import TracarbonException
from tracarbon.hardwares.energy import EnergyUsage, Fidelity, Scope, UsageType
from tracarbon.plugin import PluginContext
from tracarbon.testing import ManualClock, SensorContract
from tracarbon_sensor_macos import MacEnergyConsumption, sources
from tracarbon_sensor_macos import __name__ as package

from tests.sensor_macos.libraries import Libraries
from tests.sensor_macos.programs import Programs, eventually, is_ended, is_running, written_pid

COMMAND_SECONDS = sources._COMMAND_SECONDS
OUTPUTS = Path(__file__).parent / "outputs"
CHANNELS = [("CPU Energy", "mJ", 0), ("GPU Energy", "nJ", 0), ("ANE", "uJ", 0), ("DRAM", "mJ", 0)]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def mac(clock: ManualClock) -> Iterator[PluginContext]:
    context = PluginContext("macos", clock=clock, platform="Darwin")
    yield context
    context.close()


def made(context: PluginContext, **options: Any) -> MacEnergyConsumption:
    return MacEnergyConsumption.from_options(MacEnergyConsumption.Options(**options), context)


def figures(usage: EnergyUsage) -> tuple[float | None, ...]:
    return tuple(usage.get_energy_usage_on_type(usage_type) for usage_type in UsageType)


async def test_the_energy_counters_are_read_first(libraries: Libraries, mac: PluginContext, clock: ManualClock) -> None:
    libraries.channels(*CHANNELS)
    async with made(mac, **libraries.options) as sensor:
        assert figures(await sensor.get_energy_usage()) == (None, None, None, None)
        for name, counts in [("CPU Energy", 50_000), ("GPU Energy", 10**10), ("ANE", 10**6), ("DRAM", 5_000)]:
            libraries.add(name, counts)
        clock.elapse(10.0)
        usage = await sensor.get_energy_usage()
    assert figures(usage) == (6.6, 5.0, 0.5, 1.0)
    assert usage.method == "IOReport energy counters"
    assert {device.device.fidelity for device in usage.devices} == {Fidelity.MEASURED}
    assert not usage.problems


async def test_each_step_down_is_seen_in_fidelity_method_and_a_problem(
    programs: Programs, as_root: None, mac: PluginContext
) -> None:
    programs.powermetrics("time.sleep(0.02); sample()", cpu=5.0, gpu=1.0)
    async with made(mac, ioreport_path="/no/such.dylib", core_foundation_path="/no/such") as sensor:
        await sensor.get_energy_usage()
        usage = await sensor.get_energy_usage()
    assert figures(usage) == pytest.approx((6.0, 5.0, None, 1.0), abs=1e-3)
    assert usage.method == "powermetrics"
    assert {device.device.fidelity for device in usage.devices} == {Fidelity.MODELLED}
    [problem] = usage.problems
    assert problem.startswith("read by powermetrics in place of something better: /no/such cannot be loaded")


async def test_the_registry_is_the_last_resort(
    programs: Programs, monkeypatch: pytest.MonkeyPatch, mac: PluginContext
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 501)
    programs.powermetrics()
    programs.printing("ioreg", (OUTPUTS / "ioreg_intel_on_battery.plist").read_bytes())
    async with made(mac) as sensor:
        usage = await sensor.get_energy_usage()
    assert figures(usage) == (17.1, None, None, None)
    assert usage.window_seconds is None
    assert usage.method == "ioreg: power from the battery"
    [system] = usage.devices
    assert (system.device.scope, system.device.fidelity) == (Scope.WHOLE_MACHINE, Fidelity.ESTIMATED)
    assert "powermetrics has to be run as root" in usage.problems[0]
    assert sensor.fidelity is Fidelity.ESTIMATED


async def test_entered_anew_it_takes_what_is_better_by_now_and_ends_the_rest(
    libraries: Libraries, programs: Programs, as_root: None, mac: PluginContext, tmp_path: Path
) -> None:
    programs.powermetrics(f"import os; open('{tmp_path}/pid', 'w').write(f'{{os.getpid()}}\\n'); sample()")
    libraries.channels(*CHANNELS)
    libraries.fail("denied")
    sensor = made(mac, **libraries.options)
    await sensor.__aenter__()
    assert (await sensor.get_energy_usage()).method == "powermetrics"
    libraries.heal()
    async with sensor:
        usage = await sensor.get_energy_usage()
        assert (usage.method, list(usage.problems)) == ("IOReport energy counters", [])
        assert eventually(lambda: not is_running(written_pid(tmp_path / "pid")))


async def test_a_sample_that_is_cut_off_is_a_problem(programs: Programs, as_root: None, mac: PluginContext) -> None:
    programs.powermetrics("print('<plist>', end='', flush=True); is_first = False; sample()")
    async with made(mac, source="powermetrics") as sensor:
        usage = await sensor.get_energy_usage()
    assert list(usage.problems) == ["powermetrics: a sample was cut off; its energy is lost"]


async def test_where_nothing_answers_each_reason_is_given(
    programs: Programs, as_root: None, mac: PluginContext
) -> None:
    programs.shell("powermetrics", "echo boom >&2; exit 1")
    programs.printing("ioreg", b"")
    with pytest.raises(TracarbonException) as raised:
        await made(mac).__aenter__()
    assert re.search("cannot be loaded.*powermetrics ended with status 1: boom.*no battery", str(raised.value))


@pytest.mark.parametrize("source", ["ioreport", "powermetrics", "ioreg"])
async def test_a_source_that_is_named_is_the_only_one(
    programs: Programs, as_root: None, mac: PluginContext, source: str
) -> None:
    programs.powermetrics("time.sleep(0.02); sample()")
    programs.printing("ioreg", (OUTPUTS / "ioreg_intel_on_battery.plist").read_bytes())
    sensor = made(mac, source=source)
    if source == "ioreport":
        with pytest.raises(TracarbonException, match="cannot be loaded"):
            await sensor.__aenter__()
        return
    async with sensor:
        await sensor.get_energy_usage()
        usage = await sensor.get_energy_usage()
    assert usage.method is not None
    assert usage.method.startswith(source)
    assert not usage.problems


async def test_a_chip_whose_processors_do_not_count_leaves_the_host_to_the_registry(
    libraries: Libraries, programs: Programs, mac: PluginContext, clock: ManualClock
) -> None:
    programs.printing("ioreg", (OUTPUTS / "ioreg_m2_air_charging_macos13.plist").read_bytes())
    libraries.channels(*CHANNELS)
    async with made(mac, **libraries.options) as sensor:
        await sensor.get_energy_usage()
        clock.elapse(60.0)
        libraries.add("GPU Energy", 60 * 10**9)
        usage = await sensor.get_energy_usage()
        assert figures(usage) == (11.383, None, None, 1.0)
        assert {device.device.name: device.device.scope for device in usage.devices} == {
            "gpu": Scope.DETAIL,
            "system": Scope.WHOLE_MACHINE,
        }
        assert usage.method == "IOReport energy counters; ioreg: system load"
        assert "cpu: its energy counter stands still for a minute or more" in usage.problems[0]

        programs.printing("ioreg", b"")
        clock.elapse(60.0)
        usage = await sensor.get_energy_usage()
        assert usage.host_energy_usage is None
        assert any("system: ioreg knows of no battery" in problem for problem in usage.problems)

        clock.elapse(10.0)
        libraries.add("CPU Energy", 130_000)
        usage = await sensor.get_energy_usage()
        assert usage.cpu_energy_usage is None
        assert "counted from its first move on" in usage.problems[0]
        clock.elapse(10.0)
        libraries.add("CPU Energy", 10_000)
        usage = await sensor.get_energy_usage()
        assert usage.cpu_energy_usage == 1.0
        assert usage.method == "IOReport energy counters"


async def test_a_chip_whose_counters_move_once_a_minute_is_counted_from_their_first_move_on(
    libraries: Libraries, mac: PluginContext, clock: ManualClock
) -> None:
    async def read(seconds: float, **joules: int) -> EnergyUsage:
        clock.elapse(seconds)
        for name, energy in joules.items():
            libraries.add({"cpu": "CPU Energy", "gpu": "GPU Energy", "dram": "DRAM"}[name], energy)
        return await sensor.get_energy_usage()

    libraries.channels(*CHANNELS)
    async with made(mac, source="ioreport", **libraries.options) as sensor:
        await read(0.0)
        await read(0.1, gpu=5 * 10**8)
        usage = await read(5.9, cpu=600_000, gpu=29 * 10**9, dram=120_000)  # of the minute before
        assert (figures(usage), usage.devices) == ((None, None, None, None), ())
        assert "counted from its first move on" in usage.problems[0]
        assert figures(await read(30.0, gpu=150 * 10**9)) == (None, None, None, None)
        usage = await read(30.0, cpu=600_000, gpu=150 * 10**9, dram=120_000)
        assert figures(usage) == (17.0, 10.0, 2.0, 5.0)
        assert not usage.problems


def registry(total: int, samples: int) -> bytes:
    telemetry = {"SystemLoad": 9999, "AccumulatedSystemLoad": total, "SystemLoadAccumulatorCount": samples}
    return plistlib.dumps([{"PowerTelemetryData": telemetry}])


async def test_the_registrys_own_mean_is_taken_over_the_time_since_it_was_written(
    programs: Programs, mac: PluginContext, clock: ManualClock
) -> None:
    async def read(total: int, samples: int, seconds: float = 10.0) -> EnergyUsage:
        clock.elapse(seconds)
        programs.printing("ioreg", registry(total, samples))
        return await sensor.get_energy_usage()

    sensor = made(mac, source="ioreg")
    assert figures(await read(10_000_000, 1000)) == (None, None, None, None)
    usage = await read(10_100_000, 1010)
    assert (usage.host_energy_usage, usage.window_seconds) == (10.0, 10.0)
    assert usage.method == "ioreg: mean system load"
    assert not (await read(10_100_000, 1010)).devices
    usage = await read(10_500_000, 1030)
    assert (usage.host_energy_usage, usage.window_seconds) == (20.0, 20.0)
    usage = await read(50_000, 5)
    assert usage.host_energy_usage is None
    assert "was reset" in usage.problems[0]
    assert (await read(250_000, 15)).host_energy_usage == 20.0
    await sensor.__aexit__(None, None, None)


async def test_a_registry_that_is_not_written_is_said_to_be_waited_for(
    programs: Programs, mac: PluginContext, clock: ManualClock
) -> None:
    """At first, since there is no figure yet; and later if it takes longer than it ever should."""
    sensor, said = made(mac, source="ioreg"), []
    for samples in (1000, 1000, 1010, 1010, 1010, 1010, 1010, 1010, 1010, 1020, 1020):
        clock.elapse(10.0)
        programs.printing("ioreg", registry(10_000 * samples, samples))
        said.append(len((await sensor.get_energy_usage()).problems))
    assert said == [0, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0]
    clock.elapse(100.0)
    assert "waiting for the I/O registry" in (await sensor.get_energy_usage()).problems[0]
    await sensor.__aexit__(None, None, None)


async def test_a_reading_that_was_cancelled_or_failed_is_covered_by_the_next(
    libraries: Libraries, mac: PluginContext, clock: ManualClock
) -> None:
    libraries.channels(*CHANNELS)
    sensor = made(mac, **libraries.options)
    async with sensor:
        await sensor.get_energy_usage()
        libraries.add("CPU Energy", 10_000)
        clock.elapse(10.0)
        libraries.hang(True)
        with anyio.move_on_after(0.05) as scope:
            await sensor.get_energy_usage()
        libraries.hang(False)
        assert scope.cancelled_caught
        libraries.fail("no sample")
        with pytest.raises(TracarbonException, match="IOReport gave no sample"):
            await sensor.get_energy_usage()
        libraries.heal()
    libraries.add("CPU Energy", 10_000)
    clock.elapse(10.0)
    async with sensor:
        usage = await sensor.get_energy_usage()
    assert (usage.cpu_energy_usage, usage.window_seconds) == (1.0, 20.0)


async def test_a_library_that_hangs_does_not_keep_the_sensor_from_anything(
    libraries: Libraries, programs: Programs, monkeypatch: pytest.MonkeyPatch, mac: PluginContext
) -> None:
    monkeypatch.setattr(sources, "_OPEN_SECONDS", 0.2)
    programs.printing("ioreg", (OUTPUTS / "ioreg_intel_on_battery.plist").read_bytes())
    monkeypatch.setattr(os, "geteuid", lambda: 501)
    libraries.channels(*CHANNELS)
    libraries.hang(True)
    try:
        with anyio.fail_after(60):
            sensor = await made(mac, **libraries.options).__aenter__()
            usage = await sensor.get_energy_usage()
            assert usage.host_energy_usage == 17.1
            assert "IOReport did not answer within 0.2 s" in usage.problems[0]
            await sensor.__aexit__(None, None, None)
    finally:
        libraries.hang(False)
    monkeypatch.setattr(sources, "_OPEN_SECONDS", 60.0)
    opened = made(mac, source="ioreport", **libraries.options)  # in the same thread: after the one that hung
    async with opened:
        pass
    await sensor._sources[0].close()


async def test_the_event_loop_goes_on_while_a_library_hangs(libraries: Libraries, mac: PluginContext) -> None:
    libraries.channels(*CHANNELS)
    async with made(mac, **libraries.options) as sensor:
        libraries.hang(True)
        async with anyio.create_task_group() as group:
            group.start_soon(sensor.get_energy_usage)
            for _ in range(10):
                await anyio.sleep(0.001)
            libraries.hang(False)


async def test_it_needs_no_context_and_no_entry(libraries: Libraries) -> None:
    libraries.channels(*CHANNELS)
    sensor = MacEnergyConsumption(**libraries.options)  # type: ignore[arg-type]
    threads = set(threading.enumerate())
    await sensor.get_energy_usage()
    libraries.add("CPU Energy", 1)
    usage = await sensor.get_energy_usage()
    assert usage.cpu_energy_usage is not None
    await sensor.__aexit__(None, None, None)
    assert eventually(lambda: not set(threading.enumerate()) - threads)


@pytest.mark.skipif(sys.platform == "darwin", reason="this is macOS")
async def test_elsewhere_it_says_what_it_needs() -> None:
    probe = MacEnergyConsumption.probe(PluginContext("macos"))
    assert (probe.works, probe.reason) == (False, "needs macOS")
    for sensor in (MacEnergyConsumption(), MacEnergyConsumption(source="ioreg")):
        with pytest.raises(TracarbonException, match=r"^needs macOS: this is Linux$"):
            await sensor.__aenter__()
        with pytest.raises(TracarbonException, match=r"^needs macOS"):
            await sensor.get_energy_usage()


def test_probe_names_the_counters(libraries: Libraries, mac: PluginContext, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, path in libraries.options.items():
        monkeypatch.setattr(f"{package}.{name.upper()}", path)
    libraries.channels(*CHANNELS)
    probe = MacEnergyConsumption.probe(mac)
    assert (probe.works, probe.fidelity) == (True, Fidelity.MEASURED)
    assert probe.reason == "IOReport energy counters: cpu, gpu, ane, memory"


def test_probe_of_root_on_an_intel_mac(programs: Programs, as_root: None, mac: PluginContext) -> None:
    programs.powermetrics()
    probe = MacEnergyConsumption.probe(mac)
    assert (probe.works, probe.fidelity) == (True, Fidelity.MODELLED)
    assert probe.reason.startswith("powermetrics; /System/Library")


@pytest.mark.parametrize("in_a_loop", [False, True])
def test_probe_of_a_user_on_an_intel_mac(
    programs: Programs, monkeypatch: pytest.MonkeyPatch, mac: PluginContext, in_a_loop: bool
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 501)
    programs.powermetrics()
    programs.printing("ioreg", (OUTPUTS / "ioreg_intel_on_battery.plist").read_bytes())

    async def ask() -> Any:
        return MacEnergyConsumption.probe(mac)

    probe = anyio.run(ask) if in_a_loop else MacEnergyConsumption.probe(mac)
    assert (probe.works, probe.fidelity) == (True, Fidelity.ESTIMATED)
    assert probe.reason.startswith("ioreg: power from the battery; /System/Library")


def test_probe_where_nothing_works_says_what_would_help(
    programs: Programs, monkeypatch: pytest.MonkeyPatch, mac: PluginContext, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 501)
    monkeypatch.setattr(sources, "_PROBE_SECONDS", 1.5)
    programs.powermetrics()
    programs.shell("ioreg", f"echo $$ > {tmp_path}/pid; exec sleep 600")
    probe = MacEnergyConsumption.probe(mac)
    assert not probe.works
    assert re.search(r"cannot be loaded.*as root; ioreg did not end within 1\.5 s", probe.reason)
    assert probe.remedy == "run tracarbon as root"
    assert eventually(lambda: is_ended(tmp_path / "pid"))


async def test_the_users_own_command_is_run_without_a_shell(programs: Programs) -> None:
    program = programs.shell("my-meter", 'echo " 4$#.5 "')
    async with MacEnergyConsumption(shell_command=f"{program} '$HOME | x' two") as sensor:
        usage = await sensor.get_energy_usage()
    assert figures(usage) == (42.5, None, None, None)
    assert usage.window_seconds is None
    assert usage.method == "shell_command: my-meter"
    assert usage.devices[0].device.scope is Scope.WHOLE_MACHINE


async def test_one_command_runs_at_a_time(programs: Programs, tmp_path: Path) -> None:
    program = programs.shell("meter", f"mkdir {tmp_path}/runs && sleep 0.05 && rmdir {tmp_path}/runs && echo 7")
    sensor = MacEnergyConsumption(shell_command=program)
    watts: list[float | None] = []

    async def read() -> None:
        watts.append((await sensor.get_energy_usage()).host_energy_usage)

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(read)
    assert watts == [7.0] * 3


async def test_a_command_is_ended_before_a_pipeline_gives_it_up(
    programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert COMMAND_SECONDS < 5.0
    monkeypatch.setattr(sources, "_COMMAND_SECONDS", 0.2)
    sensor = MacEnergyConsumption(shell_command=programs.shell("meter", "sleep 600"))
    with pytest.raises(TracarbonException, match=r"^meter did not end within 0\.2 s$"):
        await sensor.get_energy_usage()


async def test_a_command_that_is_not_there_keeps_it_from_starting() -> None:
    with pytest.raises(TracarbonException, match="there is no program no-such-meter"):
        await MacEnergyConsumption(shell_command="no-such-meter --watts").__aenter__()


async def test_a_command_may_name_a_shell_itself() -> None:
    sensor = MacEnergyConsumption(shell_command="sh -c 'echo 4200 | cut -c 1-2'")
    assert (await sensor.get_energy_usage()).host_energy_usage == 42.0


@pytest.mark.parametrize("printed", ["", "nan", "inf", "-3", "12 W", "1e9", "12,5", "\x00", "1_000", "٣", "+3", "0x10"])
async def test_what_is_no_number_of_watts_is_quoted(programs: Programs, printed: str) -> None:
    command = programs.printing("meter", printed.encode())
    sensor = MacEnergyConsumption(shell_command=command)
    with pytest.raises(TracarbonException, match=r"meter printed '.*', which is no number of watts"):
        await sensor.get_energy_usage()


OLD_DEFAULT = (
    """/usr/sbin/ioreg -rw0 -c AppleSmartBattery | grep BatteryData | grep -o '"AdapterPower"=[0-9]*' | cut -c 16-"""
)


@pytest.mark.parametrize("command", [OLD_DEFAULT, "a; b", "a && b", "", "  ", "a 'b"])
def test_a_command_that_needs_a_shell_is_refused_where_it_is_written(command: str) -> None:
    command = command.replace("a;", "a ;")
    with pytest.raises(ValidationError, match=r"without a shell|is empty|quotation"):
        MacEnergyConsumption.Options(shell_command=command)
    with pytest.raises(TracarbonException, match=r"without a shell|is empty|quotation"):
        MacEnergyConsumption(shell_command=command)


@pytest.mark.parametrize("only", ["core_foundation_path", "ioreport_path"])
def test_off_a_mac_both_libraries_have_to_be_named(libraries: Libraries, only: str) -> None:
    with pytest.raises(TracarbonException, match="off a Mac, ioreport_path and core_foundation_path are needed both"):
        made(PluginContext("macos", platform="Linux"), **{only: libraries.options[only]})
    made(PluginContext("macos", platform="Darwin"), **{only: libraries.options[only]})


def test_a_source_that_is_none_is_refused(mac: PluginContext) -> None:
    with pytest.raises(TracarbonException, match=r"^source is 'bogus'; there are auto, ioreport, powermetrics, ioreg$"):
        MacEnergyConsumption(source="bogus", context=mac)  # type: ignore[arg-type]


def test_options_that_contradict_one_another_are_refused() -> None:
    with pytest.raises(ValidationError, match="leave source out"):
        MacEnergyConsumption.Options(shell_command="meter", source="ioreg")


class TestContract(SensorContract):
    """The standard tests, over the energy counters."""

    plugin = "macos"
    distribution = "tracarbon-sensor-macos"

    @pytest.fixture(autouse=True)
    def counters(self, libraries: Libraries) -> None:
        self.libraries = libraries

    def options(self, folder: Path) -> Mapping[str, Any]:
        self.libraries.channels(*CHANNELS)
        return self.libraries.options

    async def elapse(self, folder: Path) -> None:
        for name, unit, _ in CHANNELS:
            self.libraries.add(name, {"mJ": 10**4, "uJ": 10**7, "nJ": 10**10}[unit])


class TestContractOfACommand(SensorContract):
    """The standard tests, over a program that prints watts."""

    plugin = "macos"
    distribution = "tracarbon-sensor-macos"

    def options(self, folder: Path) -> Mapping[str, Any]:
        return {"shell_command": "echo 12.5"}


def run_tracarbon(folder: Path, pipeline: str, **environment: str) -> list[dict[str, Any]]:
    (folder / "pipeline.toml").write_text(pipeline)
    subprocess.run(
        [sys.executable, "-m", "tracarbon", "run", "-c", "pipeline.toml", "--duration", "3s"],
        cwd=folder,
        env={**os.environ, **environment},
        check=True,
        capture_output=True,
        timeout=180,
    )
    return [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]


PIPELINE = """
interval = "1s"
[location]
plugin = "static"
co2g_per_kwh = 100.0
note = "made up"
[sensors.macos]
{options}
[exporters.json]
path = "out.jsonl"
"""


def test_a_whole_run_over_the_stand_ins(built: Libraries, tmp_path: Path) -> None:
    channels = [("CPU Energy", "mJ", 5000), ("GPU Energy", "nJ", 2 * 10**9), ("ANE", "mJ", 500), ("DRAM", "uJ", 10**6)]
    lines = [f"{name}\t{unit}\t12345\t{rate}" for name, unit, rate in channels]
    (tmp_path / "channels").write_text("\n".join(lines) + "\n")
    options = "\n".join(f'{name} = "{path}"' for name, path in built.options.items())
    records = run_tracarbon(tmp_path, PIPELINE.format(options=options), STANDIN_CHANNELS=str(tmp_path / "channels"))
    joules: dict[str, float] = {}
    for component, watts in [("cpu", 5.0), ("host", 8.5), ("gpu", 2.0), ("memory", 1.0)]:
        values = [record for record in records if record["name"].endswith(f"energy_consumption_{component}")]
        seconds = sum(record["covered_seconds"] for record in values)
        joules[component] = sum(record["value"] * record["covered_seconds"] for record in values)
        assert seconds > 2.0
        # A machine that is busy may hold the sensor up between the counters and the clock, for all of them alike.
        assert joules[component] == pytest.approx(watts * seconds, rel=0.5)
        assert joules[component] / joules["cpu"] == pytest.approx(watts / 5.0, rel=0.01)
        for record in values:
            assert record["tags"]["fidelity"] == "measured"
            assert record["tags"]["sensor"] == "macos"


def test_a_whole_run_over_a_command(tmp_path: Path) -> None:
    options = 'shell_command = "echo 40"'
    records = run_tracarbon(tmp_path, PIPELINE.format(options=options))
    values = [record for record in records if record["name"].endswith("energy_consumption_host")]
    assert values
    for record in values:
        assert record["value"] == pytest.approx(40.0)
        assert record["tags"]["fidelity"] == "estimated"
        assert record["tags"]["method"] == "shell_command: echo"
