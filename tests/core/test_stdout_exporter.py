"""The stdout exporter on real pipes, files and terminals."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

import anyio
import pytest
from tracarbon._text import human
from tracarbon.exceptions import DeliveryUnknown, ReceiverGone, RetryableExportError, TracarbonException
from tracarbon.exporters.stdout import StdoutExporter
from tracarbon.metrics import Batch, MetricKind, Record, Tag, Window

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(sys.platform == "win32", reason="descriptors of POSIX")]

TAGS = (Tag("fidelity", "measured"), Tag("sensor", "rapl"))


def batch(number: int = 1, count: int = 1) -> Batch:
    window = Window(number, number + 1, 1_700_000_000.0, 1_700_000_001.0)
    records = [
        Record(f"m{place}", 12.5 + place, TAGS, "watts", MetricKind.RATE, 1.0, "energy", window.end)
        for place in range(count)
    ]
    return Batch.of_window("energy", window, records)


def redirect(descriptor: int, monkeypatch: pytest.MonkeyPatch) -> TextIO:
    """Make a descriptor the standard output of this process."""
    file = os.fdopen(descriptor, "w")
    monkeypatch.setattr(sys, "stdout", file)
    return file


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], int]]:
    """Return a function that makes standard output a pipe, and returns the end to read."""
    reader, writer = os.pipe()
    files = []

    def open_pipe() -> int:
        files.append(redirect(writer, monkeypatch))
        return reader

    yield open_pipe
    for file in files:
        file.close()
    os.close(reader)


async def test_series_of_one_name_are_told_apart(pipe: Callable[[], int]) -> None:
    reader = pipe()
    window = Window(1, 2, 1_700_000_000.0, 1_700_000_001.0)
    name = "energy_consumption_of_something_with_a_long_name"
    records = [
        Record(name, 1.0, (*TAGS, Tag("pod_name", pod), Tag("same", "x")), "watts", MetricKind.RATE, 1.0, "energy", 2.0)
        for pod in ("web-1", "db-0")
    ]
    async with StdoutExporter(metric_generators=[]) as exporter:
        await exporter.export(Batch.of_window("energy", window, records))
        lines = os.read(reader, 10_000).decode().splitlines()
    assert [line.partition("by ")[2] for line in lines] == ["rapl, of pod_name web-1", "rapl, of pod_name db-0"]
    assert all(f"{name} " in line for line in lines)


async def test_a_line_says_when_what_how_much_and_by_whom(pipe: Callable[[], int]) -> None:
    reader = pipe()
    async with StdoutExporter(metric_prefix_name="acme") as exporter:
        await exporter.export(batch())
    line = os.read(reader, 4096).decode()
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  acme\.m0 +12\.50 watts  over 1\.000 s, measured by rapl\n", line
    )


async def test_a_series_that_is_gone_gets_no_line(pipe: Callable[[], int]) -> None:
    reader = pipe()
    merged = batch(1, 2).merged_with(batch(2, 1), 100)
    async with StdoutExporter() as exporter:
        await exporter.export(merged)
    text = os.read(reader, 4096).decode()
    assert "m0 " in text
    assert "m1 " not in text
    assert "over 2.000 s" in text


async def test_a_reader_that_stands_still_does_not_block_the_loop(pipe: Callable[[], int]) -> None:
    reader = pipe()
    big = batch(1, 5000)
    async with StdoutExporter() as exporter:
        with anyio.move_on_after(0.05) as scope:
            await exporter.export(big)
        assert scope.cancelled_caught
        received = b""
        with anyio.CancelScope() as again:
            again.cancel()
            await exporter.export(big)  # the pipeline offers the same batch again
        async with anyio.create_task_group() as group:
            group.start_soon(exporter.export, big)
            while received.count(b"\n") < 5000:
                received += await anyio.to_thread.run_sync(os.read, reader, 65536)
        await exporter.export(batch(2))
        received += os.read(reader, 65536)
    names = [line.split()[2] for line in received.decode().splitlines()]
    assert names == [f"m{place}" for place in range(5000)] + ["m0"]


async def test_a_reader_that_is_gone_ends_the_exporter(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with redirect(writer, monkeypatch):
        async with StdoutExporter() as exporter:
            for number in range(2):
                with pytest.raises(ReceiverGone, match="nobody reads standard output any more"):
                    await exporter.export(batch(number))


async def test_a_closed_standard_output_is_said_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(TracarbonException, match="standard output is closed"):
        async with StdoutExporter():
            pass


async def test_a_full_device_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with redirect(os.open("/dev/full", os.O_WRONLY), monkeypatch):
        async with StdoutExporter() as exporter:
            with pytest.raises(RetryableExportError, match="No space left"):
                await exporter.export(batch())


async def test_a_write_that_stopped_half_way_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out"
    write, budget = os.write, 20

    def stingy(descriptor: int, data: bytes) -> int:
        nonlocal budget
        if budget <= 0:
            budget = 1_000_000
            raise OSError(28, "No space left on device")
        written = write(descriptor, data[:budget])
        budget -= written
        return written

    one = batch(1, 3)
    with redirect(os.open(path, os.O_WRONLY | os.O_CREAT), monkeypatch):
        async with StdoutExporter() as exporter:
            monkeypatch.setattr(os, "write", stingy)
            with pytest.raises(DeliveryUnknown, match="No space left"):
                await exporter.export(one)
            await exporter.export(one)
    assert [line.split()[2] for line in path.read_text().splitlines()] == ["m0", "m1", "m2"]


async def test_another_batch_follows_one_that_outlasts_the_pipelines_patience(pipe: Callable[[], int]) -> None:
    reader = pipe()
    received = b""
    async with StdoutExporter() as exporter:
        with anyio.move_on_after(0.05):
            await exporter.export(batch(1, 5000))
        with anyio.fail_after(60):
            async with anyio.create_task_group() as group:
                group.start_soon(exporter.export, batch(2))
                while received.count(b"\n") < 5001:
                    await anyio.wait_readable(reader)
                    received += os.read(reader, 65536)
    names = [line.split()[2] for line in received.decode().splitlines()]
    assert names == [f"m{place}" for place in range(5000)] + ["m0"]


async def test_what_was_begun_is_never_begun_again_however_often_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, write, calls = tmp_path / "out", os.write, 0

    def failing(descriptor: int, data: bytes) -> int:
        nonlocal calls
        calls += 1
        if calls in (2, 3):
            raise OSError(28, "No space left on device")
        return write(descriptor, data[:20] if calls == 1 else data)

    one = batch(1, 3)
    with redirect(os.open(path, os.O_WRONLY | os.O_CREAT), monkeypatch):
        async with StdoutExporter() as exporter:
            monkeypatch.setattr(os, "write", failing)
            for _ in range(2):
                with pytest.raises(DeliveryUnknown, match="No space left"):
                    await exporter.export(one)
            await exporter.export(one)
    assert [line.split()[2] for line in path.read_text().splitlines()] == ["m0", "m1", "m2"]


def test_a_terminal_that_nobody_reads_does_not_block_the_loop() -> None:
    """In a process of its own, that can be ended if the loop hangs."""
    script = textwrap.dedent("""
        import anyio, os, pty, sys
        from tests.core.test_stdout_exporter import batch
        from tracarbon.exporters.stdout import StdoutExporter
        primary, secondary = pty.openpty()
        sys.stdout = os.fdopen(secondary, "w")
        async def main():
            async with StdoutExporter() as exporter:
                is_stuck = False
                while not is_stuck:
                    with anyio.move_on_after(0.2) as scope:
                        await exporter.export(batch(1, 25))
                    is_stuck = scope.cancelled_caught
        anyio.run(main)
        os._exit(0)
    """)
    subprocess.run([sys.executable, "-c", script], timeout=240, check=True, cwd=Path(__file__).parents[2])


async def test_a_terminal_gets_colour_unless_it_wants_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for no_color in (False, True):
        if no_color:
            monkeypatch.setenv("NO_COLOR", "1")
        else:
            monkeypatch.delenv("NO_COLOR", raising=False)
        primary, secondary = pty.openpty()
        with redirect(secondary, monkeypatch):
            async with StdoutExporter() as exporter:
                await exporter.export(batch())
            assert (b"\x1b[" in os.read(primary, 4096)) is not no_color
        os.close(primary)


async def test_control_characters_in_tags_stay_on_their_line(pipe: Callable[[], int]) -> None:
    reader = pipe()
    window = Window(0, 1, 0, 1)
    tags = (Tag("fidelity", "measured"), Tag("sensor", "evil\n\x1b[31m"))
    record = Record("m", 1.0, tags, "watts", MetricKind.RATE, 1.0, "energy", 1)
    async with StdoutExporter() as exporter:
        await exporter.export(Batch.of_window("energy", window, [record]))
    assert os.read(reader, 4096).endswith(b"measured by evil\\n\\x1b[31m\n")


def test_where_standard_output_is_no_file_it_is_written_to_all_the_same() -> None:
    script = textwrap.dedent("""
        import anyio, io, sys
        from tests.core.test_stdout_exporter import batch
        from tracarbon.exporters.stdout import StdoutExporter
        sys.stdout = io.StringIO()
        async def main():
            async with StdoutExporter() as exporter:
                await exporter.export(batch())
        anyio.run(main)
        sys.__stdout__.write(sys.stdout.getvalue())
    """)
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert " m0 " in done.stdout


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.0, "0"),
        (12.5, "12.50"),
        (1234.5678, "1235"),
        (123456.7, "123457"),
        (0.00001234567, "0.00001235"),
        (9.9999e-12, "0.000000000010"),
        (-3.14159, "-3.142"),
        (float("inf"), "inf"),
        (float("nan"), "nan"),
    ],
)
def test_numbers_have_four_digits_and_no_exponent(value: float, text: str) -> None:
    assert human(value) == text
