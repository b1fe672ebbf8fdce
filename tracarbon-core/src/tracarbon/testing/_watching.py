"""Seeing what a plugin does besides its work: files that it opens, threads that it leaves."""

from __future__ import annotations

import os
import re
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
_CODE = re.compile(r"\.(py|pyc|pyd|so|dll|dylib)(\.\d+)?$|[/\\]__pycache__$")
"""Modules, and what the interpreter writes beside those that it compiles."""
_SETTLE_SECONDS = 20.0
"""Longer than the threads that trio keeps for the next call are idle before they end."""


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
    if event == "open" and isinstance(arguments[0], int):  # a descriptor, whose file was heard of when it was opened
        return True
    return bool(arguments) and isinstance(arguments[0], str) and _CODE.search(arguments[0]) is not None


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
        """Return what there is now and was not then.

        What is about to end is given the time to: threads, and the other ends of connections, where the author's
        receiver is in this process.
        """
        deadline = time.monotonic() + _SETTLE_SECONDS
        while (new := self._new()) and time.monotonic() < deadline:
            time.sleep(0.005)
        return new

    def _new(self) -> list[str]:
        files = [f"file {target}" for number, target in _descriptors().items() if number not in self._descriptors]
        return files + [f"thread {thread.name}" for thread in threading.enumerate() if thread not in self._threads]


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
