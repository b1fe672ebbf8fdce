"""What the kit takes for left over, for input and output, and for a swallowed cancellation."""

from __future__ import annotations

import importlib
import inspect
import os
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from tracarbon.testing import _watching


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="descriptors are seen in /proc")  # noqa: PTH112
def test_an_open_file_is_left_over_and_the_listing_of_files_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_watching, "_SETTLE_SECONDS", 0.0)
    probe = os.open("/dev/null", os.O_RDONLY)
    before = _watching.Belongings()  # whose listing had the next number
    os.close(probe)
    assert before.left_over() == []
    one, other = os.open("/dev/null", os.O_RDONLY), os.open("/dev/null", os.O_RDONLY)
    try:
        assert before.left_over() == ["file /dev/null"]
    finally:
        os.close(one)
        os.close(other)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="descriptors are seen in /proc")  # noqa: PTH112
def test_what_ends_a_little_later_is_not_left_over() -> None:
    """Such as the accepted end of a connection that was left, of a server in this process that is slow to notice."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        is_accepted, has_left = threading.Event(), threading.Event()

        def serve() -> None:
            accepted, _ = server.accept()
            with accepted:
                is_accepted.set()
                has_left.wait(20)
                time.sleep(0.3)  # slow to notice

        thread = threading.Thread(target=serve)
        thread.start()
        before = _watching.Belongings()
        with socket.create_connection(server.getsockname()):
            assert is_accepted.wait(20)
        has_left.set()
        assert before.left_over() == []
        thread.join()


def test_an_import_for_the_first_time_is_no_input_and_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter keeps what it compiled, where it was not compiled when it was installed."""
    (tmp_path / "imported_for_the_first_time.py").write_text("answer = 42\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.setattr(sys, "pycache_prefix", None)
    assert _watching.io_of(lambda: importlib.import_module("imported_for_the_first_time")) == []
    assert (tmp_path / "__pycache__").is_dir()


def test_what_a_module_does_when_it_is_imported_is_no_input_and_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "reads_when_imported.py").write_text(
        "import os, pathlib\nos.listdir('/')\npathlib.Path(__file__).with_suffix('.txt').write_text('read')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert _watching.io_of(lambda: importlib.import_module("reads_when_imported")) == []
    assert (tmp_path / "reads_when_imported.txt").is_file()


def fork() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of the threads that there may be
        pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def send() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        datagrams.sendto(b"", ("127.0.0.1", 9))


@pytest.mark.parametrize(
    ("event", "call"),
    [
        ("open", lambda: Path("watts").write_text("40")),
        ("os.listdir", lambda: os.listdir(".")),  # noqa: PTH208 - what is to be seen
        ("os.scandir", lambda: os.scandir(".").close()),
        ("os.mkdir", lambda: Path("folder").mkdir()),
        ("os.symlink", lambda: Path("link").symlink_to("watts")),
        pytest.param("os.fork", fork, marks=pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")),
        ("socket.gethostbyname", lambda: socket.gethostbyname("localhost")),
        ("socket.getaddrinfo", lambda: socket.getaddrinfo("127.0.0.1", 9)),
        ("socket.sendto", send),
        ("sqlite3.connect", lambda: sqlite3.connect("figures.db").close()),
    ],
)
def test_input_and_output(
    event: str, call: Callable[[], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert [said.partition(" ")[0] for said in _watching.io_of(call)] == [event]


def test_what_stays_in_memory_is_no_input_and_output() -> None:
    assert _watching.io_of(lambda: sqlite3.connect(":memory:").close()) == []
    assert _watching.io_of(lambda: inspect.getsource(_watching)) == []


def test_a_process_that_runs_is_left_over_and_one_that_has_ended_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_watching, "_SETTLE_SECONDS", 0.0)
    command = [sys.executable, "-c", "input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as earlier:
        before = _watching.Belongings()
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL):  # ends by itself
            with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
                assert f"process {process.pid}" in before.left_over()
                process.kill()
            monkeypatch.setattr(_watching, "_SETTLE_SECONDS", 60.0)
            assert before.left_over() == []  # though nobody has asked how the first one ended
        earlier.kill()


class TestCancellation:
    async def outlasts(self, call: Callable[[], Coroutine[Any, Any, object]]) -> bool:
        outlasted = False

        async def wait() -> None:
            nonlocal outlasted
            outlasted = await _watching.outlasts_cancellation(call(), group.cancel_scope)

        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            for _ in range(2):
                await checkpoint()
            group.cancel_scope.cancel()
        return outlasted

    async def test_one_that_is_swallowed(self) -> None:
        async def call() -> None:
            with suppress(BaseException):
                await anyio.sleep_forever()

        assert await self.outlasts(call)

    async def test_one_that_goes_through(self) -> None:
        async def call() -> None:
            await anyio.sleep_forever()

        assert not await self.outlasts(call)

    async def test_one_that_comes_too_late(self) -> None:
        assert not await self.outlasts(checkpoint)

    async def test_one_that_is_kept_off(self) -> None:
        async def call() -> None:
            with anyio.CancelScope(shield=True):
                for _ in range(9):
                    await checkpoint()

        assert not await self.outlasts(call)

    async def test_one_of_its_own(self) -> None:
        async def call() -> None:
            with anyio.move_on_after(0):
                await anyio.sleep_forever()

        assert not await self.outlasts(call)
