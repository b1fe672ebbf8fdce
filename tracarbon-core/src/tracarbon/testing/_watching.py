"""Seeing what a plugin does besides its work: files that it opens, threads that it leaves, steps that take long."""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Generator
from pathlib import Path
from types import FrameType, coroutine
from typing import Any

import anyio
import psutil

_IO = frozenset(
    {
        "open",
        "os.chmod",
        "os.chown",
        "os.exec",
        "os.fork",
        "os.forkpty",
        "os.link",
        "os.listdir",
        "os.mkdir",
        "os.posix_spawn",
        "os.remove",
        "os.rename",
        "os.rmdir",
        "os.scandir",
        "os.spawn",
        "os.startfile",
        "os.symlink",
        "os.system",
        "os.truncate",
        "os.utime",
        "socket.bind",
        "socket.connect",
        "socket.getaddrinfo",
        "socket.gethostbyaddr",
        "socket.gethostbyname",
        "socket.getnameinfo",
        "socket.sendmsg",
        "socket.sendto",
        "sqlite3.connect",
        "subprocess.Popen",
    }
)
_CODE = re.compile(r"\.(py|pyc|pyd|so|dll|dylib)(\.\d+)?$")
"""Code, which the interpreter also reads to show a line of it."""
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
        if seen is not None and event in _IO and not (_is_harmless(arguments) or _is_importing()):
            seen.append(f"{event} {arguments[0]!r}" if arguments else event)


def _is_harmless(arguments: tuple[Any, ...]) -> bool:
    target = arguments[0] if arguments else None
    if isinstance(target, str):
        return target == ":memory:" or _CODE.search(target) is not None
    return isinstance(target, int)  # a descriptor, whose file was heard of when it was opened


def _is_importing() -> bool:
    """Whether it is an import that does it: of a module, or of what the module does when it is imported."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and frame.f_code is not io_of.__code__:
        if frame.f_code.co_filename.startswith("<frozen importlib._bootstrap"):
            return True
        frame = frame.f_back
    return False


_audit = _Audit()


def io_of(call: Callable[[], object]) -> list[str]:
    """Call something, and return what input and output it did in this thread, imports left out."""
    _audit.install()
    seen: list[str] = []
    _audit.watched.seen = seen
    try:
        call()
    finally:
        _audit.watched.seen = None
    return seen


class Steps:
    """The steps of a plugin's coroutines that hold up the event loop for longer than they may.

    Attributes:
        too_long: the seconds of the longest such step of each thing that it does.
    """

    def __init__(self) -> None:
        self.too_long: dict[str, float] = {}
        self._doing = ""
        self._most_seconds = 0.0

    def begin(self, doing: str, most_seconds: float) -> None:
        """Say what the next steps are of; an earlier attempt at it is forgotten."""
        self._doing, self._most_seconds = doing, most_seconds
        self.too_long.pop(doing, None)

    def note(self, seconds: float) -> None:
        """Note a step that took so long."""
        if seconds > self._most_seconds:
            self.too_long[self._doing] = max(seconds, self.too_long.get(self._doing, 0.0))


@coroutine
def outlasts_cancellation(call: Coroutine[Any, Any, object], scope: anyio.CancelScope) -> Generator[Any, Any, bool]:
    """Await `call`, and return whether it returned although it heard of its cancellation, which `scope` is for.

    One that was not waiting when `scope` was cancelled may return without hearing of it.
    """
    step: Callable[[Any], Any] = call.send
    argument: Any = None
    has_heard = False
    while True:
        try:
            waits_for = step(argument)
        except StopIteration:
            return has_heard
        try:
            argument, step = (yield waits_for), call.send
        except BaseException as error:
            argument, step = error, call.throw
        told = getattr(argument, "error", argument)  # trio sends what there is to raise, asyncio throws it
        has_heard |= scope.cancel_called and isinstance(told, anyio.get_cancelled_exc_class())


class Belongings:
    """The files, threads and children of this process, to be compared with those at another time."""

    def __init__(self) -> None:
        self._children = set(_children())
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
        threads = [f"thread {thread.name}" for thread in threading.enumerate() if thread not in self._threads]
        return files + threads + [f"process {child.pid}" for child in _children() if child not in self._children]


def _children() -> list[psutil.Process]:
    """Return the processes that this one has started and that run; nobody may have asked yet how others ended."""
    return [child for child in psutil.Process().children() if _status(child) != psutil.STATUS_ZOMBIE]


def _status(process: psutil.Process) -> str:
    try:
        return process.status()
    except psutil.NoSuchProcess:
        return psutil.STATUS_ZOMBIE


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
