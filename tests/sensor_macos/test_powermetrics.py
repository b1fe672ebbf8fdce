"""A `powermetrics` that runs, and one that hangs, fails, prints garbage or dies on the way."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import anyio
import pytest
from tracarbon_sensor_macos import _powermetrics
from tracarbon_sensor_macos._errors import SourceError
from tracarbon_sensor_macos._powermetrics import Powermetrics

from tests.sensor_macos.programs import Programs, eventually, is_ended, is_running, is_written, written_pid

pytestmark = pytest.mark.usefixtures("as_root")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_powermetrics, "_ANSWER_SECONDS", 1.5)


async def test_samples_follow_one_another_without_a_gap(programs: Programs) -> None:
    programs.powermetrics(cpu=5.0, gpu=1.0, ane=0.25, dram=0.5)
    powermetrics = Powermetrics()
    await powermetrics.open()
    for _ in range(5):
        counts = await powermetrics.read()
        joules = {count.label: count.counts / count.counts_per_joule for count in counts}
        seconds = powermetrics.seconds
        expected = {"cpu": 5 * seconds, "gpu": seconds, "ane": seconds / 4, "memory": seconds / 2}
        assert joules == pytest.approx(expected, abs=1e-5)
    await powermetrics.close()


async def test_it_is_run_once_and_ended_with_its_children(programs: Programs, tmp_path: Path) -> None:
    body = f"""
    import os, subprocess
    if is_first:
        child = subprocess.Popen(["sleep", "600"])
        open("{tmp_path}/child", "w").write(f"{{child.pid}}\\n")
        open("{tmp_path}/own", "a").write(f"{{os.getpid()}}\\n")
        open("{tmp_path}/arguments", "w").write(" ".join(sys.argv[1:]))
    sample()"""
    programs.powermetrics(body)
    powermetrics = Powermetrics()
    await powermetrics.open()
    await powermetrics.read()
    await powermetrics.read()
    pids = [written_pid(tmp_path / "own"), written_pid(tmp_path / "child")]
    assert all(map(is_running, pids))
    await powermetrics.close()
    assert eventually(lambda: not any(map(is_running, pids)))
    assert (tmp_path / "arguments").read_text() == "-f plist -s cpu_power,gpu_power -b 0 -i 600000"


async def test_an_intel_macs_package_counts_as_processors(programs: Programs) -> None:
    output = (Path(__file__).parent / "outputs" / "powermetrics_intel_macos13.plist").read_bytes()
    (programs.folder / "sample").write_bytes(output)
    body = f"sys.stdout.buffer.write(open('{programs.folder}/sample', 'rb').read()); sys.stdout.flush()"
    programs.powermetrics(body)
    powermetrics = Powermetrics()
    await powermetrics.open()
    [count] = await powermetrics.read()
    await powermetrics.close()
    assert (count.label, count.component) == ("package", "cpu")
    assert count.counts == 2 * 62_512_500


async def test_who_is_not_root_is_told(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 501)
    programs.powermetrics()
    with pytest.raises(SourceError, match=r"has to be run as root\. run tracarbon as root"):
        await Powermetrics().open()


async def test_where_there_is_none_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SourceError, match="there is no program powermetrics"):
        await Powermetrics().open()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("pass", r"gave no sample within 1\.5 s"),
        ("print('<plist><dict>', flush=True)", r"gave no sample within 1\.5 s"),
        ("print('garbage</plist>', flush=True)", "printed no property list"),
        ("print('<plist><dict></dict></plist>', flush=True)", "which time"),
        ("sys.exit('unrecognized sampler: cpu_power')", "ended with status 1: unrecognized sampler: cpu_power"),
        ("sys.stdout.buffer.write(b'x' * 5000000)", "no end of a property list"),
    ],
)
async def test_one_that_does_not_behave_is_one_clear_error_and_is_ended(
    programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, message: str
) -> None:
    monkeypatch.setattr(_powermetrics, "_ANSWER_SECONDS", 1.5 if "no sample" in message else 60.0)
    pid_file = f"import os; open('{tmp_path}/pid', 'w').write(f'{{os.getpid()}}\\n')"
    programs.powermetrics(f"{pid_file}\n    {body}")
    with pytest.raises(SourceError, match=message):
        await Powermetrics().open()
    assert eventually(lambda: is_ended(tmp_path / "pid"))


@pytest.mark.usefixtures("impatient")
async def test_one_that_never_gets_ready_is_ended(programs: Programs) -> None:
    programs.shell("powermetrics", "exec sleep 600")
    with pytest.raises(SourceError, match="gave no sample"):
        await Powermetrics().open()


async def test_a_signal_that_came_too_early_is_sent_again(programs: Programs, tmp_path: Path) -> None:
    body = f"""
    import os
    if not os.path.exists("{tmp_path}/deaf"):
        open("{tmp_path}/deaf", "w").close()
        continue
    sample()"""
    programs.powermetrics(body)
    powermetrics = Powermetrics()
    await powermetrics.open()
    assert powermetrics.seconds > 0
    await powermetrics.close()


async def test_one_that_dies_is_an_error_once_and_is_then_started_again(programs: Programs, tmp_path: Path) -> None:
    pid_file = f"import os; open('{tmp_path}/pid', 'w').write(f'{{os.getpid()}}\\n')"
    programs.powermetrics(f"{pid_file}; sample()")
    powermetrics = Powermetrics()
    await powermetrics.open()
    [first, *_] = await powermetrics.read()
    os.kill(written_pid(tmp_path / "pid"), signal.SIGKILL)
    with pytest.raises(SourceError, match="ended with status -9"):
        await powermetrics.read()
    [second, *_] = await powermetrics.read()
    assert second.label == first.label
    assert second.key != first.key  # its energy begins anew
    await powermetrics.close()


async def test_half_a_sample_is_counted_and_the_next_is_good(programs: Programs, tmp_path: Path) -> None:
    body = f"""
    import os
    if not os.path.exists("{tmp_path}/cut"):
        open("{tmp_path}/cut", "w").close()
        print("<plist><dict>", end="", flush=True)
        is_first = False
    sample()"""
    programs.powermetrics(body)
    powermetrics = Powermetrics()
    await powermetrics.open()
    assert powermetrics.cut_off == 1
    await powermetrics.read()
    await powermetrics.close()


async def test_a_reading_that_is_cancelled_loses_nothing(programs: Programs, tmp_path: Path) -> None:
    body = f"""
    import os
    while not os.path.exists("{tmp_path}/go"):
        time.sleep(0.01)
    sample()"""
    programs.powermetrics(body, cpu=5.0)
    powermetrics = Powermetrics()
    (tmp_path / "go").touch()
    await powermetrics.open()
    (tmp_path / "go").unlink()
    for _ in range(3):
        with anyio.move_on_after(0.05) as scope:
            while True:  # a sample that was asked for twice may be there already
                await powermetrics.read()
        assert scope.cancelled_caught
    (tmp_path / "go").touch()
    [count] = await powermetrics.read()
    assert count.counts / 1e6 == pytest.approx(5 * powermetrics.seconds, abs=1e-5)
    await powermetrics.close()


async def test_an_opening_that_is_cancelled_leaves_nothing(programs: Programs, tmp_path: Path) -> None:
    programs.shell("powermetrics", f"echo $$ > {tmp_path}/pid; exec sleep 600")
    async with anyio.create_task_group() as group:
        group.start_soon(Powermetrics().open)
        with anyio.fail_after(60):
            while not is_written(tmp_path / "pid"):
                await anyio.sleep(0.01)
        group.cancel_scope.cancel()
    assert eventually(lambda: not is_running(written_pid(tmp_path / "pid")))


async def test_what_it_says_besides_does_not_heap_up(programs: Programs) -> None:
    said = "Second underflow occured." * 9
    programs.powermetrics(f"print({said!r}, file=sys.stderr, flush=True); sample()")
    powermetrics = Powermetrics()
    await powermetrics.open()
    for _ in range(10):
        await powermetrics.read()
    assert powermetrics._errors is not None
    # It may be saying it anew, where it was asked for the last sample twice.
    assert os.fstat(powermetrics._errors.fileno()).st_size <= 2 * len(f"{said}\n")
    await powermetrics.close()
