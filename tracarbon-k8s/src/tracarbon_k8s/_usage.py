"""What the workloads of a node used, however it was found out: the words that all modules here share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeAlias, TypeVar


class ContainerKey(NamedTuple):
    """A container as the kernel knows it.

    Attributes:
        pod_uid: as the API writes it, with dashes.
        container_id: the runtime's, without `containerd://` or the like.
    """

    pod_uid: str
    container_id: str


Key = TypeVar("Key", ContainerKey, str)


class Counters(NamedTuple, Generic[Key]):
    """What cgroups have counted. Numbers in two mappings, and not an object each: there are thousands in each reading.

    Attributes:
        cpu_seconds: processor time since each cgroup was made, that of its removed children included.
        memory_bytes: in use now; those are missing of which the kernel does not count it.
    """

    cpu_seconds: Mapping[Key, float]
    memory_bytes: Mapping[Key, int]


@dataclass(frozen=True, slots=True)
class CgroupReading:
    """The counters of every pod of the node, read one after the other.

    Attributes:
        containers: of each container that lives.
        pods: of each pod as a whole, by UID: its sandbox and what has ended in it included.
        cpu_seconds: of all pods together, those that have ended included.
        memory_bytes: of all pods together; `None` where the kernel does not count it here.
    """

    containers: Counters[ContainerKey]
    pods: Counters[str]
    cpu_seconds: float
    memory_bytes: int | None


class NodeCounters(NamedTuple):
    """What the node itself has counted.

    Attributes:
        busy_cpu_seconds: of all processors, since the start.
        capacity_cpu_seconds: busy and idle.
        memory_used_bytes: now: all that is not available.
        memory_total_bytes: what there is.
    """

    busy_cpu_seconds: float
    capacity_cpu_seconds: float
    memory_used_bytes: float
    memory_total_bytes: float


class Workload(NamedTuple):
    """Whose usage it is, in the words of the cluster. Hashable: it is the identity of a series.

    Attributes:
        namespace: of the pod.
        pod: its name.
        container: its name in the pod; empty for what is the pod's own (the sandbox, containers that have ended).
        owner: kind and name of what made the pod, such as `deployment/web`; empty where nothing did.
        labels: those of the pod that the user asked for, sorted.
    """

    namespace: str
    pod: str
    container: str = ""
    owner: str = ""
    labels: tuple[tuple[str, str], ...] = ()


class Identity(NamedTuple):
    """What the cluster says of a container or a pod.

    Attributes:
        workload: its name; `None` where nobody knows it (yet).
        cpu_request: processors that it has asked for; 0 where it has asked for none.
        gpus: UUIDs of the graphics cards that it holds.
    """

    workload: Workload | None
    cpu_request: float = 0.0
    gpus: Sequence[str] = ()


Resolve: TypeAlias = Callable[[ContainerKey | str], Identity]
"""Names a container by its key, and a pod by its UID."""


class WorkloadUsage(NamedTuple):
    """What one workload used in a window.

    Attributes:
        workload: whose; `None` where nobody knows its name (yet): its energy is shown as unattributed.
        cpu_seconds: processor time in the window.
        memory_bytes: the mean of the window, as well as it is known; `None` where the kernel does not count it.
        cpu_request: processors that it has asked for; 0 where it has asked for none.
        gpus: UUIDs of the graphics cards that it holds.
    """

    workload: Workload | None
    cpu_seconds: float
    memory_bytes: float | None
    cpu_request: float = 0.0
    gpus: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class NodeUsage:
    """What a node, and each workload on it, used in one window.

    Attributes:
        busy_cpu_seconds: of all processors in the window, the workloads' included.
        capacity_cpu_seconds: busy and idle in the window.
        memory_used_bytes: of the node, the workloads' included.
        memory_total_bytes: what there is.
        workloads: the parts.
    """

    busy_cpu_seconds: float
    capacity_cpu_seconds: float
    memory_used_bytes: float
    memory_total_bytes: float
    workloads: Sequence[WorkloadUsage] = ()
