"""`tracarbon run` from the outside: what goes where, how it starts, and how it comes to its end."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.pipelines.support import (
    TRACARBON,
    Program,
    environment,
    figures,
    read_records,
    records_so_far,
    run,
    start,
    wait_until,
)
from tests.support.powercap_tree import PowercapTree, one_socket

HOST_LINE = r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  tracarbon\.energy_consumption_host "
ONCE = ("run", "--once", "--interval", "100ms")
LOG_LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d (DEBUG|INFO|WARNING|ERROR) ")


@pytest.fixture
def watts(tmp_path: Path) -> Path:
    path = tmp_path / "watts"
    path.write_text("20\n")
    return path


def write_pipeline(folder: Path, text: str) -> Path:
    path = folder / "pipeline.toml"
    path.write_text(text)
    return path


class TestClosedOrFullStreams:
    def shell(self, command: str, folder: Path) -> "subprocess.CompletedProcess[str]":
        script = command.replace("tracarbon", str(TRACARBON), 1)
        return subprocess.run(
            ["sh", "-c", script], capture_output=True, text=True, timeout=60, cwd=folder, env=environment(), check=False
        )

    def test_with_standard_error_closed_the_report_does_not_go_among_the_figures(self, tmp_path: Path) -> None:
        done = self.shell("tracarbon run --once --interval 100ms 2>&-", tmp_path)
        assert done.returncode == 0
        assert "energy_consumption_host" in done.stdout
        assert "report" not in done.stdout

    def test_with_standard_output_closed_it_says_so(self, tmp_path: Path) -> None:
        done = self.shell("tracarbon run --once --interval 100ms >&-", tmp_path)
        assert done.returncode == 2
        assert "standard output is closed" in done.stderr
        assert "Traceback" not in done.stderr

    @pytest.mark.parametrize("command", ["check", "plugins", "doctor", "list-exporters"])
    def test_a_full_disk_under_a_listing_is_one_line(self, tmp_path: Path, command: str) -> None:
        done = self.shell(f"tracarbon {command} >/dev/full", tmp_path)
        assert done.returncode == 1
        assert done.stderr.endswith("tracarbon: No space left on device\n")
        assert "Traceback" not in done.stderr


class TestWithoutAFile:
    def test_figures_come_at_once(self, tmp_path: Path) -> None:
        before = time.monotonic()
        with start("run", cwd=tmp_path) as program:
            program.wait_for(HOST_LINE)
            # The interval is 60 s. How soon within it, which depends on the machine, is for the benchmarks to say.
            assert time.monotonic() - before < 50.0
            result = program.stop()
        assert result.status == 0, result.stderr

    def test_metrics_go_to_stdout_and_all_else_to_stderr(self, tmp_path: Path) -> None:
        result = run("run", "--once", cwd=tmp_path)
        assert result.status == 0, result.stderr
        lines = result.stdout.splitlines()
        assert all("  tracarbon." in line for line in lines)
        names = [line.split("tracarbon.")[1].split()[0] for line in lines]
        components = ("host", "cpu", "memory")
        assert names == [f"{kind}_{it}" for kind in ("energy_consumption", "carbon_emission") for it in components]
        log, _, report = result.stderr.partition("tracarbon report: ")
        assert all(LOG_LINE.match(line) for line in log.splitlines())
        assert "energy_consumption_host" in report
        assert "energy estimated by sensor estimate" in report

    def test_the_world_is_used_with_a_warning(self, tmp_path: Path) -> None:
        result = run(*ONCE, cwd=tmp_path)
        assert "WARNING the country is unknown" in result.stderr
        assert ", world\n" in result.stdout

    def test_silent_log_keeps_the_metrics(self, tmp_path: Path) -> None:
        result = run(*ONCE, "--log-level", "error", cwd=tmp_path)
        assert result.stderr.startswith("tracarbon report: ")
        assert re.search(HOST_LINE, result.stdout, re.MULTILINE)


class TestOptions:
    def test_once_is_one_window(self, tmp_path: Path) -> None:
        result = run(*ONCE, cwd=tmp_path)
        assert result.status == 0
        assert len(re.findall(HOST_LINE, result.stdout, re.MULTILINE)) == 1

    def test_duration_comes_to_its_end_by_itself(self, tmp_path: Path) -> None:
        result = run("run", "--duration", "500ms", "--exporter-name", "json", cwd=tmp_path)
        assert result.status == 0
        seconds = [it["window_seconds"] for it in figures(read_records(tmp_path / "tracarbon_export.json"), HOST)]
        assert len(seconds) in (1, 2)  # one on a machine that was late for the first tick
        assert sum(seconds) >= 0.5

    def test_interval_wins_over_the_file(self, tmp_path: Path) -> None:
        file = write_pipeline(tmp_path, 'interval = "1h"\n')
        with start("run", "-c", file, "--interval", "100ms", cwd=tmp_path) as program:
            program.wait_for(HOST_LINE, times=4)
            assert program.stop().status == 0

    def test_every_exporter_named_is_used_in_any_case(self, tmp_path: Path) -> None:
        arguments = ("--exporter-name", "Stdout", "--exporter-name", "JSON", "--country", "fr")
        result = run(*ONCE, *arguments, cwd=tmp_path)
        assert result.status == 0, result.stderr
        assert re.search(HOST_LINE, result.stdout, re.MULTILINE)
        records = read_records(tmp_path / "tracarbon_export.json")
        assert len(records) == len(result.stdout.splitlines()) == 6
        assert {record["tags"]["location"] for record in records} == {"fr"}
        assert "carbon intensity of fr: " in result.stderr

    def test_exporter_named_keeps_its_options_of_the_file(self, tmp_path: Path) -> None:
        file = write_pipeline(tmp_path, '[exporters.stdout]\n[exporters.json]\npath = "here.jsonl"\n')
        result = run(*ONCE, "-c", file, "--exporter-name", "Json", cwd=tmp_path)
        assert (result.status, result.stdout) == (0, "")
        assert len(read_records(tmp_path / "here.jsonl")) == 6

    @pytest.mark.parametrize(
        ("option", "value", "message"),
        [
            ("--interval", "0s", "'0s' must be more than 0"),
            ("--interval", "-5", "'-5' must be more than 0"),
            ("--duration", "soon", "'soon' is not a duration, such as '15s', '500ms', '1m30s', '2h' or '1d'"),
        ],
    )
    def test_bad_time(self, tmp_path: Path, option: str, value: str, message: str) -> None:
        result = run("run", f"{option}={value}", cwd=tmp_path)
        assert (result.status, result.stdout) == (2, "")
        assert result.stderr == f"command line: 1 problem\n  {option}   {message}\n"


HOST = "energy_consumption_host"
LEFT_AT_ONCE = "tracarbon: left before everything had come to its end\n"


class TestSignals:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_ends_with_a_last_window_and_the_report(self, tmp_path: Path, number: signal.Signals) -> None:
        with start("run", cwd=tmp_path) as program:
            program.wait_for(HOST_LINE)
            assert len(re.findall(HOST_LINE, program.output(), re.MULTILINE)) == 1
            result = program.stop(number)
        assert result.status == 0
        assert len(re.findall(HOST_LINE, result.stdout, re.MULTILINE)) == 2
        assert "tracarbon report: " in result.stderr
        assert "Traceback" not in result.stderr

    def test_second_signal_leaves_at_once_with_the_report(self, tmp_path: Path) -> None:
        # An exporter that never delivers keeps the first signal waiting for its flush.
        file = write_pipeline(tmp_path, "[exporters.stdout]\n[exporters.acme_stuck]\n")
        with start("run", "-c", file, cwd=tmp_path) as program:
            program.wait_for(HOST_LINE)
            program.send(signal.SIGINT)
            program.wait_for(HOST_LINE, times=2)
            program.send(signal.SIGINT)
            result = program.wait()
        assert result.status == 0
        assert "tracarbon report: " in result.stderr
        assert result.stderr.endswith(LEFT_AT_ONCE)
        said = r"^  exporter acme_stuck: \d+ records \(.* s, .* Wh\), of which \d+ may have arrived, had not arrived$"
        assert re.search(said, result.stderr, re.MULTILINE)

    @pytest.mark.parametrize("gap_seconds", [0.0, 0.002, 0.02])
    def test_a_burst_of_signals_never_costs_the_report(self, tmp_path: Path, gap_seconds: float) -> None:
        with start("run", cwd=tmp_path) as program:
            program.wait_for(HOST_LINE)
            for _ in range(3):
                program.send(signal.SIGTERM)
                time.sleep(gap_seconds)
            result = program.wait()
        assert result.status == 0
        assert result.stderr.count("tracarbon report: ") == 1

    def test_nohup_is_respected(self, tmp_path: Path) -> None:
        command = ["sh", "-c", "trap '' HUP; exec \"$@\"", "sh", str(TRACARBON), "run", "--interval", "100ms"]
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        with Program(process) as program:
            program.wait_for(HOST_LINE)
            program.send(signal.SIGHUP)
            program.wait_for(HOST_LINE, times=4)
            assert program.stop(signal.SIGTERM).status == 0

    def test_exit_status_says_that_every_sensor_had_failed(self, tmp_path: Path, watts: Path) -> None:
        file = write_pipeline(tmp_path, f'interval = "100ms"\n[sensors.acme_file]\npath = "{watts}"\n')
        with start("run", "-c", file, cwd=tmp_path) as program:
            program.wait_for(HOST_LINE, times=2)
            watts.unlink()
            program.wait_for("sensor acme_file failed: FileNotFoundError", "stderr")
            result = program.stop()
        assert result.status == 1
        assert "tracarbon report: " in result.stderr
        assert "sensor acme_file is failed: FileNotFoundError" in result.stderr

    def test_sensor_that_came_back_is_fine(self, tmp_path: Path, watts: Path) -> None:
        file = write_pipeline(tmp_path, f'interval = "100ms"\n[sensors.acme_file]\npath = "{watts}"\n')
        with start("run", "-c", file, cwd=tmp_path) as program:
            program.wait_for(HOST_LINE, times=2)
            watts.unlink()
            program.wait_for("sensor acme_file failed: FileNotFoundError", "stderr")
            watts.write_text("20\n")
            program.wait_for("sensor acme_file works again", "stderr")
            result = program.stop()
        assert result.status == 0


def test_reader_that_goes_away_ends_the_run_quietly(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    with start("run", "--interval", "100ms", cwd=tmp_path, stdout=writer) as program:
        os.close(writer)
        with os.fdopen(reader) as lines:
            assert re.match(HOST_LINE, lines.readline())
        result = program.wait()
    assert result.status == 0
    assert "Traceback" not in result.stderr
    assert "Broken" not in result.stderr
    assert "tracarbon report: " in result.stderr


TELL_MODULES = """
import atexit, runpy, sys
atexit.register(lambda: print(*sys.modules))
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


class TestImports:
    def imported(self, folder: Path, pipeline: str) -> set[str]:
        """Every module that is there at the end of a run of one window."""
        file = write_pipeline(folder, pipeline)
        result = run(*ONCE, "-c", file, cwd=folder, python=("-c", TELL_MODULES))
        assert result.status == 0, result.stderr
        lines = result.stdout.splitlines()
        assert re.match(HOST_LINE, lines[0])
        return set(lines[-1].split())

    def test_nothing_but_the_named_plugins(self, tmp_path: Path) -> None:
        tree = PowercapTree(tmp_path / "sys", one_socket())
        named = f"""
            [location]
            country = "FR"
            [sensors.rapl]
            path = "{tree.powercap}"
            [exporters.stdout]
        """
        imported = self.imported(tmp_path, named)
        assert {"tracarbon_sensor_rapl", "tracarbon.exporters.stdout", "anyio"} <= imported
        packages = {name.partition(".")[0] for name in imported}
        assert not packages & {"httpx", "psutil", "tzlocal", "tzdata", "dotenv", "pluggy", "acme_tracarbon", "trio"}
        assert not imported & {
            "tracarbon.exporters.json_exporter",
            "tracarbon.hardwares.estimate",
            "tracarbon.hooks",
            "tracarbon.builder",
        }

    def test_the_plugins_that_are_named(self, tmp_path: Path, watts: Path) -> None:
        imported = self.imported(tmp_path, f'[sensors.acme_file]\npath = "{watts}"\n')
        assert "acme_tracarbon" in imported
        assert not imported & {"acme_tracarbon.misbehaving", "tracarbon_sensor_rapl", "psutil"}


def test_a_third_partys_plugins_are_like_our_own(tmp_path: Path, watts: Path) -> None:
    pipeline = f"""
        interval = "100ms"
        metric_prefix_name = "mine"
        [tags]
        room = "b12"
        [sensors.acme_file]
        path = "{watts}"
        [sensors.estimate]
        [exporters.acme_lines]
        path = "lines"
        [exporters.json]
        path = "records.jsonl"
        [hooks.acme_journal]
        path = "journal"
        [hooks.acme_broken]
    """
    file = write_pipeline(tmp_path, pipeline)
    with start("run", "-c", file, cwd=tmp_path) as program:
        wait_until(lambda: len(list(figures(records_so_far(tmp_path / "records.jsonl"), HOST))) >= 4, "four windows")
        result = program.stop()
    assert (result.status, result.stdout) == (0, "")
    records = read_records(tmp_path / "records.jsonl")
    for record in figures(records, HOST):
        assert record["name"] == f"mine.{HOST}"
        assert record["value"] == pytest.approx(20)
        assert record["tags"] == {
            "fidelity": "measured",
            "location": "world",
            "platform": "Linux",
            "room": "b12",
            "sensor": "acme_file",
            "units": "watts",
        }
    # Measured goes before estimated; what is not measured is estimated.
    assert {record["tags"]["sensor"] for record in figures(records, "energy_consumption_cpu")} == {"estimate"}
    lines = [line.split() for line in (tmp_path / "lines").read_text().splitlines()]
    assert Counter(name for name, _ in lines) == Counter(record["name"] for record in records)
    journal = (tmp_path / "journal").read_text().splitlines()
    assert (journal[0], journal[-1]) == ("started", "stopped")
    assert len(journal) - 2 == 2 * len(list(figures(records, HOST)))
    assert "hook acme_broken degraded: tracarbon_window_closed: RuntimeError: the hook is broken" in result.stderr


class TestBadPlugins:
    def pipeline(self, folder: Path, watts: Path, table: str) -> Path:
        sensor = f'[sensors.acme_file]\npath = "{watts}"\n'
        return write_pipeline(folder, f'interval = "400ms"\n{sensor}{table}[exporters.stdout]\n')

    def test_hanging_sensor_harms_nobody(self, tmp_path: Path, watts: Path) -> None:
        file = self.pipeline(tmp_path, watts, "[sensors.acme_hanging]\nanswers = 2\n")
        with start("run", "-c", file, cwd=tmp_path) as program:
            program.wait_for(HOST_LINE, times=5)
            result = program.stop()
        assert result.status == 0, result.stderr

    def test_hanging_sensor_does_not_keep_a_second_signal(self, tmp_path: Path, watts: Path) -> None:
        # With an exporter that never delivers, the first signal alone would take another 10 s.
        file = self.pipeline(tmp_path, watts, "[sensors.acme_hanging]\nanswers = 2\n[exporters.acme_stuck]\n")
        with start("run", "-c", file, cwd=tmp_path) as program:
            program.wait_for(HOST_LINE, times=2)
            program.interrupt_twice()
            result = program.wait()
        assert result.status == 0
        assert "tracarbon report: " in result.stderr
        assert result.stderr.endswith(LEFT_AT_ONCE)

    def test_blocking_sensor_is_named_and_the_others_go_on(self, tmp_path: Path, watts: Path) -> None:
        file = self.pipeline(tmp_path, watts, "[sensors.acme_blocking]\nseconds = 0.2\nanswers = 2\n")
        with start("run", "-c", file, cwd=tmp_path, env=environment(is_patient=False)) as program:
            program.wait_for(HOST_LINE, times=5)
            result = program.stop()
        assert result.status == 0, result.stderr
        assert re.search(
            r"sensor acme_blocking degraded: it blocked everybody else for \d+\.\d s: its code waits or",
            result.stderr,
        )

    def test_sensor_that_blocks_for_long_does_not_keep_a_second_signal(self, tmp_path: Path, watts: Path) -> None:
        file = self.pipeline(tmp_path, watts, "[sensors.acme_blocking]\nseconds = 60\nanswers = 3\n")
        with start("run", "-c", file, cwd=tmp_path) as program:
            program.wait_for("acme_blocking blocks", "stderr")  # and the loop with it, which says nothing any more
            program.interrupt_twice()
            result = program.wait(20.0)  # less than the 23 s after which a first signal alone would end it
        assert result.status == 0
        assert result.stderr.endswith(LEFT_AT_ONCE)
        assert "tracarbon report: " in result.stderr
        assert "energy_consumption_host" in result.stderr

    def test_stuck_exporter_keeps_nothing_from_the_other(self, tmp_path: Path, watts: Path) -> None:
        file = self.pipeline(tmp_path, watts, "[exporters.acme_stuck]\n")
        with start("run", "-c", file, cwd=tmp_path) as program:
            program.wait_for(HOST_LINE, times=4)
            program.interrupt_twice()
            result = program.wait()
        assert result.status == 0
        assert result.stderr.endswith(LEFT_AT_ONCE)


class TestJsonFile:
    def test_unwritable_path_is_said_once_and_nothing_starts(self, tmp_path: Path) -> None:
        file = write_pipeline(tmp_path, '[location]\ncountry = "fr"\n[exporters.json]\npath = "missing/records.json"\n')
        result = run("run", "-c", file, "--log-level", "ERROR", cwd=tmp_path)
        assert (result.status, result.stdout) == (2, "")
        assert result.stderr == (
            "tracarbon: exporter json: missing/records.json cannot be written: there is no folder missing\n"
        )

    @pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("unshare") is None, reason="a small file system needs root and unshare"
    )
    def test_full_disk_loses_nothing_once_there_is_space(self, tmp_path: Path, watts: Path) -> None:
        small = tmp_path / "small"
        small.mkdir()
        pipeline = f"""
            interval = "150ms"
            [sensors.acme_file]
            path = "{watts}"
            [exporters.json]
            path = "small/records.json"
            [exporters.acme_lines]
            path = "lines"
        """
        write_pipeline(tmp_path, pipeline)
        script = 'mount -t tmpfs -o size=2m tmpfs small && exec "$@"'
        command = ["unshare", "-m", "sh", "-ec", script, "sh", str(TRACARBON), "run", "-c", "pipeline.toml"]
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        with Program(process) as program:
            inside = Path(f"/proc/{process.pid}/root{small}")
            wait_until(lambda: len(records_so_far(inside / "records.json")) > 0, "the first window")
            fill(inside / "filler")
            program.wait_for("exporter json failed: small/records.json: No space left on device", "stderr")
            records_then = read_records(inside / "records.json")
            wait_until(
                lambda: len((tmp_path / "lines").read_text().splitlines()) > len(records_then) + 8, "more windows"
            )
            (inside / "filler").unlink()
            program.wait_for("exporter json works again", "stderr")
            program.send(signal.SIGSTOP)
            program.send(signal.SIGCONT)
            content = keep(program, inside / "records.json")
        joules = sum(record["value"] * record["covered_seconds"] for record in figures(content, HOST))
        grams = sum(record["value"] for record in figures(content, "carbon_emission_host"))
        truth: Counter[str] = Counter()
        for line in (tmp_path / "lines").read_text().splitlines():
            name, value = line.split()
            truth[name] += float(value)  # type: ignore[assignment]
        assert joules == pytest.approx(truth[f"tracarbon.{HOST}"])
        assert grams == pytest.approx(truth["tracarbon.carbon_emission_host"])


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(512))
        except OSError:
            return


def keep(program: Program, path: Path) -> list[dict[str, object]]:
    """Stop the program and return what it has written, out of a file system that goes with it."""
    descriptor = os.open(path, os.O_RDONLY)
    result = program.stop()
    assert result.status == 0, result.stderr
    with os.fdopen(descriptor) as file:
        return json.load(file)  # type: ignore[no-any-return]
