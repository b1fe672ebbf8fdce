"""The unmodified command on a machine that seems to have NVIDIA cards, against what their counters really did."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.pipelines.support import Program, Record, environment, figures, run, start, wait_until
from tests.sensor_nvidia.stub import DRIVER_NOT_LOADED, GPU_IS_LOST, NO_PERMISSION, NOT_SUPPORTED, Stub

pytestmark = pytest.mark.once

PIPELINE = """
interval = "200ms"

[location]
country = "FR"

[sensors.nvidia]

[exporters.json]
path = "records.jsonl"
"""


class Running:
    """The command at work."""

    def __init__(self, program: Program, folder: Path) -> None:
        self.program = program
        self.folder = folder

    def figures(self, name: str) -> list[Record]:
        """Return what has been written to the end: the last line may be being written."""
        path = self.folder / "records.jsonl"
        written, _, _ = path.read_text().rpartition("\n") if path.exists() else ("", "", "")
        return list(figures([json.loads(line) for line in written.splitlines()], name))

    @property
    def power(self) -> list[Record]:
        return self.figures("energy_consumption_gpu")

    @property
    def joules(self) -> float:
        return sum(record["value"] * record["covered_seconds"] for record in self.power)

    @property
    def devices(self) -> list[Record]:
        return self.figures("energy_consumption_device")

    def joules_of(self, uuid: str) -> float:
        """The joules of the series of one card."""
        series = [record for record in self.devices if record["tags"]["uuid"] == uuid]
        return sum(record["value"] * record["covered_seconds"] for record in series)

    def wait_for_windows(self, number: int) -> None:
        """Wait until figures of so many more windows have been written."""
        wanted = len(self.power) + number
        wait_until(lambda: len(self.power) >= wanted, f"{number} more windows")


@contextmanager
def running(stub: Stub, folder: Path, pipeline: str = PIPELINE) -> Iterator[Running]:
    (folder / "pipeline.toml").write_text(pipeline)
    with start("run", "-c", "pipeline.toml", cwd=folder, env=environment(**stub.environment)) as program:
        run = Running(program, folder)
        run.wait_for_windows(1)
        yield run


def use(stub: Stub, *joules: float) -> float:
    for card, amount in zip(stub.cards, joules, strict=False):
        card.use(amount)
    return sum(joules)


def test_no_joule_is_lost_or_invented(machine: Stub, tmp_path: Path) -> None:
    with running(machine, tmp_path) as command:
        used = use(machine, 20, 30)
        command.wait_for_windows(2)
        machine.cards[0].fault = GPU_IS_LOST
        for _ in range(6):
            used += use(machine, 1, 2)
            command.wait_for_windows(1)
        lost = rf"card 0 \(NVIDIA Stub A, {machine.cards[0].key}\): the card is lost"
        command.program.wait_for(lost, "stderr")
        machine.cards[0].fault = 0
        used += use(machine, 20, 30)
        command.wait_for_windows(2)
        command.program.wait_for("sensor nvidia works again", "stderr")
        used += use(machine, 5, 5)
        result = command.program.stop()
        assert result.status == 0, result.stderr
        assert command.joules == pytest.approx(used)
        assert [command.joules_of(card.key) for card in machine.cards[:2]] == pytest.approx([51.0, 77.0])
    series = {tuple(record["tags"][key] for key in ("index", "uuid", "name")) for record in command.devices}
    assert series == {(str(number), machine.cards[number].key, f"NVIDIA Stub {'AB'[number]}") for number in (0, 1)}
    tags = command.power[0]["tags"]
    assert (tags["sensor"], tags["fidelity"], tags["method"]) == ("nvidia", "measured", "nvml-counter")
    machine.check_balance()


def test_a_card_that_hangs_holds_up_no_tick_and_no_stop(machine: Stub, tmp_path: Path) -> None:
    with running(machine, tmp_path) as command:
        used = use(machine, 20, 30)
        command.wait_for_windows(2)
        machine.cards[0].hang = 1
        used += use(machine, 7, 0)
        for _ in range(8):
            used += use(machine, 0, 2)
            command.wait_for_windows(1)
        command.program.wait_for("does not answer", "stderr")
        machine.cards[0].hang = 0
        command.program.wait_for("sensor nvidia works again", "stderr")
        command.wait_for_windows(2)
        assert command.joules == pytest.approx(used)
        machine.cards[0].hang = 1
        machine.wait_until_hung(0)
        result = command.program.stop()
        assert result.status == 0, result.stderr
        assert "Traceback" not in result.stderr
        machine.release()


def test_after_all_were_away_it_goes_on(machine: Stub, tmp_path: Path) -> None:
    with running(machine, tmp_path) as command:
        for card in machine.cards:
            card.take_out()
        command.program.wait_for("sensor nvidia failed: card 0", "stderr")
        for card in machine.cards[:2]:
            card.put_in()
        used = use(machine, 20, 30)
        command.program.wait_for("sensor nvidia works again", "stderr")
        command.wait_for_windows(1)
        result = command.program.stop()
        assert result.status == 0, result.stderr
        assert command.joules == pytest.approx(used)
    machine.check_balance()


def test_power_is_integrated_where_there_is_no_counter(machine: Stub, tmp_path: Path) -> None:
    machine.cards[0].energy_fault = NOT_SUPPORTED
    machine.cards[1].present = 0
    with running(machine, tmp_path) as command:
        command.wait_for_windows(2)
        command.program.stop()
        assert {round(record["value"], 6) for record in command.power} == {100.0}
        assert {record["tags"]["method"] for record in command.power} == {"nvml-power"}


def test_a_card_that_is_not_there_keeps_it_from_starting(machine: Stub, tmp_path: Path) -> None:
    (tmp_path / "pipeline.toml").write_text(PIPELINE.replace("[sensors.nvidia]", "[sensors.nvidia]\ndevices = [5]"))
    result = run("run", "-c", "pipeline.toml", cwd=tmp_path, env=environment(**machine.environment))
    assert result.status == 2
    assert "sensor nvidia: there is no card 5; there are card 0 (NVIDIA Stub A, GPU-0" in result.stderr
    assert "Traceback" not in result.stderr


def test_what_can_be_no_card_is_a_problem_in_the_file(tmp_path: Path) -> None:
    (tmp_path / "pipeline.toml").write_text('[sensors.nvidia]\ndevices = [0, "MIG-1", -1, "gpu"]\n')
    result = run("check", "-c", "pipeline.toml", cwd=tmp_path)
    assert result.status == 2
    assert "line 2  sensors.nvidia.devices   'MIG-1' is a MIG instance" in result.stderr
    assert "-1 is no index (0)" in result.stderr
    assert "'gpu' is no index (0)" in result.stderr


def doctor(machine: Stub | None, folder: Path) -> str:
    env = environment(**(machine.environment if machine else {}))
    result = run("doctor", cwd=folder, env=env)
    assert result.stderr == ""
    assert result.status == 0
    lines = result.stdout.splitlines()
    [number] = [number for number, line in enumerate(lines) if line.split()[0] == "nvidia"]
    return " ".join(" ".join(lines[number : number + 2]).split())


class TestDoctor:
    def test_it_works(self, machine: Stub, tmp_path: Path) -> None:
        said = doctor(machine, tmp_path)
        assert "nvidia works, measured: card 0 (NVIDIA Stub A, GPU-0" in said
        assert "by its energy counter; card 1 (" in said
        machine.check_balance()

    def test_it_does_not(self, machine: Stub, tmp_path: Path) -> None:
        for card in machine.cards:
            card.handle_fault = NO_PERMISSION
        assert "nvidia does not work: card 0: no permission; card 1: no permission Let" in doctor(machine, tmp_path)
        machine.control.init_fault = DRIVER_NOT_LOADED
        assert "nvidia does not work: the NVIDIA driver is not loaded Load the" in doctor(machine, tmp_path)

    def test_one_that_hangs_is_not_waited_for(self, machine: Stub, tmp_path: Path) -> None:
        machine.cards[0].hang = 1
        assert "card 1 (NVIDIA Stub B, GPU-1" in doctor(machine, tmp_path)
        machine.control.init_hang = 1
        assert "nvidia does not work: it does not answer" in doctor(machine, tmp_path)


def test_without_sensors_in_the_file_cards_add_to_the_host(machine: Stub, tmp_path: Path) -> None:
    (tmp_path / "pipeline.toml").write_text(PIPELINE.replace("[sensors.nvidia]", ""))
    with start("run", "-c", "pipeline.toml", cwd=tmp_path, env=environment(**machine.environment)) as program:
        command = Running(program, tmp_path)
        command.wait_for_windows(1)
        use(machine, 20, 30)
        command.wait_for_windows(2)
        program.stop()
        assert command.joules == pytest.approx(50.0)
        host = sum(record["value"] * record["covered_seconds"] for record in command.figures("energy_consumption_host"))
        assert host > 50.0
