"""Programs: found, run without a shell and with a deadline, and ended together with their process group."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path, PurePath
from typing import IO

import anyio
from anyio.abc import ByteReceiveStream, Process

from tracarbon_sensor_macos._errors import SourceError

_OUTPUT_LIMIT_BYTES = 16 * 2**20
_TAIL_BYTES = 300
_GRACE_SECONDS = 0.3
"""For what a program printed before its end; what left its group may hold its output open for ever."""


def find_program(name: str, *folders: str) -> str:
    """Return the path of a program: in Apple's own folders first, so that root runs no other, and then by `PATH`.

    Raises:
        SourceError: there is none.
    """
    for folder in folders:
        path = Path(folder, name)
        if path.is_file() and os.access(path, os.X_OK):
            return str(path)
    found = shutil.which(name)
    if found is None:
        raise SourceError(f"there is no program {name}")
    return found


async def run(arguments: Sequence[str], *, timeout_seconds: float) -> bytes:
    """Run a program to its end and return what it printed.

    Raises:
        SourceError: it could not be run, failed, printed far too much or did not end in time. It has ended, and its
            process group, whatever is raised.
    """
    name = PurePath(arguments[0]).name
    output, errors = _Collected(), _Collected()
    try:
        with anyio.fail_after(timeout_seconds):
            async with started(arguments) as process, anyio.create_task_group() as group:
                group.start_soon(output.collect, process, process.stdout)
                group.start_soon(errors.collect, process, process.stderr)
                code = await process.wait()
                end_group(process)  # a child that outlives it would hold its output open
                group.cancel_scope.deadline = anyio.current_time() + _GRACE_SECONDS
    except TimeoutError:
        raise SourceError(f"{name} did not end within {timeout_seconds:g} s") from None
    if output.is_too_much or errors.is_too_much:
        raise SourceError(f"{name} printed more than {_OUTPUT_LIMIT_BYTES >> 20} MB")
    if code:
        raise SourceError(f"{name} failed with status {code}{quoted(bytes(errors.data))}")
    return bytes(output.data)


@asynccontextmanager
async def started(arguments: Sequence[str], stderr: int | IO[bytes] = subprocess.PIPE) -> AsyncIterator[Process]:
    """Start a program as the leader of a process group of its own, which ends with the block.

    Raises:
        SourceError: it cannot be run.
    """
    process = await start(arguments, stderr)
    try:
        yield process
    finally:
        await end(process)


async def start(arguments: Sequence[str], stderr: int | IO[bytes] = subprocess.PIPE) -> Process:
    """Start a program as the leader of a process group of its own; `end` has to be called.

    Raises:
        SourceError: it cannot be run.
    """
    try:
        with anyio.CancelScope(shield=True):  # half started, nobody would end it
            process = await anyio.open_process(
                arguments, stdin=subprocess.DEVNULL, stderr=stderr, start_new_session=True
            )
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise SourceError(f"{arguments[0]} cannot be run: {reason}") from error
    return process


async def end(process: Process) -> None:
    """Kill a program and all of its group, and wait for its end."""
    end_group(process)
    with anyio.CancelScope(shield=True):
        await process.aclose()


def end_group(process: Process) -> None:
    """Kill what is left of the group of a program."""
    with suppress(ProcessLookupError, PermissionError):  # macOS says the latter of a group of zombies
        os.killpg(process.pid, signal.SIGKILL)


def quoted(errors: bytes) -> str:
    """Return the end of what a program said on its standard error, to be put after a message."""
    text = errors[-_TAIL_BYTES:].decode("utf-8", "replace")
    said = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return f": {said}" if said else ""


class _Collected:
    """What a program prints, up to a limit; one that prints more is ended."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.is_too_much = False

    async def collect(self, process: Process, stream: ByteReceiveStream | None) -> None:
        assert stream is not None
        with suppress(anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            while not self.is_too_much:
                self.data += await stream.receive()
                self.is_too_much = len(self.data) > _OUTPUT_LIMIT_BYTES
            end_group(process)
