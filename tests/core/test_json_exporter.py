"""The JSON exporter on real files: valid after every tick, repaired after a crash, nothing lost, nothing twice."""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tracarbon.exceptions import RetryableExportError, TracarbonException
from tracarbon.exporters._record_file import RecordFile
from tracarbon.exporters.json_exporter import JSONExporter
from tracarbon.hardwares.energy import Band
from tracarbon.metrics import Batch, MetricKind, Record, Tag, Window
from tracarbon.plugin import PluginContext

pytestmark = pytest.mark.anyio


def batch(number: int, *, name: str = "energy_consumption_host", tag: str = "fr") -> Batch:
    window = Window(number, number + 1, 1_700_000_000.0 + number, 1_700_000_001.0 + number)
    record = Record(
        name,
        float(number),
        (Tag("location", tag),),
        "watts",
        MetricKind.RATE,
        0.5,
        "energy",
        window.end,
        Band(0.0, 9e9),
    )
    return Batch.of_window("energy", window, [record])


def values(path: Path) -> list[float]:
    text = path.read_text("utf-8")
    records: list[dict[str, Any]] = (
        [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else json.loads(text)
    )
    return [record["value"] for record in records]


@pytest.mark.parametrize("name", ["export.json", "export.jsonl"])
@pytest.mark.parametrize("indent", [None, 4])
async def test_the_file_is_valid_after_every_tick_and_appended_to_by_the_next_run(
    tmp_path: Path, name: str, indent: int | None
) -> None:
    path = tmp_path / name
    written: list[float] = []
    for run in range(3):
        async with JSONExporter(path=str(path), indent=indent) as exporter:
            assert values(path) == written
            for number in range(4):
                await exporter.export(batch(10 * run + number))
                written.append(10 * run + number)
                assert values(path) == written
    assert path.read_text().endswith("\n")


async def test_a_record_says_all_there_is(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    context = PluginContext("json", metric_prefix_name="acme")
    async with JSONExporter.from_options(JSONExporter.Options(path=str(path)), context) as exporter:
        await exporter.export(batch(3, tag='a "quoted" \n é'))
    assert json.loads(path.read_text("utf-8")) == [
        {
            "timestamp": "2023-11-14T22:13:24.000Z",
            "name": "acme.energy_consumption_host",
            "unit": "watts",
            "kind": "rate",
            "tags": {"location": 'a "quoted" \n é'},
            "value": 3.0,
            "low": 0.0,
            "high": 9e9,
            "covered_seconds": 0.5,
            "window_seconds": 1,
        }
    ]


async def test_the_documented_indent_gives_readable_records(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    async with JSONExporter(path=str(path), indent=2) as exporter:
        await exporter.export(batch(1))
    assert path.read_text().startswith('[\n  {\n    "timestamp": ')


async def test_a_tick_is_one_write_of_its_own_records_whatever_the_files_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    pwrite = os.pwrite

    def counted(descriptor: int, data: bytes, offset: int) -> int:
        written.append(len(data))
        return pwrite(descriptor, data, offset)

    async with JSONExporter(path=str(tmp_path / "x.json")) as exporter:
        await exporter.export(batch(100))
        monkeypatch.setattr(os, "pwrite", counted)
        for number in range(101, 301):
            await exporter.export(batch(number))
    assert len(written) == 200
    assert len(set(written)) == 1


async def write_numbers(path: Path, indent: int | None, tag: str, numbers: range) -> None:
    async with JSONExporter(path=str(path), indent=indent) as exporter:
        for number in numbers:
            await exporter.export(batch(number, tag=tag))


@given(data=st.data(), is_array=st.booleans(), indent=st.sampled_from([None, 4]))
def test_whatever_byte_a_crash_stopped_at_every_whole_record_is_kept(
    data: st.DataObject, is_array: bool, indent: int | None
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("x.json" if is_array else "x.jsonl")
        write = partial(write_numbers, path, indent, "é")
        anyio.run(write, range(3))
        whole = path.read_bytes()
        cut = data.draw(st.integers(0, len(whole)))
        ends = [offset for offset in range(len(whole) + 1) if _complete_records(whole[:offset], is_array)]
        path.write_bytes(whole[:cut])
        anyio.run(write, range(10, 12))
        kept = values(path)
        assert kept[-2:] == [10.0, 11.0]
        assert kept[:-2] == [float(number) for number in range(len(kept) - 2)]
        assert len(kept) - 2 == _complete_records(whole[:cut], is_array), ends


def _complete_records(text: bytes, is_array: bool) -> int:
    """Count the whole records in a torn file, by another way than the exporter's."""
    decoder, count = json.JSONDecoder(), 0
    rest = text.decode("latin-1").lstrip("[\n ")
    while rest.startswith("{"):
        try:
            _, end = decoder.raw_decode(rest)
        except ValueError:
            break
        count += 1
        rest = rest[end:].lstrip(",\n ")
    return count


async def test_a_repair_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "x.json"
    async with JSONExporter(path=str(path), indent=None) as exporter:
        await exporter.export(batch(1))
        await exporter.export(batch(2))
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    with caplog.at_level(logging.WARNING, "tracarbon"):
        async with JSONExporter(path=str(path)):
            assert values(path) == [1.0]
    torn = len(whole) - 20 - whole.index(b"},\n") - 1
    messages = [record.getMessage() for record in caplog.records]
    assert messages == [f"{path}: a torn record at its end was cut off, {torn} bytes"]


@pytest.mark.parametrize("text", ["", "[", "[\n", "[]", "[ ]\n", "[\n]\n", " [\n"])
async def test_an_array_without_records_is_begun(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    async with JSONExporter(path=str(path)) as exporter:
        await exporter.export(batch(1))
    assert values(path) == [1.0]


@pytest.mark.parametrize(
    ("name", "text"), [("x.json", '{"a": 1}'), ("x.json", "hello"), ("x.json", "[1, 2]"), ("x.jsonl", "[1]")]
)
async def test_a_file_that_is_not_ours_is_left_alone(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(TracarbonException, match=r"is left alone; give another path"):
        async with JSONExporter(path=str(path)):
            pass
    assert path.read_text() == text


@pytest.mark.parametrize(
    "text",
    ["[1]", '[1,\n{"a": 1}\n]', '[[\n{"a": 1}\n]]', '[section]\n{"a": 1}\nx = 2\n', "[\n  {a: 1},\n  {b: 2}\n]\n",
     '[\n{"a": 1}\n]\nand more', "\0" * 300],
)  # fmt: skip
async def test_what_only_resembles_an_array_of_records_is_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(TracarbonException, match="is left alone; give another path"):
        async with JSONExporter(path=str(path)):
            pass
    assert path.read_text() == text


async def test_lines_that_hold_an_object_over_several_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{\n  "a": {"b": 1}\n}\n')
    with pytest.raises(TracarbonException, match="is left alone; give another path"):
        async with JSONExporter(path=str(path)):
            pass


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
@pytest.mark.parametrize("indent", [None, 0, 1, 4])
@pytest.mark.parametrize("count", [1, 3, 20_000])
async def test_an_array_that_another_program_wrote_is_appended_to_however_it_lies(
    tmp_path: Path, indent: int | None, count: int, separators: tuple[str, str]
) -> None:
    path = tmp_path / "x.json"
    older = [{"value": number, "tags": {"a": "}]"}, "more": [{"b": 1}, {"b": 2}]} for number in range(count)]
    path.write_text(json.dumps(older, indent=indent, separators=separators))
    async with JSONExporter(path=str(path)) as exporter:
        await exporter.export(batch(-1))
    assert values(path) == [*range(count), -1]


@given(data=st.data(), is_array=st.booleans(), indent=st.sampled_from([None, 4]), before=st.integers(0, 2))
def test_whatever_byte_of_a_write_a_crash_stopped_at_the_records_before_it_are_kept(
    data: st.DataObject, is_array: bool, indent: int | None, before: int
) -> None:
    """The write begins over what closes the array."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("x.json" if is_array else "x.jsonl")
        write = partial(write_numbers, path, indent, "é}]")
        anyio.run(write, range(before))
        older = path.read_bytes()
        anyio.run(write, range(before, before + 1))
        newer = path.read_bytes()
        written = data.draw(st.integers(len(older) - 3 * is_array, len(newer)))
        path.write_bytes(newer[:written] + older[written:])
        anyio.run(write, range(10, 12))
        kept = values(path)
        assert kept[-2:] == [10.0, 11.0]
        assert kept[:-2] in ([*map(float, range(before))], [*map(float, range(before + 1))])


async def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    async with JSONExporter(path=str(path)) as exporter:
        with pytest.raises(TracarbonException, match="is being written by another process"):
            async with JSONExporter(path=str(path)):
                pass
        await exporter.export(batch(1))
    assert values(path) == [1.0]
    async with JSONExporter(path=str(path)):
        pass


async def test_where_it_cannot_be_written_is_said_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(TracarbonException, match=r"there is no folder .*missing"):
        async with JSONExporter(path=str(tmp_path / "missing" / "x.json")):
            pass
    with pytest.raises(TracarbonException, match="is a folder"):
        async with JSONExporter(path=str(tmp_path)):
            pass


async def test_a_file_that_was_moved_away_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    async with JSONExporter(path=str(path)) as exporter:
        await exporter.export(batch(1))
        path.rename(tmp_path / "old.json")
        await exporter.export(batch(2))
        path.unlink()
        await exporter.export(batch(3))
    assert values(tmp_path / "old.json") == [1.0]
    assert values(path) == [3.0]


@pytest.mark.skipif(not sys.platform.startswith("linux") or os.geteuid() != 0, reason="mounting takes root, on Linux")
def test_a_full_disk_loses_nothing_and_tears_nothing(tmp_path: Path) -> None:
    script = textwrap.dedent("""
        import anyio, json, os, sys
        from tests.core.test_json_exporter import batch, values
        from tracarbon.exceptions import RetryableExportError
        from tracarbon.exporters.json_exporter import JSONExporter
        from pathlib import Path

        async def main():
            folder = Path(sys.argv[1])
            path = folder / sys.argv[2]
            async with JSONExporter(path=str(path)) as exporter:
                await exporter.export(batch(0))
                with (folder / "ballast").open("wb", buffering=0) as ballast:
                    try:
                        while True:
                            ballast.write(b"x" * 512)
                    except OSError:
                        pass
                failed = None
                for number in range(1, 200):
                    try:
                        await exporter.export(batch(number))
                    except RetryableExportError as error:
                        failed = number
                        assert "No space left" in str(error), error
                        assert values(path) == [float(n) for n in range(number)]
                        break
                assert failed is not None
                (folder / "ballast").unlink()
                for number in range(failed, failed + 3):
                    await exporter.export(batch(number))
                assert values(path) == [float(n) for n in range(failed + 3)]
        anyio.run(main)
    """)
    for name in ("x.json", "x.jsonl"):
        mount = f'mount -t tmpfs -o size=64k tmpfs {tmp_path} && exec {sys.executable} -c "$0" {tmp_path} {name}'
        done = subprocess.run(
            ["unshare", "-m", "sh", "-c", mount, script],
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
            cwd=Path(__file__).parents[2],
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["x.json", "x.jsonl"])
def test_sigkill_at_any_moment_leaves_a_file_that_the_next_run_mends(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    script = textwrap.dedent("""
        import anyio, itertools, sys
        from tests.core.test_json_exporter import batch
        from tracarbon.exporters.json_exporter import JSONExporter

        async def main():
            async with JSONExporter(path=sys.argv[1]) as exporter:
                for number in itertools.count():
                    await exporter.export(batch(number))
                    if number == int(sys.argv[2]):
                        print("ready", flush=True)
        anyio.run(main)
    """)
    for rounds in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", script, str(path), str(rounds * 7)],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            process.send_signal(signal.SIGKILL)
        RecordFile(path, is_array=name == "x.json").close()
        written = values(path)
        assert len(written) > rounds * 7


async def test_another_batch_follows_one_that_outlasts_the_pipelines_patience(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    async with JSONExporter(path=str(path)) as exporter:
        sink = exporter._sink
        assert sink is not None
        go_on, append = threading.Event(), sink.append
        sink.append = lambda records: append(records) if go_on.wait(60) else None  # type: ignore[method-assign]
        with anyio.CancelScope() as scope:
            scope.cancel()
            await exporter.export(batch(1))
        go_on.set()
        await exporter.export(batch(2))
        await exporter.export(batch(3))
    assert values(path) == [1.0, 2.0, 3.0]


class _OddFloat(float):
    """Such as numpy's."""

    def __repr__(self) -> str:
        return "float64(2.5)"


@pytest.mark.parametrize(
    ("value", "covered_seconds", "band", "written"),
    [
        (_OddFloat(2.5), 1.0, None, 2.5),
        (True, 1.0, None, 1.0),
        (3, 1.0, Band(0.0, math.inf), 3.0),
        (1e400, math.nan, Band(-math.inf, math.nan), None),
    ],
)
async def test_whatever_a_plugin_takes_for_a_number_the_file_is_json(
    tmp_path: Path, value: float, covered_seconds: float, band: Band | None, written: float | None
) -> None:
    path = tmp_path / "x.json"
    record = Record("m", value, (), "watts", MetricKind.RATE, covered_seconds, "energy", 1.0, band)
    async with JSONExporter(path=str(path)) as exporter:
        await exporter.export(Batch.of_window("energy", Window(0, 1, 0, 1), [record]))
    (read,) = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert read["value"] == written


async def test_a_tag_that_is_no_unicode_is_written_escaped(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    async with JSONExporter(path=str(path)) as exporter:
        await exporter.export(batch(1, tag="caf\udce9"))
        await exporter.export(batch(2, tag="café"))
    assert [record["tags"]["location"] for record in json.loads(path.read_text("utf-8"))] == ["caf\udce9", "café"]


@pytest.mark.parametrize("name", ["x.json", "x.jsonl"])
@pytest.mark.parametrize("size", [0, 40, 400])
async def test_a_file_that_was_cut_while_it_is_written_goes_on_where_it_ends(
    tmp_path: Path, name: str, size: int
) -> None:
    """What `copytruncate` of logrotate does."""
    path = tmp_path / name
    async with JSONExporter(path=str(path)) as exporter:
        for number in range(4):
            await exporter.export(batch(number))
        os.truncate(path, size)
        await exporter.export(batch(4))
        await exporter.export(batch(5))
    kept = values(path)
    assert kept == [*map(float, range(len(kept) - 2)), 4.0, 5.0]


async def test_a_device_is_refused() -> None:
    with pytest.raises(TracarbonException, match="/dev/full is no regular file"):
        async with JSONExporter(path="/dev/full"):
            pass


async def test_a_closing_alone_that_is_torn_is_no_loss(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "x.json"
    async with JSONExporter(path=str(path)) as exporter:
        await exporter.export(batch(1))
    path.write_bytes(path.read_bytes()[:-3])
    with caplog.at_level(logging.WARNING, "tracarbon"):
        async with JSONExporter(path=str(path)):
            assert values(path) == [1.0]
    assert not caplog.records


async def test_a_write_that_outlasts_the_pipelines_patience_is_not_repeated(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    async with JSONExporter(path=str(path)) as exporter:
        sink = exporter._sink
        assert sink is not None
        go_on = threading.Event()
        append = sink.append

        def slow_append(records: list[str]) -> None:
            go_on.wait(60)
            append(records)

        sink.append = slow_append  # type: ignore[method-assign]
        hanging = batch(1)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await exporter.export(hanging)
        go_on.set()
        await exporter.export(hanging)
        await exporter.export(batch(2))
    assert values(path) == [1.0, 2.0]


async def test_an_io_error_gives_the_batch_back(tmp_path: Path) -> None:
    async with JSONExporter(path=str(tmp_path / "x.json")) as exporter:
        await exporter.export(batch(1))
        sink = exporter._sink
        assert sink is not None and sink._file is not None
        os.close(sink._file._descriptor)
        with pytest.raises(RetryableExportError, match="Bad file descriptor"):
            await exporter.export(batch(2))
        sink._file = None
        await exporter.export(batch(2))
    assert values(tmp_path / "x.json") == [1.0, 2.0]
