"""The node's own counters: processor time and memory, from procfs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from tracarbon_k8s._usage import NodeCounters

_BYTES_PER_KB = 1024  # meminfo's kB are KiB
_ENOUGH = 4096  # what is looked for stands at the top of both files
_IDLE = (3, 4, 7)  # idle, iowait, steal
_COUNTED = 8  # guest and guest_nice, which follow, are contained in user and nice


class HostError(Exception):
    """The node's counters cannot be read; says which file, why, and what would help."""


class HostReader:
    """Reads the node's counters, from files that are kept open.

    Args:
        host_root: where the node's file system is seen, `/` outside a container.
        ticks_per_second: the unit of `/proc/stat`; by default this kernel's.
    """

    def __init__(self, host_root: Path, *, ticks_per_second: int | None = None) -> None:
        self._stat = _KeptFile(host_root / "proc/stat")
        self._meminfo = _KeptFile(host_root / "proc/meminfo")
        self._ticks_per_second = ticks_per_second or os.sysconf("SC_CLK_TCK")

    def read(self) -> NodeCounters:
        """Return the counters as they are now.

        Waiting for a disk is idle; what a hypervisor took away (steal) was spent by others, and so counts as idle here.

        Raises:
            HostError: a file cannot be read, or is not what it should be.
        """
        busy, capacity = self._stat.parsed(_processor_ticks)
        total, available = self._meminfo.parsed(_memory_kb)
        return NodeCounters(
            busy_cpu_seconds=busy / self._ticks_per_second,
            capacity_cpu_seconds=capacity / self._ticks_per_second,
            memory_used_bytes=float(max(0, total - available) * _BYTES_PER_KB),
            memory_total_bytes=float(total * _BYTES_PER_KB),
        )

    def close(self) -> None:
        """Close the files; a later `read` opens them again."""
        self._stat.close()
        self._meminfo.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def read_node(host_root: Path) -> NodeCounters:
    """Return the counters of the node once.

    Raises:
        HostError: a file cannot be read, or is not what it should be.
    """
    with HostReader(host_root) as reader:
        return reader.read()


class _KeptFile:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None

    def parsed(self, parse: Callable[[bytes], tuple[int, int]]) -> tuple[int, int]:
        try:
            if self._fd is None:
                self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            return parse(os.pread(self._fd, _ENOUGH, 0))
        except OSError as error:
            self.close()
            raise HostError(
                f"{self._path}: {error.strerror}. Mount the node's /proc there, or set the path of the host's root"
            ) from error
        except (ValueError, KeyError, IndexError) as error:
            raise HostError(f"{self._path}: is not what the kernel writes there ({error})") from error

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _processor_ticks(content: bytes) -> tuple[int, int]:
    """Return busy and all ticks of all processors."""
    name, *columns = content.partition(b"\n")[0].split()
    if name != b"cpu" or len(columns) < _IDLE[0] + 1:
        raise ValueError("no line 'cpu' at the top")
    ticks = [int(column) for column in columns[:_COUNTED]]
    total = sum(ticks)
    return total - sum(ticks[index] for index in _IDLE if index < len(ticks)), total


def _memory_kb(content: bytes) -> tuple[int, int]:
    """Return what there is, and what is available."""
    lines = dict(line.split(b":", 1) for line in content.splitlines() if b":" in line)
    return tuple(int(lines[name].split()[0]) for name in (b"MemTotal", b"MemAvailable"))  # type: ignore[return-value]
