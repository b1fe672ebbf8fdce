"""Seeing what a plugin does besides its work: files that it opens, threads that it leaves."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_IO = frozenset(
    {
        "open",
        "os.mkdir",
        "os.posix_spawn",
        "os.remove",
        "os.rename",
        "os.system",
        "os.truncate",
        "socket.bind",
        "socket.connect",
        "socket.getaddrinfo",
        "subprocess.Popen",
    }
)
_CODE = (".py", ".pyc", ".pyd", ".so", ".dll", ".dylib")
_THREADS_END_SECONDS = 2.0


class _Audit:
    """A hook of the interpreter. It cannot be taken away again, so it listens to watched threads alone."""

    def __init__(self) -> None:
        self.watched = threading.local()
        self._is_installed = False

    def install(self) -> None:
        if not self._is_installed:
            self._is_installed = True
            sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        seen = getattr(self.watched, "seen", None)
        if seen is not None and event in _IO and not _is_import(event, arguments):
            seen.append(f"{event} {arguments[0]!r}" if arguments else event)


def _is_import(event: str, arguments: tuple[Any, ...]) -> bool:
    return event == "open" and isinstance(arguments[0], str) and arguments[0].endswith(_CODE)


_audit = _Audit()


@contextmanager
def io_of_this_thread() -> Iterator[list[str]]:
    """Collect the input and output of this thread, imports left out."""
    _audit.install()
    seen: list[str] = []
    _audit.watched.seen = seen
    try:
        yield seen
    finally:
        _audit.watched.seen = None


class Belongings:
    """The files and threads of this process, to be compared with those at another time."""

    def __init__(self) -> None:
        self._threads = set(threading.enumerate())
        self._descriptors = _descriptors()

    def left_over(self) -> list[str]:
        """Return what there is now and was not then. Threads that are about to end are given the time to."""
        deadline = time.monotonic() + _THREADS_END_SECONDS
        new = [thread for thread in threading.enumerate() if thread not in self._threads]
        while any(thread.is_alive() or thread.ident is None for thread in new) and time.monotonic() < deadline:
            time.sleep(0.005)
        files = [f"file {target}" for number, target in _descriptors().items() if number not in self._descriptors]
        return files + [f"thread {thread.name}" for thread in new if thread.is_alive()]


def _descriptors() -> dict[str, str]:
    """Return the open descriptors and what they lead to; none on platforms that do not show them."""
    for folder in (Path("/proc/self/fd"), Path("/dev/fd")):
        if folder.is_dir():
            return {name: target for name in os.listdir(folder) if (target := _target(folder / name))}  # noqa: PTH208
    return {}


def _target(path: Path) -> str:
    try:
        os.fstat(int(path.name))
        return str(path.readlink()) if path.is_symlink() else str(path)
    except OSError:  # the descriptor of the listing itself, which is closed by now
        return ""
