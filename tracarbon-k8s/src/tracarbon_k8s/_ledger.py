"""What each workload has used since the last window that a generator completed."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from math import fsum, inf
from typing import NamedTuple

from tracarbon_k8s._usage import (
    CgroupReading,
    ContainerKey,
    Counters,
    Identity,
    Key,
    NodeCounters,
    NodeUsage,
    Resolve,
    WorkloadUsage,
)

_usage = tuple.__new__  # at half the cost of calling the class, of which there may be a thousand objects in each window
_SKEW_SECONDS = 1e-3
"""A whole is read a moment after its parts: what it has beyond them in that moment is theirs, and nobody else's."""
_NOTHING = 1e-9  # seconds: counters move in microseconds, so less is what is left of rounding


class Rate(NamedTuple):
    """What a workload uses, where only a mean of the last while is known.

    Attributes:
        identity: whose it is.
        cpu_cores: processor seconds in a second.
        memory_bytes: in use; `None` where it is unknown.
    """

    identity: Identity
    cpu_cores: float
    memory_bytes: float | None


class Ledger:
    """Differences of counters. Each generator has its own, as each completes its windows when it can.

    `usage` says what was used since the last window that was completed, `consume` completes it: where a generator fails
    in between, its next window is longer, and nothing is lost.

    A part never gets more than the whole has counted: the time of all pods is that of the pods and of what has ended,
    the time of a pod that of its containers and its own. So nothing is counted twice, whatever is read late, not at
    all, or again.
    """

    def __init__(self) -> None:
        self._base: _Reading | None = None
        self._pending: _Reading | None = None

    @property
    def is_open(self) -> bool:
        """Whether there is a reading to count from."""
        return self._base is not None

    def open(self, node: NodeCounters, cgroups: CgroupReading | None = None) -> None:
        """Count from here. Without it the first `usage` knows no CPU time, and its `consume` opens the ledger."""
        self._base, self._pending = _Reading(node, cgroups), None

    def consume(self) -> None:
        """Complete the window that `usage` told of last: the next one begins at its end."""
        if self._pending is not None:
            self._base, self._pending = self._pending, None

    def usage(self, cgroups: CgroupReading, node: NodeCounters, resolve: Resolve) -> NodeUsage:
        """Return what was used since the last window that was completed.

        A container without a name is its pod's own, if that has one. What nobody knows (pods without a name, those that
        came and went or have ended) is one usage without a workload.
        """
        base = self._base or _Reading(node, cgroups)
        self._pending = _Reading(node, cgroups)
        return _node_usage(base.node, node, _workloads(base.cgroups or cgroups, cgroups, resolve))

    def usage_of_rates(
        self, rates: Iterable[Rate], window_seconds: float, node: NodeCounters, *, are_all: bool = True
    ) -> NodeUsage:
        """Return what was used in a window according to rates; more than the node's busy time cannot have been.

        Args:
            rates: of each workload.
            window_seconds: of the window.
            node: the node's counters at its end.
            are_all: whether the rates are of all pods: what is beyond them may else be a pod's as well as the system's,
                and so is nobody's by name.
        """
        self._pending = _Reading(node, None)
        base = (self._base or self._pending).node
        seconds_per_core, rates = max(0.0, window_seconds), list(rates)
        used = fsum(max(0.0, rate.cpu_cores) for rate in rates) * seconds_per_core
        busy = max(0.0, node.busy_cpu_seconds - base.busy_cpu_seconds)
        if used > busy:
            seconds_per_core *= busy / used
        workloads = [
            WorkloadUsage(who.workload, max(0.0, cores) * seconds_per_core, memory, who.cpu_request, who.gpus)
            for who, cores, memory in rates
        ]
        if not are_all:
            left = max(0.0, busy - fsum(workload.cpu_seconds for workload in workloads))
            used_bytes = (base.memory_used_bytes + node.memory_used_bytes) / 2
            known_bytes = fsum(workload.memory_bytes or 0.0 for workload in workloads)
            workloads.append(WorkloadUsage(None, left, max(0.0, used_bytes - known_bytes)))
        return _node_usage(base, node, workloads)


class _Reading(NamedTuple):
    node: NodeCounters
    cgroups: CgroupReading | None


_Parts = tuple[dict[ContainerKey, float], dict[str, float], float]
_PartsIfKnown = _Parts | tuple[dict[ContainerKey, float], dict[str, float], None]


def _workloads(base: CgroupReading, now: CgroupReading, resolve: Resolve) -> list[WorkloadUsage]:
    """Return the usage of containers, of what is the pods' own, and of what nobody knows."""
    identities = {key: who for key in now.containers.cpu_seconds if (who := resolve(key)).workload is not None}
    of_containers, of_pods, nobodys_seconds = _seconds(base, now, identities)
    memory_of_containers, memory_of_pods, nobodys_memory = _memory(base, now, identities)
    found = [
        _usage(WorkloadUsage, (workload, of_containers[key], memory_of_containers.get(key), cpu_request, gpus))
        for key, (workload, cpu_request, gpus) in identities.items()
    ]
    for uid, seconds in of_pods.items():
        workload, memory = resolve(uid).workload, memory_of_pods.get(uid)
        if workload is None:
            nobodys_seconds += seconds
            nobodys_memory = nobodys_memory + memory if nobodys_memory is not None and memory is not None else None
        elif seconds > _NOTHING or memory:
            found.append(WorkloadUsage(workload, seconds, memory))
    if nobodys_seconds > _NOTHING or nobodys_memory != 0:
        found.append(WorkloadUsage(None, nobodys_seconds, nobodys_memory))
    return found


def _seconds(base: CgroupReading, now: CgroupReading, named: Collection[ContainerKey]) -> _Parts:
    whole, _ = _moved({"": base.cpu_seconds}, {"": now.cpu_seconds})
    pods, new_pods = _moved(base.pods.cpu_seconds, now.pods.cpu_seconds)
    containers, new_containers = _moved(base.containers.cpu_seconds, now.containers.cpu_seconds)
    nobodys = _fit(pods, pods, whole[""], new_pods)
    _take(containers, named, pods, new_containers)
    for key in named:
        own = pods[key[0]]
        if 0.0 < own < _SKEW_SECONDS and containers[key] > 0.0:
            containers[key] += own
            pods[key[0]] = 0.0
    if 0.0 < nobodys < _SKEW_SECONDS and pods:
        busiest = max(pods, key=pods.__getitem__)
        pods[busiest] += nobodys
        nobodys = 0.0
    return containers, pods, nobodys


def _memory(base: CgroupReading, now: CgroupReading, named: Collection[ContainerKey]) -> _PartsIfKnown:
    """Return the bytes, as the mean of both ends of the window; nothing where the kernel does not count them."""
    if now.memory_bytes is None:
        return {}, {}, None
    whole = ((base.memory_bytes or 0) + now.memory_bytes) / 2
    pods, containers = _means(base.pods, now.pods), _means(base.containers, now.containers)
    nobodys = _fit(pods, pods, whole)
    _take(containers, named, pods)
    return containers, pods, nobodys


def _moved(base: Mapping[Key, float], now: Mapping[Key, float]) -> tuple[dict[Key, float], set[Key]]:
    """Return what counters moved by, and those that were not there before, or have begun to count anew."""
    moved: dict[Key, float] = {}
    new: set[Key] = set()
    before = base.get
    for key, count in now.items():
        since = count - before(key, inf)
        if since < 0:
            since = count
            new.add(key)
        moved[key] = since
    return moved, new


def _means(base: Counters[Key], now: Counters[Key]) -> dict[Key, float]:
    """Return the mean of both ends of the window; who was not there yet had none."""
    had = base.memory_bytes.get
    means = {key: (had(key, 0) + has) / 2 for key, has in now.memory_bytes.items()}
    return means if len(means) == len(now.cpu_seconds) else {key: means.get(key, 0.0) for key in now.cpu_seconds}


def _take(
    containers: dict[ContainerKey, float],
    named: Collection[ContainerKey],
    pods: dict[str, float],
    new: Collection[ContainerKey] = (),
) -> None:
    """Take what containers with a name have used out of their pods, which keep what is their own."""
    left = dict(pods)
    for key in named:
        left[key[0]] -= containers[key]
    overdrawn: dict[str, list[ContainerKey]] = {uid: [] for uid, amount in left.items() if amount < 0}
    if overdrawn:
        for key in named:
            if key.pod_uid in overdrawn:
                overdrawn[key.pod_uid].append(key)
        for uid, inside in overdrawn.items():
            left[uid] = _fit(containers, inside, pods[uid], new)
    pods.update(left)


def _fit(parts: dict[Key, float], keys: Collection[Key], whole: float, new: Collection[Key] = ()) -> float:
    """Make some parts fit into a whole, and return what it has beyond them.

    They come to more where they were read a moment apart, or where one was missed before, and so is taken for new.
    Those that last go first, and those that are new get what remains.
    """
    if not new and len(keys) == len(parts) and (asked := fsum(parts.values())) <= whole:
        return whole - asked
    for group in ([key for key in keys if key not in new], [key for key in keys if key in new]):
        asked = fsum([parts[key] for key in group])
        if asked > whole:
            for key in group:
                parts[key] *= whole / asked
        whole = max(0.0, whole - asked)
    return whole


def _node_usage(base: NodeCounters, now: NodeCounters, workloads: Sequence[WorkloadUsage]) -> NodeUsage:
    """The processors' time moves in steps, so it may seem to be less than that of the workloads."""
    seconds = fsum([workload.cpu_seconds for workload in workloads])
    busy = max(seconds, now.busy_cpu_seconds - base.busy_cpu_seconds)
    return NodeUsage(
        busy_cpu_seconds=busy,
        capacity_cpu_seconds=max(busy, now.capacity_cpu_seconds - base.capacity_cpu_seconds),
        memory_used_bytes=(base.memory_used_bytes + now.memory_used_bytes) / 2,
        memory_total_bytes=now.memory_total_bytes,
        workloads=workloads,
    )
