"""A made-up node: its cgroups, its procfs, and the pods that the API server tells of."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from tests.k8s.api_server import Cluster, made_pod
from tests.k8s.cgroup_tree import CgroupTree

NODE = "node-real"
TOTAL_BYTES = 8 * 2**30
_TICKS = 100


@dataclass
class _Counted:
    cpu_seconds: float = 0.0
    memory_bytes: int = 0


@dataclass
class Machine:
    """A node of two processors.

    Args:
        root: of its file system.
        driver: of its cgroups.

    Attributes:
        cluster: what its API server says.
    """

    root: Path
    driver: str = "systemd"
    cluster: Cluster = field(default_factory=lambda: Cluster(pods=[], metrics=[]))

    def __post_init__(self) -> None:
        self.tree = CgroupTree(self.root, self.driver)
        self._cgroups: dict[Path, _Counted] = {self.tree.all_pods: _Counted()}
        self._busy = self._idle = 1000.0
        (self.root / "proc").mkdir(exist_ok=True)
        self.system_bytes = 2**30
        self._write_proc()

    def start(self, pod: str, container: str, *, uid: str, identity: str, is_told: bool = True) -> Path:
        """Start a container, and its pod where it is not there; `is_told`: the API server knows of them."""
        place = self.tree.container(self.tree.pod(uid), identity)
        for each in (place, place.parent):
            self._cgroups.setdefault(each, _Counted())
            self._write(each)
        if is_told:
            self.tell(made_pod(pod, uid=uid, containers={container: identity}))
        return place

    def tell(self, pod: dict[str, object]) -> None:
        """Have the API server know a pod."""
        self.cluster.pods = [each for each in self.cluster.pods if each["metadata"]["uid"] != pod["metadata"]["uid"]]  # type: ignore[index]
        self.cluster.pods.append(pod)

    def end(self, place: Path) -> None:
        """End a container, or a pod with all that is in it; what it has used stays with those above it."""
        for each in [each for each in self._cgroups if each == place or place in each.parents]:
            del self._cgroups[each]
        self.tree.remove(place)

    def burn(self, place: Path, cpu_seconds: float, memory_bytes: int | None = None) -> None:
        """Have a container, or a pod itself, use processor time."""
        for each in (place, *place.parents):
            if each in self._cgroups:
                self._cgroups[each].cpu_seconds += cpu_seconds
        if memory_bytes is not None:
            self._cgroups[place].memory_bytes = memory_bytes
        self._busy += cpu_seconds
        for each in self._cgroups:
            self._write(each)

    def spend(self, seconds: float, system_seconds: float = 0.0) -> None:
        """Let the processors idle, and the system use some time of its own."""
        self._busy += system_seconds
        self._idle += seconds
        self._write_proc()

    def _memory_of(self, place: Path) -> int:
        return sum(
            found.memory_bytes for each, found in self._cgroups.items() if each == place or place in each.parents
        )

    def _write(self, place: Path) -> None:
        microseconds = round(self._cgroups[place].cpu_seconds * 1e6)
        _in_place(place / "cpu.stat", f"usage_usec {microseconds:020d}\nuser_usec 0\n")
        _in_place(place / "memory.current", f"{self._memory_of(place):020d}\n")

    def _write_proc(self) -> None:
        busy, idle = round(self._busy * _TICKS), round(self._idle * _TICKS)
        _in_place(self.root / "proc/stat", f"cpu  {busy} 0 0 {idle} 0 0 0 0 0 0\ncpu0 1 0 0 1 0 0 0 0 0 0\n")
        free = TOTAL_BYTES - self.system_bytes - self._memory_of(self.tree.all_pods)
        _in_place(self.root / "proc/meminfo", f"MemTotal: {TOTAL_BYTES // 1024} kB\nMemAvailable: {free // 1024} kB\n")


def _in_place(path: Path, text: str) -> None:
    """Write as the kernel does: nobody ever sees an empty file."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        os.pwrite(fd, f"{text:<200}\n".encode() if path.parent.name == "proc" else text.encode(), 0)
    finally:
        os.close(fd)
