"""What the kit takes for left over."""

from __future__ import annotations

import importlib
import os
import socket
import sys
import threading
import time
from pathlib import Path

import pytest
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
    with _watching.io_of_this_thread() as seen:
        importlib.import_module("imported_for_the_first_time")
    assert seen == []
    assert (tmp_path / "__pycache__").is_dir()
    with _watching.io_of_this_thread() as seen:
        (tmp_path / "watts").write_text("40")
    assert len(seen) == 1
