"""Programs that stand in for Apple's, on `PATH`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

POWERMETRICS = """
import plistlib, signal, sys, time
SIGNAL = getattr(signal, "SIGINFO", signal.SIGURG)
signal.pthread_sigmask(signal.SIG_BLOCK, [SIGNAL])
watts = {watts!r}
since = time.monotonic_ns()
is_first = True
def sample():
    global since, is_first
    now = time.monotonic_ns()
    powers = {{f"{{name}}_power": power * 1e3 for name, power in watts.items()}}
    document = plistlib.dumps({{"elapsed_ns": now - since, "processor": powers}})
    since = now
    sys.stdout.buffer.write((b"" if is_first else b"\\0") + document)
    sys.stdout.buffer.flush()
    is_first = False
while True:
    signal.sigwait([SIGNAL])
    {body}
"""
"""Prints a sample whenever it is asked for one, as Apple's does: first ones without a NUL, later ones after one."""


class Programs:
    """A folder that is the first in `PATH`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)

    def shell(self, name: str, body: str) -> str:
        return self._write(name, f"#!/bin/sh\n{body}\n")

    def python(self, name: str, body: str) -> str:
        return self._write(name, f"#!{sys.executable} -ISs\n{body}\n")

    def printing(self, name: str, output: bytes, status: int = 0) -> str:
        data = self.folder / f"{name}.output"
        data.write_bytes(output)
        return self.shell(name, f"cat '{data}'\nexit {status}")

    def powermetrics(self, body: str = "sample()", **watts: float) -> str:
        return self.python("powermetrics", POWERMETRICS.format(watts=watts or {"cpu": 5.0, "gpu": 1.0}, body=body))

    def _write(self, name: str, text: str) -> str:
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o755)
        return str(path)


def is_running(pid: int) -> bool:
    """Whether a process is there and is no zombie."""
    try:
        os.kill(pid, 0)
        status = Path(f"/proc/{pid}/stat")
        return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def eventually(condition: Callable[[], bool], seconds: float = 60.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def is_written(path: Path) -> bool:
    """Whether a program has written its process id into a file, to the end."""
    return path.exists() and path.read_text().endswith("\n")


def written_pid(path: Path) -> int:
    """Return the process id that a program has written into a file, once it has."""
    assert eventually(lambda: is_written(path))
    return int(path.read_text())


def is_ended(path: Path) -> bool:
    """Whether a program that writes its process id into a file does not run, or was ended before it could write."""
    return not is_written(path) or not is_running(int(path.read_text()))
