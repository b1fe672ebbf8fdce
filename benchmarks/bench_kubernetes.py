"""One tick over 500 containers in 250 pods: read their cgroups, tell what they used, split energy over them.

Against a bare loop that reads and parses the same files, open already. Both in one process and run, by process CPU
time, median of many rounds. On real cgroups where the tests may make them (root), else on a made-up tree in memory.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tracarbon.hardwares.energy import UsageType
from tracarbon.metrics import MetricKind
from tracarbon_k8s._attribution import Amounts, IdlePolicy, Share, attribute
from tracarbon_k8s._cgroups import CgroupReader
from tracarbon_k8s._ledger import Ledger
from tracarbon_k8s._usage import ContainerKey, Identity, NodeCounters, Workload
from tracarbon_k8s.series import Component, Series

from tests.k8s.cgroup_tree import CgroupTree, container_id, uid
from tests.k8s.real_cgroups import RealCgroups, why_not

PODS, CONTAINERS_OF_EACH, ROUNDS, TICKS = 250, 2, 15, 20
ASKED = 3


def made_up_tree(root: Path) -> CgroupTree:
    tree = CgroupTree(root, "systemd")
    for number in range(PODS):
        pod = tree.pod(uid(number))
        tree.set(pod, 200.5 + number, 900_000_000)
        for inner in range(CONTAINERS_OF_EACH):
            container = tree.container(pod, container_id(number * CONTAINERS_OF_EACH + inner))
            tree.set(container, 100.125 + number / 2, 400_000_000)
    tree.set(tree.all_pods, 90_000, PODS * 900_000_000)
    return tree


def real_tree(cgroups: RealCgroups) -> None:
    for number in range(PODS):
        pod = cgroups.pod(uid(number))
        for inner in range(CONTAINERS_OF_EACH):
            cgroups.container(pod, container_id(number * CONTAINERS_OF_EACH + inner))


class Tick:
    """All that a tick does with cgroups; names are looked up where the tick before left them."""

    def __init__(self, host_root: Path, cgroup_root: Path | None = None) -> None:
        self.reader, self.ledger = CgroupReader(host_root, cgroup_root), Ledger()
        self.node = NodeCounters(0.0, 0.0, 8e9, 16e9)
        self.names: dict[ContainerKey | str, Identity] = {}
        reading = self.reader.read()
        for key in reading.containers.cpu_seconds:
            workload = Workload("default", key.pod_uid, key.container_id, "deployment/web")
            self.names[key] = Identity(workload, 0.5)
            self.names[key.pod_uid] = Identity(workload._replace(container=""))
        assert len(reading.containers.cpu_seconds) == PODS * CONTAINERS_OF_EACH

    def __call__(self) -> None:
        self.node = self.node._replace(
            busy_cpu_seconds=self.node.busy_cpu_seconds + 10, capacity_cpu_seconds=self.node.capacity_cpu_seconds + 30
        )
        shares = self.shares()
        assert len(shares) > PODS * CONTAINERS_OF_EACH

    def shares(self) -> list[Share]:
        usage = self.ledger.usage(self.reader.read(), self.node, self.names.__getitem__)
        shares = attribute(Amounts(300.0, 200.0, 50.0), usage, IdlePolicy.SEPARATE)
        self.ledger.consume()
        return shares


class TickWithMetrics(Tick):
    """And makes three metrics of each share."""

    SERIES = Series("energy_consumption", MetricKind.RATE, "watts")
    COMPONENTS: ClassVar = {
        usage_type: Component(joules, 10.0, ())
        for usage_type, joules in ((UsageType.HOST, 300.0), (UsageType.CPU, 200.0), (UsageType.MEMORY, 50.0))
    }

    def shares(self) -> list[Share]:
        shares = super().shares()
        for _ in self.SERIES.metrics(shares, self.COMPONENTS, (("platform", "Linux"),)):
            pass
        return shares


class BareLoop:
    """The same files."""

    def __init__(self, place: Path) -> None:
        self.cpu = [os.open(file, os.O_RDONLY) for file in sorted(place.rglob("cpu.stat")) if counts(file.parent)]
        self.memory = [
            os.open(file, os.O_RDONLY) for file in sorted(place.rglob("memory.current")) if counts(file.parent)
        ]

    def __call__(self) -> None:
        for descriptor in self.cpu:
            int(os.pread(descriptor, 32, 0).split(None, 2)[1])
        for descriptor in self.memory:
            int(os.pread(descriptor, 32, 0))

    def close(self) -> None:
        for descriptor in (*self.cpu, *self.memory):
            os.close(descriptor)


def counts(folder: Path) -> bool:
    """Whether it is a pod, a container, or all pods: not a class of service."""
    return not folder.name.endswith(("burstable.slice", "besteffort.slice"))


def seconds_of(work: Callable[[], None]) -> float:
    started = time.process_time()
    for _ in range(TICKS):
        work()
    return (time.process_time() - started) / TICKS


def measure(what: str, host_root: Path, cgroup_root: Path | None, bare: BareLoop) -> None:
    tick, with_metrics = Tick(host_root, cgroup_root), TickWithMetrics(host_root, cgroup_root)
    rounds = [(seconds_of(bare), seconds_of(tick)) for _ in range(ROUNDS)]
    bare_us, tick_us = (statistics.median(column) * 1e6 for column in zip(*rounds, strict=True))
    print(f"{what}: bare loop over {len(bare.cpu)} cpu.stat and {len(bare.memory)} memory.current: {bare_us:.0f} us")
    print(f"{what}: one tick: {tick_us:.0f} us, {tick_us / bare_us:.2f} x (asked <= {ASKED})")
    metrics_us = seconds_of(with_metrics) * 1e6
    print(f"{what}: with the metrics made: {metrics_us:.0f} us, {metrics_us / bare_us:.2f} x")
    tick.reader.close()
    with_metrics.reader.close()
    bare.close()


def main() -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        tree = made_up_tree(Path(folder))
        measure("made-up cgroups", tree.root, None, BareLoop(tree.all_pods))
    if reason := why_not():
        print(f"real cgroups: not measured ({reason})")
        return
    with RealCgroups() as cgroups:
        real_tree(cgroups)
        measure("real cgroups", Path("/"), cgroups.root, BareLoop(cgroups.all_pods))


if __name__ == "__main__":
    main()
