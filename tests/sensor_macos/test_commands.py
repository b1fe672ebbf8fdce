"""Programs that hang, fail, print garbage, or leave children behind."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import anyio
import pytest
from tracarbon_sensor_macos import _commands
from tracarbon_sensor_macos._errors import SourceError
from tracarbon_sensor_macos._ioreg import read_system_power

from tests.sensor_macos.programs import Programs, eventually, is_ended, is_running, is_written, written_pid

LONG_SECONDS = 60.0


async def test_what_a_program_prints_is_returned(programs: Programs) -> None:
    program = programs.shell("say", 'printf "%s|" "$@"')
    assert await _commands.run([program, "a b", "$HOME", "|", "x"], timeout_seconds=LONG_SECONDS) == b"a b|$HOME|||x|"


async def test_more_than_a_pipe_holds_is_returned_whole(programs: Programs) -> None:
    program = programs.shell("say", "head -c 1000000 /dev/zero; head -c 100000 /dev/zero >&2")
    assert len(await _commands.run([program], timeout_seconds=LONG_SECONDS)) == 1_000_000


async def test_a_program_that_fails_is_quoted(programs: Programs) -> None:
    program = programs.shell("fail", "echo out; echo 'must be\tsuperuser' >&2; exit 3")
    with pytest.raises(SourceError, match=r"^fail failed with status 3: must be superuser$"):
        await _commands.run([program], timeout_seconds=LONG_SECONDS)


async def test_a_program_that_is_not_there_or_is_none(programs: Programs) -> None:
    with pytest.raises(SourceError, match=r"^/no/such cannot be run: No such file or directory$"):
        await _commands.run(["/no/such"], timeout_seconds=LONG_SECONDS)
    Path(programs.folder, "text").write_text("no program")
    with pytest.raises(SourceError, match="cannot be run: Permission denied"):
        await _commands.run([str(programs.folder / "text")], timeout_seconds=LONG_SECONDS)
    with pytest.raises(SourceError, match="cannot be run: embedded null byte"):
        await _commands.run(["a\0b"], timeout_seconds=LONG_SECONDS)


async def test_a_program_that_hangs_is_ended_with_its_children(programs: Programs, tmp_path: Path) -> None:
    program = programs.shell("hang", f"sleep 600 & echo $! > {tmp_path}/child; echo $$ > {tmp_path}/own; wait")
    with pytest.raises(SourceError, match=r"^hang did not end within 2 s$"):
        await _commands.run([program], timeout_seconds=2)
    assert eventually(lambda: is_ended(tmp_path / "own") and is_ended(tmp_path / "child"))


async def test_a_child_that_outlives_its_parent_is_ended_and_not_waited_for(programs: Programs, tmp_path: Path) -> None:
    program = programs.shell("leave", f"sleep 600 & echo $! > {tmp_path}/child; echo done")
    assert await _commands.run([program], timeout_seconds=LONG_SECONDS) == b"done\n"
    assert eventually(lambda: not is_running(written_pid(tmp_path / "child")))


@pytest.mark.skipif(shutil.which("setsid") is None, reason="there is no setsid")
async def test_what_left_the_group_of_a_program_is_not_waited_for(programs: Programs, tmp_path: Path) -> None:
    """It holds the output open, and nobody knows that it is the program's."""
    child = tmp_path / "child"
    leaving = f"setsid sh -c 'echo $$ > {child}; exec sleep 600' & while ! [ -s {child} ]; do sleep 0.01; done"
    program = programs.shell("leave", f"{leaving}; echo done")
    try:
        assert await _commands.run([program], timeout_seconds=LONG_SECONDS) == b"done\n"
    finally:
        os.kill(written_pid(child), signal.SIGKILL)


async def test_a_program_that_takes_no_notice_of_signals_is_ended_all_the_same(programs: Programs) -> None:
    program = programs.shell("deaf", "trap '' TERM INT HUP; while :; do sleep 1; done")
    with pytest.raises(SourceError, match="did not end"):
        await _commands.run([program], timeout_seconds=0.3)


async def test_a_program_is_ended_when_its_caller_is_cancelled(programs: Programs, tmp_path: Path) -> None:
    program = programs.shell("hang", f"sleep 600 & echo $! > {tmp_path}/child; wait")
    async with anyio.create_task_group() as group:

        async def run() -> None:
            await _commands.run([program], timeout_seconds=LONG_SECONDS)

        group.start_soon(run)
        with anyio.fail_after(60):
            while not is_written(tmp_path / "child"):
                await anyio.sleep(0.01)
        group.cancel_scope.cancel()
    assert eventually(lambda: not is_running(written_pid(tmp_path / "child")))


async def test_a_program_that_prints_without_end_is_ended(programs: Programs) -> None:
    program = programs.shell("endless", "exec yes")
    with pytest.raises(SourceError, match=r"^endless printed more than 16 MB$"):
        await _commands.run([program], timeout_seconds=LONG_SECONDS)


def test_programs_in_apples_folders_come_before_those_on_the_path(programs: Programs, tmp_path: Path) -> None:
    on_path = programs.shell("tool", "")
    assert _commands.find_program("tool", str(tmp_path / "apple")) == on_path
    apples = Programs(tmp_path / "apple").shell("tool", "")
    assert _commands.find_program("tool", str(tmp_path / "apple")) == apples
    Path(apples).chmod(0o644)
    assert _commands.find_program("tool", str(tmp_path / "apple")) == on_path
    with pytest.raises(SourceError, match="there is no program nothing-like-it"):
        _commands.find_program("nothing-like-it", "/usr/bin")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("sleep 600", r"did not end within 0\.4 s"),
        ("echo '<plist><array>'", "printed no property list"),
        ("head -c 3000 /dev/urandom", "printed no property list"),
        ("exit 1", "failed with status 1"),
        ("kill -9 $$", "failed with status -9"),
        (":", "no battery"),
    ],
)
async def test_an_ioreg_that_does_not_behave_is_one_clear_error(programs: Programs, body: str, message: str) -> None:
    programs.shell("ioreg", body)
    with pytest.raises(SourceError, match=message):
        await read_system_power(0.4 if "sleep" in body else LONG_SECONDS)


async def test_ioreg_is_asked_for_a_property_list_without_a_shell(programs: Programs) -> None:
    programs.shell("ioreg", f'echo "$*" > {programs.folder}/arguments')
    with pytest.raises(SourceError, match="no battery"):
        await read_system_power(LONG_SECONDS)
    assert (programs.folder / "arguments").read_text() == "-a -r -w0 -c AppleSmartBattery\n"
