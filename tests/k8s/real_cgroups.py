"""Real cgroups of version 2, made where the machine lets us, under a parent of our own; and processes inside them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import uuid4

_PATIENCE_SECONDS = 60.0


def hierarchy() -> Path | None:
    """Return where version 2 is mounted."""
    for place in (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified")):
        if (place / "cgroup.controllers").exists():
            return place
    return None


def why_not() -> str | None:
    """Return why there can be no real cgroups here; `None` where there can."""
    place = hierarchy()
    if place is None:
        return "no cgroups of version 2 are mounted"
    trial = place / f"tracarbon-trial-{uuid4().hex[:12]}"
    try:
        trial.mkdir()
        has_cpu = (trial / "cpu.stat").exists()
        trial.rmdir()
    except OSError as error:
        return f"no cgroup can be made in {place}: {error.strerror}"
    return None if has_cpu else f"a cgroup in {place} has no cpu.stat"


class RealCgroups:
    """A cgroup of all pods as a kubelet with a --cgroup-root makes it; removed at the end, with all that runs in it."""

    def __init__(self) -> None:
        place = hierarchy()
        assert place is not None
        self._nesting = f"tracarbon{uuid4().hex[:12]}"
        self.root = place / f"{self._nesting}.slice"
        self.all_pods = self.root / f"{self._nesting}-kubepods.slice"
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        self.all_pods.mkdir(parents=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for process in self._processes:
            process.kill()
            process.communicate(timeout=_PATIENCE_SECONDS)
        self.remove(self.root)

    def pod(self, pod_uid: str) -> Path:
        prefix = f"{self._nesting}-kubepods-burstable"
        place = self.all_pods / f"{prefix}.slice" / f"{prefix}-pod{pod_uid.replace('-', '_')}.slice"
        place.mkdir(parents=True)
        return place

    def container(self, pod: Path, identity: str) -> Path:
        place = pod / f"cri-containerd-{identity}.scope"
        place.mkdir()
        return place

    def start(self, place: Path, program: str, *arguments: object) -> subprocess.Popen[str]:
        """Start a Python program in a cgroup: it goes there itself, before its own first line."""
        enter = f"open({str(place / 'cgroup.procs')!r}, 'w').write('0')\n"
        command = [sys.executable, "-S", "-c", enter + program, *map(str, arguments)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._processes.append(process)
        return process

    def remove(self, place: Path) -> None:
        """Remove a cgroup and what is in it. A process that was killed leaves its cgroup a moment later."""
        for folder, _, _ in os.walk(place, topdown=False):
            deadline = time.monotonic() + _PATIENCE_SECONDS
            while Path(folder).exists():
                try:
                    Path(folder).rmdir()
                except OSError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.01)
