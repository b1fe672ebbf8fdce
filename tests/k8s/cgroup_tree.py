"""A made-up tree of cgroups on a disk, named as either driver of the kubelet and each runtime does."""

from __future__ import annotations

import shutil
from pathlib import Path
from uuid import UUID

GUARANTEED, BURSTABLE, BEST_EFFORT = "", "burstable", "besteffort"


def uid(number: int) -> str:
    return str(UUID(int=(0xD3AD << 112) + number, version=4))


def container_id(number: int) -> str:
    return f"{number:064x}"


class CgroupTree:
    """Cgroups under `<root>/sys/fs/cgroup`.

    Args:
        root: of the made-up machine.
        driver: `cgroupfs` or `systemd`.
        nesting: the kubelet's --cgroup-root, such as `kubelet`.
        hybrid: whether version 2 is at `unified`, and counts no memory, as version 1 does.
        runtime: before the ids in the names of scopes.
    """

    def __init__(
        self,
        root: Path,
        driver: str = "cgroupfs",
        *,
        nesting: str = "",
        hybrid: bool = False,
        runtime: str = "cri-containerd",
    ) -> None:
        self.root, self.driver, self.hybrid, self.runtime = root, driver, hybrid, runtime
        mount = root / "sys/fs/cgroup"
        self.mount = mount / "unified" if hybrid else mount
        self.memory = mount / "memory" if hybrid else self.mount
        for folder in (self.mount, self.memory):
            folder.mkdir(parents=True, exist_ok=True)
        (self.mount / "cgroup.controllers").write_text("cpu memory\n")
        self._prefix = f"{nesting.rpartition('/')[2]}-" if nesting and driver == "systemd" else ""
        above = f"{nesting}.slice" if nesting and driver == "systemd" else nesting
        self.all_pods = self.mount / above / (f"{self._prefix}kubepods.slice" if driver == "systemd" else "kubepods")
        self.make(self.all_pods)

    def make(self, place: Path) -> Path:
        """Make a cgroup that has counted nothing."""
        for folder in (place, self._memory_of(place)):
            folder.mkdir(parents=True, exist_ok=True)
        self.set(place, 0, 0)
        return place

    def set(self, place: Path, cpu_seconds: float, memory_bytes: int = 0) -> None:
        """Set what a cgroup has counted."""
        usec = round(cpu_seconds * 1e6)
        (place / "cpu.stat").write_text(f"usage_usec {usec}\nuser_usec {usec}\nsystem_usec 0\nnr_periods 0\n")
        name = "memory.usage_in_bytes" if self.hybrid else "memory.current"
        (self._memory_of(place) / name).write_text(f"{memory_bytes}\n")

    def pod(self, pod_uid: str, service: str = BURSTABLE) -> Path:
        """Return the place of a pod, which is made where it is not there."""
        place = self.all_pods
        if self.driver == "systemd":
            prefix = f"{self._prefix}kubepods-{service}" if service else f"{self._prefix}kubepods"
            place = place / f"{prefix}.slice" if service else place
            place = place / f"{prefix}-pod{pod_uid.replace('-', '_')}.slice"
        else:
            place = place / service / f"pod{pod_uid}"
        return place if place.is_dir() else self.make(place)

    def container(self, pod: Path, identity: str) -> Path:
        """Return the place of a container, which is made where it is not there."""
        place = pod / (f"{self.runtime}-{identity}.scope" if self.driver == "systemd" else identity)
        return place if place.is_dir() else self.make(place)

    def remove(self, place: Path) -> None:
        """Remove a cgroup, and what is in it."""
        shutil.rmtree(place)
        if self.hybrid:
            shutil.rmtree(self._memory_of(place))

    def _memory_of(self, place: Path) -> Path:
        return self.memory / place.relative_to(self.mount)
